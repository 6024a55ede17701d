"""The kinds of job that `vec worker` runs: a function for each, and one entry in RUNNERS. A function gets the job that
the worker holds, and returns its result. It knows the daemon by the client only, like any other program.
"""

from __future__ import annotations

import gzip
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import numpy as np
import orjson

from ..client.client import Client
from ..durable_files import create, identity, new_name, rename, resolve
from ..errors import Code, VecError

_OPTIONS: Final = orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_APPEND_NEWLINE


class JobStopped(Exception):
    """The job must stop: it was cancelled or paused, has exceeded its time, or the worker stops."""


class Held:
    """An attempt at a job that a worker holds."""

    def __init__(
        self,
        given: dict[str, Any],
        send: Callable[[Callable[[Client], Any]], Any],
        connect: Callable[[], Client],
        stopping: Callable[[], bool],
        lost: Callable[[], bool],
        output: Path | None,
    ) -> None:
        """`send` repeats a call until it is answered; `connect` makes another connection, for a stream."""
        self.job_id: int = given["job_id"]
        self.attempt: int = given["attempt"]
        self.library: str | None = given["library"]
        self.params: dict[str, Any] = given["params"]
        self.last: Any = given["checkpoint"]
        self.connect = connect
        self.output = output  # the folder for files, if the job's paths are those of another machine
        self._steps: int = given["steps"]
        self._send, self._stopping, self._lost = send, stopping, lost

    def check(self) -> None:
        """Raises JobStopped, or VecError `lease_lost`."""
        if self._lost():
            raise VecError(Code.LEASE_LOST, f"job {self.job_id} has gone to another worker")
        if self._stopping():
            raise JobStopped

    def checkpoint(self, value: Any, *, done: int | None = None, total: int | None = None) -> None:
        """Commits a step. Raises JobStopped after it, or VecError."""
        step = self._steps
        answer = self._send(
            lambda client: client.checkpoint_job(self.job_id, self.attempt, step, value, done=done, total=total)
        )
        self._steps += 1
        if answer["stop"] is not None:
            raise JobStopped
        self.check()

    def progress(self, done: int, total: int | None = None) -> None:
        """Reports progress without a step. Raises JobStopped or VecError."""
        answer = self._send(lambda client: client.heartbeat_job(self.job_id, self.attempt, done=done, total=total))
        if answer["stop"] is not None:
            raise JobStopped
        self.check()


def _noop(job: Held) -> dict[str, Any]:
    """Does nothing, in steps: jobs/kinds/noop.py."""
    count, seconds = job.params.get("steps", 0), job.params.get("seconds", 0.0)
    for number in range((job.last or 0) + 1, count + 1):
        until = time.monotonic() + seconds
        while (left_s := until - time.monotonic()) > 0:
            time.sleep(min(left_s, 0.05))
            job.check()
        job.checkpoint(number, done=number, total=count)
    if "fail" in job.params:
        raise VecError(Code.INTERNAL, job.params["fail"])
    return {"steps": count}


def _export(job: Held) -> dict[str, Any]:
    """Writes the documents of a library as NDJSON, of one state: jobs/kinds/export.py.

    Each attempt starts over, with a file of its own: a late worker may still write to its file. So the next attempt
    deletes the file of the last one, which then cannot be renamed into place any more.
    """
    place = resolve(job.params["path"], write=True)
    if job.output is not None:
        place = job.output / place.name
    last = job.last if isinstance(job.last, dict) else {}
    if "file" in last and Path(last["file"]).parent == place.parent:
        Path(last["file"]).unlink(missing_ok=True)
    made = new_name(place.parent, f"export-{job.job_id}")
    at: dict[str, Any] = {"place": str(place), "file": str(made), "outside": True}
    job.checkpoint(at)  # before the file exists, so that it is always found
    with open(create(made), "wb") as file:
        documents = seq = 0
        for lines, count, at_seq in _exported(job):
            seq = at_seq
            file.write(gzip.compress(lines, 6, mtime=0) if job.params["gzip"] else lines)
            documents += count
            job.progress(documents)
        file.flush()
        os.fsync(file.fileno())
        size, whole = file.tell(), identity(os.fstat(file.fileno()))
    at |= {"documents": documents, "bytes": size, "seq": seq, "whole": whole}
    job.checkpoint(at, done=documents, total=documents)
    rename(made, place)
    return {"path": str(place), "documents": documents, "bytes": size, "seq": seq}


def _exported(job: Held) -> Iterator[tuple[bytes, int, int]]:
    """The lines of the documents, in groups: the lines, how many, and the seq of the state. Raises VecError."""
    assert job.library is not None
    with job.connect() as client:
        own = bool(job.params.get("vectors")) or client.library(job.library)["embedder"] == "none"
        watch = client.watch(
            "now", libraries=[job.library], types=["document.*"], where=job.params.get("where", ()),
            follow=False, snapshot=True, payload=True, replaced=False, vectors=True,
        )  # fmt: skip
        with watch:
            for message in watch.messages():
                lines: list[bytes] = []
                for event in message.events:
                    if event["type"] == "snapshot.end":
                        yield b"".join(lines), len(lines), event["seq"]
                        return
                    if event["type"] == "snapshot.document":
                        lines.append(orjson.dumps(_line(event["data"], own), option=_OPTIONS))
                if lines:
                    yield b"".join(lines), len(lines), 0
    raise VecError(Code.CONNECTION_LOST, "the daemon ended the snapshot of the library")


def _line(data: dict[str, Any], own: bool) -> dict[str, Any]:
    """A document as `vec ingest` accepts it; documents without text always have their vectors."""
    document = data.get("document")
    if document is None:
        raise VecError(
            Code.TOO_LARGE, f"document {data['id']!r:.200} is too large for a message", "export it inside the daemon"
        )
    texts = [chunk.get("text") for chunk in document["chunks"]]
    line: dict[str, Any] = {"id": data["id"]}
    if document.get("title") is not None:
        line["title"] = document["title"]
    if None not in texts:
        line["texts"] = texts
    if own or None in texts:
        line["vectors"] = [np.frombuffer(chunk["vector"], "<f4").astype(np.float32) for chunk in document["chunks"]]
    if document.get("metadata"):
        line["metadata"] = document["metadata"]
    return line


#: Kind -> the function that runs a job of this kind.
RUNNERS: Final[dict[str, Callable[[Held], dict[str, Any]]]] = {
    "export": _export,
    "noop": _noop,
}

#: Kinds whose params name files of the daemon's machine.
FILE_KINDS: Final = ("export",)
