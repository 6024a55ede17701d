"""Tests of ops without a socket: `ops` is a sender of a daemon in this process. Tests may be `async def`: they run on
the event loop of their module's daemon."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Iterator

import pytest

from tests.support.inprocess import Daemon, Ops, daemon
from tests.support.waiting import PATIENCE_S


@pytest.fixture(scope="module")
def loop_runner() -> Iterator[asyncio.Runner]:
    """The event loop of this module's tests."""
    with asyncio.Runner() as runner:
        yield runner


@pytest.fixture(scope="module")
def here(loop_runner: asyncio.Runner, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """The module's daemon. Its tests share it: each takes a library of its own."""
    context = daemon(tmp_path_factory.mktemp("home"))
    yield loop_runner.run(context.__aenter__())
    loop_runner.run(context.__aexit__(None, None, None))


@pytest.fixture
def ops(here: Daemon) -> Ops:
    """A sender of its own."""
    return here.connect()


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Runs a test that is a coroutine function."""
    if not inspect.iscoroutinefunction(pyfuncitem.obj):
        return None
    runner: asyncio.Runner = pyfuncitem._request.getfixturevalue("loop_runner")
    arguments = {name: pyfuncitem.funcargs[name] for name in pyfuncitem._fixtureinfo.argnames}
    runner.run(asyncio.wait_for(pyfuncitem.obj(**arguments), PATIENCE_S))
    return True
