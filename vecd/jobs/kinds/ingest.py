"""ingest: writes documents from files inside the daemon, as `vec ingest` does from a client.

Each step writes a batch of lines; the checkpoint, the file and the byte offset after them, is committed with their
documents. So each line is applied exactly once; rejected documents are in the job's log. Files are read in place; input
from a pipe was copied to the spool in the data folder, and is deleted with the job.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import secrets
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, ClassVar

from ... import limits
from ...durable_files import open_regular, resolve
from ...engine.libraries import find, find_for_writing
from ...engine.prepare import PreparedBatch, prepare_in_slices
from ...engine.slices import Begun
from ...errors import Code, VecError
from ...parameters import Parameter
from ...settings import private_folder
from ...store.catalogue import DEFAULT, Library
from ...store.jobs import Job
from ...wire.decompress import PIECE_BYTES, decompressed
from ...wire.encodings import utf8
from ...wire.mapping import DocumentMapping
from ...wire.ndjson import Line, document, split
from ...wire.records import FORMATS, check_format, records
from ..effects import EffectResult, WriteDocuments
from .kind import JobKind, Run, Step, Steps

if TYPE_CHECKING:
    from ...engine.engine import Engine

#: While nothing is written, the job yields at this interval, so that it reports progress and can be stopped.
_YIELD_S = 0.1

_Written = Generator[Step, "Future[EffectResult] | None", None]

_STATUSES = ("added", "updated", "unchanged", "deleted", "failed")


@dataclass(slots=True)
class _Batch:
    """Documents with their lines, and rejected lines."""

    documents: list[Any] = field(default_factory=list)
    lines: list[Line] = field(default_factory=list)
    refused: list[tuple[Line, VecError]] = field(default_factory=list)
    size: int = 0
    read: int = 0  # bytes of the file

    @property
    def empty(self) -> bool:
        return not self.documents and not self.refused

    @property
    def full(self) -> bool:
        return max(len(self.documents), len(self.refused)) >= limits.STEP_DOCUMENTS or self.size >= limits.STEP_BYTES

    def take(self, line: Line, mapping: DocumentMapping | None) -> bool:
        """Adds a line; false if it is blank."""
        try:
            found = document(line, mapping)
        except VecError as error:
            self.refused.append((line, error))
        else:
            if found is None:
                return False
            self.documents.append(found)
            self.lines.append(line)
            self.size += line.size
        line.data = line.value = None  # it has been read
        return True

    def refused_with(self, prepared: PreparedBatch) -> list[tuple[Line, VecError]]:
        """The lines of rejected documents of a prepared batch, and the invalid lines up to its end, in order."""
        start = self.lines[prepared.start - 1].number if prepared.start else 0
        whole = prepared.stop == len(self.documents)
        found = [pair for pair in self.refused if pair[0].number > start]
        if not whole:
            found = [pair for pair in found if pair[0].number < self.lines[prepared.stop - 1].number]
        found += [(self.lines[index], error) for index, error in prepared.refused]
        return sorted(found, key=lambda pair: pair[0].number)

    def last(self, prepared: PreparedBatch, below: int | None) -> Line | None:
        """The last line of a prepared batch, below a line number if given; None if there is none."""
        lines = self.lines[: prepared.stop]
        if prepared.stop == len(self.documents):
            lines = sorted([*lines, *(line for line, _ in self.refused)], key=lambda line: line.number)
        return next((line for line in reversed(lines) if below is None or line.number < below), None)


@dataclass(slots=True)
class _Part:
    """Documents of a batch that are being prepared."""

    library: Library
    batch: _Batch
    number: int  # of the file
    done: int  # bytes
    prepared: Begun[PreparedBatch]


class _Writer:
    """Prepares batches and writes them in their order. A batch that is embedded outside the daemon does not keep the
    next ones from beginning."""

    def __init__(self, run: Run, place: dict[str, int], total: int, strict: bool) -> None:
        self.total = total  # bytes
        self._run = run
        self._place = place
        self._strict = strict
        self._begun: deque[_Part] = deque()
        self._pending: Future[EffectResult] | None = None  # the last write

    def write(self, batch: _Batch, number: int, done: int) -> _Written:
        """Writes a batch, now or later; `done` are the bytes of all files up to its end."""
        start = 0
        while True:
            library = self._library(batch.documents[start:])
            unsettled = library.dimension is None or not library.library_id
            if unsettled and (self._begun or self._pending is not None):
                yield from self.finish()
                assert self._pending is not None
                self._pending.result()  # the first document creates the library, the first vector sets the dimension
                library = self._library(batch.documents[start:])
            cut: list[int] = []
            slices = prepare_in_slices(
                self._run.engine, library, batch.documents, start, self._strict,
                flow=("job", self._run.job.job_id), cut=cut.append,
            )  # fmt: skip
            part = _Part(library, batch, number, done, Begun(slices))
            self._begun.append(part)
            while self._begun and (not cut or len(self._begun) >= limits.INGEST_AHEAD):
                yield from self._written(self._begun.popleft())
            start = cut[0] if cut else part.prepared.result.stop
            if start == len(batch.documents):
                return

    def finish(self) -> _Written:
        """Writes what has been begun."""
        while self._begun:
            yield from self._written(self._begun.popleft())

    def close(self) -> None:
        """Abandons what has been begun."""
        while self._begun:
            self._begun.popleft().prepared.close()

    def _library(self, documents: list[Any]) -> Library:
        return _library(self._run.engine, self._run.job.library or DEFAULT, self._run.params, documents)

    def _written(self, part: _Part) -> _Written:
        with contextlib.closing(part.prepared):
            while not part.prepared.finish(_YIELD_S):
                yield Step()
        prepared, batch = part.prepared.result, part.batch
        refused = batch.refused_with(prepared)
        if self._strict:
            del refused[1:]
        last = batch.last(prepared, refused[0][0].number if self._strict and refused else None)
        if last is not None:
            self._place = {"file": part.number, "offset": last.end, "line": last.number}
        elif part.number != self._place["file"]:
            self._place = {"file": part.number, "offset": 0, "line": 0}
        self._pending = yield Step(
            self._place,
            WriteDocuments(part.library, [prepared.batch], len(refused)),
            done=part.done,
            total=self.total,
            lines=[_log_line(line, error) for line, error in refused],
        )
        if self._strict and refused:
            line, error = refused[0]
            raise VecError(error.code, f"{line.file}:{line.number}: {error.message}", error.hint)


class Ingest(JobKind):
    """Ingests files in sequence. `names` are their names in messages."""

    name = "ingest"
    what = "write documents from files"
    unit = "bytes"
    library = "optional"
    library_default = DEFAULT
    in_flight = 2
    params: ClassVar[Mapping[str, Parameter]] = {
        "files": Parameter("files, optionally compressed; absolute paths", list, required=True),
        "names": Parameter("names of the files in messages; default: their paths", list),
        "strict": Parameter("whether to stop at the first rejected line", bool),
        "create": Parameter("whether to create a library that does not exist", bool),
        "formats": Parameter(f"the format of each file, one of {', '.join(FORMATS)}; default: ndjson", list),
        "map": Parameter(
            "FIELD=PATH: where a field of the document is in an object or row; default: as the library says", list
        ),
    }

    def find_library(self, engine: Engine, library: str, params: Mapping[str, Any]) -> None:
        _library(engine, library, params, ())

    def check(self, engine: Engine, library: str | None, params: dict[str, Any]) -> dict[str, Any]:
        files, names = params["files"], params.get("names", params["files"])
        if not files or len(names) != len(files):
            raise VecError(
                Code.INVALID_REQUEST, "ingest: 'files' and 'names' are lists of the same length", field="names"
            )
        for path in files:
            if not os.path.isabs(path):
                raise VecError(Code.INVALID_REQUEST, f"ingest: the path {path!r:.200} is not absolute", field="files")
            with open_file(path, engine.settings.store):
                pass
        forms = params.get("formats", ["ndjson"] * len(files))
        if len(forms) != len(files):
            raise VecError(
                Code.INVALID_REQUEST, "ingest: 'files' and 'formats' are lists of the same length", field="formats"
            )
        for form in forms:
            check_format(form)
        if params.get("map") is None:
            saved = engine.database.catalogue.by_name.get(library or DEFAULT)
            params = {**params, "map": [f"{name}={rule}" for name, rule in saved.mapping.items()] if saved else []}
        _mapping(params)
        return {**params, "names": names}

    def steps(self, run: Run) -> Steps:
        files, names, strict = run.params["files"], run.params["names"], bool(run.params.get("strict"))
        forms, mapping = run.params.get("formats", ["ndjson"] * len(files)), _mapping(run.params)
        at = run.checkpoint or {"file": 0, "offset": 0, "line": 0}
        store = run.engine.settings.store
        seq = run.engine.database.head
        sizes = [_size(path, store) if number >= at["file"] else 0 for number, path in enumerate(files)]
        writer = _Writer(run, {key: at[key] for key in ("file", "offset", "line")}, sum(sizes), strict)
        with contextlib.closing(writer):
            for number in range(at["file"], len(files)):
                offset, line = (at["offset"], at["line"]) if number == at["file"] else (0, 0)
                done = sum(sizes[:number])
                read = partial(_records, forms[number], names[number], mapping, offset, line)
                for batch in _batches(files[number], store, read, mapping, strict):
                    if batch.empty:
                        yield Step(done=done + batch.read, total=writer.total)
                    else:
                        yield from writer.write(batch, number, done + batch.read)
            yield from writer.finish()
        yield Step()  # the result has the counts of durable steps
        return {**{status: run.count(status) for status in _STATUSES}, "seq": seq if run.seq is None else run.seq}

    def shown(self, engine: Engine, params: dict[str, Any]) -> dict[str, Any]:
        """With the names of inputs in the place of their files in the spool, which are nobody else's."""
        named = zip(params["files"], params["names"], strict=True)
        return {
            **params,
            "files": [name if Path(path).parent == spool_folder(engine) else path for path, name in named],
        }

    def forget(self, engine: Engine, job: Job) -> None:
        for path in job.params["files"]:
            if Path(path).parent == spool_folder(engine):
                Path(path).unlink(missing_ok=True)

    def tidy(self, engine: Engine, jobs: Iterable[Job]) -> None:
        folder = spool_folder(engine)
        needed = {path for job in jobs for path in job.params["files"]}
        for path in folder.glob("*"):
            if str(path) not in needed and not _is_locked(path):
                path.unlink(missing_ok=True)


def _library(engine: Engine, name: str, params: Mapping[str, Any], documents: Iterable[Any]) -> Library:
    """The library, or the one that these documents are to create. Raises VecError `not_found`."""
    return find_for_writing(engine, name, documents) if params.get("create") else find(engine, name)


def spool_folder(engine: Engine) -> Path:
    return engine.settings.data / "spool"


def spool_file(engine: Engine) -> dict[str, Any]:
    """A new file for the input of a job: `{"path","bytes_max","free_bytes_min"}`. Blocks.

    The process that writes the file holds a lock (flock) on it until the job is submitted. It stops when the files in
    the folder exceed `bytes_max` bytes in total, or when less than `free_bytes_min` bytes of the disk are free.
    """
    private_folder(spool_folder(engine))
    path = spool_folder(engine) / f"{secrets.token_hex(8)}.ndjson"
    return {
        "path": str(path),
        "bytes_max": limits.SPOOL_BYTES_MAX,
        "free_bytes_min": limits.SPOOL_FREE_BYTES_MIN,
    }


def open_file(path: str, store: Path) -> Any:
    """Opens a regular file for reading. Raises VecError `invalid_request`.

    Refuses files of the store: SQLite's locks on a file end when the process closes any descriptor of it.
    """
    try:
        place = resolve(path)
        if any(_same(place, Path(f"{store}{suffix}")) for suffix in ("", "-wal", "-shm")):
            raise OSError(errno.EPERM, "it is the daemon's store")
        return open(open_regular(place), "rb", buffering=0)
    except OSError as error:
        hint = "vec ingest --background copies pipes and devices for the job" if error.errno == errno.EINVAL else None
        raise VecError(
            Code.INVALID_REQUEST, f"cannot read {path:.300} ({error.strerror})", hint, field="files", file=path
        ) from error


def _same(path: Path, other: Path) -> bool:
    try:
        return path.samefile(other)
    except FileNotFoundError:
        return False


def _size(path: str, store: Path) -> int:
    with open_file(path, store) as file:
        return os.fstat(file.fileno()).st_size


def _is_locked(path: Path) -> bool:
    """Whether a process is writing the file."""
    try:
        with open(path, "rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


def _mapping(params: Mapping[str, Any]) -> DocumentMapping | None:
    """Raises VecError `invalid_request`."""
    rules = dict(rule.partition("=")[::2] for rule in params.get("map", ()))
    return DocumentMapping.parse(rules) if rules else None


def _records(
    form: str,
    name: str,
    mapping: DocumentMapping | None,
    offset: int,
    number: int,
    pieces: Iterator[bytes | None],
    file: BinaryIO,
) -> Iterator[Line | None]:
    """The records of a file after the one with that number. Lines of NDJSON have their offsets: the last line ended at
    the byte `offset` of the uncompressed file."""
    named = decompressed(name, pieces)
    if offset:
        yield from split(name, _after(utf8(name, form, _pausing(named)), offset), number, offset)
        return
    for each in records(form, name, _pausing(named), mapping, file):
        if each is None or each.number > number:
            yield each


def _batches(
    path: str,
    store: Path,
    read: Callable[[Iterator[bytes | None], BinaryIO], Iterator[Line | None]],
    mapping: DocumentMapping | None,
    strict: bool,
) -> Iterator[_Batch]:
    """The documents of a file, which `read` splits into records: it is called with the file's pieces, and the file.

    While there is nothing else, it yields an empty batch every _YIELD_S, so that the job can be stopped in input that
    is blank, skipped, or one long line.
    """
    with open_file(path, store) as file:
        batch = _Batch()
        unreadable: VecError | None = None
        yield_at = time.monotonic() + _YIELD_S
        try:
            for each in read(_pieces(file), file):
                if time.monotonic() >= yield_at:
                    yield _Batch(read=file.tell())
                    yield_at = time.monotonic() + _YIELD_S
                if each is None or not batch.take(each, mapping):
                    continue
                if batch.full or (strict and batch.refused):
                    batch.read = file.tell()
                    yield batch
                    batch = _Batch()
                    yield_at = time.monotonic() + _YIELD_S
        except VecError as error:
            unreadable = error  # the lines before it are valid
        batch.read = file.tell()
        if not batch.empty:
            yield batch
        if unreadable is not None:
            raise unreadable


def _pieces(file: Any) -> Iterator[bytes | None]:
    while piece := file.read(PIECE_BYTES):
        yield piece


def _pausing(pieces: Iterator[bytes | None]) -> Iterator[bytes | None]:
    """The pieces, each followed by None, which is passed on even if a piece has no end of a line."""
    for piece in pieces:
        yield piece
        yield None


def _after(pieces: Iterator[bytes | None], offset: int) -> Iterator[bytes | None]:
    """The data after the first `offset` bytes."""
    for piece in pieces:
        if piece is None or not offset:
            yield piece
        elif offset >= len(piece):
            offset -= len(piece)
        else:
            yield piece[offset:]
            offset = 0


def _log_line(line: Line, error: VecError) -> str:
    hint = f"; {error.hint}" if error.hint else ""
    return f"{line.file}:{line.number}: {error.message}{hint} ({error.code})"
