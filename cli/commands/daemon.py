"""vec daemon: starts, stops and restarts vecd; shows its status and its log."""

from __future__ import annotations

import contextlib
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vecd.errors import Code, VecError

from .. import main, options
from ..output import Output

if TYPE_CHECKING:
    from vecd.data_lock import Holder
    from vecd.settings import Settings

app = options.command()


@app.callback()
def daemon() -> None:
    """Start, stop and restart the daemon; show its status and its log."""


@app.command(epilog="Exit status: 0 the daemon is running, 69 it cannot start.")
def start(json: options.Json = False, socket: options.Socket = None) -> None:
    """Start the daemon, if it is not running."""
    from vecd.client import Client
    from vecd.client.discovery import find_daemon
    from vecd.client.spawn import spawn_daemon
    from vecd.settings import load, locate

    settings = locate(socket=socket)
    sock = find_daemon(settings)
    started = sock is None
    if started:
        load(socket=socket)  # reports invalid settings here, and not only in the daemon's log
    with Client(sock or spawn_daemon(settings, options.say), data=None if settings.named else settings.data) as client:
        body = client.status()
    outcome = "started" if started else "is already running"
    Output(json).one(
        {"pid": body["pid"], "socket": body["socket"], "started": started}, f"vecd {outcome}, pid {body['pid']}"
    )


@app.command(epilog="Exit status: 0 the daemon is stopped, or was not running, 124 it did not stop in time.")
def stop(json: options.Json = False, socket: options.Socket = None) -> None:
    """Stop the daemon: it answers pending requests, closes its store, and exits."""
    pid = _stop(socket)
    Output(json).one(
        {"stopped": pid is not None, "pid": pid},
        "vecd is not running" if pid is None else f"vecd stopped, pid {pid}",
    )


@app.command(epilog="Exit status: 0 the daemon is ready, 69 it is not running, 75 it starts, stops or does not answer.")
def status(json: options.Json = False, socket: options.Socket = None) -> None:
    """Show whether the daemon is running, and since when. Starts no daemon."""
    from datetime import UTC, datetime, timedelta

    from vecd.client import Client
    from vecd.client.discovery import find_daemon
    from vecd.settings import locate

    settings = locate(socket=socket)
    sock = find_daemon(settings)
    if sock is not None:
        with Client(sock, data=None if settings.named else settings.data) as client:
            body = client.status()
        started = datetime.now(UTC) - timedelta(seconds=body["uptime_s"])
        started_at = started.isoformat(timespec="seconds").replace("+00:00", "Z")
        found = {
            "running": True, "state": "ready", "pid": body["pid"], "socket": body["socket"], "started_at": started_at,
            "uptime_s": body["uptime_s"], "http": (body.get("http") or {}).get("listen"),
        }  # fmt: skip
        told = f"vecd is running, pid {body['pid']}, since {started_at}\nsocket  {body['socket']}"
        Output(json).one(found, told + "".join(f"\nhttp    {url}" for url in found["http"] or ()))
        return
    held = _holder(settings)
    state = (held.state or "starting") if held is not None else "stopped"
    found = {
        "running": held is not None, "state": state, "pid": held and held.pid, "socket": (held and held.socket) or None,
        "started_at": None, "uptime_s": None, "http": None,
    }  # fmt: skip
    if held is None:
        Output(json).one(found, "vecd is not running")
        raise typer.Exit(main.NO_DAEMON)
    Output(json).one(found, f"vecd is {state}, pid {held.pid or 'unknown'}")
    raise typer.Exit(main.TRY_AGAIN)


@app.command(epilog="Exit status: 0 the daemon is running, 69 it cannot start.")
def restart(json: options.Json = False, socket: options.Socket = None) -> None:
    """Stop the daemon and start it again."""
    from vecd.settings import load

    load(socket=socket)  # before the stop: with invalid settings, the running daemon is better than none
    _stop(socket)
    start(json, socket)


@app.command(epilog="Exit status: 0 success, 4 there is no log.")
def logs(
    n: Annotated[int, typer.Option("-n", min=0, help="The last N lines.", metavar="N")] = 50,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Continue as lines are added.")] = False,
) -> None:
    """Print the log of a daemon that vec started. For one that systemd started, use journalctl --user -u vecd."""
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
        raise VecError(
            Code.NOT_FOUND,
            f"the log {path} does not exist",
            "vec has not started a daemon here; for one that systemd started, use journalctl --user -u vecd",
        ) from None
    # tail -F follows the path if logrotate renames the file.
    os.execvp("tail", ["tail", "-n", "0", "-F", str(path)])


def _holder(settings: Settings) -> Holder | None:
    """The daemon that holds the data folder; None if there is none, or if the caller named the socket of another."""
    from vecd.data_lock import holder

    held = holder(settings)
    if held is not None and settings.named and held.socket != os.fspath(settings.socket):
        return None
    return held


def _stop(socket: str | None) -> int | None:
    """Stops the daemon and waits until it has released its data; returns its pid, or None if it was not running.

    Finds the daemon by its socket, or, if it does not answer there, by its lock.
    """
    from vecd import limits
    from vecd.client.discovery import find_daemon
    from vecd.data_lock import ask_to_stop, wait_until_free
    from vecd.process import is_stopped
    from vecd.settings import locate

    settings = locate(socket=socket)
    held = _holder(settings)
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
                "if it runs in another container, stop it there",
            )
    if not wait_until_free(settings, limits.STOP_S):
        raise VecError(
            Code.TIMEOUT,
            f"vecd (pid {pid}) did not exit within {limits.STOP_S:g} s",
            f"see its log; as a last resort, use `kill -9 {pid}`, which loses no acknowledged write",
        )
    return pid


def _shut_down(sock: Any, settings: Settings) -> tuple[int, Settings]:
    """Asks the daemon on this socket to stop; returns its pid, and the settings with its data folder."""
    from vecd.client import Client

    with Client(sock) as client:
        status = client.status()
        client.shutdown()
        with contextlib.suppress(VecError):
            while True:  # the daemon closes the connection when it has answered all requests
                client.wait()
    return int(status["pid"]), settings._replace(data=Path(status["data"]))
