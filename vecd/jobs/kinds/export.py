"""export: writes the documents of a library as NDJSON, which `vec ingest` reads.

The file is consistent: it has the state at the seq at which the job began. Each step writes a page of documents; the
checkpoint has that seq, the last id, and the durable length of the file, so that a resumed job truncates the rest. The
state can be read again after a restart, unless the log has been trimmed past the seq; then the export starts over with
a new one. With gzip each step is a separate member: concatenated gzip members are one file. An attempt at a job that a
worker outside the daemon has begun (workers/leased_jobs.py) starts over too, with another file.
"""

from __future__ import annotations

import contextlib
import gzip
import os
from collections.abc import Generator, Iterable, Mapping
from concurrent.futures import Future
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import orjson

from ... import limits
from ...durable_files import create, identity, reopen
from ...engine import documents
from ...engine.libraries import find
from ...engine.read_views import AllDocuments, Listing, MatchingDocuments
from ...filters import expressions
from ...parameters import Parameter
from ...store import documents as store
from ...store.catalogue import Library
from ...store.jobs import Job
from . import output_files as files
from .kind import JobKind, Run, Step, Steps

if TYPE_CHECKING:
    from ...engine.engine import Engine


class Export(JobKind):
    """Writes documents in the order of their ids."""

    name = "export"
    what = "write the documents of a library to a file, as NDJSON"
    unit = "documents"
    library = "required"
    begins_again = True
    runs = "anywhere"
    params: ClassVar[Mapping[str, Parameter]] = {
        "path": Parameter("the file to write; replaced if it exists", str, required=True),
        "gzip": Parameter("whether to compress the file; default: if its name ends in .gz", bool),
        "vectors": Parameter("whether to include vectors; documents without text always have them", bool),
        "where": Parameter("filters; a document must match all", list),
    }

    def check(self, engine: Engine, library: str | None, params: dict[str, Any]) -> dict[str, Any]:
        files.target(engine, self.name, params["path"])
        expressions.parse(tuple(params.get("where", ())))
        return {"gzip": params["path"].endswith(".gz"), **params}

    def steps(self, run: Run) -> Steps:
        at = run.checkpoint
        if at is None or "file" not in at or _is_unfinished_outside(at):  # (or the checkpoint of an older version)
            at = files.first_checkpoint(run.engine, run.job)
            yield Step(at)
            files.remove(run.job)
        made, place = Path(at["file"]), Path(at["place"])
        while True:
            if at.get("whole") is None:
                at = yield from _written(run, made, at)
            files.target(run.engine, self.name, at["place"])  # the path may have changed since
            if files.put_in_place(made, place, at["whole"]):
                break
            at = _named(at)  # it was removed between the last checkpoint and the rename
        return {"path": run.params["path"], "documents": at["documents"], "bytes": at["bytes"], "seq": at["seq"]}

    def abandon(self, engine: Engine, job: Job) -> None:
        files.remove(job)

    def forget(self, engine: Engine, job: Job) -> None:
        files.remove(job)

    def tidy(self, engine: Engine, jobs: Iterable[Job]) -> None:
        files.tidy(jobs)


def _is_unfinished_outside(at: dict[str, Any]) -> bool:
    """Whether a worker outside the daemon has begun the file (workers/leased_jobs.py), and may still write to it."""
    return bool(at.get("outside")) and at.get("whole") is None


def _written(run: Run, made: Path, at: dict[str, Any]) -> Generator[Step, Future[None] | None, dict[str, Any]]:
    """Writes the file from a checkpoint on; returns the checkpoint of the complete, durable file."""
    compressed = run.params["gzip"]
    with contextlib.ExitStack() as stack:
        fd = reopen(made)
        if fd is None:
            made.unlink(missing_ok=True)  # not created by this run
            fd = create(made)
        file = stack.enter_context(open(fd, "wb"))
        complete = os.fstat(fd).st_size >= at.get("bytes", 0)
        at, listed, library = _begun(stack, run, at if complete else _named(at))
        own = bool(run.params.get("vectors")) or library.embedder == "none"
        total = library.documents
        file.truncate(at["bytes"])
        file.seek(at["bytes"])
        while page := _page(run.engine, listed):
            lines = b"".join(_line(each, own) for each in page)
            file.write(gzip.compress(lines, 6, mtime=0) if compressed else lines)
            file.flush()
            os.fsync(fd)
            done = at["documents"] + len(page)
            at = {**at, "after": page[-1].id, "bytes": file.tell(), "documents": done}
            yield Step(at, done=done, total=max(total, done))
        os.fsync(fd)
        at = {**at, "whole": identity(os.fstat(fd))}
    yield Step(at, done=at["documents"], total=at["documents"])
    return at


def _named(at: dict[str, Any]) -> dict[str, Any]:
    """The checkpoint of a file that has a name, but no content."""
    return {"place": at["place"], "file": at["file"]}


def _begun(stack: contextlib.ExitStack, run: Run, at: dict[str, Any]) -> tuple[dict[str, Any], Listing, Library]:
    """The checkpoint to resume from, the documents after it, and the library. The read view is open until the stack
    exits. A checkpoint with names only starts over."""
    engine, where = run.engine, expressions.parse(tuple(run.params.get("where", ())))
    listed: Listing
    if "seq" in at:
        view = stack.enter_context(engine.views.reopen(at["seq"], at["label"], limits.EXPORT_VIEW_S))
        if view is not None:
            library = view.catalogue.by_id[at["library_id"]]  # not trimmed, so it exists even if deleted
            everything = AllDocuments(view, library.library_id, at["after"])
            listed = MatchingDocuments(everything, where) if where else everything
            return at, listed, library
    view = stack.enter_context(engine.views.open(limits.EXPORT_VIEW_S))
    library = find(engine, run.job.library or "", view.catalogue)
    listed = documents.listing_blocking(engine, view, library, where)
    at = {
        **_named(at),
        "library_id": library.library_id,
        "seq": listed.seq,
        "label": listed.label,
        "after": "",
        "bytes": 0,
        "documents": 0,
        "whole": None,  # the identity of the complete file
    }
    return at, listed, library


def _page(engine: Engine, listed: Listing) -> list[store.Document]:
    with engine.database.read_transaction() as db:
        page = listed.page(db, limits.EXPORT_DOCUMENTS)
        store.fill(db, page, vectors=True)
    return page


def _line(document: store.Document, own: bool) -> bytes:
    """A document as `vec ingest` accepts it: one text or vector per chunk."""
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
    if document.lines is not None:
        line["lines"] = document.lines
    if document.metadata:
        line["metadata"] = document.metadata
    return orjson.dumps(line, option=orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_APPEND_NEWLINE)
