"""Waits for a condition."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


#: Timeout of all waits; far more than any needs.
PATIENCE_S = 60.0


def until(condition: Callable[[], T | None], what: str = "it") -> T:
    """Waits until `condition()` is true; returns its value."""
    deadline = time.monotonic() + PATIENCE_S
    while not (value := condition()):
        assert time.monotonic() < deadline, f"{what} did not happen within {PATIENCE_S:g} s"
        time.sleep(0.005)
    return value


async def until_async(condition: Callable[[], T | None], what: str = "it") -> T:
    """The same, for a test on an event loop."""
    deadline = time.monotonic() + PATIENCE_S
    while not (value := condition()):
        assert time.monotonic() < deadline, f"{what} did not happen within {PATIENCE_S:g} s"
        await asyncio.sleep(0.005)
    return value
