"""Builds a structure from the vectors in the store, or restores one from a snapshot and adds what is missing.

The vector of a label does not change within a generation (`Stored.generation`). So a snapshot of the present generation
is valid for all labels in it that are still alive, whatever happened since it was saved: deleted labels are masked, and
missing ones are read from the store. A snapshot that cannot be used costs time and nothing else.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
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
#: The tolerance of the spot check: a float16 has eleven bits.
_TOLERANCE = 2e-3


@dataclass(slots=True)
class Loaded:
    """The initial content of a LiveIndex."""

    seq: int
    structure: Structure | None
    tail: Flat
    firsts: Labels  # of the documents' chunks
    generation: int = 0  # of the store that it was read from
    damage: str | None = None  # what was wrong with the snapshot that was found


@dataclass(frozen=True, slots=True)
class Built:
    """A new structure. A Flat becomes the tail."""

    structure: Structure | Flat
    spec: Spec  # of the dimension that the vectors have
    last_label: int  # the last that it covers
    generation: int  # of the store that it was read from


class BuildCancelled(Exception):
    """The load or build was cancelled."""


def load(spec: Spec, source: Source, stopped: Callable[[], bool]) -> Loaded:
    """Loads the current vectors: the structure of the snapshot, if there is one, and the rest as the tail."""
    with source.read() as stored:
        spec = _of_dimension(spec, stored)
        structure, damage = _restored(spec, source, stored)
        missing = stored.labels
        if structure is not None:
            structure.rows.keep_only(stored.labels)
            missing = stored.labels[np.searchsorted(stored.labels, structure.rows.last_label, "right") :]
        tail = Flat(spec.dimension, spec.space)
        for labels, vectors in _pages(spec, stored, missing, stopped):
            tail.add(labels, vectors)
        return Loaded(stored.seq, structure, tail, stored.firsts, stored.generation, damage)


def build(
    spec: Spec, source: Source, rows_min: int, stopped: Callable[[], bool], progress: Callable[[float], None]
) -> Built:
    """Builds a structure of all vectors in the store; for fewer than `rows_min` rows, a Flat."""
    make = KINDS[spec.kind].make
    with source.read() as stored, native.threads(native.CORES):
        spec = _of_dimension(spec, stored)
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
    return Built(structure, spec, int(stored.labels[-1]) if len(stored.labels) else -1, stored.generation)


def save(spec: Spec, source: Source, structure: Structure, seq: int, generation: int) -> None:
    """Saves a snapshot of the structure. Raises OSError."""
    arrays = structure.arrays()
    assert arrays is not None
    assert source.path is not None
    about = {
        "of": source.identity,
        "spec": described(spec),
        "seq": seq,
        "generation": generation,
        "vectors": structure.rows.count,
    }
    size = snapshot_file.save(source.path, about, arrays)
    log.info("snapshot saved", extra={"file": source.path.name, "vectors": structure.rows.count, "bytes": size})


def prepared(spec: Spec, vectors: Floats) -> Floats:
    """Vectors, shape (n, dimension), as a structure needs them: normalized for cosine."""
    return brute_force.normalised(vectors) if spec.metric == "cosine" else vectors


def _pages(spec: Spec, stored: Stored, labels: Labels, stopped: Callable[[], bool]) -> Iterator[tuple[Labels, Floats]]:
    for its_labels, vectors in stored.pages(labels):
        if stopped():
            raise BuildCancelled
        yield its_labels, prepared(spec, vectors)


def _sample(spec: Spec, stored: Stored, rows: int, stopped: Callable[[], bool]) -> Floats:
    """A random sample of up to `rows` vectors, shape (n, dimension); the same for the same labels."""
    labels = stored.labels
    if len(labels) > rows:
        labels = np.sort(np.random.default_rng(_SEED).choice(labels, rows, replace=False))
    return np.concatenate([vectors for _, vectors in _pages(spec, stored, labels, stopped)])


def _of_dimension(spec: Spec, stored: Stored) -> Spec:
    return spec if stored.dimension is None else replace(spec, dimension=stored.dimension)


def described(spec: Spec) -> dict[str, Any]:
    """What a snapshot must have in common with the index, as JSON."""
    fields = {"dimension": spec.dimension, "metric": spec.metric, "kind": spec.kind, "parameters": {**spec.parameters}}
    return {**fields, "format": KINDS[spec.kind].format}


def _restored(spec: Spec, source: Source, stored: Stored) -> tuple[Structure | None, str | None]:
    """The structure of the snapshot, if it can be used; and the damage, if there is any."""
    restore, path = KINDS[spec.kind].restore, source.path
    if path is None or restore is None:
        return None, None
    try:
        with snapshot_file.opened(path) as (about, arrays):
            if about["of"] != source.identity:
                raise snapshot_file.UnusableSnapshot("belongs to another library")
            outdated = about.get("generation", 0) != stored.generation
            if outdated or about["spec"] != described(spec):  # or the index or the format of its arrays has changed
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
        renamed = path.with_name(path.name + ".damaged")
        with contextlib.suppress(OSError):
            path.replace(renamed)
        damage = f"the snapshot {error}; it was renamed to {renamed}"
        log.warning("snapshot unusable", extra={"file": str(renamed), "error": str(error)})
        return None, damage


def _spot_check(spec: Spec, structure: Structure, stored: Stored) -> None:
    """Raises UnusableSnapshot if the rows of the structure differ from those in the store."""
    labels = stored.labels[: np.searchsorted(stored.labels, structure.rows.last_label, "right")]
    structure.rows.keep_only(labels)
    if len(structure.rows) != len(labels):
        lacking = np.setdiff1d(labels, structure.rows.labels)
        if any(len(its_labels) for its_labels, _ in stored.pages(lacking)):  # not only damaged in the store
            raise snapshot_file.UnusableSnapshot("belongs to another state of the store: it lacks vectors")
    for its_labels, vectors in stored.pages(labels[snapshot_file.spots(len(labels))]):
        held = structure.sample(np.searchsorted(labels, its_labels))
        stored_vectors = prepared(spec, vectors)
        atol = _TOLERANCE * max(1e-30, float(np.abs(stored_vectors).max()))
        if not np.allclose(held, stored_vectors, rtol=_TOLERANCE, atol=atol):
            raise snapshot_file.UnusableSnapshot("belongs to another state of the store: its vectors differ")


def failed(error: BaseException) -> VecError:
    """The error for searches of an index that could not be loaded or searched."""
    if isinstance(error, VecError):
        return error
    failure = exhausted(error) or VecError(
        Code.INDEX_FAILED,
        f"the index could not be loaded or searched: {error!r}",
        "try again; see the daemon's log",
    )
    failure.__cause__ = error
    return failure
