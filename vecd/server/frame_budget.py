"""FrameBudget: how much memory incoming frames of all connections together may hold, and the decoding of large ones.

- `incoming`, in bytes: room for large frames that have announced themselves and are not complete. A large frame gets
  its room before it is read on, first come, first served; small ones need none.
- Large frames are decoded on one thread, one after the other, and only while the service's backlog has room: it is
  exceeded by one request at most.

Everything here lives on the event loop, but for the decoding itself.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple, Protocol

from .. import limits
from ..errors import Code, VecError
from ..ops.budget import Budget
from ..wire.messages import Request, decode_request, request_id

log = logging.getLogger("vecd.session")


class Undecoded(NamedTuple):
    """Why a frame is not a valid request; `id` is the request's number, if it could be read."""

    error: VecError
    id: int | None = None


#: A request and the bytes that it takes; or why it is none.
Decoded = tuple[Request, int] | Undecoded


class Receiver(Protocol):
    """Whose frames arrive: a session."""

    def room_for_frame(self, size: int) -> None:
        """The frame that waited for room has it."""

    def decoded(self, found: Decoded) -> None:
        """The frame that was given to `decode` is decoded."""


class FrameBudget:
    """The listener has one."""

    def __init__(self, budget: Budget) -> None:
        self.incoming_bytes = 0
        self._budget = budget
        self._arriving: deque[tuple[Receiver, int]] = deque()  # frames that wait for room
        self._frames: deque[tuple[Receiver, bytes]] = deque()  # that wait to be decoded
        self._decoding = False
        self._decoder = ThreadPoolExecutor(1, "vecd-decode")

    def close(self) -> None:
        self._decoder.shutdown(wait=False, cancel_futures=True)

    def admit(self, receiver: Receiver, size: int) -> bool:
        """Takes room for a frame. False: there is none yet; `room_for_frame` of the receiver is called when there
        is."""
        if self._arriving or self.incoming_bytes + size > limits.INCOMING_BYTES_MAX:
            self._arriving.append((receiver, size))
            return False
        self.incoming_bytes += size
        return True

    def free(self, size: int) -> None:
        """Gives room back."""
        self.incoming_bytes -= size
        self._admit_waiting()

    def _admit_waiting(self) -> None:
        while self._arriving and self.incoming_bytes + self._arriving[0][1] <= limits.INCOMING_BYTES_MAX:
            receiver, wanted = self._arriving.popleft()
            self.incoming_bytes += wanted
            receiver.room_for_frame(wanted)

    @property
    def frames_wait(self) -> bool:
        """Whether frames wait for the room that others hold."""
        return bool(self._arriving)

    def forget(self, receiver: Receiver) -> None:
        """Forgets the receiver's frames that wait."""
        self._arriving = deque(each for each in self._arriving if each[0] is not receiver)
        self._frames = deque(each for each in self._frames if each[0] is not receiver)
        self._admit_waiting()  # those behind it may need less room

    def decode(self, receiver: Receiver, payload: bytes) -> None:
        """Decodes a large frame off the event loop, when the backlog has room; `decoded` of the receiver is called."""
        self._frames.append((receiver, payload))
        self.decode_next()

    def decode_next(self) -> None:
        """Goes on with the frames that wait, if the backlog has room."""
        if self._decoding or not self._frames or self._budget.backlog_full:
            return
        receiver, payload = self._frames.popleft()
        self._decoding = True
        loop = asyncio.get_running_loop()

        def done(future: Future[Decoded]) -> None:
            if not future.cancelled() and not loop.is_closed():
                loop.call_soon_threadsafe(self._decoded, receiver, future.result())

        self._decoder.submit(decode_at_once, payload).add_done_callback(done)

    def _decoded(self, receiver: Receiver, found: Decoded) -> None:
        self._decoding = False
        receiver.decoded(found)
        self.decode_next()


def decode_at_once(payload: bytes) -> Decoded:
    """A request, or what is wrong with it. Never raises: the frames behind it wait."""
    try:
        return decode_request(payload)
    except VecError as error:
        return Undecoded(error, request_id(payload) if error.code != Code.PROTOCOL_ERROR else None)
    except Exception as error:  # no memory, for instance
        log.error("a frame cannot be decoded", exc_info=error, extra={"bytes": len(payload)})
        return Undecoded(VecError(Code.INTERNAL, f"a frame cannot be decoded: {type(error).__name__}"))
