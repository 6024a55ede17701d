"""rebuild: rebuilds the index of a library, optionally as another kind or with other parameters."""

from __future__ import annotations

import concurrent.futures
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from ... import limits
from ...engine import libraries
from ...index.kinds import KINDS as INDEXES
from ...parameters import Parameter
from .kind import JobKind, Run, Step, Steps

if TYPE_CHECKING:
    from ...engine.engine import Engine

_POLL_S = 0.05


def _parameters() -> dict[str, Parameter]:
    """The parameters of all kinds of index; several kinds may share a name."""
    described: dict[str, list[str]] = {}
    types: dict[str, type] = {}
    for kind, about in INDEXES.items():
        for name, parameter in about.parameters.items():
            described.setdefault(name, []).append(f"{kind}: {parameter.what}")
            types[name] = str if parameter.choices else int
    return {name: Parameter("; ".join(what), types[name]) for name, what in described.items()}


class Rebuild(JobKind):
    """One step, because a build has no checkpoints. Reads and writes continue."""

    name = "rebuild"
    what = "rebuild the index of a library"
    unit = "vectors"
    library = "required"
    params: ClassVar[Mapping[str, Parameter]] = {
        "index": Parameter("the kind of index; default: the current kind", str),
        "recall": Parameter(
            "the promised recall; if set alone, nothing is built", float, low=limits.RECALL_MIN, high=1
        ),
        **_parameters(),
    }

    def check(self, engine: Engine, library: str | None, params: dict[str, Any]) -> dict[str, Any]:
        assert library is not None
        libraries.reindexed(
            engine.database.catalogue.find(library, to="manage"), params.get("index"), _parameters_of(params)
        )
        return params

    def steps(self, run: Run) -> Steps:
        engine, name = run.engine, run.job.library
        assert name is not None
        cancelled: list[bool] = []
        rebuild = libraries.begin_rebuild(
            engine, name, run.params.get("index"), _parameters_of(run.params), run.params.get("recall"),
            lambda: bool(cancelled) or run.stopping(),
        )  # fmt: skip
        try:
            while True:
                try:
                    return rebuild.report.result(_POLL_S)
                except concurrent.futures.TimeoutError:
                    share, total = rebuild.share_built(), rebuild.library().chunks
                    yield Step(done=None if share is None else int(share * total), total=total)
        finally:
            cancelled.append(True)


def _parameters_of(params: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters of the index."""
    return {key: value for key, value in params.items() if key not in ("index", "recall")}
