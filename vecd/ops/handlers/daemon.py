"""shutdown: the polite way to stop the daemon from the command line."""

from __future__ import annotations

from typing import Any

from ..call import Call


def shutdown(call: Call) -> dict[str, Any]:
    """Answers, then drains like SIGTERM."""
    call.listener.stop()
    return {}
