"""Builds a library's index from the store, or restores it from a snapshot and adds what came since.

A label's vector never changes. So a snapshot is right for every label that it holds and that is still alive, whatever
happened since it was saved: the dead ones are masked, the ones that are not in it come from the store. A snapshot that
cannot be used costs time and nothing else.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..errors import Code, VecError
from ..resources import exhausted
from . import brute_force, native, snapshot_file
from .kinds import KINDS
from .local.flat import Flat
from .rows import Floats, Labels
from .source import Source, Stored
from .structure import Spec, Structure

log = logging.getLogger("vecd.index")

_SEED = 20_090_102
#: A float16 has eleven bits.
_SAME = 2e-3


@dataclass(slots=True)
class Loaded:
    """What a LiveIndex begins with."""

    seq: int
    structure: Structure | None
    tail: Flat
    firsts: Labels  # of the documents' chunks
    damage: str | None = None  # what was wrong with the snapshot that was found


class BuildCancelled(Exception):
    """Nobody wants it any more."""


def load(spec: Spec, source: Source, stopped: Callable[[], bool]) -> Loaded:
    """The vectors as of now: the snapshot's structure if there is one, and the rest as the tail."""
    with source.read() as stored:
        structure, damage = _restored(spec, source, stored)
        missing = stored.labels
        if structure is not None:
            structure.rows.keep_only(stored.labels)
            missing = stored.labels[np.searchsorted(stored.labels, structure.rows.last_label, "right") :]
        tail = Flat(spec.dimension, spec.space)
        for labels, vectors in _pages(spec, stored, missing, stopped):
            tail.add(labels, vectors)
        return Loaded(stored.seq, structure, tail, stored.firsts, damage)


def build(
    spec: Spec, source: Source, rows_min: int, stopped: Callable[[], bool], progress: Callable[[float], None]
) -> tuple[Structure | Flat, int]:
    """A new structure of everything in the store, and the last label of the store's that it stands for. Of fewer than
    `rows_min` rows none is made but a Flat: all of them are the tail."""
    make = KINDS[spec.kind].make
    with source.read() as stored, native.threads(native.CORES):
        small = len(stored.labels) < rows_min
        structure: Structure | Flat = Flat(spec.dimension, spec.space) if make is None or small else make(spec)
        if not isinstance(structure, Flat) and KINDS[spec.kind].train_rows:
            structure.train(_sample(spec, stored, KINDS[spec.kind].train_rows, stopped))
        done = 0
        for labels, vectors in _pages(spec, stored, stored.labels, stopped):
            if isinstance(structure, Flat):
                structure.add(labels, vectors)
            else:
                structure.extend(labels, vectors)
            done += len(labels)
            progress(done / len(stored.labels))
    if not isinstance(structure, Flat):
        structure.finish()
    return structure, int(stored.labels[-1]) if len(stored.labels) else -1


def save(spec: Spec, source: Source, structure: Structure, seq: int) -> None:
    """Keeps the structure in the source's file. Raises OSError."""
    arrays = structure.arrays()
    assert arrays is not None
    assert source.path is not None
    about = {"of": source.identity, "spec": described(spec), "seq": seq, "vectors": structure.rows.count}
    size = snapshot_file.save(source.path, about, arrays)
    log.info("snapshot saved", extra={"file": source.path.name, "vectors": structure.rows.count, "bytes": size})


def prepared(spec: Spec, vectors: Floats) -> Floats:
    """Vectors, shape (n, dimension), as a structure of that metric takes them."""
    return brute_force.normalised(vectors) if spec.metric == "cosine" else vectors


def _pages(spec: Spec, stored: Stored, labels: Labels, stopped: Callable[[], bool]) -> Iterator[tuple[Labels, Floats]]:
    for its_labels, vectors in stored.pages(labels):
        if stopped():
            raise BuildCancelled
        yield its_labels, prepared(spec, vectors)


def _sample(spec: Spec, stored: Stored, rows: int, stopped: Callable[[], bool]) -> Floats:
    """Up to so many of the vectors, chosen by chance, shape (n, dimension); always the same of the same labels."""
    labels = stored.labels
    if len(labels) > rows:
        labels = np.sort(np.random.default_rng(_SEED).choice(labels, rows, replace=False))
    return np.concatenate([vectors for _, vectors in _pages(spec, stored, labels, stopped)])


def described(spec: Spec) -> dict[str, Any]:
    told = {"dimension": spec.dimension, "metric": spec.metric, "kind": spec.kind, "parameters": {**spec.parameters}}
    return {**told, "format": KINDS[spec.kind].format}


def _restored(spec: Spec, source: Source, stored: Stored) -> tuple[Structure | None, str | None]:
    """The structure that the snapshot holds, if it can be used, and why it cannot, if somebody should know."""
    restore, path = KINDS[spec.kind].restore, source.path
    if path is None or restore is None:
        return None, None
    try:
        with snapshot_file.opened(path) as (about, arrays):
            if about["of"] != source.identity:
                raise snapshot_file.UnusableSnapshot("is of another library")
            if about["spec"] != described(spec):  # the index has changed since, or the format of its arrays
                path.unlink()
                return None, None
            snapshot_file.check_seq(about["seq"], stored.seq)
            try:
                structure = restore(spec, arrays)
            except ValueError as error:
                raise snapshot_file.UnusableSnapshot(f"is damaged: {error}") from error
        _spot_check(spec, structure, stored)
        return structure, None
    except FileNotFoundError:
        return None, None
    except (snapshot_file.UnusableSnapshot, OSError) as error:
        aside = path.with_name(path.name + ".damaged")
        with contextlib.suppress(OSError):
            path.replace(aside)
        damage = f"the snapshot {error}; it is set aside as {aside}"
        log.warning("snapshot unusable", extra={"file": str(aside), "error": str(error)})
        return None, damage


def _spot_check(spec: Spec, structure: Structure, stored: Stored) -> None:
    """Raises UnusableSnapshot if the structure's rows are not the store's."""
    labels = stored.labels[: np.searchsorted(stored.labels, structure.rows.last_label, "right")]
    structure.rows.keep_only(labels)
    if len(structure.rows) != len(labels):
        lacking = np.setdiff1d(labels, structure.rows.labels)
        if any(len(its_labels) for its_labels, _ in stored.pages(lacking)):  # and not only what is damaged in the store
            raise snapshot_file.UnusableSnapshot("is of another state of the store: it lacks vectors")
    for its_labels, vectors in stored.pages(labels[snapshot_file.spots(len(labels))]):
        ours = structure.sample(np.searchsorted(labels, its_labels))
        theirs = prepared(spec, vectors)
        if not np.allclose(ours, theirs, rtol=_SAME, atol=_SAME * max(1e-30, float(np.abs(theirs).max()))):
            raise snapshot_file.UnusableSnapshot("is of another state of the store: its vectors differ")


def failed(error: BaseException) -> VecError:
    """The error that searches of an index get that could not be loaded or searched."""
    if isinstance(error, VecError):
        return error
    failure = exhausted(error) or VecError(
        Code.INDEX_FAILED,
        f"the index could not be loaded or searched: {error!r}",
        "try again; see the daemon's log",
    )
    failure.__cause__ = error
    return failure
