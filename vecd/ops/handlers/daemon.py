"""shutdown: stops the daemon, as SIGTERM does."""

from __future__ import annotations

from typing import Any

from ..call import Call


def shutdown(call: Call) -> dict[str, Any]:
    """Answers, then drains like SIGTERM."""
    call.service.stop()
    return {}
