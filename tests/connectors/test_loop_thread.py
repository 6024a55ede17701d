"""Calls of coroutines from a thread: their results and errors, whatever the moment at which they end."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import threading
from collections.abc import Iterator

import pytest

from vecd.connectors.loop_thread import LoopThread
from vecd.delivery import AttemptFailed


@pytest.fixture
def loop() -> Iterator[LoopThread]:
    with contextlib.closing(LoopThread("test", threading.Event())) as thread:
        yield thread


async def after(pause_s: float, error: Exception | None = None) -> str:
    await asyncio.sleep(pause_s)
    if error is not None:
        raise error
    return "a result"


def test_a_result_and_an_error_come_back(loop: LoopThread) -> None:
    assert loop.call(after(0), 10, "waiting") == "a result"
    with pytest.raises(TimeoutError, match="its own"):
        loop.call(after(0, TimeoutError("its own")), 10, "waiting")


def test_what_takes_too_long_is_an_attempt_that_failed(loop: LoopThread) -> None:
    with pytest.raises(AttemptFailed, match=r"waiting took longer than 0\.1 s") as failed:
        loop.call(after(60), 0.1, "waiting")
    assert failed.value.unreachable


class _EndsWhileWeLook(concurrent.futures.Future[str]):
    """Its first wait is over in the moment in which it ends."""

    def result(self, timeout: float | None = None) -> str:
        if not self.done():
            self.set_result("a result")
            raise concurrent.futures.TimeoutError
        return super().result(timeout)


def test_a_call_that_ends_when_its_wait_is_over_has_its_result(
    loop: LoopThread, monkeypatch: pytest.MonkeyPatch
) -> None:
    def started(coroutine: object, _: object) -> _EndsWhileWeLook:
        coroutine.close()  # type: ignore[attr-defined]
        return _EndsWhileWeLook()

    monkeypatch.setattr(asyncio, "run_coroutine_threadsafe", started)
    assert loop.call(after(0), 10, "waiting") == "a result"
