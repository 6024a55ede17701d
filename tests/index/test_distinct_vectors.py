"""Copies: equal vectors are one node, whatever order they come in, and each node has its rows."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vecd.index.local.distinct_vectors import DistinctVectors

_VECTOR = st.tuples(st.sampled_from((0.0, 0.5, -1.0)), st.sampled_from((0.0, 2.0)))


def filled(
    batches: list[list[tuple[float, float]]], dtype: type[np.float32] | type[np.float16]
) -> tuple[DistinctVectors, npt.NDArray[Any]]:
    """The copies, and the vectors of their nodes."""
    copies, stored = DistinctVectors(), np.empty((0, 2), dtype)
    for batch in batches:
        codes = np.array(batch, dtype)
        stored = np.concatenate((stored, codes[copies.add(codes, stored)]))
    return copies, stored


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
@settings(max_examples=100, deadline=None)
@given(batches=st.lists(st.lists(_VECTOR, min_size=1, max_size=9), min_size=1, max_size=6), data=st.data())
def test_equal_vectors_are_one_node_with_all_their_rows(
    dtype: type[np.float32] | type[np.float16], batches: list[list[tuple[float, float]]], data: st.DataObject
) -> None:
    copies, stored = filled(batches, dtype)
    rows = [vector for batch in batches for vector in batch]
    distinct = list(dict.fromkeys(rows))
    assert [tuple(vector) for vector in stored.tolist()] == distinct
    assert copies.nodes == len(distinct)
    assert copies.node_of.tolist() == [distinct.index(vector) for vector in rows]
    assert copies.has_duplicates == (len(distinct) < len(rows))
    mask = np.array(data.draw(st.lists(st.booleans(), min_size=len(rows), max_size=len(rows))))
    assert copies.mask(mask).tolist() == [
        any(mask[row] for row, vector in enumerate(rows) if vector == node) for node in distinct
    ]
    k = data.draw(st.integers(1, len(rows)))
    nodes = np.arange(len(distinct), dtype=np.int64)[::-1].copy()
    places, found = copies.rows_of(nodes, k, mask)
    wanted = [
        (place, row)
        for place, node in enumerate(nodes.tolist())
        for row, vector in enumerate(rows)
        if vector == distinct[node] and mask[row]
    ]
    assert list(zip(places.tolist(), found.tolist(), strict=True)) == wanted[:k]


def test_what_is_restored_finds_what_was_there_and_goes_on() -> None:
    copies, stored = filled([[(0.0, 1.0), (2.0, 1.0), (0.0, 1.0)], [(2.0, 1.0), (5.0, 5.0)]], np.float32)
    again = DistinctVectors()
    again.restore(copies.node_of.copy(), stored)
    assert again.find(np.array((5, 5), np.float32), stored) == 2
    assert again.find(np.array((5, 6), np.float32), stored) is None
    more = np.array([(5, 5), (7, 7)], np.float32)
    assert again.add(more, stored).tolist() == [False, True]
    assert again.node_of.tolist() == [0, 1, 0, 1, 2, 2, 3]
    assert again.rows_of(np.array([2, 0]), 9, None)[1].tolist() == [4, 5, 0, 2]


@pytest.mark.parametrize("node_of", [[1, 0], [0, 2], [0, 0], [0, -1], [0, 1, 2], []])
def test_rows_that_do_not_belong_to_the_nodes_are_refused(node_of: list[int]) -> None:
    with pytest.raises(ValueError):
        DistinctVectors().restore(np.array(node_of, np.int32), np.eye(2, dtype=np.float32))


def test_the_table_grows_and_nothing_is_lost() -> None:
    vectors = np.random.default_rng(3).standard_normal((5_000, 4), np.float32)
    copies = DistinctVectors()
    for start in range(0, len(vectors), 700):
        assert copies.add(vectors[start : start + 700], vectors[:start]).all()
    assert not copies.add(vectors[::-1], vectors).any()
    assert copies.node_of[5_000:].tolist() == list(range(4_999, -1, -1))
