"""Relays and sources of an instance, as a user reaches them: by `vec`."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Sequence
from typing import Any

from tests.support.instance import Instance
from tests.support.waiting import until

_numbers = itertools.count()


def fresh(prefix: str) -> str:
    """A name for a library, a relay, an exchange or a queue that no other test uses."""
    return f"{prefix}-{os.getpid()}-{next(_numbers)}"


def new_library(instance: Instance) -> str:
    """A library of its own."""
    name = fresh("library")
    with instance.connect() as client:
        client.request("library.create", library=name)
    return name


def put(instance: Instance, library: str, *ids: str, **fields: Any) -> None:
    """Writes a document for each id, one request each: so each has its own event."""
    with instance.connect() as client:
        for each in ids:
            answer = client.ingest([_document(each, fields)], library)
            assert answer["failed"] == 0, answer["errors"]


def put_many(instance: Instance, library: str, ids: Sequence[str], **fields: Any) -> None:
    """Writes all in one request."""
    with instance.connect() as client:
        answer = client.ingest([_document(each, fields) for each in ids], library)
        assert answer["failed"] == 0, answer["errors"]


def _document(its_id: str, fields: dict[str, Any]) -> dict[str, Any]:
    text = {} if "texts" in fields else {"text": f"text of {its_id}"}
    return {"id": its_id, **text, **fields}


def state(instance: Instance, name: str, command: str = "relay") -> Any:
    """A connector, as `list` shows it."""
    (found,) = [each for each in instance.objects(command, "list") if each["name"] == name]
    return found


def wait_for(instance: Instance, name: str, condition: Callable[[Any], Any], what: str, command: str = "relay") -> Any:
    """Waits until the connector fulfils the condition; returns it."""
    return until(lambda: (found := state(instance, name, command)) and condition(found) and found, what)
