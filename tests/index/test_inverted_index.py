"""The inverted index answers as BM25 in its plainest form does, whatever happened to it before."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from vecd.index.fulltext import term_dictionary
from vecd.index.fulltext.inverted_index import Bm25Parameters, InvertedIndex, MergePlan, TermQuery
from vecd.index.fulltext.segments import Weights, prepare
from vecd.index.rows import Bools, Labels

Found = list[tuple[float, int]]
Row = tuple[Sequence[str] | None, Sequence[str] | None]  # title and text

_TERMS = ["a", "ab", "abc", "abd", "b", "ba", "c", "é", "", "\ud800", "zz"]


class Documents:
    """A selection: documents of three labels each, some of them let through."""

    def __init__(self, last_label: int, through: set[int], basis: object) -> None:
        self.basis = basis
        self.last_label = last_label
        self.mask: Bools = np.zeros(last_label // 3 + 2, np.bool_)
        self.mask[[each for each in through if each <= last_label // 3]] = True
        self.documents = int(self.mask.sum())

    def numbers(self, labels: Labels) -> np.ndarray[tuple[int], np.dtype[np.int32]]:
        return (labels // 3).astype(np.int32)

    def has(self, label: int) -> bool:
        return label <= self.last_label and bool(self.mask[label // 3])


class Model:
    """BM25 over a dict, one row at a time, in float32."""

    def __init__(self, ranking: Bm25Parameters) -> None:
        self.ranking = ranking
        self.rows: dict[int, Row] = {}
        self._counted: dict[int, tuple[Row, Counter[str], int]] = {}

    def counts(self, label: int) -> tuple[Counter[str], int]:
        row = self.rows[label]
        if label not in self._counted or self._counted[label][0] is not row:
            counts = self._count(*row)
            self._counted[label] = row, counts, sum(counts.values())
        return self._counted[label][1:]

    def _count(self, title: Sequence[str] | None, text: Sequence[str] | None) -> Counter[str]:
        weights, counts = self.ranking.weights, Counter[str]()
        for terms, weight in ((title or (), weights.title), (text or (), weights.text)):
            for term in terms:
                counts[term] += weight
        return counts

    def search(self, query: TermQuery, k: int, selection: Documents | None = None) -> Found:
        ranking, f = self.ranking, np.float32
        rows = {label: self.counts(label) for label in self.rows}
        required = {term for group in query.required for term in group}
        terms: dict[tuple[int, str], dict[int, int]] = {}  # of a word or a prefix: the count in each row
        for name in ((0, term) for term in required.union(query.words)):
            terms[name] = {label: min(255, counts[name[1]]) for label, (counts, _) in rows.items() if counts[name[1]]}
        living = Counter(term for counts, _ in rows.values() for term in counts)
        for prefix in query.prefixes:
            begin = sorted((-count, term) for term, count in living.items() if term.startswith(prefix))
            stands_for = {term for _, term in begin[:128]}
            its = {
                label: sum(min(255, count) for term, count in counts.items() if term in stands_for)
                for label, (counts, _) in rows.items()
            }
            terms[1, prefix] = {label: min(255, count) for label, count in its.items() if count}
        for together in query.units:
            its = {label: min(counts[term] for term in together) for label, (counts, _) in rows.items()}
            terms[2, "\0".join(together)] = {label: min(255, count) for label, count in its.items() if count}
        total = sum(length for _, length in rows.values())
        scores: dict[int, np.float32] = {}
        for _, (_, _, its) in sorted((len(its), (*name, its)) for name, its in terms.items() if its):
            idf = math.log1p((len(rows) - len(its) + 0.5) / (len(its) + 0.5))
            weight, unit = f((ranking.k1 + 1) * idf), ranking.weights.text
            for label, count in its.items():
                norm = f(rows[label][1]) * f(unit * ranking.k1 * ranking.b * len(rows) / total)
                norm += f(unit * ranking.k1 * (1 - ranking.b))
                scores[label] = scores.get(label, f(0)) + f(count) * weight / (f(count) + norm)
        found = [
            (float(score), label)
            for label, score in scores.items()
            if (selection is None or selection.has(label)) and required <= rows[label][0].keys()
        ]
        return sorted(found, key=lambda each: (-each[0], each[1]))[:k]


def found_by(index: InvertedIndex, query: TermQuery, k: int, selection: Documents | None = None) -> Found:
    scores, labels = index.search(query, k, selection)
    assert scores.dtype == np.float32
    assert labels.dtype == np.int64
    return list(zip(scores.tolist(), labels.tolist(), strict=True))


def add(index: InvertedIndex, labels: Sequence[int], rows: Sequence[Row]) -> None:
    batch = prepare([title for title, _ in rows], [text for _, text in rows], index.ranking.weights)
    index.add(np.array(labels, np.int64), batch)


def filled(rows: Sequence[Row], tail_postings: int = 1 << 14, ranking: Bm25Parameters | None = None) -> InvertedIndex:
    """An index of these rows, in batches of 50, merged as its owner does."""
    index = InvertedIndex(ranking, tail_postings, 4 * tail_postings)
    for start in range(0, len(rows), 50):
        add(index, range(start, min(len(rows), start + 50)), rows[start : start + 50])
    return index


def merged(index: InvertedIndex) -> int:
    """Does all merges that are due; how many those were."""
    count = 0
    while (plan := index.merge_due()) is not None:
        plan.run()
        index.adopt(plan)
        count += 1
    return count


def zipf_rows(count: int, words: int, seed: int = 7) -> list[Row]:
    random = np.random.default_rng(seed)
    return [
        (None if row % 3 else [f"t{each}" for each in random.zipf(1.4, 3)], [f"t{each}" for each in picks])
        for row, picks in enumerate(random.zipf(1.25, (count, words)).tolist())
    ]


# --- everything, in any order ---------------------------------------------------------------------------------------

_term_lists = st.none() | st.lists(st.sampled_from(_TERMS), max_size=5)
_rows = st.lists(st.tuples(_term_lists, _term_lists), max_size=12)
_queries = st.builds(
    TermQuery,
    st.lists(st.sampled_from([*_TERMS, "unknown"]), max_size=4),
    st.lists(st.lists(st.sampled_from([*_TERMS, "unknown"]), max_size=2), max_size=2),
    st.lists(st.sampled_from(["a", "ab", "b", "", "é", "x"]), max_size=2),
    st.lists(st.lists(st.sampled_from([*_TERMS, "unknown"]), min_size=1, max_size=3), max_size=2),
)


class Life(RuleBasedStateMachine):
    """An index and what it should say."""

    @initialize(
        weights=st.sampled_from([Weights(), Weights(1, 1), Weights(100, 60)]),
        b=st.sampled_from([0.0, 0.75, 0.99]),
        tail_postings=st.sampled_from([1, 10, 40]),
    )
    def begin(self, weights: Weights, b: float, tail_postings: int) -> None:
        self.ranking = Bm25Parameters(b=b, weights=weights)
        self.sizes = tail_postings, 3 * tail_postings
        self.index = InvertedIndex(self.ranking, *self.sizes)
        self.model = Model(self.ranking)
        self.next_label = 0
        self.plan: MergePlan | None = None
        self.basis = object()

    @rule(rows=_rows, gap=st.integers(0, 4))
    def add(self, rows: list[Row], gap: int) -> None:
        labels = range(self.next_label + gap, self.next_label + gap + len(rows))
        add(self.index, labels, rows)
        self.model.rows.update((label, row) for label, row in zip(labels, rows, strict=True) if row != (None, None))
        self.next_label = labels.stop

    @rule(data=st.data())
    def remove(self, data: st.DataObject) -> None:
        labels = data.draw(st.lists(st.integers(0, self.next_label + 2), max_size=8))
        self.index.remove(np.array(labels, np.int64))
        for label in labels:
            self.model.rows.pop(label, None)

    @rule(data=st.data())
    def keep_only(self, data: st.DataObject) -> None:
        labels = sorted(data.draw(st.sets(st.integers(0, self.next_label + 2), min_size=self.next_label // 2)))
        self.index.keep_only(np.array(labels, np.int64))
        self.model.rows = {label: row for label, row in self.model.rows.items() if label in labels}

    @precondition(lambda self: self.plan is None)
    @rule()
    def begin_a_merge(self) -> None:
        self.plan = self.index.merge_due()

    @precondition(lambda self: self.plan is not None)
    @rule()
    def run_the_merge(self) -> None:
        assert self.plan is not None
        self.plan.run()

    @precondition(lambda self: self.plan is not None)
    @rule()
    def end_the_merge(self) -> None:
        assert self.plan is not None
        assert self.index.merge_due() is None
        if self.plan.merged is None:
            self.index.discard(self.plan)
        else:
            self.index.adopt(self.plan)
        self.plan = None

    @rule()
    def restart(self) -> None:
        self.index = InvertedIndex.restore(self.index.arrays(), self.ranking)
        self.plan = None

    @rule(query=_queries, k=st.sampled_from([0, 1, 2, 5, 100]), data=st.data(), filtered=st.booleans())
    def search(self, query: TermQuery, k: int, data: st.DataObject, filtered: bool) -> None:
        selection = None
        if filtered:
            last = max(0, self.next_label - data.draw(st.integers(0, 5)))
            selection = Documents(last, data.draw(st.sets(st.integers(0, last // 3))), self.basis)
        assert found_by(self.index, query, k, selection) == self.model.search(query, k, selection)

    @invariant()
    def the_rows_are_right(self) -> None:
        if hasattr(self, "index"):
            assert self.index.alive.tolist() == sorted(self.model.rows)
            assert len(self.index) == len(self.model.rows)


TestLife = Life.TestCase
TestLife.settings = settings(
    max_examples=40, stateful_step_count=30, deadline=None, suppress_health_check=list(HealthCheck)
)


# --- ranking --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tail_postings", [64, 1_000, 1 << 20])
@pytest.mark.parametrize("k", [1, 100])
def test_common_and_rare_terms_give_exactly_the_best_rows(tail_postings: int, k: int) -> None:
    rows = zipf_rows(1_800, 9)
    index, model = filled(rows, tail_postings), Model(Bm25Parameters())
    model.rows = dict(enumerate(rows))
    gone = np.arange(0, 1_800, 7)
    index.remove(gone)
    for label in gone.tolist():
        del model.rows[label]
    random = np.random.default_rng(k)
    basis = object()
    for number in range(8):
        words = [f"t{each}" for each in random.zipf(1.3, int(random.integers(1, 9)))]
        share = [None, 0.9, 0.3, 0.01][number % 4]
        selection = None
        if share is not None:
            selection = Documents(1_790, set(np.flatnonzero(random.random(600) < share).tolist()), basis)
        assert found_by(index, TermQuery(words), k, selection) == model.search(TermQuery(words), k, selection)
        query = TermQuery(words[:1], [words[1:3]], ["t12"], [["t1", "t2"], ["t3", "t1", "t4"]])
        assert found_by(index, query, k, selection) == model.search(query, k, selection)


def test_scores_are_bm25_in_double_precision_but_for_rounding() -> None:
    rows = zipf_rows(400, 12)
    index = filled(rows)
    model = Model(Bm25Parameters())
    model.rows = dict(enumerate(rows))
    counts = {label: model.counts(label) for label in model.rows}
    average = sum(length for _, length in counts.values()) / len(counts)
    words = ["t1", "t2", "t5", "t40"]
    expected = {}
    for label, (its, length) in counts.items():
        score = 0.0
        for word in words:
            n = sum(each[word] > 0 for each, _ in counts.values())
            idf = math.log(1 + (len(counts) - n + 0.5) / (n + 0.5))
            score += idf * its[word] * 2.2 / (its[word] + 1.2 * (0.5 + 0.5 * length / average))
        expected[label] = score
    found = found_by(index, TermQuery(words), 400)
    assert len(found) > 300
    assert [score for score, _ in found] == pytest.approx([expected[label] for _, label in found], rel=1e-5)


def test_a_term_in_the_title_counts_for_more_than_one_in_the_text() -> None:
    rows: list[Row] = [(["x"], ["sheep", "hill"]), (["sheep"], ["x", "hill"]), (["x"], ["x", "hill"])]
    index = filled(rows)
    assert [label for _, label in found_by(index, TermQuery(["sheep"]), 3)] == [1, 0]
    even = filled(rows, ranking=Bm25Parameters(weights=Weights(1, 1)))
    (first, _), (second, _) = found_by(even, TermQuery(["sheep"]), 3)
    assert first == second


def test_equal_scores_are_ordered_by_label_also_where_k_cuts() -> None:
    rows: list[Row] = [(None, ["x", "y"])] * 500
    index = filled(rows, 64)
    assert [label for _, label in found_by(index, TermQuery(["x"]), 7)] == list(range(7))
    index.remove(np.arange(3))
    assert [label for _, label in found_by(index, TermQuery(["x", "y"]), 7)] == list(range(3, 10))


def test_the_order_and_repetition_of_words_do_not_matter() -> None:
    index = filled(zipf_rows(500, 8))
    once = found_by(index, TermQuery(["t1", "t3", "t9"]), 50)
    assert found_by(index, TermQuery(["t9", "t1", "t3", "t9", "t1"]), 50) == once


# --- what a query can say -------------------------------------------------------------------------------------------


def test_a_row_must_have_all_terms_of_all_required_groups() -> None:
    index = filled([(None, ["a", "b"]), (["a"], ["c"]), (["b"], ["a", "c"]), (None, ["c"])])
    assert {label for _, label in found_by(index, TermQuery((), [["a", "b"]]), 9)} == {0, 2}
    assert {label for _, label in found_by(index, TermQuery(["b"], [["a"], ["c"]]), 9)} == {1, 2}
    assert found_by(index, TermQuery(["a"], [["b", "unknown"]]), 9) == []
    index.remove(np.array([0, 2]))
    assert found_by(index, TermQuery(["a"], [["b"]]), 9) == []  # the term is still known, no living row has it


def test_a_prefix_stands_for_all_terms_that_begin_with_it() -> None:
    index = InvertedIndex()
    count = 3 * term_dictionary._RUN_TERMS_MIN + 17  # runs and a rest
    for start in range(0, count, 500):
        labels = range(start, min(count, start + 500))
        add(index, labels, [(None, [f"p{label}", "\U0010ffff"]) for label in labels])
    wanted = {label for label in range(count) if str(label).startswith("61")}
    assert {label for _, label in found_by(index, TermQuery(prefixes=["p61"]), count)} == wanted
    assert len(found_by(index, TermQuery(prefixes=["\U0010ffff"]), count)) == count
    assert found_by(index, TermQuery(prefixes=["q"]), count) == []


@pytest.mark.parametrize("tail_postings", [50, 400, 1 << 14])
def test_a_prefix_of_very_many_terms_stands_for_those_in_most_living_rows(tail_postings: int) -> None:
    random = np.random.default_rng(3)
    rows: list[Row] = [(None, [f"p{each}" for each in random.integers(0, 300, 6)]) for _ in range(700)]
    index, model = filled(rows, tail_postings), Model(Bm25Parameters())
    model.rows = dict(enumerate(rows))
    for gone in np.split(random.permutation(700)[:600], 4):
        index.remove(gone)
        for label in gone.tolist():
            del model.rows[label]
        query = TermQuery(prefixes=["p", "p1"])
        assert found_by(index, query, 1_000) == model.search(query, 1_000)
        assert 0 < len(found_by(index, query, 1_000)) <= len(model.rows)
    merged(index)
    assert found_by(index, query, 1_000) == model.search(query, 1_000)


def test_rows_without_text_are_left_out_and_rows_without_terms_are_counted() -> None:
    index = InvertedIndex()
    add(index, [3, 4, 5], [(None, None), (None, []), ([], ["x"])])
    assert index.alive.tolist() == [4, 5]
    assert found_by(index, TermQuery(["x"]), 5)[0][1] == 5
    add(index, [6], [(None, None)])
    assert len(index) == 2


@pytest.mark.parametrize("count", [254, 255, 256, 1_000])
def test_a_term_that_occurs_very_often_is_counted_up_to_255(count: int) -> None:
    rows: list[Row] = [(None, ["x"] * count), (None, ["x"] + ["y"] * (count - 1))]
    index, model = (
        filled(rows, ranking=Bm25Parameters(weights=Weights(1, 1))),
        Model(Bm25Parameters(weights=Weights(1, 1))),
    )
    model.rows = dict(enumerate(rows))
    assert found_by(index, TermQuery(["x"]), 5) == model.search(TermQuery(["x"]), 5)


# --- the answer does not depend on what happened before -------------------------------------------------------------


def test_answers_are_the_same_to_the_last_bit_in_every_layout() -> None:
    rows = zipf_rows(2_000, 10)
    gone = np.arange(5, 2_000, 3)
    left = np.setdiff1d(np.arange(2_000), gone)
    fresh = InvertedIndex()
    add(fresh, left.tolist(), [rows[label] for label in left.tolist()])
    masked, small, restored = filled(rows), filled(rows, 100), filled(rows, 3_000)
    for index in (masked, small, restored):
        index.remove(gone)
    compacted = filled(rows, 100)
    compacted.remove(gone)
    merged(compacted)
    assert compacted.dead < masked.dead
    assert small.segments > 1
    layouts = [masked, small, compacted, InvertedIndex.restore(restored.arrays())]
    for query in (
        TermQuery(["t1", "t2", "t7", "t90"]),
        TermQuery(["t3"], [["t1", "t2"]]),
        TermQuery(["t4"], (), ["t1"], [["t1", "t2"]]),
    ):
        expected = found_by(fresh, query, 100)
        assert len(expected) == 100
        for index in layouts:
            assert found_by(index, query, 100) == expected


def test_merges_leave_few_segments_and_drop_rows_that_are_gone() -> None:
    index, most, merges = InvertedIndex(None, 100, 300), 0, 0
    for start in range(0, 5_000, 20):
        add(index, range(start, start + 20), zipf_rows(20, 8, seed=start))
        merges += merged(index)
        most = max(most, index.segments)
    assert 3 <= most <= 6  # up to 40,000 postings, in segments from 100 on, each at least three times the next
    assert merges <= 125
    index.remove(np.arange(0, 5_000, 2))
    merged(index)
    assert index.dead <= 0.2 * 5_000
    index.remove(np.arange(5_000))
    merged(index)
    assert (index.segments, len(index)) == (0, 0)


def test_rows_that_come_and_go_during_a_merge_are_right_after_it() -> None:
    rows = zipf_rows(1_000, 8)
    index, model = filled(rows, 100), Model(Bm25Parameters())
    model.rows = dict(enumerate(rows))
    plan = index.merge_due()
    assert plan is not None
    index.remove(np.arange(0, 600, 2))
    more = zipf_rows(600, 8, seed=8)
    add(index, range(1_000, 1_600), more)
    plan.run()
    index.remove(np.arange(1_100, 1_200))
    index.adopt(plan)
    model.rows.update(enumerate(more, 1_000))
    model.rows = {label: row for label, row in model.rows.items() if not (label < 600 and label % 2 == 0)}
    model.rows = {label: row for label, row in model.rows.items() if not 1_100 <= label < 1_200}
    query = TermQuery(["t1", "t4", "t30"])
    assert found_by(index, query, 100) == model.search(query, 100)
    assert index.alive.tolist() == sorted(model.rows)


def test_a_frozen_index_does_not_change_with_what_comes() -> None:
    index = filled(zipf_rows(500, 8), 300)
    query = TermQuery(["t1", "t4", "t30"])
    before, frozen = found_by(index, query, 50), index.freeze()
    index.remove(np.arange(0, 500, 2))
    add(index, range(500, 600), zipf_rows(100, 8))
    assert found_by(InvertedIndex.restore(frozen.arrays()), query, 50) == before


# --- snapshots ------------------------------------------------------------------------------------------------------


def test_terms_of_rows_that_are_gone_are_not_saved() -> None:
    index = filled([(None, ["stays", "both"]), (None, ["goes", "both"])])
    index.remove(np.array([1]))
    assert bytes(index.arrays()["terms"]) == b"staysboth"


def test_an_empty_index_can_be_saved_and_filled_after_the_restart() -> None:
    index = InvertedIndex.restore(InvertedIndex().arrays())
    assert len(index) == 0
    add(index, [0], [(None, ["x"])])
    assert [label for _, label in found_by(index, TermQuery(["x"]), 5)] == [0]


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        ("labels", lambda array: array[::-1].copy()),
        ("labels", lambda array: array[:-1]),
        ("labels", lambda array: array - 1),
        ("lengths", lambda array: array + np.float32(0.5)),
        ("lengths", lambda array: array * np.float32(np.nan)),
        ("offsets", lambda array: array[:-1]),
        ("offsets", lambda array: array[:0]),
        ("offsets", lambda array: array[::-1].copy()),
        ("rows", lambda array: array + np.int32(1_000)),
        ("rows", lambda array: -array),
        ("rows", lambda array: array * 0),
        ("rows", lambda array: array.astype(np.int64)),
        ("counts", lambda array: array * np.uint8(0)),
        ("counts", lambda array: array[:-1]),
        ("terms", lambda array: array[:-1]),
        ("terms", lambda array: array | np.uint8(0x80)),
        ("term_places", lambda array: array[::-1].copy()),
        ("term_places", lambda array: array[:-1]),
        ("term_places", lambda array: array[:0]),
        ("terms", lambda array: array * np.uint8(0)),
        ("weights", lambda array: array + 1),
        ("weights", None),
    ],
)
def test_arrays_that_contradict_each_other_are_refused(name: str, damage: object) -> None:
    arrays = filled(zipf_rows(60, 5)).arrays()
    InvertedIndex.restore(arrays)
    if damage is None:
        del arrays[name]
    else:
        assert callable(damage)
        arrays[name] = damage(arrays[name])
    with pytest.raises(ValueError, match=r"\bits\b|^it does|^a term occurs|codec"):
        InvertedIndex.restore(arrays)


@pytest.mark.parametrize(("k1", "b"), [(0.0, 0.5), (-1.0, 0.5), (math.inf, 0.5), (1.2, 1.0), (1.2, -0.1)])
def test_parameters_with_which_a_score_is_no_number_are_refused(k1: float, b: float) -> None:
    with pytest.raises(ValueError, match="k1 > 0"):
        Bm25Parameters(k1, b)
    with pytest.raises(ValueError, match="weights of 1"):
        Bm25Parameters(weights=Weights(0, 1))
