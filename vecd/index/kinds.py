"""The kinds of index and their parameters: one visible table. Adding a kind is one file and one entry here."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import numpy.typing as npt

from ..errors import Code, VecError, nearest
from . import METRICS
from .structure import Spec, Structure


@dataclass(frozen=True, slots=True)
class Parameter:
    """One parameter of a kind: a whole number from `low` to `high` that `step` divides, or one of `choices`."""

    default: int | str
    what: str
    low: int = 0
    high: int = 0
    step: int = 1
    choices: tuple[int | str, ...] = ()


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind. `make` is None where the tail is all there is; a structure pays from `rows_min` rows on."""

    what: str
    make: Callable[[Spec], Structure] | None = None
    restore: Callable[[Spec, Mapping[str, npt.NDArray[Any]]], Structure] | None = None
    rows_min: int = 0
    train_rows: int = 0  # of the sample that `Structure.train` takes; 0: it needs none
    exact: bool = False  # whether it finds what a scan finds
    format: int = 1  # of its arrays in a snapshot; a snapshot of another format is replaced
    parameters: Mapping[str, Parameter] = field(default_factory=dict)
    refuses: Mapping[str, str] = field(default_factory=dict)  # metric -> why not


def _hnsw(spec: Spec) -> Structure:
    from .local.hnsw import Hnsw

    return Hnsw(spec)


def _hnsw_restored(spec: Spec, arrays: Mapping[str, npt.NDArray[Any]]) -> Structure:
    from .local.hnsw import Hnsw

    return Hnsw.restore(spec, arrays)


def _pq(spec: Spec) -> Structure:
    from .local.pq import Pq

    return Pq(spec)


def _lsh(spec: Spec) -> Structure:
    from .local.lsh import Lsh

    return Lsh(spec)


def _kdtree(spec: Spec) -> Structure:
    from .local.kdtree import KdTree

    return KdTree(spec)


#: The kinds. `rows_min`: up to there an exact scan is as fast (tests/bench/filters.py and tests/bench/kinds.py).
KINDS: Final[dict[str, Kind]] = {
    "pq": Kind(
        "short codes of all vectors are scanned, and the best rows compared exactly, as many as a query needs",
        _pq,
        rows_min=16_384,
        train_rows=16_384,
        parameters={
            "bits": Parameter(
                0, "bits of a code for each component; 0: 4 up to 64 dimensions, 2 above", choices=(0, 1, 2, 4)
            )
        },
    ),
    "hnsw": Kind(
        "a graph that is walked towards the query; approximate",
        _hnsw,
        _hnsw_restored,
        rows_min=8_192,
        format=2,
        parameters={
            "m": Parameter(24, "links of a vector", 4, 128),
            "ef_construction": Parameter(128, "candidates looked at when a vector is linked", 16, 2_000),
            "vectors": Parameter("float32", "how vectors are held in the graph", choices=("float32", "float16")),
        },
    ),
    "flat": Kind("every vector is compared; exact", exact=True),
    "lsh": Kind(
        "random hyperplanes make a code of bits of each vector; approximate",
        _lsh,
        rows_min=16_384,
        train_rows=16_384,
        parameters={"bits": Parameter(512, "hyperplanes", 64, 8_192, step=8)},
    ),
    "kdtree": Kind(
        "a tree of halved spaces; exact, and fast for few dimensions",
        _kdtree,
        rows_min=1_024,
        exact=True,
        parameters={"leaf_size": Parameter(32, "vectors in a leaf", 1, 4_096)},
        refuses={"dot": "a tree finds what is near, and the largest inner product need not be"},
    ),
}


#: What a library gets that asks for none: exact while it is small, and fast when it is not.
DEFAULT: Final = "pq"


def checked(kind: str, metric: str, parameters: Mapping[str, Any]) -> dict[str, Any]:
    """All parameters of an index of that kind, those not given by their defaults.

    Raises VecError `unsupported` or `invalid_request`.
    """
    for what, value, known in (("index", kind, tuple(KINDS)), ("metric", metric, tuple(METRICS))):
        if value not in known:
            close = nearest(value, known)
            hint = f"did you mean {close!r}?" if close else f"known: {', '.join(known)}"
            raise VecError(Code.UNSUPPORTED, f"there is no {what} {value!r:.40}", hint, field=what)
    about = KINDS[kind]
    if metric in about.refuses:
        others = ", ".join(each for each in METRICS if each not in about.refuses)
        raise VecError(
            Code.UNSUPPORTED,
            f"the index {kind!r} cannot do the metric {metric!r}: {about.refuses[metric]}",
            f"use one of {others}, or another index",
            field="metric",
        )
    if "vectors" in about.parameters and parameters.get("vectors") == "float16" and metric != "cosine":
        raise VecError(
            Code.UNSUPPORTED,
            f"float16 has no room for the vectors of the metric {metric!r}, which may have any length",
            "use --vectors float32, or the metric cosine",
            field="vectors",
        )
    for name, value in parameters.items():
        if name not in about.parameters:
            known = tuple(about.parameters)
            hint = f"it has {', '.join(known)}" if known else "it has no parameters"
            raise VecError(Code.INVALID_REQUEST, f"the index {kind!r} has no parameter {name!r:.40}", hint, field=name)
        _check(name, about.parameters[name], value)
    return {name: parameters.get(name, about.parameters[name].default) for name in about.parameters}


def _check(name: str, parameter: Parameter, value: Any) -> None:
    if parameter.choices:
        if not any(value == each and type(value) is type(each) for each in parameter.choices):
            *most, last = map(str, parameter.choices)
            choices = f"{', '.join(most)} or {last}"
            raise VecError(Code.INVALID_REQUEST, f"{name} must be {choices}, not {value!r:.40}", field=name)
    elif not isinstance(value, int) or isinstance(value, bool) or not parameter.low <= value <= parameter.high:
        raise VecError(
            Code.INVALID_REQUEST,
            f"{name} must be a whole number from {parameter.low:,} to {parameter.high:,}, not {value!r:.40}",
            field=name,
        )
    elif value % parameter.step:
        raise VecError(Code.INVALID_REQUEST, f"{name} must be a multiple of {parameter.step}, not {value}", field=name)
