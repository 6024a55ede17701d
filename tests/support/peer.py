"""A raw protocol peer: it sends arbitrary bytes, which no client sends, and reads only on demand."""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Any, Self

from tests.support.instance import Instance
from vecd import limits
from vecd.wire.frames import FrameDecoder
from vecd.wire.messages import decode, encode, hello

HELLO = encode(hello("a test"))
Reply = dict[str, Any]


def frame(op: str, number: int, **fields: Any) -> bytes:
    return encode({"op": op, "id": number, **fields})


class Peer:
    """A client connection at the level of bytes. `patience_s` bounds each read and each write."""

    def __init__(self, instance: Instance, *, greet: bool = True, patience_s: float = 60.0) -> None:
        self.replies: list[Reply] = []
        self.ended = False
        self.received_bytes = 0
        self._decoder = FrameDecoder()
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.socket.settimeout(patience_s)
        self.socket.connect(str(instance.settings.socket))
        if greet:
            self.send(HELLO)
            self.until(lambda: bool(self.replies))
            assert "result" in self.replies.pop()

    def send(self, data: bytes) -> None:
        """Sends bytes; reads nothing."""
        self.socket.sendall(data)

    def half_close(self) -> None:
        self.socket.shutdown(socket.SHUT_WR)

    def read(self) -> None:
        """Reads the next bytes, or notices the end."""
        try:
            data = self.socket.recv(64 * limits.KIB)
        except (ConnectionResetError, BrokenPipeError):  # the daemon closed without reading all that we sent
            data = b""
        self.ended = not data
        self.received_bytes += len(data)
        self.replies += [decode(payload) for payload in self._decoder.feed(data)]

    def until(self, reached: Callable[[], bool]) -> None:
        while not reached():
            assert not self.ended, f"the connection ended: {self.replies[-3:]}"
            self.read()

    def answers(self, number: int | None) -> list[Reply]:
        """The replies so far to this request."""
        return [reply for reply in self.replies if reply["id"] == number]

    def answer(self, number: int) -> Reply:
        """Waits for the first reply to this request."""
        self.until(lambda: bool(self.answers(number)))
        return self.answers(number)[0]

    def items(self, number: int) -> list[Any]:
        """The items of this stream so far."""
        return [item for reply in self.answers(number) for item in reply.get("items", ())]

    def to_the_end(self) -> list[Reply]:
        """All replies, once the daemon has closed the connection."""
        while not self.ended:
            self.read()
        return self.replies

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()
