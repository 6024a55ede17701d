"""Collections: vectors that differ in what makes approximate search hard, each with several kinds of queries.

Everything is drawn from one seed, so a run can be repeated. Vectors are float32 of shape (size, dimension).
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Final

import numpy as np
import numpy.typing as npt

from vecd.index.rows import Floats

from . import texts

Numbers = npt.NDArray[np.int64]
Random = np.random.Generator
#: Groups that a collection without topics is divided into.
_CELLS: Final = 40
ALL_METRICS: Final = ("cosine", "dot", "l2")


@dataclass(frozen=True, slots=True)
class Queries:
    """Queries of one kind: vectors of shape (n, dimension), and what each is called in a report."""

    vectors: Floats
    names: list[str]


@dataclass(frozen=True, slots=True)
class Collection:
    """Vectors, the group (topic, cluster) of each, and queries by kind."""

    name: str
    vectors: Floats
    groups: Numbers
    queries: dict[str, Queries]
    fresh: Callable[[int, Random], Floats]  # more vectors of the same distribution: what updates bring


@dataclass(frozen=True, slots=True)
class Recipe:
    """How a generated collection is made. `core` collections go through every life and every metric."""

    what: str
    make: Callable[[int, int, Random], Floats | tuple[Floats, Numbers]]  # size, dimension, random
    core: bool = False
    dimension: int | None = None  # None: the run's
    metrics: tuple[str, ...] = ALL_METRICS
    lives: tuple[str, ...] = field(default=("bulk",))


def _normal(random: Random, *shape: int) -> Floats:
    return random.standard_normal(shape, np.float32)


def _gaussian(size: int, dimension: int, random: Random) -> Floats:
    return _normal(random, size, dimension)


def _clusters(size: int, dimension: int, random: Random, spread: float = 0.5) -> tuple[Floats, Numbers]:
    """Clusters whose sizes have a heavy tail: the largest has several percent of all, most have a few rows."""
    count = max(4, size // 50)
    weights = random.pareto(1.1, count) + 0.05
    groups = random.choice(count, size, p=weights / weights.sum())
    centres = _normal(random, count, dimension)
    return centres[groups] + np.float32(spread) * _normal(random, size, dimension), groups.astype(np.int64)


def _cone(size: int, dimension: int, random: Random, spread: float = 0.2) -> Floats:
    """A common mean with a small spread: all cosines are near 1."""
    return _normal(random, 1, dimension) + np.float32(spread) * _normal(random, size, dimension)


def _cone_of_clusters(size: int, dimension: int, random: Random) -> tuple[Floats, Numbers]:
    vectors, groups = _clusters(size, dimension, random)
    return _normal(random, 1, dimension) + np.float32(0.2) * vectors, groups


def _copies(size: int, dimension: int, random: Random) -> tuple[Floats, Numbers]:
    """A fifth is one vector; group 1."""
    same = (random.permutation(size) < size // 5).astype(np.int64)
    vectors = _normal(random, size, dimension)
    vectors[same == 1] = _normal(random, 1, dimension)
    return vectors, same


def _topic(size: int, dimension: int, random: Random) -> tuple[Floats, Numbers]:
    """A dense topic, group 1, away from the others: deleted or filtered away, it leaves a hole."""
    groups = (random.permutation(size) < size * 8 // 93).astype(np.int64)
    vectors = _normal(random, size, dimension)
    dense = 3 * _normal(random, 1, dimension) + np.float32(0.3) * _normal(random, size, dimension)
    return np.where(groups[:, None] == 1, dense, vectors).astype(np.float32), groups


def _boilerplate(size: int, dimension: int, random: Random) -> tuple[Floats, Numbers]:
    """Half is unique, group 0; the rest are copies of some vectors, in groups of 2, 4, 8, … rows."""
    groups = np.zeros(size, np.int64)
    start, group, rows = 0, 1, 2
    while start < size // 2:
        groups[start : min(size // 2, start + rows)] = group
        start, group, rows = start + rows, group + 1, rows * 2 if rows < size // 8 else 2
    random.shuffle(groups)
    vectors = _normal(random, size, dimension)
    shared = _normal(random, group, dimension)
    vectors[groups > 0] = shared[groups[groups > 0]]
    return vectors, groups


def _near_copies(size: int, dimension: int, random: Random) -> tuple[Floats, Numbers]:
    """Versions of the same documents: a tenth of all are versions of one, the rest have up to 30 each."""
    groups = random.integers(1, max(2, size // 15), size)
    groups[random.random(size) < 0.1] = 0
    originals = _normal(random, int(groups.max()) + 1, dimension)
    return originals[groups] + np.float32(0.003) * _normal(random, size, dimension), groups.astype(np.int64)


def _curve(size: int, dimension: int, random: Random) -> Floats:
    """Two intrinsic dimensions, in a plane that is bent through all of them."""
    plane = random.uniform(0, 2 * np.pi, (size, 2))
    waves = random.integers(1, 4, (2, dimension))
    phase = random.uniform(0, 2 * np.pi, dimension)
    curved: Floats = np.sin(plane @ waves + phase).astype(np.float32)
    return curved


def _integers(size: int, dimension: int, random: Random) -> Floats:
    """Counts of a few words: most components are 0, many scores are equal."""
    drawn = random.integers(1, 4, (size, dimension)) * (random.random((size, dimension)) < 0.08)
    return drawn.astype(np.float32)


def _one_hot(size: int, dimension: int, random: Random) -> tuple[Floats, Numbers]:
    groups = random.integers(0, dimension, size)
    return np.eye(dimension, dtype=np.float32)[groups], groups.astype(np.int64)


def _zeros(size: int, dimension: int, random: Random) -> Floats:
    """A tenth of all vectors is zero."""
    vectors = _normal(random, size, dimension)
    vectors[random.random(size) < 0.1] = 0
    return vectors


def _norms(size: int, dimension: int, random: Random) -> Floats:
    """Lengths with a heavy tail, over four orders of magnitude."""
    lengths: Floats = random.lognormal(0, 1.5, (size, 1)).astype(np.float32)
    return _normal(random, size, dimension) * lengths


def _drifting(size: int, dimension: int, random: Random) -> Floats:
    """In the order of time: the first 30 % come from other clusters than the rest, whose mean then moves away."""
    early = size * 3 // 10
    before, _ = _clusters(early, dimension, random)
    after, _ = _clusters(size - early, dimension, random, 0.3)
    moved = np.linspace(0, 2, size - early, dtype=np.float32)[:, None] * _normal(random, 1, dimension)
    return np.concatenate((before, after + moved))


def _growing(size: int, dimension: int, random: Random) -> tuple[Floats, Numbers]:
    """In the order of time: one cluster after the other."""
    vectors, groups = _clusters(size, dimension, random)
    order = np.argsort(groups, kind="stable")
    return vectors[order], groups[order]


#: Collections of generated vectors.
RECIPES: Final[dict[str, Recipe]] = {
    "gaussian": Recipe("independent normal components", _gaussian, core=True),
    "clustered": Recipe("clusters with heavy-tailed sizes", _clusters, core=True),
    "tight": Recipe("the same, far apart", lambda n, d, r: _clusters(n, d, r, 0.1)),
    "cone": Recipe("a common mean, spread 0.2", _cone, core=True),
    "narrow-cone": Recipe("a common mean, spread 0.02", lambda n, d, r: _cone(n, d, r, 0.02)),
    "cone-clusters": Recipe("clusters around a common mean", _cone_of_clusters),
    "copies": Recipe("a fifth is one vector", _copies, core=True),
    "topic": Recipe("a dense topic that is filtered away or deleted", _topic, lives=("bulk", "deleted")),
    "boilerplate": Recipe("half are copies, in groups of many sizes", _boilerplate),
    "near-copies": Recipe("duplicates with noise", _near_copies),
    "curve": Recipe("two intrinsic dimensions", _curve),
    "integers": Recipe("sparse small integers", _integers),
    "one-hot": Recipe("unit vectors of the axes", _one_hot),
    "zeros": Recipe("a tenth is all zeros", _zeros),
    "norms": Recipe("heavy-tailed lengths", _norms, metrics=("dot", "l2")),
    "plane": Recipe("2 dimensions", _gaussian, dimension=2),
    "small": Recipe("8 dimensions", _gaussian, dimension=8),
    "large": Recipe("768 dimensions, clustered", _clusters, dimension=768, metrics=("cosine",)),
    "drifting": Recipe("another distribution after the first build", _drifting, lives=("streamed",)),
    "growing": Recipe("one cluster after the other", _growing, lives=("streamed",)),
}
#: Collections of texts, by their source; the first goes through every life.
TEXTS: Final = ("debian", "man", "python", "vaswani")
NAMES: Final = (*TEXTS, *RECIPES)


def is_core(name: str) -> bool:
    return name == "debian" if name in TEXTS else RECIPES[name].core


def metrics_of(name: str) -> tuple[str, ...]:
    """The default embedder's vectors have length 1, so dot and l2 rank them as cosine does."""
    return ("cosine",) if name in TEXTS else RECIPES[name].metrics


def lives_of(name: str) -> tuple[str, ...]:
    """The lives of a collection that is not core."""
    return ("bulk",) if name in TEXTS else RECIPES[name].lives


@lru_cache(maxsize=12)  # the floors go through all their collections again for each kind
def collection(name: str, size: int, dimension: int, seed: int, asked: int) -> Collection | None:
    """`asked`: queries of each kind. None if its source is not on this machine, or holds next to nothing."""
    random = np.random.default_rng([seed, zlib.crc32(name.encode())])
    return _real(name, size, seed, asked, random) if name in TEXTS else _generated(name, size, dimension, asked, random)


def _real(name: str, size: int, seed: int, asked: int, random: Random) -> Collection | None:
    documents = texts.source(name, size + size // 4, seed)
    if len(documents) < 1_000:
        return None
    held, spare = documents[:size], documents[size:] or documents
    vectors = texts.embedded([each.text for each in held])
    other = next((more for source in reversed(TEXTS) if source != name and (more := texts.source(source, asked))), [])
    worded = texts.queries(held, other, asked, seed)
    if judged := texts.judged_queries():
        worded["foreign"] = [*worded.get("foreign", [])[: asked // 2], *judged[: asked - asked // 2]]
    queries = {
        kind: Queries(texts.embedded(lines), [line[:60] for line in lines]) for kind, lines in sorted(worded.items())
    }
    queries |= _common(vectors, asked, random, foreign=None)

    def fresh(count: int, _: Random) -> Floats:
        return texts.embedded([spare[row % len(spare)].text for row in range(count)])

    return Collection(name, vectors, texts.topics(held), queries, fresh)


def _generated(name: str, size: int, dimension: int, asked: int, random: Random) -> Collection:
    recipe = RECIPES[name]
    dimension = recipe.dimension or dimension
    made = recipe.make(size + size // 2, dimension, random)
    vectors, groups = made if isinstance(made, tuple) else (made, None)
    # Of a collection whose order is time, rows are left out all over; of others, the last ones.
    drawn = random.permutation(len(vectors))[:size] if "streamed" in recipe.lives else np.arange(size)
    keep = np.sort(drawn)
    spare = np.delete(vectors, keep, axis=0)
    held = np.ascontiguousarray(vectors[keep])
    of = groups[keep] if groups is not None else _cells(held, random)
    foreign, _ = _clusters(asked, dimension, random)
    queries = _common(held, asked, random, foreign)
    if name in ("copies", "boilerplate"):
        queries["unique"] = _rows_of(held, random.permutation(np.flatnonzero(of == 0))[:asked])
    if name == "topic":
        queries["topic"] = _rows_of(held, random.permutation(np.flatnonzero(of == 1))[:asked])

    def fresh(count: int, its_random: Random) -> Floats:
        return np.ascontiguousarray(spare[its_random.integers(0, len(spare), count)])

    return Collection(name, held, of, queries, fresh)


def _cells(vectors: Floats, random: Random) -> Numbers:
    """Groups where there are none: which of some rows is nearest."""
    seeds = vectors[random.integers(0, len(vectors), _CELLS)]
    distances = np.square(seeds).sum(axis=1) - 2 * (vectors @ seeds.T)
    nearest: Numbers = distances.argmin(axis=1).astype(np.int64)
    return nearest


def _rows_of(vectors: Floats, rows: Numbers) -> Queries:
    return Queries(np.ascontiguousarray(vectors[rows]), [f"row {row}" for row in rows.tolist()])


def _common(vectors: Floats, asked: int, random: Random, foreign: Floats | None) -> dict[str, Queries]:
    """The kinds of queries that every collection gets."""
    size, dimension = vectors.shape
    length = np.float32(np.linalg.norm(vectors, axis=1).mean())
    spread = np.float32(vectors.std(axis=0).mean())
    mean = vectors.mean(axis=0, dtype=np.float64).astype(np.float32)
    few = max(5, asked // 5)

    def named(what: str, made: Floats) -> Queries:
        return Queries(np.ascontiguousarray(made, np.float32), [f"{what} {row}" for row in range(len(made))])

    rows = random.integers(0, size, asked)
    pairs = vectors[random.integers(0, size, (asked, 2))]
    directions = _normal(random, asked, dimension)
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    sparse = directions * (random.random((asked, dimension)) < 3 / dimension)
    sparse[:, 0] += np.float32(1e-3)  # none is all zeros
    near_mean = np.float32(1e-3) * spread * _normal(random, few, dimension)
    queries = {
        "stored": _rows_of(vectors, rows),
        "noisy": named("noisy row", vectors[rows] + np.float32(0.3) * spread * _normal(random, asked, dimension)),
        "between": named("between two rows", pairs.mean(axis=1)),
        "random": named("direction", length * directions),
        "far": named("far direction", 100 * length * directions[:few]),
        "sparse": named("few components", length * sparse),
        "mean": named("mean", mean + near_mean),
        "opposite": named("negated mean", -mean + near_mean),
    }
    if foreign is not None:
        scaled = foreign * (length / np.float32(np.linalg.norm(foreign, axis=1).mean()))
        queries["foreign"] = named("foreign row", scaled)
    return queries
