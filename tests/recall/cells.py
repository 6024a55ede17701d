"""Cells: which combinations are measured, and how one is.

A cell is kind × variant × metric × collection × kind of query × filter × life. Core collections go through every life
in the plan below; the others are loaded and asked. A filter is drawn for each query, from the query's exact scores.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np

from vecd.errors import VecError
from vecd.index import METRICS
from vecd.index.kinds import KINDS, checked
from vecd.index.structure import Spec

from . import data
from .data import Collection, Queries, Random
from .subject import Subject
from .truth import Bools, Doubles, Judgement

K: Final = 10
#: Queries whose exact scores are held at once.
_AT_ONCE: Final = 32


class Moment(NamedTuple):
    """What a filter may go by: one query's exact scores, the rows that are alive, their groups."""

    scores: Doubles
    alive: Bools
    groups: data.Numbers
    random: Random


def _share(of: float) -> Callable[[Moment], Bools]:
    """A random share of the rows, one at least."""

    def draw(moment: Moment) -> Bools:
        living = np.flatnonzero(moment.alive)
        mask = np.zeros(len(moment.alive), np.bool_)
        mask[moment.random.choice(living, max(1, round(of * len(living))), replace=False)] = True
        return mask

    return draw


def _ranked(moment: Moment, share: float) -> Bools:
    """The best rows by score, that share of those alive."""
    living = np.flatnonzero(moment.alive)
    count = max(1, round(share * len(living)))
    mask = np.zeros(len(moment.alive), np.bool_)
    mask[living[np.argpartition(-moment.scores[living], count - 1)[:count]]] = True
    return mask


def _own(moment: Moment) -> Bools:
    best = int(np.where(moment.alive, moment.scores, -np.inf).argmax())
    mask: Bools = moment.groups == moment.groups[best]
    return mask


#: Filters by name; None: no filter.
FILTERS: Final[dict[str, Callable[[Moment], Bools] | None]] = {
    "none": None,
    "50%": _share(0.5),
    "10%": _share(0.1),
    "1%": _share(0.01),
    "0.1%": _share(0.001),
    "0.01%": _share(0.0001),
    "own-group": _own,  # only the group of the best row
    "not-own": lambda moment: ~_own(moment),  # all but the group of the best row: a hole around the query
    "not-near": lambda moment: ~_ranked(moment, 0.08),  # all but the nearest 8 %
    "not-nearer": lambda moment: ~_ranked(moment, 0.6),  # all but the nearest 60 %
    "farthest": lambda moment: ~_ranked(moment, 0.98),  # only the farthest 2 %
}
#: Filters that later lives and the metrics of lesser interest are asked with.
_FEW: Final = ("none", "1%", "not-near")
LIVES: Final = ("bulk", "streaming", "streamed", "deleted", "restarted", "updated", "churned", "rebuilt", "no-snapshot")


@dataclass(frozen=True, slots=True)
class Plan:
    """What to measure; empty selections mean everything."""

    kinds: Sequence[str] = ()
    metrics: Sequence[str] = ()
    collections: Sequence[str] = ()
    queries: Sequence[str] = ()
    filters: Sequence[str] = ()
    lives: Sequence[str] = ()
    size: int = 10_000
    dimension: int = 64
    asked: int = 50  # queries a cell without a filter; with one, a third
    rows_min: int = 1_000
    ef: int | None = None
    variants: Sequence[str] = ()  # names; those other than "default" are measured with core collections only


@dataclass(slots=True)
class Cell:
    """The answers to all queries of one combination."""

    key: dict[str, Any]
    recalls: list[float] = field(default_factory=list)
    firsts: int = 0
    times_ms: list[float] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)
    worst: tuple[float, str] = (2.0, "")

    def add(self, judged: Judgement, ms: float, name: str) -> None:
        self.recalls.append(judged.recall)
        self.firsts += judged.first
        self.times_ms.append(ms)
        if judged.broken is not None:
            self.broken.append(f"{name}: {judged.broken}")
        self.worst = min(self.worst, (judged.recall, name))

    def record(self) -> dict[str, Any]:
        return {
            **self.key,
            **summary(self.recalls),
            "first": self.firsts,
            "median_ms": round(float(np.median(self.times_ms)), 3),
            "broken": len(self.broken),
            "broken_first": self.broken[0] if self.broken else None,
            "worst_query": self.worst[1],
            "recalls": [round(each, 2) for each in self.recalls],
        }


def summary(recalls: Sequence[float]) -> dict[str, Any]:
    """What is told of the recalls of some queries."""
    values = np.array(recalls)
    return {
        "n": len(values),
        "mean": round(float(values.mean()), 4),
        "p5": round(float(np.percentile(values, 5, method="lower")), 3),
        "worst": round(float(values.min()), 3),
        "below_half": round(float((values < 0.5).mean()), 4),
        "below_07": round(float((values < 0.7 - 1e-9).mean()), 4),
    }


def variants(kind: str, metric: str) -> dict[str, dict[str, Any]]:
    """The kind's parameters by name of the variant: the defaults, and each other choice of a parameter with choices;
    without those that the kind refuses."""
    wanted: dict[str, dict[str, Any]] = {"default": {}}
    for name, parameter in KINDS[kind].parameters.items():
        wanted |= {f"{name}={choice}": {name: choice} for choice in parameter.choices if choice != parameter.default}
    made = {}
    for variant, parameters in wanted.items():
        try:
            made[variant] = checked(kind, metric, parameters)
        except VecError:
            continue
    return made


def measure(subject: Subject, queries: Queries, filters: Sequence[str], asked: int, key: dict[str, Any], *,
            ef: int | None = None) -> list[Cell]:  # fmt: skip
    """One cell a filter: all queries without one, `asked` of them with one."""
    random = np.random.default_rng(len(queries.names))
    cells = {name: Cell({**key, "filter": name}) for name in filters}
    alive, truth = subject.alive, subject.truth
    for start in range(0, len(queries.vectors), _AT_ONCE):
        block = queries.vectors[start : start + _AT_ONCE]
        for place, (query, scores) in enumerate(zip(block, truth.scores(block), strict=True), start):
            for name, cell in cells.items():
                choose = FILTERS[name]
                if choose is not None and place >= asked:
                    continue
                mask = None if choose is None else choose(Moment(scores, alive, subject.groups, random))
                allowed = alive if mask is None else alive & mask
                if not allowed.any():
                    continue
                rows, told, ms = subject.search(query, K, mask, ef)
                judged = truth.judge(query, scores, K, allowed, rows, told, subject.coarse)
                cell.add(judged, ms, queries.names[place])
    return [cell for cell in cells.values() if cell.recalls]


class Run:
    """Measures a plan for one seed."""

    def __init__(self, plan: Plan, seed: int) -> None:
        self.plan = plan
        self.seed = seed

    def cells(self) -> Iterator[Cell]:
        """Every cell of the plan, as it is measured."""
        plan = self.plan
        for name in plan.collections or data.NAMES:
            collection = data.collection(name, plan.size, plan.dimension, self.seed, plan.asked)
            if collection is None:
                continue
            for kind in plan.kinds or tuple(KINDS):
                for metric in plan.metrics or sorted(METRICS):
                    if metric in KINDS[kind].refuses or metric not in data.metrics_of(name):
                        continue
                    for variant, parameters in variants(kind, metric).items():
                        if plan.variants and variant not in plan.variants:
                            continue
                        if variant == "default" or data.is_core(name):
                            spec = Spec(collection.vectors.shape[1], metric, kind, parameters)
                            yield from self._of_one_index(collection, spec, variant)

    def _of_one_index(self, collection: Collection, spec: Spec, variant: str) -> Iterator[Cell]:
        core = data.is_core(collection.name)
        full = core and variant == "default" and (spec.metric == "cosine" or collection.name == "cone")
        lives = LIVES if full else ("bulk", "updated", "restarted") if core else data.lives_of(collection.name)
        wanted = self.plan.lives or LIVES
        whole = full or (variant == "default" and spec.metric == "cosine")
        with tempfile.TemporaryDirectory(prefix="vec-recall-") as folder:
            one = _OneIndex(self, collection, spec, variant, Path(folder))
            if {"streamed", "streaming"} & set(lives) & set(wanted):
                yield from one.streamed()
            others = [life for life in lives if life in wanted and not life.startswith("stream")]
            if others:
                yield from one.lived(others, FILTERS if whole else _FEW)


class _OneIndex:
    """An index of one spec with one collection, through its lives."""

    def __init__(self, run: Run, collection: Collection, spec: Spec, variant: str, folder: Path) -> None:
        self._plan, self._collection, self._spec, self._folder, self._seed = (
            run.plan, collection, spec, folder, run.seed,
        )  # fmt: skip
        self._key = {
            "kind": spec.kind, "variant": variant, "metric": spec.metric, "collection": collection.name,
            "dimension": spec.dimension, "size": len(collection.vectors), "seed": run.seed,
        }  # fmt: skip

    def lived(self, lives: Sequence[str], filters: Sequence[str] | dict[str, Any]) -> Iterator[Cell]:
        """One life after the other, of the same index. Those that are not asked for are lived through all the same,
        up to the last that is: what an index holds depends on what was before."""
        subject = self._subject()
        try:
            for life in LIVES[: max(LIVES.index(each) for each in lives) + 1]:
                about: dict[str, Queries] = {}
                if life == "bulk":
                    subject.load()
                elif life == "deleted":
                    about = self._about(subject, subject.delete_groups(0.12))
                elif life == "restarted":
                    subject.restart(snapshot=True)
                elif life == "updated":  # too few to be built anew: masked rows and new ones in the old structure
                    subject.update(0.07)
                elif life == "churned":
                    subject.update(0.5, 0.2)
                    subject.refill()
                elif life == "rebuilt":
                    subject.rebuild()
                elif life == "no-snapshot":
                    subject.restart(snapshot=False)
                if life in lives:
                    yield from self._asked(subject, life, tuple(filters) if life == "bulk" else _FEW, about)
        finally:
            subject.stop()

    def streamed(self) -> Iterator[Cell]:
        """Written in small batches with searches in between, then settled."""
        plan, collection = self._plan, self._collection
        vectors, groups = collection.vectors, collection.groups
        subject = self._subject()
        random = np.random.default_rng(self._seed)
        cell = Cell({**self._key, "queries": "mixed", "filter": "none", "life": "streaming"})
        mixed = [
            (vector, f"{kind} {name}")
            for kind, queries in collection.queries.items()
            for vector, name in zip(queries.vectors, queries.names, strict=True)
        ]
        try:
            step = max(50, len(vectors) // 60)
            for start in range(0, len(vectors), step):
                subject.write(vectors[start : start + step], groups[start : start + step])
                if start // step % 10 == 9:
                    subject.settle()
                for place in random.integers(0, len(mixed), 6).tolist():
                    query, name = mixed[place]
                    scores = subject.truth.scores(query[None])[0]
                    rows, told, ms = subject.search(query, K, None, plan.ef)
                    cell.add(
                        subject.truth.judge(query, scores, K, subject.alive, rows, told, subject.coarse),
                        ms, f"after {len(subject.alive):,}: {name}",
                    )  # fmt: skip
            if "streaming" in (plan.lives or LIVES):
                yield cell
            subject.settle()
            if "streamed" in (plan.lives or LIVES):
                yield from self._asked(subject, "streamed", _FEW, {})
        finally:
            subject.stop()

    def _subject(self) -> Subject:
        return Subject(self._collection, self._spec, self._folder, self._plan.rows_min, self._seed)

    def _about(self, subject: Subject, gone: data.Numbers) -> dict[str, Queries]:
        """Queries about what was deleted: its rows, and the means of its groups."""
        if not len(gone):
            return {}
        rows = np.random.default_rng(self._seed).permutation(gone)[: self._plan.asked]
        groups = np.unique(subject.groups[gone])[: self._plan.asked]
        means = [subject.vectors(gone[subject.groups[gone] == group]).mean(axis=0) for group in groups]
        return {
            "deleted": Queries(subject.vectors(rows), [f"deleted row {row}" for row in rows.tolist()]),
            "deleted-topic": Queries(
                np.array(means, np.float32), [f"mean of deleted group {group}" for group in groups.tolist()]
            ),
        }

    def _asked(self, subject: Subject, life: str, filters: Sequence[str], about: dict[str, Queries]) -> Iterator[Cell]:
        plan = self._plan
        chosen = [name for name in filters if not plan.filters or name in plan.filters]
        for kind, queries in {**self._collection.queries, **about}.items():
            if not chosen or (plan.queries and kind not in plan.queries):
                continue
            key = {**self._key, "queries": kind, "life": life}
            yield from measure(subject, queries, chosen, max(1, plan.asked // 3), key, ef=plan.ef)
