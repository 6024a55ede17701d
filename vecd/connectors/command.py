"""The command of a process of connectors: its options, its signals, its end."""

from __future__ import annotations

import argparse
import logging
import os
import signal
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path

from .. import __version__, limits, logs
from ..errors import VecError
from ..process import lower_priority, open_standard_streams, reset_signals
from ..settings import load
from .process import ConnectorsProcess, MakeRunner
from .stopping import Stopping

log = logging.getLogger("vecd.connectors")

_EX_CONFIG = 78


def run(module: str, what: str, runners: Mapping[str, MakeRunner], argv: Sequence[str] | None = None) -> None:
    """Runs the connectors of these directions until the process is stopped, and exits. It is `python -m <module>`."""
    open_standard_streams()
    reset_signals(ignored=True)
    os.umask(0o077)
    lower_priority(limits.CONNECTORS_NICE)
    arguments = _parser(module, what).parse_args(argv)
    try:
        settings = load(socket=arguments.socket)
        reopening = logs.set_up(settings.log_level, Path(arguments.log_file) if arguments.log_file else None)
    except (VecError, OSError) as error:
        print(f"{module}: {error}", file=sys.stderr)
        sys.exit(_EX_CONFIG)
    stop = Stopping()
    signal.signal(signal.SIGHUP, lambda *_: reopening.reopen() if reopening else None)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    if arguments.lifeline_fd is not None:
        threading.Thread(target=_await_end, args=(arguments.lifeline_fd, stop), daemon=True).start()
    log.info("ready", extra={"version": __version__, "pid": os.getpid()})
    if arguments.ready_fd is not None:
        os.close(arguments.ready_fd)
    ConnectorsProcess(settings, stop, runners).run()
    log.info("stopped")
    logging.shutdown()
    os._exit(0)  # a broker's library may have threads that wait


def _await_end(fd: int, stop: Stopping) -> None:
    """The daemon has the other end: it is gone, or no longer wants us."""
    while os.read(fd, 1):
        pass
    stop.set()


def _parser(module: str, what: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog=f"python -m {module}", description=what)
    parser.add_argument("--socket", metavar="PATH", help="the daemon's socket")
    parser.add_argument("--log-file", metavar="PATH", help="log to this file instead of stderr")
    parser.add_argument("--no-spawn", action="store_true", help="accepted for symmetry; it never starts a daemon")
    parser.add_argument("--ready-fd", type=int, metavar="FD", help="close this descriptor when it is ready")
    parser.add_argument("--lifeline-fd", type=int, metavar="FD", help="stop when this descriptor ends")
    return parser
