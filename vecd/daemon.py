"""The daemon process (`vecd`): assembles store, indexes, engine, jobs and listener; handles start, stop and signals.

A start locks the data folder, opens the store, binds, listens, and reports that the daemon is ready. A stop (SIGTERM,
SIGINT, `vec daemon stop`) is reported; then the daemon accepts no more requests, answers those in flight, closes the
store, and removes the socket. After a storage failure no further write is acknowledged, and the daemon exits with
status 74 (EX_IOERR).
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import importlib
import logging
import os
import resource
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from . import __version__, limits, logs
from .data_lock import READY, STOPPING, DataLock, folder_id
from .durable_files import printable_path
from .errors import Code, VecError
from .http.settings import load as load_http
from .process import detach, open_standard_streams, reset_priority_and_limits, reset_signals
from .resources import check_descriptors, own_descriptors, save_address_space
from .settings import Settings, load, private_folder
from .unixsocket import is_listening
from .workers.executor_settings import load as load_executor

if TYPE_CHECKING:
    from .child_process import ChildProcess
    from .ops.service import Service
    from .server.listener import Listener

log = logging.getLogger("vecd")

_EX_CONFIG, _EX_IOERR, _EX_TEMPFAIL = 78, 74, 75

#: Error code of a failed start -> exit status.
_START_STATUS = {Code.BUSY: _EX_TEMPFAIL, Code.STORAGE_FAILED: _EX_IOERR, Code.DISK_FULL: _EX_IOERR}

#: How long a thread waits before it requests the interpreter lock from another. At the default, 5 ms, every SQLite
#: statement waits that long while the event loop is busy: ingest through the socket is several times faster with this.
_SWITCH_INTERVAL_S = 0.0005

#: Environment variables that native libraries read when they are loaded. Idle threads sleep; by default they spin for a
#: while on cores that others could use. OpenBLAS has no such setting, so it uses the calling thread only: with eight
#: searching clients, its threads reduced the daemon's rate from 2,000 to 500 searches per second.
NATIVE_THREADS = {"OMP_WAIT_POLICY": "PASSIVE", "OPENBLAS_NUM_THREADS": "1"}

#: How long a new daemon waits for an old one that has closed its socket but not its store.
_LOCK_WAIT_S = 15.0


class Reopens(Protocol):
    """Something that logs to the daemon's file."""

    def reopen_log(self) -> None: ...


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the command `vecd`, and exits."""
    open_standard_streams()
    reset_signals(ignored=True)
    os.umask(0o077)  # new files are private to our user
    arguments = _parser().parse_args(argv)
    if arguments.detach:
        arguments.ready_fd = detach(arguments.ready_fd)
    unchanged = reset_priority_and_limits() if arguments.fresh else {}
    try:
        settings = load(socket=arguments.socket)
        load_http(settings)
        load_executor(settings)
        if arguments.log_level:
            settings = settings._replace(log_level=arguments.log_level)
        if arguments.workers:
            settings = settings._replace(workers=arguments.workers)
        if arguments.log_file:
            settings = settings._replace(log=Path(arguments.log_file).absolute())
        reopening = logs.set_up(settings.log_level, Path(arguments.log_file) if arguments.log_file else None)
    except (VecError, OSError) as error:
        print(f"vecd: {error}", file=sys.stderr)
        sys.exit(_EX_CONFIG)
    if unchanged:
        log.warning("started under limits that cannot be raised", extra=unchanged)
    try:
        status = run(settings, reopening, arguments.ready_fd)
    except VecError as error:
        log.critical("cannot start", extra={"code": error.code, "error": str(error)})
        _report(arguments.ready_fd, str(error))
        status = _START_STATUS.get(error.code, _EX_CONFIG)
    except Exception as error:
        log.critical("cannot start", exc_info=True)
        _report(arguments.ready_fd, repr(error))
        status = 1
    logging.shutdown()
    # Threads that hang in a failed disk must not delay the exit; everything that must be closed is closed.
    os._exit(status)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="vecd",
        description="The daemon of vec. Runs in the foreground; `vec` starts it by itself when it is needed.",
    )
    parser.add_argument("--version", action="version", version=f"vecd {__version__}")
    parser.add_argument("--socket", metavar="PATH", help="listen here instead of in VEC_HOME or the runtime folder")
    parser.add_argument("--log-file", metavar="PATH", help="log to this file instead of stderr; SIGHUP reopens it")
    parser.add_argument("--log-level", choices=("debug", "info", "warning", "error"), help="how much to log")
    parser.add_argument("--workers", type=_workers, metavar="N", help="threads for background jobs")
    parser.add_argument("--fresh", action="store_true", help="first take the usual priority, and raise soft limits")
    parser.add_argument("--ready-fd", type=int, metavar="FD", help="write `ready` to this descriptor when it is so")
    parser.add_argument("--detach", action="store_true", help="continue in the background, and exit when ready")
    return parser


def _workers(text: str) -> int:
    count = int(text)
    if not 1 <= count <= limits.WORKERS_MAX:
        raise argparse.ArgumentTypeError(f"from 1 to {limits.WORKERS_MAX:,}")
    return count


def run(settings: Settings, reopening: logs.ReopeningHandler | None = None, ready_fd: int | None = None) -> int:
    """Runs a daemon until it must stop; returns its exit status. Raises VecError if it cannot start."""
    new_event_loop: Callable[[], asyncio.AbstractEventLoop] = asyncio.new_event_loop
    with contextlib.suppress(ImportError):  # PyPy has no uvloop
        new_event_loop = importlib.import_module("uvloop").new_event_loop
    sys.setswitchinterval(_SWITCH_INTERVAL_S)
    save_address_space()
    _raise_descriptor_limit(settings.workers)
    with _locked(settings) as lock, asyncio.Runner(loop_factory=new_event_loop) as runner:
        return runner.run(_serve(settings, lock, reopening, ready_fd))


def _raise_descriptor_limit(workers: int) -> None:
    """Raises the soft limit of file descriptors: each connection takes one, and the usual limit is 1,024."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = limits.CONNECTIONS_MAX + own_descriptors(workers)
    if soft < wanted:
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (min(wanted, hard), hard))
    check_descriptors(resource.getrlimit(resource.RLIMIT_NOFILE)[0], workers)


async def _listen(settings: Settings, service: Service) -> Listener:
    """Starts the transport: on the socket that systemd passed, or on one bound here."""
    from .server import listener as sockets

    passed = sockets.inherited()
    if passed is None and settings.socket.parent == settings.runtime:
        private_folder(settings.runtime)
    listener = sockets.Listener(service, passed or sockets.bind(str(settings.socket)), owned=passed is None)
    await listener.start()
    return listener


async def _serve(
    settings: Settings, lock: DataLock, reopening: logs.ReopeningHandler | None, ready_fd: int | None
) -> int:
    for name, value in NATIVE_THREADS.items():
        os.environ.setdefault(name, value)
    # Imported here, because a daemon that cannot get its lock does not need numpy.
    from .connector_process import ConnectorProcess
    from .engine.engine import Engine
    from .jobs.jobs import Jobs
    from .jobs.periodic import Periodic
    from .jobs.scheduler import Scheduler
    from .ops.service import Service
    from .workers.executor import Executor

    loop = asyncio.get_running_loop()
    stop, failures = asyncio.Event(), []

    def fail(failure: VecError) -> None:
        failures.append(failure)
        stop.set()

    def keep_lock() -> bool:
        try:
            return lock.keep()
        except VecError as failure:
            fail(failure)
            return False

    engine = Engine(settings, Executor(load_executor(settings)))
    engine.open(loop, fail)
    jobs = Jobs(engine, settings.workers)
    jobs.open(loop)
    scheduler = Scheduler(jobs)
    about = {"data": printable_path(settings.data), "data_id": folder_id(settings.data)}
    service = Service(jobs, scheduler, stop.set, about)
    gateway = _gateway(settings, reopening)
    if gateway is not None:
        service.gateway_status = lambda: {"pid": gateway.pid, "listen": gateway.said}
    connectors = ConnectorProcess("the connector process", "vecd.connectors", settings, _log_file(reopening))
    syncs = ConnectorProcess("the sync process", "vecd.sync", settings, _log_file(reopening))

    def keep_connectors(directions: set[str]) -> None:
        connectors.keep(bool(directions & {"relay", "source"}))
        syncs.keep("sync" in directions)

    service.connectors.on_change = keep_connectors
    listener = await _listen(settings, service)
    keeper = loop.create_task(listener.keep_bound(keep_lock))
    trimming = Periodic("retention", partial(engine.feed.retention.keep_trimmed, settings), limits.RETENTION_EVERY_S)
    trimming.start()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    children: list[Reopens] = [connectors, syncs, *([gateway] if gateway is not None else [])]
    loop.add_signal_handler(signal.SIGHUP, lambda: _reopen(reopening, children))
    gc.freeze()  # objects that exist now are permanent: collections can skip them
    log.info("ready", extra={"version": __version__, "pid": os.getpid(), "socket": str(settings.socket)})
    lock.socket = listener.path or lock.socket
    lock.tell(READY)
    _report_ready(ready_fd)
    jobs.start()
    scheduler.start()
    if gateway is not None:
        gateway.start()
    await service.connectors.open()
    await stop.wait()
    keeper.cancel()
    lock.tell(STOPPING)

    if failures:
        # The disk cannot be trusted. Waiting clients have received an error, or get no answer.
        log.critical("stopping: storage failed", extra={"error": str(failures[0])})
        await listener.drain(1.0)
        return _EX_IOERR
    log.info("stopping")
    _notify("STOPPING=1")
    engine.indexes.stop_building()
    await scheduler.stop()
    stopping = [jobs.stop(), connectors.stop(), syncs.stop()]
    await asyncio.gather(*stopping, *([gateway.stop()] if gateway is not None else []))
    await listener.drain(settings.drain_s)
    await trimming.stop()
    await asyncio.to_thread(jobs.close)
    engine.end_tasks()
    await asyncio.to_thread(engine.close)
    listener.unbind()
    log.info("stopped")
    return _EX_IOERR if failures else 0


def _gateway(settings: Settings, reopening: logs.ReopeningHandler | None) -> ChildProcess | None:
    """The gateway, if the configuration asks for one. Raises VecError `invalid_settings`."""
    if not load_http(settings).listen:
        return None
    from .child_process import ChildProcess

    stop_s = settings.drain_s + 2 * limits.HTTP_CLOSE_S
    return ChildProcess("the gateway", "vecd.http", settings, _log_file(reopening), stop_s=stop_s)


def _log_file(reopening: logs.ReopeningHandler | None) -> Path | None:
    return Path(reopening.baseFilename) if reopening else None


def _reopen(reopening: logs.ReopeningHandler | None, children: Sequence[Reopens]) -> None:
    """Handles SIGHUP: logrotate has moved the log."""
    if reopening is not None:
        reopening.reopen()
        for child in children:
            child.reopen_log()


def _report_ready(ready_fd: int | None) -> None:
    _report(ready_fd, "ready")
    _notify("READY=1")


def _report(ready_fd: int | None, text: str) -> None:
    """Reports to the process that started us. Later calls do nothing."""
    if ready_fd is not None:
        with contextlib.suppress(OSError):
            os.write(ready_fd, text[: limits.ERROR_CHARS_MAX].encode("utf-8", "backslashreplace"))
            os.close(ready_fd)


def _notify(state: str) -> None:
    """sd_notify(3): reports to systemd if it started us."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if address[:1] not in ("/", "@"):
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock, contextlib.suppress(OSError):
        sock.connect("\0" + address[1:] if address[0] == "@" else address)
        sock.sendall(state.encode())


@contextlib.contextmanager
def _locked(settings: Settings) -> Iterator[DataLock]:
    """Holds the lock on the data folder; waits for a daemon that is stopping.

    Raises VecError `busy`, naming the daemon that holds it.
    """
    private_folder(settings.data)
    with DataLock(settings) as lock:
        deadline = time.monotonic() + _LOCK_WAIT_S
        while (held := lock.take()) is not None:
            if is_listening(held.socket) or time.monotonic() > deadline:
                raise VecError(
                    Code.BUSY,
                    f"the data folder {settings.data} is in use by vecd with pid {held.pid or 'unknown'}, "
                    f"on {held.socket or '?'}",
                    "use that daemon's socket (VEC_SOCKET or --socket), or stop it",
                )
            time.sleep(0.02)
        yield lock
