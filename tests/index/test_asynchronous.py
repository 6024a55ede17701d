"""A structure that lives elsewhere: its searches are answered through futures, by another thread, in their own time."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from tests.index.toy import Toy
from tests.support.index_source import WAIT_S, Driven, MemorySource
from vecd.errors import Code, VecError
from vecd.index import kinds
from vecd.index.policy import Tuning
from vecd.index.requests import SearchOptions
from vecd.index.rows import Floats
from vecd.index.structure import Spec

ROWS: Floats = np.arange(16, dtype=np.float32).reshape(8, 2)
QUERY = np.array([7, 8], np.float32)


@pytest.fixture
def driven(monkeypatch: pytest.MonkeyPatch) -> Iterator[Driven]:
    """Over a toy structure of eight rows (labels 1 to 8), and an empty tail."""
    monkeypatch.setitem(kinds.MODULES, "toy", "tests.index.toy")
    monkeypatch.setattr(Toy, "made", [])
    source = MemorySource(Spec(2, "l2", "toy", kinds.checked("toy", "l2", {})))
    driven = Driven(source, Tuning(rows_min=4))
    driven.write(ROWS)
    assert driven.settle()["structure"] == 8
    yield driven
    for each in Toy.made:
        each.open.set()
    driven.stop()


def toy() -> Toy:
    (made,) = Toy.made
    return made


def test_a_search_is_answered_by_the_other_thread_with_the_tail_merged_in(driven: Driven) -> None:
    toy().open.clear()  # nothing drains while a search is out, so the new row stays in the tail
    (added,) = driven.write([[7, 8.5]])
    found = driven.live.search(QUERY, SearchOptions(3))
    toy().open.set()
    scores, labels = found.result(WAIT_S)
    assert labels.tolist() == [added, 4, 5]
    np.testing.assert_allclose(scores, [-0.5, -np.sqrt(2), -np.sqrt(2)], rtol=1e-6)
    assert toy().threads


def test_turns_go_on_while_a_search_is_out_and_it_is_answered_as_of_the_moment_it_was_asked(driven: Driven) -> None:
    toy().open.clear()
    asked = driven.live.ask(QUERY, None, SearchOptions(1, exact=True))
    assert driven.live.labels().result(WAIT_S).tolist() == list(range(1, 9))  # the turn that asked has ended
    (added,) = driven.write([[7, 8]], removed=[4])
    assert driven.live.labels().result(WAIT_S).tolist() == [1, 2, 3, 5, 6, 7, 8, added]
    assert not asked.done()
    toy().open.set()
    answer = asked.result(WAIT_S)
    assert answer.seq == 1
    assert answer.near is not None
    assert answer.near.labels.tolist() == [4]
    after = driven.live.ask(QUERY, None, SearchOptions(1)).result(WAIT_S)
    assert after.near is not None
    assert (after.seq, after.near.labels.tolist()) == (2, [added])


def test_searches_of_one_turn_are_one_batch_and_each_gets_its_own_hits(driven: Driven) -> None:
    answers = driven.together([(row, SearchOptions(1)) for row in ROWS])
    assert [labels.tolist() for _, labels in answers] == [[label] for label in range(1, 9)]
    assert toy().searches.count((8, 1)) == 1


def test_a_search_by_document_asks_for_more_hits_until_it_has_enough_documents(driven: Driven) -> None:
    source = MemorySource(driven.source.spec)
    other = Driven(source, Tuning(rows_min=4))
    other.live.begin_empty(0)  # what it loads instead has one chunk a document
    try:
        write = source.commit(ROWS)
        write.firsts = np.array([1, 8])  # two documents: of seven chunks and of one
        other.live.write(write)
        other.settle()
        asked = other.live.ask(ROWS[0], None, SearchOptions(2, by_document=True))
        near = asked.result(WAIT_S).near
        assert near is not None
        assert (near.labels.tolist(), near.documents.tolist()) == ([1, 8], [1, 8])
        assert Toy.made[-1].searches[0] == (1, 2)
        assert (1, 8) in Toy.made[-1].searches
    finally:
        other.stop()


def test_a_structure_that_fails_to_answer_fails_these_searches_only(driven: Driven) -> None:
    toy().error = VecError(Code.BUSY, "the other thread is busy")
    with pytest.raises(VecError, match="the other thread is busy"):
        driven.live.search(QUERY, SearchOptions(1)).result(WAIT_S)
    toy().error = None
    assert driven.live.ready
    assert driven.failed == []
    assert driven.search(QUERY, 1)[1].tolist() == [4]


def test_a_search_that_is_out_when_the_index_fails_is_failed_with_it(driven: Driven) -> None:
    toy().open.clear()
    asked = driven.live.search(QUERY, SearchOptions(1))
    assert driven.live.labels().result(WAIT_S) is not None
    driven.live.write(driven.source.commit(np.zeros((1, 3), np.float32)))  # of a wrong dimension: a bug
    with pytest.raises(VecError) as failed:
        asked.result(WAIT_S)
    assert failed.value.code == Code.INDEX_FAILED
    assert driven.failed == [driven.live]


def test_its_recall_is_measured_without_a_turn_that_waits(driven: Driven) -> None:
    driven.search(QUERY, 2)
    driven.settle()
    report = driven.live.recall_report()
    assert report is not None
    assert (report["queries"], report["worst"]) == (1, 1.0)
