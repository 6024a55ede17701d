"""What a Connection needs of the transport below it, and its implementation for the daemon's Unix socket.

A transport takes encoded frames and returns the payloads of frames: it knows nothing of requests and replies. Nothing
here waits, except `poll` and a `read` that is asked to. The other implementation is websocket.py.
"""

from __future__ import annotations

import select
import socket
from collections import deque
from typing import Protocol

from .. import limits
from ..errors import VecError
from ..unixsocket import bound_reads, peer_pid
from ..wire.frames import FrameDecoder
from .discovery import is_serving, stalled_error

RECEIVE_BYTES = 256 * limits.KIB


class ConnectionEndedError(Exception):
    """The other end has closed the connection; `said` is the reason that the transport received, if any."""

    def __init__(self, said: VecError | None = None) -> None:
        super().__init__("closed")
        self.said = said


class Transport(Protocol):
    """Frames out, payloads in. Methods raise OSError when the connection fails."""

    @property
    def unsent(self) -> bool:
        """Whether something that `send` took is still to be written."""

    @property
    def closed(self) -> bool:
        """Whether `close` was called."""

    def fileno(self) -> int:
        """For select and poll: readable when `read` may return something."""

    def send(self, frame: bytes) -> None:
        """Takes a frame, with its length in front. `write` writes it."""

    def write(self) -> None:
        """Writes what can be written without waiting."""

    def poll(self, wait_s: float) -> bool:
        """Waits until it can read or, if something is unsent, write; false after `wait_s` seconds."""

    def read(self, wait: bool) -> list[bytes] | None:
        """The payloads that what has arrived completes; None if nothing has arrived, with `wait` for SILENCE_S.

        Raises ConnectionEndedError at the end.
        """

    def is_serving(self, hello: bytes) -> bool:
        """Whether the daemon is still at work, after a silence. `hello` is a frame that it would answer."""

    def stalled(self, silence_s: float) -> VecError:
        """The error for a daemon that is not."""

    def close(self) -> None:
        """Ends the connection. Does not wait."""


class SocketTransport:
    """A connected Unix socket."""

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        sock.setblocking(True)
        bound_reads(sock, limits.SILENCE_S)
        self._poll = select.poll()
        self._poll.register(sock, select.POLLIN)
        self._arriving = memoryview(bytearray(RECEIVE_BYTES))  # reused: a new one for each message costs page faults
        self._decoder = FrameDecoder()
        self._unsent: deque[memoryview] = deque()

    @property
    def unsent(self) -> bool:
        return bool(self._unsent)

    @property
    def closed(self) -> bool:
        return self._socket.fileno() < 0

    def fileno(self) -> int:
        return self._socket.fileno()

    def send(self, frame: bytes) -> None:
        self._unsent.append(memoryview(frame))

    def write(self) -> None:
        while self._unsent:
            try:
                sent = self._socket.send(self._unsent[0], socket.MSG_DONTWAIT)
            except BlockingIOError:
                return
            except BrokenPipeError:
                # The daemon has closed the connection; its last message may still be there to read.
                self._unsent.clear()
                return
            if sent == len(self._unsent[0]):
                self._unsent.popleft()
            else:
                self._unsent[0] = self._unsent[0][sent:]

    def poll(self, wait_s: float) -> bool:
        self._poll.modify(self._socket, select.POLLIN | (select.POLLOUT if self._unsent else 0))
        return bool(self._poll.poll(0 if wait_s == 0 else max(1, int(wait_s * 1000))))

    def read(self, wait: bool) -> list[bytes] | None:
        try:
            # The socket blocks, up to SILENCE_S: one system call, where poll and recv would be two.
            count = self._socket.recv_into(self._arriving, RECEIVE_BYTES, 0 if wait else socket.MSG_DONTWAIT)
        except BlockingIOError:
            return None
        if not count:
            raise ConnectionEndedError
        return self._decoder.feed(self._arriving[:count])

    def is_serving(self, hello: bytes) -> bool:
        return is_serving(self._socket, hello, limits.PROBE_S)

    def stalled(self, silence_s: float) -> VecError:
        return stalled_error(peer_pid(self._socket), silence_s)

    def close(self) -> None:
        self._socket.close()
