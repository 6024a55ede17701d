"""delete: deletes the documents that match filters."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from ...engine import documents
from ...filters import expressions
from ...parameters import Parameter
from ..effects import DeleteVersions
from .kind import JobKind, Run, Step, Steps

if TYPE_CHECKING:
    from ...engine.engine import Engine


class Delete(JobKind):
    """One transaction per step. Deletes the documents that match when an attempt begins, unless they change later. A
    filter with a field that no document has fails the job. The log names documents that no filter can be evaluated on.
    """

    name = "delete"
    what = "delete the documents that match filters"
    unit = "documents"
    library = "required"
    frees = True
    params: ClassVar[Mapping[str, Parameter]] = {
        "where": Parameter("filters; a document must match all", list, required=True)
    }

    def check(self, engine: Engine, library: str | None, params: dict[str, Any]) -> dict[str, Any]:
        expressions.parse(tuple(params["where"]))
        return params

    def steps(self, run: Run) -> Steps:
        engine, name = run.engine, run.job.library
        assert name is not None
        library = engine.database.catalogue.find(name)
        # In a later attempt, fields may be missing because the documents with them were deleted.
        first = run.checkpoint is None
        where = expressions.parse(tuple(run.params["where"]))
        found, warnings = documents.versions(engine, library, where, sure=first)
        if warnings and first:
            yield Step({}, lines=warnings)
        before, start = run.count("deleted"), 0
        total = before + len(found)
        while page := found[start : start + documents.documents_per_delete(engine)]:
            start += len(page)
            yield Step({}, DeleteVersions(library, page), done=before + start, total=total)
        return {"deleted": run.count("deleted")}
