"""Frames: a 4-byte big-endian length, then that many bytes.

Rule: a length is checked against the limit before a byte of its frame is kept. After an error the stream has no known
boundary any more, so a decoder that has raised once refuses to go on.
"""

from __future__ import annotations

import struct

from .. import limits
from ..errors import Code, VecError

_HEADER = struct.Struct(">I")


def frame_header(length: int, frame_bytes_max: int = limits.FRAME_BYTES_MAX) -> bytes:
    """What goes before so many bytes. Raises VecError `frame_too_large`; the peer would refuse them."""
    if length > frame_bytes_max:
        raise VecError(
            Code.FRAME_TOO_LARGE,
            f"a message of {length:,} bytes is over the limit of {frame_bytes_max:,}",
            "send fewer documents at once",
        )
    return _HEADER.pack(length)


def encode_frame(payload: bytes, frame_bytes_max: int = limits.FRAME_BYTES_MAX) -> bytes:
    """The payload with its length in front. Raises VecError `frame_too_large`."""
    return frame_header(len(payload), frame_bytes_max) + payload


class FrameDecoder:
    """Cuts a stream of bytes, arriving in any pieces, into the payloads of its frames."""

    def __init__(self, frame_bytes_max: int = limits.FRAME_BYTES_MAX) -> None:
        self._frame_bytes_max = frame_bytes_max
        self._buffer = bytearray()
        self._broken = False

    @property
    def pending_bytes(self) -> int:
        """Bytes of a frame that has begun and is not complete."""
        return len(self._buffer)

    @property
    def announced_bytes(self) -> int:
        """How long the frame will be that has begun and is not complete; 0 if none has, or its length is not known."""
        if len(self._buffer) < _HEADER.size:
            return 0
        length: int = _HEADER.unpack_from(self._buffer)[0]
        return length

    def feed(self, data: bytes | memoryview) -> list[bytes]:
        """Takes the next bytes; returns the payloads they completed, in order.

        Raises VecError `frame_too_large` when a header announces more than the limit; frames that were complete
        before that header are lost with the connection.
        """
        if self._broken:
            raise VecError(Code.PROTOCOL_ERROR, "the stream cannot be decoded after an earlier error")
        buffer = self._buffer
        buffer += data
        frames: list[bytes] = []
        start = 0
        while len(buffer) - start >= 4:
            (length,) = _HEADER.unpack_from(buffer, start)
            if length > self._frame_bytes_max:
                self._broken = True
                buffer.clear()
                raise VecError(
                    Code.FRAME_TOO_LARGE,
                    f"a frame has {length:,} bytes; the limit is {self._frame_bytes_max:,}",
                    "send fewer documents at once, or check that the peer speaks this protocol",
                )
            if len(buffer) - start - 4 < length:
                break
            with memoryview(buffer) as view:
                frames.append(bytes(view[start + 4 : start + 4 + length]))
            start += 4 + length
        if start:
            del buffer[:start]
        return frames

    def eof(self) -> None:
        """The stream has ended. Raises VecError `protocol_error` if it ended inside a frame."""
        if self._buffer:
            raise VecError(
                Code.PROTOCOL_ERROR, f"the stream ended inside a frame, {len(self._buffer)} bytes after its beginning"
            )
