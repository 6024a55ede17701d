"""Helpers to run `vec` and parse its output, and to create a library for one test."""

from __future__ import annotations

import contextlib
import fcntl
import itertools
import json
import os
import subprocess
import sys
import termios
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from tests.support.instance import Instance

from .waiting import PATIENCE_S, until

_numbers = itertools.count(1)


@contextlib.contextmanager
def running(instance: Instance, *arguments: str, **options: Any) -> Iterator[subprocess.Popen[bytes]]:
    """Runs `vec` with pipes during the block. It is killed at the end, and after PATIENCE_S, so that no read blocks
    forever."""
    process = instance.spawn(*arguments, **options)
    bound = threading.Timer(PATIENCE_S, process.kill)
    bound.start()
    try:
        yield process
    finally:
        bound.cancel()
        process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout, process.stderr):
            if pipe is not None:
                with contextlib.suppress(BrokenPipeError):
                    pipe.close()


def feed(process: subprocess.Popen[bytes], data: bytes | str) -> None:
    """Writes to a running command's stdin; does not close it."""
    assert process.stdin is not None
    process.stdin.write(data.encode() if isinstance(data, str) else data)
    process.stdin.flush()


def taken(process: subprocess.Popen[bytes]) -> None:
    """Waits until a running command has read all of its stdin that was written."""
    assert process.stdin is not None
    fd = process.stdin.fileno()
    until(lambda: not any(fcntl.ioctl(fd, termios.FIONREAD, bytes(4))), "its reading")


def end_of_input(process: subprocess.Popen[bytes]) -> None:
    assert process.stdin is not None
    process.stdin.close()


def line_of(pipe: IO[bytes] | None) -> Any:
    """The next object that a running command prints."""
    assert pipe is not None
    line = pipe.readline()
    assert line, "the command ended where a line was expected"
    return json.loads(line)


def rest_of(pipe: IO[bytes] | None) -> str:
    """The rest of a command's output, to its end."""
    assert pipe is not None
    return pipe.read().decode()


def fresh(instance: Instance, **fields: Any) -> str:
    """Creates an empty library; `fields` are those of the op library.create (embedder, dimension, metric …)."""
    name = f"library-{next(_numbers)}"
    with instance.connect() as client:
        client.request("library.create", library=name, **fields)
    return name


def ids_in(instance: Instance, library: str) -> list[str]:
    """The ids of all documents of a library, sorted."""
    with instance.connect() as client:
        return [document["id"] for document in client.items("list", "documents", library=library)]


def peak_bytes(pid: int) -> int:
    """The peak resident memory of a process (Linux)."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise AssertionError(f"/proc/{pid}/status has no VmHWM")


#: The statuses of a summary.
COUNTS = ("added", "updated", "unchanged", "deleted", "failed")


def counted(summary: dict[str, Any]) -> dict[str, int]:
    """A summary's counts that are not 0."""
    return {status: summary[status] for status in COUNTS if summary[status]}


def ingested(instance: Instance, library: str, lines: str | bytes, *options: str, status: int = 0) -> dict[str, int]:
    return counted(instance.objects("ingest", "-l", library, *options, stdin=lines, status=status)[-1])


def documents(instance: Instance, library: str, *ids: str) -> list[dict[str, Any]]:
    return instance.objects("get", "-l", library, "--vectors", *ids)


def numbered(count: int, start: int = 0) -> list[dict[str, Any]]:
    return [{"id": f"d{number:06}", "text": f"text {number}"} for number in range(start, start + count)]


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    if not sys.platform.startswith("linux"):
        return True
    try:  # a zombie, not yet reaped by its parent, has ended
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False
