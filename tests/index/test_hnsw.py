"""Hnsw: it finds what is there on data that leads a plain graph astray, and a graph of arrays that contradict each
other never gets to native code."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.index_source import MemorySource, spec, true_scores
from vecd.index import builder, kinds, snapshot_file
from vecd.index.local.hnsw import Hnsw
from vecd.index.rows import Allowed, Bools, Floats, Labels
from vecd.index.structure import Effort, Spec

Arrays = dict[str, npt.NDArray[Any]]

_DIMENSION = 3
_SPEC = spec("hnsw float32", "l2", _DIMENSION)
_COUNT = 300  # so many that there are levels


@cache
def _built() -> tuple[Labels, Floats, Arrays]:
    vectors = np.random.default_rng(4).standard_normal((_COUNT, _DIMENSION), np.float32)
    labels = np.arange(_COUNT, dtype=np.int64) * 2 + 1
    structure = Hnsw(_SPEC)
    structure.extend(labels, vectors)
    arrays = {name: array.copy() for name, array in (structure.arrays() or {}).items()}
    assert arrays["levels"].max() > 2, "there must be levels to get wrong"
    return labels, vectors, arrays


def sound() -> Arrays:
    return {name: array.copy() for name, array in _built()[2].items()}


def check_found(structure: Hnsw) -> None:
    """All are found, by a walk."""
    labels, vectors, _ = _built()
    queries = vectors[:20].copy()
    for k in (1, 10, _COUNT):
        scores, found = structure.search(queries, k, structure.rows.allowed(None), Effort(0.98, ef=400))
        assert scores.shape == found.shape == (20, k)
        for row in found:
            assert len(set(row.tolist())) == k
            assert set(row.tolist()) <= set(labels.tolist())


@pytest.mark.parametrize("how", ["built", "restored"])
def test_a_graph_grows_by_a_fifth_without_being_copied(how: str) -> None:
    """Copying a large one takes a while, with all searches waiting."""
    labels, vectors, _ = _built()
    if how == "built":
        structure = Hnsw(_SPEC)
        structure.extend(labels, vectors)
        structure.finish()
    else:
        structure = Hnsw.restore(_SPEC, sound())
    places = [structure._codes().ctypes.data, structure._links().ctypes.data]
    more = _COUNT // 5
    structure.extend(labels[-1] + 1 + np.arange(more), vectors[:more] + 1)
    assert [structure._codes().ctypes.data, structure._links().ctypes.data] == places
    assert len(structure.rows) == _COUNT + more
    scores, _found = structure.search(vectors[:more] + 1, 1, structure.rows.allowed(None), Effort(0.98, ef=400))
    np.testing.assert_allclose(scores, 0, atol=1e-5)


def test_what_was_given_is_restored() -> None:
    structure = Hnsw.restore(_SPEC, sound())
    assert len(structure.rows) == _COUNT
    check_found(structure)
    labels = structure.search(_built()[1][:20].copy(), 1, structure.rows.allowed(None), Effort(0.98, ef=64))[1]
    assert labels[:, 0].tolist() == _built()[0][:20].tolist()


def put(name: str, place: int, value: float) -> Callable[[Arrays], None]:
    def do(arrays: Arrays) -> None:
        arrays[name][place] = value

    return do


def cut(name: str, count: int = 1) -> Callable[[Arrays], None]:
    def do(arrays: Arrays) -> None:
        arrays[name] = arrays[name][:-count]

    return do


def cast(name: str, dtype: str) -> Callable[[Arrays], None]:
    def do(arrays: Arrays) -> None:
        arrays[name] = arrays[name].astype(dtype)

    return do


def swap_labels(arrays: Arrays) -> None:
    arrays["labels"][[10, 11]] = arrays["labels"][[11, 10]]


def shift_offsets(arrays: Arrays) -> None:
    arrays["offsets"][5:-1] += np.uint64(1)


def shift_labels_below_zero(arrays: Arrays) -> None:
    arrays["labels"] -= 100


def empty(arrays: Arrays) -> None:
    for name in arrays:
        arrays[name] = arrays[name][:0]


def link_to_a_lower_level(arrays: Arrays) -> None:
    """On its highest level, the entry gets a link to a vector that is on the lowest only."""
    entry = int(arrays["entry"][0])
    last_link = int(arrays["offsets"][entry + 1]) - 1
    arrays["neighbors"][last_link] = int((arrays["levels"] == 1).nonzero()[0][0])


def raise_a_level(arrays: Arrays) -> None:
    arrays["levels"][int((arrays["levels"] == 1).nonzero()[0][0])] = 2


def enter_below(arrays: Arrays) -> None:
    arrays["entry"][0] = int((arrays["levels"] == 1).nonzero()[0][0])


def without(name: str) -> Callable[[Arrays], None]:
    def do(arrays: Arrays) -> None:
        del arrays[name]

    return do


CONTRADICTIONS: dict[str, Callable[[Arrays], None]] = {
    "a link past the last": put("neighbors", 0, _COUNT),
    "a link far past the last": put("neighbors", 7, 2**31 - 1),
    "a link before the first": put("neighbors", 0, -2),
    "a link to a level that is not there": link_to_a_lower_level,
    "a link too few": cut("neighbors"),
    "no links": cut("neighbors", 10**9),
    "an offset past the end": put("offsets", _COUNT, 2**40),
    "an offset past all ends": put("offsets", 3, 2**64 - 1),
    "offsets that do not begin at the beginning": put("offsets", 0, 1),
    "offsets in the middle of another's links": shift_offsets,
    "offsets too few": cut("offsets"),
    "a level too high": put("levels", 4, 10_000),
    "no level": put("levels", 4, 0),
    "a level below": put("levels", 4, -1),
    "a level more than there are links for": raise_a_level,
    "levels too few": cut("levels"),
    "an entry past the last": put("entry", 0, _COUNT),
    "an entry before the first": put("entry", 0, -1),
    "an entry that is not on the highest level": enter_below,
    "a highest level that is too high": put("entry", 1, 7),
    "a highest level that is too low": put("entry", 1, 0),
    "an entry without a level": cut("entry"),
    "labels that do not ascend": swap_labels,
    "a label twice": put("labels", 6, 11),
    "labels below zero": shift_labels_below_zero,
    "labels too few": cut("labels"),
    "vectors too few": cut("codes"),
    "nothing": empty,
    "other links": cast("neighbors", "<i8"),
    "other offsets": cast("offsets", "<i8"),
    "other levels": cast("levels", "<u8"),
    "other labels": cast("labels", "<i4"),
    "other vectors": cast("codes", "<f4"),
    "a row of a node that is not there": put("nodes", 9, _COUNT),
    "a node without a row": put("nodes", 9, 8),
    "a row of no node": put("nodes", 9, -1),
    "rows too few": cut("nodes"),
    "other nodes": cast("nodes", "<i8"),
    "no nodes": without("nodes"),
    "a centre of fewer dimensions": cut("centre"),
    "a centre that is nowhere": put("centre", 0, float("nan")),
    "no centre": without("centre"),
    "no labels": without("labels"),
    "no entry": without("entry"),
}


@pytest.mark.parametrize("contradiction", CONTRADICTIONS)
def test_arrays_that_contradict_each_other_are_refused(contradiction: str, tmp_path: Path) -> None:
    arrays = sound()
    CONTRADICTIONS[contradiction](arrays)
    source = MemorySource(_SPEC, tmp_path / "snapshot")
    labels, vectors, _ = _built()
    source.vectors = dict(zip(labels.tolist(), vectors, strict=True))
    about = {"of": source.identity, "spec": builder.described(_SPEC), "seq": 0, "vectors": _COUNT}
    snapshot_file.save(tmp_path / "snapshot", about, arrays)
    assert snapshot_file.load(tmp_path / "snapshot")[0] == about, "its checksums are right"
    loaded = builder.load(_SPEC, source, lambda: False)
    assert loaded.structure is None
    assert loaded.damage is not None
    assert "is damaged" in loaded.damage
    assert len(loaded.tail) == _COUNT
    with pytest.raises(ValueError):
        Hnsw.restore(_SPEC, arrays)


def test_the_graph_of_other_parameters_is_refused() -> None:
    for other in (
        spec("hnsw float32", "l2", _DIMENSION, m=5),
        spec("hnsw float32", "l2", _DIMENSION + 1),
        Spec(_DIMENSION, "l2", "hnsw", {**_SPEC.parameters, "vectors": "float16"}),
    ):
        with pytest.raises(ValueError):
            Hnsw.restore(other, sound())


@settings(max_examples=150, deadline=None)
@given(
    name=st.sampled_from(("neighbors", "neighbors", "levels", "offsets", "entry", "codes")),
    changes=st.lists(st.tuples(st.integers(0, 10**6), st.integers(-2, _COUNT + 1)), min_size=1, max_size=20),
)
def test_arrays_with_anything_in_them_are_refused_or_a_graph_that_can_be_walked(
    name: str, changes: list[tuple[int, int]]
) -> None:
    arrays = sound()
    for place, value in changes:
        arrays[name][place % len(arrays[name])] = np.array(value).astype(arrays[name].dtype)
    try:
        structure = Hnsw.restore(_SPEC, arrays)
    except ValueError:
        return
    if name != "codes":
        check_found(structure)


def test_float16_takes_half_of_what_float32_takes() -> None:
    vectors = np.random.default_rng(4).standard_normal((100, 512), np.float32)
    labels = np.arange(100, dtype=np.int64)
    taken = []
    for name in ("hnsw float32", "hnsw float16"):
        structure = Hnsw(spec(name, "cosine", 512))
        before = structure.memory_bytes
        structure.extend(labels, vectors)
        taken.append(structure.memory_bytes - before)
    assert taken[0] - taken[1] == 100 * 512 * 2


# --- data that leads a plain graph astray ---------------------------------------------------------------------------


def made(metric: str, vectors: Floats, held: str = "float32") -> Hnsw:
    its_spec = structure_spec(metric, vectors.shape[1], held)
    structure = Hnsw(its_spec)
    for start in range(0, len(vectors), 1_000):
        labels = np.arange(start, min(start + 1_000, len(vectors)), dtype=np.int64)
        structure.extend(labels, builder.prepared(its_spec, vectors[start : start + 1_000]))
    structure.finish()
    return structure


def structure_spec(metric: str, dimension: int, held: str = "float32") -> Spec:
    return Spec(dimension, metric, "hnsw", kinds.checked("hnsw", metric, {"vectors": held}))


def recalls(
    structure: Hnsw, metric: str, vectors: Floats, queries: Floats, k: int = 10, mask: Bools | None = None
) -> npt.NDArray[np.float64]:
    """By query, the share of the k nearest allowed vectors that walks find, beginning with an ef of 64."""
    allowed = Allowed(len(vectors), None) if mask is None else Allowed(int(mask.sum()), mask)
    prepared = np.ascontiguousarray(builder.prepared(structure_spec(metric, vectors.shape[1]), queries))
    _, labels = structure.search(prepared, k, allowed, Effort(0.98, ef=64))
    every = true_scores(vectors, queries, metric)
    if mask is not None:
        assert mask[labels].all()
        every[:, ~mask] = -np.inf
    kth = np.sort(every, axis=1)[:, -k, None]
    share: npt.NDArray[np.float64] = (np.take_along_axis(every, labels, 1) >= kth - 1e-9 * np.abs(kth)).mean(axis=1)
    return share


@pytest.mark.parametrize("metric", ["cosine", "l2"])
def test_a_vector_finds_itself_among_many_copies_of_another(metric: str) -> None:
    random = np.random.default_rng(1)
    vectors = random.standard_normal((5_000, 16), np.float32)
    unique = random.permutation(5_000)[:4_000]
    vectors[np.setdiff1d(np.arange(5_000), unique)] = random.standard_normal(16, np.float32)
    structure = made(metric, vectors)
    assert recalls(structure, metric, vectors, vectors[unique[:300]], k=1).mean() >= 298 / 300
    size = made(metric, random.standard_normal((5_000, 16), np.float32)).memory_bytes
    assert structure.memory_bytes < 0.9 * size, "copies take links"


def test_copies_are_hits_one_by_one_with_the_lowest_labels_first() -> None:
    vectors = np.random.default_rng(1).standard_normal((600, 8), np.float32)
    vectors[100:300] = vectors[7]
    structure = made("l2", vectors)
    mask = np.ones(600, np.bool_)
    for allowed, wanted in (
        (Allowed(600, None), [7, *range(100, 111)]),
        (Allowed(450, mask & (np.arange(600) >= 150)), list(range(150, 162))),
    ):
        for ef, exact in ((64, False), (None, True)):
            scores, labels = structure.search(vectors[7:8], 12, allowed, Effort(0.98, ef=ef, exact=exact))
            assert sorted(labels[0].tolist()) == wanted
            assert scores[0].tolist() == [0] * 12


@pytest.mark.parametrize("metric", ["cosine", "dot", "l2"])
def test_a_search_in_the_midst_of_masked_rows_finds_what_is_around(metric: str) -> None:
    random = np.random.default_rng(2)
    topic = 3 * random.standard_normal(16, np.float32)
    vectors = random.standard_normal((4_000, 16), np.float32)
    inside = np.arange(4_000) % 8 == 0
    vectors[inside] = topic + np.float32(0.3) * vectors[inside]
    queries = topic + np.float32(0.3) * random.standard_normal((50, 16), np.float32)
    found = recalls(made(metric, vectors), metric, vectors, queries, mask=~inside)
    assert found.mean() >= 0.95
    assert (found < 0.7).mean() <= 0.02


@pytest.mark.parametrize(
    ("metric", "held"), [("cosine", "float32"), ("cosine", "float16"), ("dot", "float32"), ("l2", "float32")]
)
def test_vectors_in_a_narrow_cone_are_found(metric: str, held: str) -> None:
    random = np.random.default_rng(3)
    basis = random.standard_normal((8, 64), np.float32)

    def draw(count: int) -> Floats:
        spread: Floats = random.standard_normal((count, 8), np.float32) @ basis
        return np.float32(10) + np.float32(0.01) * spread

    vectors, queries = draw(4_000), draw(100)
    structure = made(metric, vectors, held)
    found = recalls(structure, metric, vectors, queries)
    assert found.mean() >= 0.95
    assert (found < 0.7).mean() <= 0.01
    again = Hnsw.restore(
        structure_spec(metric, 64, held),
        {name: array.copy() for name, array in (structure.arrays() or {}).items()},
    )
    np.testing.assert_array_equal(recalls(again, metric, vectors, queries), found)


def test_rows_of_zeros_are_ranked_by_a_cosine_of_zero() -> None:
    vectors = np.random.default_rng(4).standard_normal((500, 4), np.float32)
    vectors[[3, 90]] = 0
    for name in ("float32", "float16"):
        structure = made("cosine", vectors, name)
        query = vectors[:1] / np.linalg.norm(vectors[0])
        above = int((true_scores(vectors, query, "cosine")[0] > 0).sum())
        for ef, exact in ((64, False), (None, True)):
            scores, labels = structure.search(query, above + 2, Allowed(500, None), Effort(0.98, ef=ef, exact=exact))
            assert {3, 90} < set(labels[0].tolist())
            assert scores.min() == pytest.approx(0, abs=1e-3)


def test_a_snapshot_of_the_format_before_is_replaced_and_not_reported(tmp_path: Path) -> None:
    source = MemorySource(_SPEC, tmp_path / "snapshot")
    labels, vectors, _ = _built()
    source.vectors = dict(zip(labels.tolist(), vectors, strict=True))
    arrays = sound()
    del arrays["nodes"], arrays["centre"]
    its_spec = {"dimension": 3, "metric": "l2", "kind": "hnsw", "parameters": {**_SPEC.parameters}}
    snapshot_file.save(
        tmp_path / "snapshot", {"of": source.identity, "spec": its_spec, "seq": 0, "vectors": _COUNT}, arrays
    )
    loaded = builder.load(_SPEC, source, lambda: False)
    assert (loaded.structure, loaded.damage, len(loaded.tail)) == (None, None, _COUNT)
    assert list(tmp_path.iterdir()) == []
