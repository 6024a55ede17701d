"""rebuild: rebuilds a library's index, also as another kind or with other parameters."""

from __future__ import annotations

import concurrent.futures
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from ... import limits
from ...engine import libraries
from ...index.kinds import KINDS as INDEXES
from .kind import JobKind, Param, Run, Step, Steps

if TYPE_CHECKING:
    from ...engine.engine import Engine

_LOOK_S = 0.05


def _parameters() -> dict[str, Param]:
    """The parameters of all kinds of index; several kinds may have one of the same name."""
    described: dict[str, list[str]] = {}
    types: dict[str, type] = {}
    for kind, about in INDEXES.items():
        for name, parameter in about.parameters.items():
            described.setdefault(name, []).append(f"{kind}: {parameter.what}")
            types[name] = str if parameter.choices else int
    return {name: Param("; ".join(what), types[name]) for name, what in described.items()}


class Rebuild(JobKind):
    """One step: an index is whole, or not there. Reads and writes go on meanwhile."""

    name = "rebuild"
    what = "build a library's index anew"
    unit = "vectors"
    library = "required"
    params: ClassVar[Mapping[str, Param]] = {
        "index": Param("the kind of index; as it is unless set", str),
        "recall": Param(
            "the recall that searches are to have; alone, nothing is built", float, low=limits.RECALL_MIN, high=1
        ),
        **_parameters(),
    }

    def check(self, engine: Engine, library: str | None, params: dict[str, Any]) -> dict[str, Any]:
        assert library is not None
        libraries.reindexed(engine.database.catalogue.find(library), params.get("index"), _parameters_of(params))
        return params

    def steps(self, run: Run) -> Steps:
        engine, name = run.engine, run.job.library
        assert name is not None
        given_up: list[bool] = []
        rebuild = libraries.begin_rebuild(
            engine, name, run.params.get("index"), _parameters_of(run.params), run.params.get("recall"),
            lambda: bool(given_up) or run.stopping(),
        )  # fmt: skip
        try:
            while True:
                try:
                    return rebuild.report.result(_LOOK_S)
                except concurrent.futures.TimeoutError:
                    share, total = rebuild.share_built(), rebuild.library().chunks
                    yield Step(done=None if share is None else int(share * total), total=total)
        finally:
            given_up.append(True)


def _parameters_of(params: Mapping[str, Any]) -> dict[str, Any]:
    """Those of the index."""
    return {key: value for key, value in params.items() if key not in ("index", "recall")}
