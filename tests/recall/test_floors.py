"""Floors under the recall of every kind of index, on collections, filters and lives that mislead approximate search.

Small parts of the harness (`make recall` runs all of it), with ten seeds where chance decides. A structure is built
from 1,000 rows on, so an index is asked here and not the scan that small libraries get.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np
import pytest

from vecd.index.kinds import DEFAULT, KINDS
from vecd.index.structure import Spec

from . import data
from .cells import Cell, Plan, Run, measure, summary, variants
from .data import Collection, Queries, Random
from .subject import Subject
from .truth import Floats

_SIZE: Final = 10_000
_DIMENSION: Final = 48
_SEEDS: Final = range(10)
_ORDER: Final = (DEFAULT, *(kind for kind in KINDS if kind != DEFAULT))
#: Kind -> the least mean, and the largest share of queries below 0.7; every other kind has the default's.
_FLOOR: Final = (0.98, 0.01)
_FLOORS: Final[dict[str, tuple[float, float]]] = {}


def refuses(kind: str, metric: str) -> bool:
    return metric in KINDS[kind].refuses


def check(kind: str, cells: Sequence[Cell], by: str) -> None:
    """Every group of cells is above the kind's floor; a good one makes up for no bad one."""
    mean_min, share_max = _FLOORS.get(kind, _FLOOR)
    groups: dict[str, list[Cell]] = defaultdict(list)
    for cell in cells:
        groups[cell.key[by]].append(cell)
    assert groups, "nothing was measured"
    low = []
    for name, group in groups.items():
        told = summary([recall for cell in group for recall in cell.recalls])
        worst = min(group, key=lambda cell: cell.worst)
        if told["mean"] < mean_min or told["below_07"] > share_max:
            low.append(f"{by} {name}: {told}, worst {worst.key['queries']} {worst.worst}")
    assert not low, "\n".join(low)
    assert [each for cell in cells for each in cell.broken] == []


# --- collections, queries, filters ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("collection", "metric"),
    [
        ("gaussian", "cosine"), ("clustered", "cosine"), ("cone", "cosine"), ("boilerplate", "cosine"),
        ("integers", "cosine"), ("python", "cosine"), ("norms", "dot"), ("cone", "dot"), ("clustered", "l2"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("kind", _ORDER)
def test_all_kinds_of_queries_find_what_is_nearest_under_every_filter(kind: str, collection: str, metric: str) -> None:
    if refuses(kind, metric):
        pytest.skip(f"{kind} refuses {metric}")
    filters = ("none", "50%", "1%", "not-own", "not-near")
    plan = Plan(
        [kind], [metric], [collection], (), filters, ["bulk"], _SIZE, _DIMENSION, asked=20, variants=["default"]
    )
    found = list(Run(plan, 1).cells())
    if not found and collection in data.TEXTS:
        pytest.skip("too few texts on this machine")
    check(kind, found, "filter")


@pytest.mark.parametrize(
    ("kind", "variant"), [(kind, variant) for kind in _ORDER for variant in list(variants(kind, "cosine"))[1:]]
)
def test_every_choice_of_a_parameter_keeps_the_floor_in_a_narrow_cone(kind: str, variant: str) -> None:
    lives, filters = ("bulk", "updated"), ("none", "1%")
    plan = Plan([kind], ["cosine"], ["cone"], (), filters, lives, _SIZE, _DIMENSION, asked=20, variants=[variant])
    check(kind, list(Run(plan, 1).cells()), "life")


# --- lives ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("collection", ["cone", "clustered"])
@pytest.mark.parametrize("kind", _ORDER)
def test_recall_outlives_deletes_updates_and_restarts(kind: str, collection: str) -> None:
    plan = Plan([kind], ["cosine"], [collection], (), ("none",), (), _SIZE, _DIMENSION, asked=20, variants=["default"])
    check(kind, list(Run(plan, 1).cells()), "life")


@pytest.mark.parametrize("kind", _ORDER)
def test_data_that_drifts_away_from_the_first_build_is_found(kind: str) -> None:
    plan = Plan(
        [kind], ["cosine", "l2"], ["drifting"], (), ("none",), (), _SIZE, _DIMENSION, asked=20, variants=["default"]
    )
    check(kind, list(Run(plan, 1).cells()), "life")


# --- ten seeds ------------------------------------------------------------------------------------------------------


def no_more(count: int, random: Random) -> Floats:
    raise AssertionError("nothing is updated here")


def subject_of(kind: str, vectors: Floats, groups: data.Numbers, folder: Path, seed: int) -> Subject:
    """Vectors in a built index of that kind, with the metric cosine."""
    spec = Spec(vectors.shape[1], "cosine", kind, variants(kind, "cosine")["default"])
    (folder / str(seed)).mkdir()
    subject = Subject(Collection("seeded", vectors, groups, {}, no_more), spec, folder / str(seed), 1_000, seed)
    subject.load()
    return subject


@pytest.mark.parametrize("kind", _ORDER)
def test_unique_vectors_among_2_000_copies_of_one_find_themselves(kind: str, tmp_path: Path) -> None:
    lost = {}
    for seed in _SEEDS:
        random = np.random.default_rng(seed)
        groups = (random.permutation(10_000) < 2_000).astype(np.int64)
        vectors = random.standard_normal((10_000, 32), np.float32)
        vectors[groups == 1] = random.standard_normal((1, 32), np.float32)
        subject = subject_of(kind, vectors, groups, tmp_path, seed)
        try:
            unique = random.permutation(np.flatnonzero(groups == 0))[:300]
            lost[seed] = sum(int(row not in subject.search(vectors[row], 10, None)[0]) for row in unique.tolist())
        finally:
            subject.stop()
    assert {seed: count for seed, count in lost.items() if count > 2} == {}


@pytest.mark.parametrize("kind", _ORDER)
def test_a_query_about_a_topic_that_is_filtered_away_or_deleted_finds_9_of_10(kind: str, tmp_path: Path) -> None:
    low = {}
    for seed in _SEEDS:
        random = np.random.default_rng(seed)
        topic = 3 * random.standard_normal((1, 32), np.float32)
        groups = (random.permutation(9_300) < 800).astype(np.int64)
        dense = topic + np.float32(0.3) * random.standard_normal((9_300, 32), np.float32)
        vectors = np.where(groups[:, None] == 1, dense, random.standard_normal((9_300, 32), np.float32))
        gone = np.flatnonzero(groups == 1)
        queries = Queries(np.concatenate((topic, vectors[gone[:9]])), ["the topic", *(f"row {n} of it" for n in gone)])
        subject = subject_of(kind, vectors, groups, tmp_path, seed)
        try:
            found = measure(subject, queries, ["not-own"], len(queries.vectors), {"queries": "topic"})
            subject.write(np.empty((0, 32), np.float32), np.empty(0, np.int64), gone)
            subject.settle()
            found += measure(subject, queries, ["none"], 0, {"queries": "topic"})
        finally:
            subject.stop()
        for how, cell in zip(("filtered", "deleted"), found, strict=True):
            assert cell.broken == []
            assert len(cell.recalls) == len(queries.vectors)
            if cell.recalls[0] < 0.9 or np.mean(cell.recalls) < 0.9:
                low[f"{how}, seed {seed}"] = cell.recalls
    assert low == {}
