"""What all connections together may hold in memory: frames on their way, requests, answers.

Three budgets, all in bytes:
- `incoming`: room for frames that have announced themselves and are not complete. A large frame gets its room before
  it is read on, first come, first served; small ones need none.
- `backlog`: requests that are decoded and have no answer yet, at what they take as objects. Large frames are decoded on
  one thread, one after the other, and only while the backlog has room: it is exceeded by one request at most.
- `unread`: answers that wait in send buffers. An answer is made only while there is room, and only a few at once. When
  peers that do not read have filled it, the one that holds most is ended.

Everything here lives on the event loop, but for the decoding itself.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, NamedTuple

from .. import limits
from ..errors import Code, VecError
from ..wire.messages import Request, decode_request, request_id

if TYPE_CHECKING:
    from .session import Session

log = logging.getLogger("vecd.session")


class Undecoded(NamedTuple):
    """Why a frame is no request, or too large a one; of that, the id to answer, if it has one."""

    error: VecError
    id: int | None = None


#: A request and the bytes that it takes; or why it is none.
Decoded = tuple[Request, int] | Undecoded


class Budget:
    """The listener has one."""

    def __init__(self, backlog_shrunk: Callable[[], None], crowded: Callable[[], None]) -> None:
        """`backlog_shrunk` is called when the backlog has room again, `crowded` when too much is unread."""
        self.backlog_bytes = 0
        self.incoming_bytes = 0
        self.unread_bytes = 0
        self._backlog_shrunk = backlog_shrunk
        self._crowded = crowded
        self._uncrowded = asyncio.Event()
        self._uncrowded.set()
        self._arriving: deque[tuple[Session, int]] = deque()  # frames that wait for room
        self._frames: deque[tuple[Session, bytes]] = deque()  # that wait to be decoded
        self._decoding = False
        self._decoder = ThreadPoolExecutor(1, "vecd-decode")
        self._making = asyncio.Semaphore(limits.ANSWERS_AT_ONCE)

    def close(self) -> None:
        self._decoder.shutdown(wait=False, cancel_futures=True)

    # --- frames on their way ----------------------------------------------------------------------------------------

    def admit_frame(self, session: Session, size: int) -> bool:
        """Takes room for a frame. False: there is none yet; the session is told by `room_for_frame`."""
        if self._arriving or self.incoming_bytes + size > limits.INCOMING_BYTES_MAX:
            self._arriving.append((session, size))
            return False
        self.incoming_bytes += size
        return True

    def frame_done(self, size: int) -> None:
        """So much room is given back."""
        self.incoming_bytes -= size
        self._admit_waiting()

    def _admit_waiting(self) -> None:
        while self._arriving and self.incoming_bytes + self._arriving[0][1] <= limits.INCOMING_BYTES_MAX:
            session, wanted = self._arriving.popleft()
            self.incoming_bytes += wanted
            session.room_for_frame(wanted)

    @property
    def frames_wait(self) -> bool:
        """Whether frames wait for the room that others hold."""
        return bool(self._arriving)

    def forget(self, session: Session) -> None:
        """The session takes no more."""
        self._arriving = deque(each for each in self._arriving if each[0] is not session)
        self._frames = deque(each for each in self._frames if each[0] is not session)
        self._admit_waiting()  # those behind it may need less room

    # --- requests ---------------------------------------------------------------------------------------------------

    @property
    def backlog_full(self) -> bool:
        return self.backlog_bytes >= limits.BACKLOG_BYTES_MAX

    def taken(self, size: int) -> None:
        """A request of so many bytes waits for its answer."""
        self.backlog_bytes += size

    def answered(self, size: int) -> None:
        """It is answered; if that lets the daemon take more, the others are told."""
        full = self.backlog_full
        self.backlog_bytes -= size
        if full and not self.backlog_full:
            self._decode_next()
            self._backlog_shrunk()

    def decode(self, session: Session, payload: bytes) -> None:
        """Has a large frame decoded off the event loop; the session is told by `decoded`."""
        self._frames.append((session, payload))
        self._decode_next()

    def _decode_next(self) -> None:
        if self._decoding or not self._frames or self.backlog_full:
            return
        session, payload = self._frames.popleft()
        self._decoding = True
        loop = asyncio.get_running_loop()

        def done(future: Future[Decoded]) -> None:
            if not future.cancelled() and not loop.is_closed():
                loop.call_soon_threadsafe(self._decoded, session, future.result())

        self._decoder.submit(decode_at_once, payload).add_done_callback(done)

    def _decoded(self, session: Session, found: Decoded) -> None:
        self._decoding = False
        session.decoded(found)
        self._decode_next()

    # --- answers ----------------------------------------------------------------------------------------------------

    def unread(self, change: int) -> None:
        """Send buffers have grown by so many bytes, or shrunk."""
        self.unread_bytes += change
        if self.unread_bytes <= limits.UNREAD_BYTES_MAX:
            self._uncrowded.set()
        elif self._uncrowded.is_set():
            self._uncrowded.clear()
            self._crowded()

    async def uncrowded(self) -> None:
        """Waits until not too much is unread."""
        await self._uncrowded.wait()

    async def begin_answer(self) -> None:
        """Waits until one more answer may be made. `end_answer` when it has been sent, or will not be."""
        await self._making.acquire()

    def end_answer(self) -> None:
        self._making.release()


def decode_at_once(payload: bytes) -> Decoded:
    """A request, or what is wrong with it. Never raises: the frames behind it wait."""
    try:
        return decode_request(payload)
    except VecError as error:
        return Undecoded(error, request_id(payload) if error.code == Code.TOO_LARGE else None)
    except Exception as error:  # no memory, for instance
        log.error("a frame cannot be decoded", exc_info=error, extra={"bytes": len(payload)})
        return Undecoded(VecError(Code.INTERNAL, f"a frame cannot be decoded: {type(error).__name__}"))
