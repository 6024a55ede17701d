"""vec daemon: start, stop and restart vecd, and read its log."""

from __future__ import annotations

import contextlib
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vecd.errors import Code, VecError

from .. import options
from ..output import Output

if TYPE_CHECKING:
    from vecd.settings import Settings

app = options.command()


@app.callback()
def daemon() -> None:
    """Start, stop and restart the daemon; read its log."""


@app.command(epilog="Exit status: 0 it runs, 69 it does not start.")
def start(json: options.Json = False, socket: options.Socket = None) -> None:
    """Start the daemon, if it does not run."""
    from vecd.client import Client
    from vecd.client.discovery import find_daemon
    from vecd.client.spawn import spawn_daemon
    from vecd.settings import load, locate

    settings = locate(socket=socket)
    sock = find_daemon(settings)
    started = sock is None
    if started:
        load(socket=socket)  # what the daemon would refuse is said here, and not in its log
    with Client(sock or spawn_daemon(settings, options.say), data=None if settings.named else settings.data) as client:
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
    from vecd.settings import load

    load(socket=socket)  # before the stop: a daemon that runs is better than one that cannot start
    _stop(socket)
    start(json, socket)


@app.command(epilog="Exit status: 0 done, 4 there is no log.")
def logs(
    n: Annotated[int, typer.Option("-n", min=0, help="The last so many lines.", metavar="N")] = 50,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on as lines are added.")] = False,
) -> None:
    """Print the log of a daemon that vec started. (systemd keeps its own: journalctl --user -u vecd.)"""
    from vecd.settings import locate

    path = locate().log
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
    """Stops the daemon and waits until it has released its data; returns its pid, None if none ran.

    The daemon is found by its socket, and without one, or if it does not answer there, by its lock.
    """
    from vecd import limits
    from vecd.client.discovery import find_daemon
    from vecd.data_lock import ask_to_stop, holder, wait_until_free
    from vecd.process import is_stopped
    from vecd.settings import locate

    settings = locate(socket=socket)
    held = holder(settings)
    if held is not None and settings.named and held.socket != os.fspath(settings.socket):
        held = None  # that is another daemon than the one that was named
    pid = None
    if held is None or held.pid is None or not is_stopped(held.pid):
        try:
            if (sock := find_daemon(settings)) is not None:
                pid, settings = _shut_down(sock, settings)
        except VecError as error:
            if error.code not in (Code.STALLED, Code.NO_DAEMON) or held is None:
                raise
    if pid is None:
        if held is None:
            return None
        pid = held.pid
        if not ask_to_stop(settings, held):
            raise VecError(
                Code.NO_DAEMON,
                f"the data folder {settings.data} is in use, and its daemon, process {pid}, cannot be reached",
                "it may run in another container; stop it there",
            )
    if not wait_until_free(settings, limits.STOP_S):
        raise VecError(
            Code.TIMEOUT,
            f"vecd (pid {pid}) has not ended within {limits.STOP_S:g} s",
            f"see its log; as a last resort, `kill -9 {pid}` loses nothing that was answered",
        )
    return pid


def _shut_down(sock: Any, settings: Settings) -> tuple[int, Settings]:
    """Asks the daemon on this socket to stop; returns its pid, and the settings with the data folder that it has."""
    from vecd.client import Client

    with Client(sock) as client:
        status = client.status()
        client.request("shutdown")
        with contextlib.suppress(VecError):
            while True:  # its end of the connection closes when it has answered everybody
                client.wait()
    return int(status["pid"]), settings._replace(data=Path(status["data"]))
