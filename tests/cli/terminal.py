"""Runs `vec` on a terminal."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import struct
import subprocess
import termios
import threading
from typing import NamedTuple

from tests.support.instance import BIN, Instance
from tests.support.waiting import PATIENCE_S


class Terminal(NamedTuple):
    """What a command left on its terminal, and on what is none."""

    status: int
    out: str  # of stdout, if that was the terminal
    err: str  # of stderr, likewise


def on_a_terminal(
    instance: Instance, *arguments: str, streams: str = "out", columns: int = 100, stdin: str = "", **environment: str
) -> Terminal:
    """Runs `vec` with stdout ("out") or stderr ("err"), or both ("out err"), on a terminal of its own each."""
    read: dict[str, str] = {}
    masters: dict[str, int] = {}
    slaves: dict[str, int] = {}
    for name in streams.split():
        masters[name], slaves[name] = pty.openpty()
        fcntl.ioctl(slaves[name], termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))

    def drain(name: str) -> None:
        pieces = []
        # A terminal whose last writer has gone gives EIO on Linux, nothing elsewhere.
        with contextlib.suppress(OSError):
            while piece := os.read(masters[name], 65_536):
                pieces.append(piece)
        read[name] = b"".join(pieces).decode().replace("\r\n", "\n")

    plain = {key: value for key, value in instance.environment.items() if key not in ("NO_COLOR", "COLUMNS", "LINES")}
    process = subprocess.Popen(
        [BIN / "vec", *arguments],
        stdin=subprocess.PIPE,
        stdout=slaves.get("out", subprocess.PIPE),
        stderr=slaves.get("err", subprocess.PIPE),
        env={**plain, "TERM": "xterm-256color", **environment},
    )
    for slave in slaves.values():
        os.close(slave)
    drains = [threading.Thread(target=drain, args=(name,)) for name in masters]
    for each in drains:
        each.start()
    piped_out, piped_err = process.communicate(stdin.encode(), timeout=PATIENCE_S)
    for each in drains:
        each.join()
    for master in masters.values():
        os.close(master)
    read.setdefault("out", (piped_out or b"").decode())
    read.setdefault("err", (piped_err or b"").decode())
    return Terminal(process.returncode, read["out"], read["err"])
