"""The gateway process: `python -m vecd.http`. `vec serve` runs the same in the foreground."""

from __future__ import annotations

import argparse
import logging
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .. import __version__, logs
from ..errors import Code, VecError
from ..process import open_standard_streams, reset_signals
from ..settings import Settings
from ..settings import load as load_settings
from . import settings as http_settings

log = logging.getLogger("vecd.http")

_EX_CONFIG, _EX_TEMPFAIL = 78, 75


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the gateway until it is stopped, and exits."""
    open_standard_streams()
    reset_signals(ignored=True)
    os.umask(0o077)
    arguments = _parser().parse_args(argv)
    try:
        settings = load_settings(socket=arguments.socket)
        reopening = logs.set_up(settings.log_level, Path(arguments.log_file) if arguments.log_file else None)
        signal.signal(signal.SIGHUP, lambda *_: reopening.reopen() if reopening else None)

        def ready(urls: Sequence[str]) -> None:
            log.info("ready", extra={"version": __version__, "pid": os.getpid(), "listen": " ".join(urls)})
            if arguments.ready_fd is not None:
                with open(arguments.ready_fd, "w", encoding="utf-8") as pipe:
                    pipe.writelines(f"{url}\n" for url in urls)

        serve(settings, arguments.listen, spawn=not arguments.no_spawn, ready=ready, lifeline=arguments.lifeline_fd)
    except (VecError, OSError) as error:
        log.critical("the gateway cannot start", extra={"error": str(error)})
        retry = isinstance(error, VecError) and error.retryable
        sys.exit(_EX_TEMPFAIL if retry else _EX_CONFIG)


def serve_in_foreground(settings: Settings, listen: Sequence[str], **options: Any) -> None:
    """Serves for `vec serve`, and logs to stderr. Raises VecError as `serve` does."""
    logs.set_up(settings.log_level, None)
    serve(settings, listen, **options)


def serve(settings: Settings, listen: Sequence[str], **options: Any) -> None:
    """Serves as server.run does. Raises VecError, also if the packages of the gateway are not installed."""
    configured = http_settings.load(settings, listen)
    try:
        from . import server
    except ModuleNotFoundError as error:
        raise VecError(
            Code.UNSUPPORTED,
            f"the gateway needs the Python package {error.name}, which is not installed",
            "pip install 'vecd[http]'",
        ) from error
    server.run(settings, configured, **options)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m vecd.http", description="The HTTP gateway of vecd.")
    parser.add_argument("--listen", action="append", default=[], metavar="ADDRESS", help="HOST:PORT or unix:PATH")
    parser.add_argument("--socket", metavar="PATH", help="the daemon's socket")
    parser.add_argument("--log-file", metavar="PATH", help="log to this file instead of stderr")
    parser.add_argument("--no-spawn", action="store_true", help="do not start a daemon if none is running")
    parser.add_argument("--ready-fd", type=int, metavar="FD", help="write the URLs to this descriptor when it is ready")
    parser.add_argument("--lifeline-fd", type=int, metavar="FD", help="stop when this descriptor ends")
    return parser


if __name__ == "__main__":
    main()
