"""export: a library's documents as NDJSON, which `vec ingest` reads.

A page of documents a step; the checkpoint is the last id and how long the file is on disk, so what a crash has left
behind that is cut off. With gzip a step is a member of its own: gzip files one behind the other are one. A document
that is there from beginning to end is in it once; of what changes meanwhile, one version.
"""

from __future__ import annotations

import gzip
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import orjson

from ... import limits
from ...engine import documents
from ...engine.libraries import find
from ...filters import language
from ...store import documents as store
from ...store.jobs import Job
from . import files
from .kind import Kind, Param, Run, Step, Steps

if TYPE_CHECKING:
    from ...engine.core import Engine


class Export(Kind):
    """Documents in the order of their ids."""

    name = "export"
    what = "write a library's documents to a file, as NDJSON"
    unit = "documents"
    library = "required"
    params: ClassVar[Mapping[str, Param]] = {
        "path": Param("the file; what is there is replaced", str, required=True),
        "gzip": Param("whether it is packed; if its name ends in .gz unless set", bool),
        "vectors": Param("whether each document brings its vectors; those without a text always do", bool),
        "where": Param("filters, all of which must hold", list),
    }

    def check(self, engine: Engine, library: str | None, params: dict[str, Any]) -> dict[str, Any]:
        files.check_target(self.name, params["path"])
        language.parse(tuple(params.get("where", ())))
        return {"gzip": params["path"].endswith(".gz"), **params}

    def steps(self, run: Run) -> Steps:
        params, name = run.params, run.job.library
        assert name is not None
        at = run.checkpoint or {"after": None, "bytes": 0, "documents": 0, "whole": False}
        made, path = files.unfinished(run.job), Path(params["path"])
        if not at["whole"] and _length(made) < at["bytes"]:  # it was cancelled, and its file is gone
            at = {"after": None, "bytes": 0, "documents": 0, "whole": False}
        if not at["whole"]:
            total = find(run.engine, name).documents
            with open(os.open(made, os.O_WRONLY | os.O_CREAT, 0o600), "wb") as file:
                file.truncate(at["bytes"])
                file.seek(at["bytes"])
                for page in _pages(run.engine, name, at["after"], params):
                    lines = b"".join(page[1])
                    file.write(gzip.compress(lines, 6, mtime=0) if params["gzip"] else lines)
                    file.flush()
                    os.fsync(file.fileno())
                    at = {
                        "after": page[0],
                        "bytes": file.tell(),
                        "documents": at["documents"] + len(page[1]),
                        "whole": False,
                    }
                    yield Step(at, done=at["documents"], total=max(total, at["documents"]))
                os.fsync(file.fileno())
            at = {**at, "whole": True}
            yield Step(at, done=at["documents"], total=at["documents"])
        files.put_in_place(made, path)
        return {"path": params["path"], "documents": at["documents"], "bytes": path.stat().st_size}

    def abandon(self, engine: Engine, job: Job) -> None:
        self.forget(engine, job)

    def forget(self, engine: Engine, job: Job) -> None:
        files.unfinished(job).unlink(missing_ok=True)


def _length(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _pages(
    engine: Engine, name: str, after: str | None, params: Mapping[str, Any]
) -> Iterator[tuple[str, list[bytes]]]:
    """The last id of each page behind `after` (exclusive), and its documents' lines."""
    library = find(engine, name)
    own = bool(params.get("vectors")) or library.embedder == "none"
    if where := language.parse(tuple(params.get("where", ()))):
        ids = [each for _, each in documents.select(engine, library, where) if after is None or each > after]
        pages: Iterator[list[str]] = (
            ids[start : start + limits.EXPORT_DOCUMENTS] for start in range(0, len(ids), limits.EXPORT_DOCUMENTS)
        )
    else:
        pages = _ids(engine, library.library_id, after)
    for page in pages:
        with engine.database.snapshot() as db:
            found = store.get(db, library.library_id, page, vectors=True)
        yield page[-1], [_line(each, own) for each in found if each is not None]


def _ids(engine: Engine, library_id: int, after: str | None) -> Iterator[list[str]]:
    while True:
        with engine.database.snapshot() as db:
            page = [each.id for each in store.page(db, library_id, after, limits.EXPORT_DOCUMENTS)]
        if not page:
            return
        yield page
        after = page[-1]


def _line(document: store.Document, own: bool) -> bytes:
    """A document as `vec ingest` takes it: one chunk a text, or a vector."""
    line: dict[str, Any] = {"id": document.id}
    if document.title is not None:
        line["title"] = document.title
    texts, vectors = document.texts or [], document.vectors or []
    if all(text is not None for text in texts):
        line["texts"] = texts
    else:
        own = True
    if own:
        line["vectors"] = [np.frombuffer(vector, "<f4").astype(np.float32) for vector in vectors]
    if document.metadata:
        line["metadata"] = document.metadata
    return orjson.dumps(line, option=orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_APPEND_NEWLINE)
