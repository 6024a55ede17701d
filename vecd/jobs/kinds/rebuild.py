"""rebuild: builds a library's index anew, as another kind or with other parameters if these are given."""

from __future__ import annotations

import concurrent.futures
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from ... import limits
from ...engine import libraries
from ...engine.indexes import spec_of
from ...index.kinds import KINDS as INDEXES
from ...store import libraries as store
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
        _wanted(engine, library, params)
        return params

    def steps(self, run: Run) -> Steps:
        engine, name = run.engine, run.job.library
        assert name is not None
        library = _wanted(engine, name, run.params)
        recall = run.params.get("recall")
        if recall is not None:
            yield Step(write=lambda tx: store.promise(tx, library.library_id, recall))
            if len(run.params) == 1:
                return {"vectors": 0, "seconds": 0.0, "reason": "requested"}
        if library.dimension is None:  # nothing to build yet
            told = {"vectors": 0, "seconds": 0.0, "reason": "requested"}
            yield Step(write=lambda tx: store.rebuilt(tx, library.library_id, library.index, library.parameters, told))
            return told
        live = engine.indexes.of(library)
        stopped: list[bool] = []
        future = live.rebuild(spec_of(library), lambda: bool(stopped) or run.stopping())
        try:
            while True:
                try:
                    report = future.result(_LOOK_S)
                    return {"vectors": report.vectors, "seconds": round(report.seconds, 3), "reason": report.reason}
                except concurrent.futures.TimeoutError:
                    built = live.build_progress
                    total = engine.database.catalogue.by_id[library.library_id].chunks
                    yield Step(done=None if built is None else int(built * total), total=total)
        finally:
            stopped.append(True)
            future.cancel()


def _wanted(engine: Engine, name: str, params: Mapping[str, Any]) -> Any:
    parameters = {key: value for key, value in params.items() if key not in ("index", "recall")}
    return libraries.reindexed(engine.database.catalogue.find(name), params.get("index"), parameters)
