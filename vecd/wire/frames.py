"""Framing of a byte stream: a 4-byte big-endian length, then that many bytes.

Rule: a length is checked against the limit before any byte of its frame is stored. After an error the frame boundaries
are lost, so a decoder that has raised an error accepts no more input.
"""

from __future__ import annotations

import struct

from .. import limits
from ..errors import Code, VecError

_HEADER = struct.Struct(">I")


def frame_header(length: int, frame_bytes_max: int = limits.FRAME_BYTES_MAX) -> bytes:
    """The header of a frame of `length` bytes. Raises VecError `frame_too_large` if the peer would refuse the frame."""
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
    """Decodes a byte stream, fed in pieces of any size, into the payloads of its frames."""

    def __init__(self, frame_bytes_max: int = limits.FRAME_BYTES_MAX) -> None:
        self._frame_bytes_max = frame_bytes_max
        self._buffer = bytearray()
        self._broken = False

    @property
    def pending_bytes(self) -> int:
        """Bytes received of an incomplete frame."""
        return len(self._buffer)

    @property
    def announced_bytes(self) -> int:
        """The length of the incomplete frame; 0 if there is none, or its length is not known yet."""
        if len(self._buffer) < _HEADER.size:
            return 0
        length: int = _HEADER.unpack_from(self._buffer)[0]
        return length

    def feed(self, data: bytes | memoryview) -> list[bytes]:
        """Takes the next bytes; returns the payloads that they complete, in order.

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
        """Signals the end of the stream. Raises VecError `protocol_error` if it ends inside a frame."""
        if self._buffer:
            raise VecError(
                Code.PROTOCOL_ERROR, f"the stream ended inside a frame, {len(self._buffer)} bytes after its beginning"
            )
