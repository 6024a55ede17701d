"""Rows: what is alive, what a filter lets through, and that a filter's numbers are asked for once."""

from __future__ import annotations

import numpy as np

from tests.support.index_source import Filter
from vecd.index.rows import Allowed, Labels, Rows, Selection


def rows_of(*labels: int) -> Rows:
    rows = Rows(capacity=4)
    rows.append(np.array(labels, np.int64))
    return rows


def found(rows: Rows, selection: Selection | None = None) -> list[int]:
    allowed = rows.allowed(selection)
    mask = np.ones(rows.count, np.bool_) if allowed.mask is None else allowed.mask
    assert int(mask.sum()) == allowed.count
    labels: list[int] = rows.labels[mask].tolist()
    return labels


def even(last_label: int, basis: object) -> Filter:
    """Document 0 are the odd labels, document 1 the even ones."""
    return Filter(basis, {label: 1 - label % 2 for label in range(last_label + 1)}, np.array([False, True]), last_label)


def test_removed_rows_are_masked_and_others_stay_where_they_are() -> None:
    rows = rows_of(2, 3, 5, 8, 13, 21)
    rows.remove(np.array([5, 4, 21, 100, -1, 5]))
    assert found(rows) == [2, 3, 8, 13]
    assert (len(rows), rows.count, rows.dead, rows.last_label) == (4, 6, 2, 21)
    rows.append(np.array([34, 55]))
    rows.remove(np.array([2]))
    assert found(rows) == [3, 8, 13, 34, 55]


def test_what_is_kept_is_alive_and_all_else_is_not() -> None:
    rows = rows_of(2, 3, 5, 8)
    rows.remove(np.array([2, 3]))
    rows.keep_only(np.array([1, 3, 8, 9]))
    assert found(rows) == [3, 8]
    rows.keep_only(np.empty(0, np.int64))
    assert found(rows) == []
    assert rows.dead == 4


def test_dropped_rows_are_gone_and_so_are_their_numbers() -> None:
    rows, basis = rows_of(*range(10)), object()
    rows.remove(np.array([1, 6]))
    assert found(rows, even(9, basis)) == [0, 2, 4, 8]
    rows.drop_front(3)
    assert (rows.count, rows.dead) == (7, 1)
    assert found(rows, even(9, basis)) == [4, 8]
    rows.append(np.array([10, 11, 12]))
    assert found(rows, even(12, basis)) == [4, 8, 10, 12]


def test_a_filter_lets_through_only_labels_that_it_knows() -> None:
    rows, basis = rows_of(*range(10)), object()
    assert found(rows, even(5, basis)) == [0, 2, 4]
    assert found(rows, even(9, basis)) == [0, 2, 4, 6, 8]
    assert found(rows, even(20, basis)) == [0, 2, 4, 6, 8]
    assert found(rows, Filter(basis, {}, np.zeros(2, np.bool_), 9)) == []


def test_a_filter_with_another_basis_has_its_own_numbers() -> None:
    rows = rows_of(*range(6))
    assert found(rows, even(5, object())) == [0, 2, 4]
    other = Filter(object(), {3: 7, 5: 0}, np.arange(8) == 7, 5)
    assert found(rows, other) == [3]
    assert found(rows, even(5, object())) == [0, 2, 4]


def test_a_filter_that_is_older_than_the_last_one_lets_nothing_through_that_it_does_not_know() -> None:
    rows, basis = rows_of(*range(10)), object()
    one_each = {label: label for label in range(10)}
    newer = Filter(basis, one_each, np.ones(10, np.bool_), 9)
    older = Filter(basis, one_each, np.ones(4, np.bool_), 3)
    assert found(rows, older) == [0, 1, 2, 3]
    assert found(rows, newer) == list(range(10))
    assert found(rows, older) == [0, 1, 2, 3]


def test_the_number_of_a_document_is_asked_for_once() -> None:
    asked: list[Labels] = []

    class Counted(Filter):
        def numbers(self, labels: Labels) -> np.ndarray[tuple[int], np.dtype[np.int32]]:
            asked.append(labels.copy())
            return np.zeros(len(labels), np.int32)

    rows, basis = rows_of(*range(10)), object()
    for last_label in (4, 4, 9, 20):
        rows.allowed(Counted(basis, {}, np.array([True]), last_label))
    assert [each.tolist() for each in asked] == [[0, 1, 2, 3, 4], [5, 6, 7, 8, 9]]


def test_faiss_is_told_exactly_which_rows_are_allowed() -> None:
    mask = np.random.default_rng(1).random(1_003) < 0.3
    selector = Allowed(int(mask.sum()), mask).selector
    assert [selector.is_member(row) for row in range(1_003)] == mask.tolist()
    assert Allowed(5, None).selector is None
