"""A source's reader for Kafka: all partitions of a topic, each from the offset that is stored with the documents.

The group has no members. The reader reads every partition itself, so a process that is killed is replaced at once, with
no session to wait for, and several daemons that read one topic each have all of it. The group is where the offsets are
shown to others, as a committed offset is: the next one to read. It is read back only where a source with
`start=latest` has begun and no message has come yet: what comes while its process is down is not lost.

Partitions that are added to the topic are found while the source runs. Transactions that were rolled back are not read.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Mapping, Sequence
from typing import Any, Final

from confluent_kafka import (
    OFFSET_BEGINNING,
    OFFSET_INVALID,
    Consumer,
    KafkaError,
    KafkaException,
    Message,
    TopicPartition,
)

from ..delivery import AttemptFailed
from ..errors import Code, VecError
from .kafka_client import LOOK_S, Connection
from .messages import InMessage
from .transport import Opening, SourceReader

#: KiB that the library fetches in advance.
_AHEAD_KIB: Final = 16 * 1024
#: Bytes of one message that the library takes; larger ones are fetched too, one at a time.
_FETCH_BYTES: Final = 4 * 1024 * 1024
#: How long a reader that is closed waits for the library, in seconds.
_CLOSE_S: Final = 2.0
#: How often added partitions are looked for, in seconds.
_PARTITIONS_S: Final = 30.0


class _KafkaReader:
    def __init__(self, opening: Opening, offsets: Mapping[str, str]) -> None:
        self._connection = Connection(opening)
        definition = opening.definition
        self._group = getattr(definition, "group", None) or f"vec.{opening.log_id}.{definition.name}"
        self._metadata = f"vec {definition.generation}"  # of our commits: those before a reset are not read back
        self._at_end = opening.parameters["start"] == "latest"
        self._offsets = dict(offsets)
        self._next: dict[int, int] = {}  # partition -> the offset behind what was read; negative: at the start
        self._assigned: set[int] = set()
        self._paused = False
        self._looked_at = 0.0
        self._refusal: KafkaError | None = None  # of a commit
        self._losses = 0
        self._lost_since: float | None = None
        with self._connection.errors("connecting"):
            self._consumer = Consumer(
                self._connection.configuration(
                    group_id=self._group,
                    isolation_level="read_committed",
                    enable_auto_commit=False,
                    enable_partition_eof=True,
                    auto_offset_reset="error",
                    on_commit=self._on_commit,
                    queued_max_messages_kbytes=_AHEAD_KIB,
                    fetch_message_max_bytes=_FETCH_BYTES,
                    fetch_wait_max_ms=100,
                    topic_metadata_refresh_interval_ms=int(_PARTITIONS_S * 1000),
                )
            )

    def open(self) -> None:
        """Raises AttemptFailed and VecError."""
        partitions = self._connection.find_topic(self._consumer)
        self._looked_at = time.monotonic()
        if self._at_end:
            self._begin_at_end([each for each in partitions if str(each) not in self._offsets])
        self._assign(partitions)

    def _begin_at_end(self, partitions: Sequence[int]) -> None:
        """Stores in the group where the source begins, or finds where it began."""
        what = f"the group {self._group!r}"
        timeout_s = self._connection.timeout_s
        with self._connection.errors(what):
            known = self._consumer.committed([self._place(each, OFFSET_INVALID) for each in partitions], timeout_s)
            for place in known:
                if place.offset >= 0 and place.metadata == self._metadata:
                    self._next[place.partition] = place.offset
            new = [each for each in partitions if each not in self._next]
            for each in new:
                self._next[each] = self._watermarks(each)[1]
            if new:
                places = [self._commit(each, self._next[each]) for each in new]
                self._consumer.commit(offsets=places, asynchronous=False)

    def _assign(self, partitions: Sequence[int]) -> None:
        """Begins to read those that are not read yet."""
        new = [each for each in partitions if each not in self._assigned]
        for each in new:
            stored = self._offsets.get(str(each))
            self._next.setdefault(each, OFFSET_BEGINNING if stored is None else int(stored) + 1)
        self._assigned.update(new)
        with self._connection.errors("reading"):
            self._consumer.incremental_assign([self._place(each, self._next[each]) for each in new])

    def _place(self, partition: int, offset: int) -> TopicPartition:
        return TopicPartition(self._connection.topic, partition, offset)

    def _commit(self, partition: int, offset: int) -> TopicPartition:
        return TopicPartition(self._connection.topic, partition, offset, self._metadata)

    # --- read -------------------------------------------------------------------------------------------------------

    def read(self, count_max: int, wait_s: float) -> Sequence[InMessage]:
        if self._paused:
            self._paused = False
            self._consumer.resume([self._place(each, OFFSET_INVALID) for each in self._next])
        if time.monotonic() - self._looked_at > _PARTITIONS_S:
            self._look_for_partitions()
        found: list[InMessage] = []
        with self._connection.errors("reading"):
            # `consume` waits until it has all: what comes first must not wait for the rest.
            first = self._consumer.poll(wait_s)
            if first is not None:
                self._take(first, found)
                for message in self._consumer.consume(max(1, count_max - 1), 0.0) if count_max > 1 else ():
                    self._take(message, found)
        if self._refusal is not None:
            error, self._refusal = self._refusal, None
            raise self._commit_failed(error)
        self._notice_losses(bool(first))
        return found

    def _take(self, message: Message, found: list[InMessage]) -> None:
        partition, offset = message.partition(), message.offset()
        if (error := message.error()) is not None:
            if error.code() == KafkaError._PARTITION_EOF:
                assert partition is not None
                assert offset is not None
                # Behind markers of transactions too, which are no messages.
                self._next[partition] = max(self._next[partition], offset)
                return
            if error.code() in (KafkaError._AUTO_OFFSET_RESET, KafkaError.OFFSET_OUT_OF_RANGE):
                raise self._out_of_range(partition)
            if not found:  # else it comes again
                raise KafkaException(error)
            return
        assert partition is not None
        assert offset is not None
        self._next[partition] = offset + 1
        found.append(
            InMessage(str(partition), str(offset), message.value() or b"", message.key(), _headers(message.headers()))
        )

    def _out_of_range(self, partition: int | None) -> VecError | AttemptFailed:
        """The messages behind the stored offset are no longer there."""
        wanted = self._next.get(partition or 0, 0)
        oldest, newest = self._watermarks(partition or 0)
        what = f"partition {partition} of the topic {self._connection.topic!r}"
        if wanted < oldest:
            lost = f"{oldest - wanted:,} messages ({wanted:,} to {oldest - 1:,}) were deleted before they were applied"
            return VecError(
                Code.COMPACTED, f"{what}: {lost}", "to go on without them: vec source reset NAME", oldest=str(oldest)
            )
        return VecError(
            Code.SETTINGS,
            f"{what} ends at {newest:,}, before the stored offset {wanted:,}: the topic was created again",
            "to read what it has now: vec source reset NAME",
        )

    def _watermarks(self, partition: int) -> tuple[int, int]:
        with self._connection.errors("asking for offsets"):
            place = self._place(partition, OFFSET_INVALID)
            oldest, newest = self._consumer.get_watermark_offsets(place, timeout=self._connection.timeout_s)
        return oldest, newest

    def _notice_losses(self, came: bool) -> None:
        """The library connects again by itself; what lasts is reported."""
        if came or self._connection.losses == self._losses:
            if came:
                self._losses, self._lost_since = self._connection.losses, None
            return
        now = time.monotonic()
        self._lost_since = self._lost_since or now
        if self._connection.hopeless or now - self._lost_since > self._connection.timeout_s:
            self._losses, self._lost_since = self._connection.losses, None
            self._connection.find_topic(self._consumer)  # raises what is wrong, if it still is

    def _look_for_partitions(self) -> None:
        self._looked_at = time.monotonic()
        with contextlib.suppress(KafkaException):  # another time
            topic = self._consumer.list_topics(self._connection.topic, timeout=LOOK_S).topics[self._connection.topic]
            self._assign(sorted(topic.partitions))  # all of an added partition is newer than this source

    # --- what others see ----------------------------------------------------------------------------------------------

    def committed(self, offsets: Mapping[str, str]) -> None:
        self._offsets.update(offsets)
        places = [self._commit(int(partition), int(offset) + 1) for partition, offset in offsets.items()]
        if places:
            with self._connection.errors(f"committing to the group {self._group!r}"):
                self._consumer.commit(offsets=places, asynchronous=True)

    def _on_commit(self, error: KafkaError | None, _: list[TopicPartition]) -> None:
        """During a poll. A commit that is lost does no harm: the next one says more."""
        if error is not None and error.code() in (
            KafkaError.UNKNOWN_MEMBER_ID, KafkaError.ILLEGAL_GENERATION, KafkaError.GROUP_AUTHORIZATION_FAILED,
            KafkaError.REBALANCE_IN_PROGRESS, KafkaError.INVALID_GROUP_ID,
        ):  # fmt: skip
            self._refusal = error

    def _commit_failed(self, error: KafkaError) -> VecError | AttemptFailed:
        if error.code() in (KafkaError.GROUP_AUTHORIZATION_FAILED, KafkaError.INVALID_GROUP_ID):
            return self._connection.failed(error, f"the group {self._group!r}")
        return VecError(
            Code.SETTINGS,
            f"the group {self._group!r} has members, which are other programs: offsets cannot be shown there",
            "use another group: remove the source, and add it with --group NAME",
        )

    def lag(self) -> int | None:
        total = 0
        for partition, position in self._next.items():
            try:
                place = self._place(partition, OFFSET_INVALID)
                oldest, newest = self._consumer.get_watermark_offsets(place, cached=True)
            except KafkaException:
                return None
            if newest < 0:  # nothing was fetched yet
                return None
            total += max(0, newest - max(position, oldest, 0))
        return total

    def pause(self) -> None:
        if not self._paused:
            self._paused = True
            self._consumer.pause([self._place(each, OFFSET_INVALID) for each in self._next])
        self._consumer.poll(0)

    def close(self) -> None:
        # The library waits for an open commit until it has an answer, or for ever: it is left to a thread then.
        closing = threading.Thread(target=self._close, name="kafka close", daemon=True)
        closing.start()
        closing.join(min(_CLOSE_S, self._connection.timeout_s))

    def _close(self) -> None:
        with contextlib.suppress(KafkaException, RuntimeError):
            self._consumer.close()


def _headers(headers: Any) -> dict[str, str]:
    return {name: (value or b"").decode("utf-8", "replace") for name, value in headers or ()}


def open_source(opening: Opening, offsets: Mapping[str, str]) -> SourceReader:
    reader = _KafkaReader(opening, offsets)
    try:
        reader.open()
    except BaseException:
        reader.close()
        raise
    return reader
