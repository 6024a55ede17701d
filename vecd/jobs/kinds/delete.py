"""delete: deletes the documents that filters let through."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

from ...engine import documents
from ...filters import language
from ...store.transaction import Transaction
from .kind import JobKind, Param, Run, Step, Steps

if TYPE_CHECKING:
    from ...engine.engine import Engine


class Delete(JobKind):
    """A transaction a step. What matches when an attempt begins is deleted, unless somebody changes it meanwhile. A
    filter that names a field that no document has fails the job."""

    name = "delete"
    what = "delete the documents that filters let through"
    unit = "documents"
    library = "required"
    frees = True
    params: ClassVar[Mapping[str, Param]] = {"where": Param("filters, all of which must hold", list, required=True)}

    def check(self, engine: Engine, library: str | None, params: dict[str, Any]) -> dict[str, Any]:
        language.parse(tuple(params["where"]))
        return params

    def steps(self, run: Run) -> Steps:
        engine, name = run.engine, run.job.library
        assert name is not None
        library = engine.database.catalogue.find(name)
        # A later attempt may find that the fields have gone with the documents that were deleted before it.
        first = run.checkpoint is None
        found = documents.versions(engine, library, language.parse(tuple(run.params["where"])), sure=first)
        deleted: int = run.checkpoint or 0
        total = deleted + len(found)
        result = {"deleted": deleted}

        def write(page: list[documents.Version], before: int, tx: Transaction) -> int:
            result["deleted"] = before + documents.delete_unchanged(library, page, tx)[0]
            return result["deleted"]

        start = 0
        while page := found[start : start + documents.delete_page(engine)]:
            start += len(page)
            work = partial(write, page, result["deleted"])
            yield Step(write=work, done=deleted + start, total=total, rows=len(page), frees=True)
        return result
