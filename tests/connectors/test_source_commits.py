"""How a source commits: what is in flight, what is sent again, and in which order; with answers that a test chooses."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pytest

from vecd import limits
from vecd.connectors.decoding import Decoder
from vecd.connectors.definition import SourceDefinition
from vecd.connectors.messages import InMessage
from vecd.connectors.source import Source, _Session
from vecd.connectors.source_batches import SourceBatch, batches, letter_of, message_of
from vecd.connectors.status import Status
from vecd.errors import Code, VecError

Commit = dict[str, Any]
OK = {"added": 1, "refused": []}


class Pending:
    ready = True

    def __init__(self, answer: Any) -> None:
        self._answer = answer

    def result(self) -> Any:
        if isinstance(self._answer, Exception):
            raise self._answer
        return self._answer


class Client:
    """Stores what a daemon would: offsets, documents, dead letters. `answers` are given instead, while there are any;
    None lets the daemon's own answer pass."""

    def __init__(self, *answers: Any) -> None:
        self.answers = deque(answers)
        self.commits: list[Commit] = []
        self.offsets: dict[str, str] = {}
        self.documents: list[str] = []
        self.letters: list[Mapping[str, Any]] = []

    def commit_source(self, name: str, generation: int, **commit: Any) -> Pending:
        self.commits.append(commit)
        answer = self.answers.popleft() if self.answers else None
        if isinstance(answer, VecError) and answer.code == Code.FRAME_TOO_LARGE:
            raise answer
        if answer is not None:
            return Pending(answer)
        if any(self.offsets.get(partition) != offset for partition, offset in commit["expected"].items()):
            return Pending(VecError(Code.LEASE_LOST, "other offsets"))
        self.offsets |= commit["offsets"]
        self.documents += [each["id"] for each in commit["documents"]]
        self.letters += commit["dead_letters"]
        return Pending(OK)

    def source_dead_letters(self, *_: Any, **__: Any) -> Sequence[Any]:
        return ()


class Reader:
    """Gives each list of messages once, and then asks the source to stop."""

    def __init__(self, stop: threading.Event, *reads: Sequence[InMessage]) -> None:
        self._stop = stop
        self._reads = deque(reads)
        self.committed_offsets: list[dict[str, str]] = []
        self.pauses = 0
        self.counts: list[int] = []

    def read(self, count_max: int, wait_s: float) -> Sequence[InMessage]:
        self.counts.append(count_max)
        if not self._reads:
            self._stop.set()
            return ()
        return self._reads.popleft()

    def committed(self, offsets: Mapping[str, str]) -> None:
        self.committed_offsets.append(dict(offsets))

    def lag(self) -> int | None:
        return 0

    def pause(self) -> None:
        self.pauses += 1

    def close(self) -> None:
        pass


def message(its_id: str, offset: int, partition: str = "0") -> InMessage:
    return InMessage(partition, str(offset), b'{"id":"%s","text":"x"}' % its_id.encode())


def run(client: Client, *reads: Sequence[InMessage]) -> tuple[Reader, Status]:
    stop: Any = threading.Event()
    status = Status()
    definition = SourceDefinition(name="in", url="file:///x", library="default")
    source = Source(definition, lambda: pytest.fail("no new connection"), status, stop)
    reader = Reader(stop, *reads)
    session: Callable[..., Any] = _Session
    session(source, definition, client, reader, Decoder({}), {}, status, stop).run()
    return reader, status


def test_the_offsets_of_each_commit_follow_those_of_the_one_before() -> None:
    client = Client()
    reader, status = run(client, [message("a", 1), message("b", 2)], [message("c", 3)], [message("d", 1, "1")])
    assert [each["expected"] for each in client.commits] == [{"0": None}, {"0": "2"}, {"1": None}]
    assert (client.documents, client.offsets) == (["a", "b", "c", "d"], {"0": "3", "1": "1"})
    assert reader.committed_offsets == [{"0": "2"}, {"0": "3"}, {"1": "1"}]
    assert status.report()["delivered"] == 4


def test_refused_documents_become_dead_letters_and_all_in_flight_is_sent_again_in_order() -> None:
    refusal = {"refused": [{"index": 1, "code": Code.INVALID_DOCUMENT, "message": "no"}]}
    client = Client(refusal)
    reader, _ = run(client, [message("a", 1), message("bad", 2), message("c", 3)], [message("d", 4)])
    assert client.documents == ["a", "c", "d"]
    assert [(each["position"], each["code"], each["reason"]) for each in client.letters] == [
        ("0@2", Code.INVALID_DOCUMENT, "no")
    ]
    assert reader.committed_offsets == [{"0": "3"}, {"0": "4"}]


def test_a_commit_of_another_partition_that_passes_a_refused_one_is_not_sent_twice() -> None:
    refusal = {"refused": [{"index": 0, "code": Code.INVALID_DOCUMENT, "message": "no"}]}
    client = Client(refusal)
    reader, _ = run(client, [message("bad", 1)], [message("d", 7, "1")])
    assert (client.documents, client.offsets) == (["d"], {"0": "1", "1": "7"})
    assert len(client.commits) == 3
    assert reader.committed_offsets == [{"0": "1"}, {"1": "7"}]


@pytest.mark.parametrize("code", [Code.BUSY, Code.DISK_FULL, Code.EMBEDDER_FAILED, Code.NOT_FOUND])
def test_the_reader_is_paused_while_the_daemon_takes_nothing(code: str) -> None:
    client = Client(VecError(code, "not now"), None, VecError(code, "not now"))
    reader, status = run(client, [message("a", 1)], [message("b", 2)])
    assert client.documents == ["a", "b"]
    assert reader.pauses >= 2
    shown = status.report()
    assert (shown["state"], shown["error"]["message"], shown["delivered"]) == (
        "failing",
        "not now",
        2,
    )  # until it has worked for a while


@pytest.mark.parametrize("code", [Code.CONNECTION_LOST, Code.LEASE_LOST, Code.SHUTTING_DOWN])
def test_other_errors_end_the_session(code: str) -> None:
    with pytest.raises(VecError) as caught:
        run(Client(VecError(code, "gone")), [message("a", 1)])
    assert caught.value.code == code


def test_a_document_that_fits_no_frame_becomes_a_dead_letter() -> None:
    client = Client(VecError(Code.FRAME_TOO_LARGE, "too large"))
    run(client, [message("a", 1), message("the-largest", 2), message("c", 3)])
    assert client.documents == ["a", "c"]
    assert [(each["position"], each["code"]) for each in client.letters] == [("0@2", Code.TOO_LARGE)]


def test_a_read_takes_fewer_messages_after_large_ones() -> None:
    small = [message("a", 1)]
    large = [InMessage("0", "2", b'{"id":"b","text":"%s"}' % (b"x" * (limits.SOURCE_READ_BYTES // 4)))]
    reader, _ = run(Client(), small, small, small, small, large, small)
    assert reader.counts == [64, 128, 256, 512, 512, 3, 6]


# --- batches --------------------------------------------------------------------------------------------------------


def test_batches_are_bounded_by_messages_bytes_and_dead_letters() -> None:
    def sizes(found: Sequence[InMessage]) -> list[int]:
        return [each.messages for each in batches(found, Decoder({}))]

    assert sizes([message("a", number) for number in range(limits.SOURCE_BATCH_MESSAGES + 1)]) == [
        limits.SOURCE_BATCH_MESSAGES,
        1,
    ]
    large = b'{"id":"a","text":"%s"}' % (b"x" * (limits.SOURCE_BATCH_BYTES // 2))
    assert sizes([InMessage("0", str(number), large) for number in range(3)]) == [1, 1, 1]
    assert sizes([InMessage("0", str(number), b"{") for number in range(limits.DEAD_LETTERS_PAGE + 1)]) == [
        limits.DEAD_LETTERS_PAGE,
        1,
    ]


def test_a_message_that_means_nothing_moves_the_offset() -> None:
    (batch,) = batches([InMessage("0", "5", b'{"type":"job.started","data":{}}')], Decoder({}))
    assert (batch.offsets, batch.documents, batch.letters, batch.messages) == ({"0": "5"}, [], [], 1)


@pytest.mark.parametrize("key", [None, b"k", "ü".encode()])
def test_a_message_survives_as_a_dead_letter(key: bytes | None) -> None:
    given = InMessage("p", "9", b"{", key, {"h": "1"})
    letter = letter_of(given, VecError(Code.INVALID_DOCUMENT, "why", "what to do"))
    assert (letter["position"], letter["reason"]) == ("p@9", "why; what to do")
    again = message_of(letter)
    assert (again.partition, again.offset, again.body, again.key, again.headers) == ("p", "9", b"{", key, {"h": "1"})


def test_a_very_long_message_is_not_kept() -> None:
    letter = letter_of(InMessage("", "9", b"x" * (limits.DEAD_LETTER_BYTES_MAX + 1)), VecError(Code.TOO_LARGE, "why"))
    assert (letter["body"], letter["about"]["omitted"]) == (b"", limits.DEAD_LETTER_BYTES_MAX + 1)


def test_refused_documents_leave_a_batch_with_their_messages() -> None:
    batch = SourceBatch()
    for number, its_id in enumerate("abc"):
        batch.add(message(its_id, number), Decoder({}))
    batch.refuse([(0, VecError(Code.INVALID_DOCUMENT, "x")), (2, VecError(Code.INVALID_DOCUMENT, "y"))])
    assert [each["id"] for each in batch.documents] == ["b"]
    assert [each.offset for each in batch.sources] == ["1"]
    assert [each["position"] for each in batch.letters] == ["0@0", "0@2"]
