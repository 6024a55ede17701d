"""`python -m vecd.workers.local`: a child process of the daemon that embeds, so that a slow embedder does not hold the
daemon's interpreter, and one that crashes does not crash the daemon.

It reads requests (messages.py) from stdin and writes the answers to stdout, each after its length (4 bytes,
little-endian). It says that it is ready with an answer to nothing (length 0), and ends with its stdin.
"""

from __future__ import annotations

import os
import sys
from typing import BinaryIO


def main() -> None:
    requests, answers = sys.stdin.buffer, os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # what a model prints is no answer
    from .tasks import embed

    write(answers, b"")
    while (request := read(requests)) is not None:
        write(answers, embed(request))


def read(pipe: BinaryIO) -> bytes | None:
    """The next message; None at the end."""
    length = pipe.read(4)
    if len(length) < 4:
        return None
    return pipe.read(int.from_bytes(length, "little"))


def write(pipe: BinaryIO, message: bytes) -> None:
    pipe.write(len(message).to_bytes(4, "little") + message)
    pipe.flush()


if __name__ == "__main__":
    main()
