"""Corrects what noida-db says of transactions that were rolled back, on the way to a client.

In Kafka, a reply to Fetch names the transactions in its range that were rolled back, and a client drops the messages of
their producers, each up to the mark of its roll-back. This server names all since the beginning of the partition. Where
a reply begins behind a mark, the client drops all that the producer has committed since. The server itself leaves out
what was rolled back, so the client needs no names: their first offsets are moved to infinity.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Final

_FETCH: Final = 1  # the API's key
#: The first version with compact lists. Older ones are passed on as they are: librdkafka does not use them here.
_COMPACT: Final = 12
_TOPIC_IDS: Final = 13  # instead of names, since this version
_INFINITY: Final = struct.pack(">q", 2**63 - 1)


class FetchReplies:
    """Both directions of one connection."""

    def __init__(self) -> None:
        self._requests = bytearray()
        self._replies = bytearray()
        self._versions: dict[int, int] = {}  # of the open requests to fetch, by their numbers

    def request(self, data: bytes) -> None:
        self._requests += data
        for frame in _frames(self._requests):
            api, version, number = struct.unpack_from(">hhi", frame, 4)
            if api == _FETCH and version >= _COMPACT:
                self._versions[number] = version

    def reply(self, data: bytes) -> bytes:
        """Whole replies, as soon as they are there. No data: the end of the connection, and the rest."""
        self._replies += data
        found = b""
        for frame in _frames(self._replies):
            (number,) = struct.unpack_from(">i", frame, 4)
            if (version := self._versions.pop(number, None)) is not None:
                _correct(frame, version)
            found += frame
        if not data:
            found += self._replies
        return found


def _frames(received: bytearray) -> Iterator[bytearray]:
    """Takes the whole ones away: a size of 4 bytes, and that many bytes."""
    while len(received) >= 4:
        end = 4 + int.from_bytes(received[:4], "big")
        if len(received) < end:
            return
        frame = received[:end]
        del received[:end]
        yield frame


def _correct(frame: bytearray, version: int) -> None:
    """FetchResponse in https://kafka.apache.org/protocol#The_Messages_Fetch."""
    reply = _Reply(frame, 4 + 4)
    reply.skip_tags()
    reply.skip(4 + 2 + 4)  # throttle time, error, session
    for _ in range(reply.count()):
        reply.skip(16 if version >= _TOPIC_IDS else reply.count())
        for _ in range(reply.count()):
            reply.skip(4 + 2 + 3 * 8)  # partition, error, three offsets
            for _ in range(reply.count()):
                frame[reply.place + 8 : reply.place + 16] = _INFINITY  # behind the producer's id
                reply.skip(16)
                reply.skip_tags()
            reply.skip(4)  # preferred replica
            reply.skip(reply.count())  # the records
            reply.skip_tags()
        reply.skip_tags()


class _Reply:
    """A place in a message."""

    def __init__(self, frame: bytearray, place: int) -> None:
        self._frame = frame
        self.place = place

    def _number(self) -> int:
        """An unsigned varint."""
        value = shift = 0
        while True:
            byte = self._frame[self.place]
            self.place += 1
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return value

    def skip(self, size: int) -> None:
        self.place += size

    def count(self) -> int:
        """Of elements, or of bytes. Null counts as none."""
        return max(0, self._number() - 1)

    def skip_tags(self) -> None:
        for _ in range(self._number()):
            self._number()
            self.skip(self._number())
