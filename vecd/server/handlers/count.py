"""count: how much a library holds."""

from __future__ import annotations

from typing import Any

from ...engine import documents as verbs
from ...store.catalogue import DEFAULT
from ..call import Call


def count(call: Call) -> dict[str, Any]:
    return verbs.count(call.engine, call.fields.text("library", DEFAULT))
