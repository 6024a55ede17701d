"""vec daemon: start, stop and restart vecd, and read its log."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from typing import Annotated

import typer

from vecd.errors import Code, VecError

from .. import options
from ..output import Output

app = options.command()

_STOP_PATIENCE_S = 30.0


@app.callback()
def daemon() -> None:
    """Start, stop and restart the daemon; read its log."""


@app.command(epilog="Exit status: 0 it runs, 69 it does not start.")
def start(json: options.Json = False, socket: options.Socket = None) -> None:
    """Start the daemon, if it does not run."""
    from vecd.client import Client
    from vecd.dial import dial
    from vecd.launch import launch
    from vecd.settings import load

    settings = load(socket=socket)
    sock = dial(settings)
    started = sock is None
    with Client(sock or launch(settings)) as client:
        body = client.status()
    told = "started" if started else "was running"
    Output(json).one(
        {"pid": body["pid"], "socket": body["socket"], "started": started}, f"vecd {told}, pid {body['pid']}"
    )


@app.command(epilog="Exit status: 0 it does not run any more, or did not, 124 it does not stop.")
def stop(json: options.Json = False, socket: options.Socket = None) -> None:
    """Stop the daemon: it answers what it was asked, closes its store, and ends."""
    pid = _stop(socket)
    Output(json).one(
        {"stopped": pid is not None, "pid": pid}, "vecd did not run" if pid is None else f"vecd stopped, pid {pid}"
    )


@app.command(epilog="Exit status: 0 it runs, 69 it does not start.")
def restart(json: options.Json = False, socket: options.Socket = None) -> None:
    """Stop the daemon and start it again."""
    _stop(socket)
    start(json, socket)


@app.command(epilog="Exit status: 0 done, 4 there is no log.")
def logs(
    n: Annotated[int, typer.Option("-n", min=0, help="The last so many lines.", metavar="N")] = 50,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on as lines are added.")] = False,
) -> None:
    """Print the log of a daemon that vec started. (systemd keeps its own: journalctl --user -u vecd.)"""
    from vecd.settings import load

    path = load().log
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            from collections import deque

            sys.stdout.writelines(deque(file, n))
            sys.stdout.flush()
            if not follow:
                return
    except FileNotFoundError:
        raise VecError(Code.NOT_FOUND, f"there is no log at {path}", "has a daemon been started by vec?") from None
    # tail knows about files that are moved away, which is what logrotate does.
    os.execvp("tail", ["tail", "-n", "0", "-F", str(path)])


def _stop(socket: str | None) -> int | None:
    """Stops the daemon and waits until it has let go of its data; returns its pid, None if none ran."""
    from vecd.client import Client
    from vecd.dial import dial
    from vecd.settings import load

    settings = load(socket=socket)
    sock = dial(settings)
    if sock is None:
        return None
    with Client(sock) as client:
        status = client.status()
        client.request("shutdown")
        with contextlib.suppress(VecError):
            while True:  # its end of the connection closes when it has answered everybody
                client.wait()
    deadline = time.monotonic() + _STOP_PATIENCE_S
    while _held(os.path.join(status["data"], "vecd.lock")):
        if time.monotonic() > deadline:
            raise VecError(
                Code.TIMEOUT, f"vecd (pid {status['pid']}) has not ended within {_STOP_PATIENCE_S:g} s", "see its log"
            )
        time.sleep(0.005)
    return int(status["pid"])


def _held(path: str) -> bool:
    """Whether somebody holds the lock on the data folder."""
    import fcntl

    try:
        with open(path, encoding="utf-8") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except FileNotFoundError:
        return False
    return False
