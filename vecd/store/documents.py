"""Documents and their chunks: SQL to write a batch, and all reads.

A batch is written in waves. A wave holds each id once, so a few set-based statements write it with the same result as
its documents sent one by one. Within a transaction, labels and seqs are assigned in the order of the documents.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any, NamedTuple

import apsw
import numpy as np
import numpy.typing as npt
import orjson

from .. import limits
from ..errors import Code, VecError
from . import checksums, events, libraries
from .catalogue import Library
from .transaction import Change, NewDocument, Transaction, Words

#: Rows of one page of a read; a page of vectors of 256 floats is 4 MB.
PAGE_ROWS = 4_096

#: Called with the label of a damaged chunk that a read leaves out, and the error about its document.
LeftOut = Callable[[int, VecError], None]

#: Separates digests of the content from those of earlier versions, which covered the request's form.
_CONTENT = b"vec content"


@dataclass(slots=True)
class Entry:
    """One document of a batch, ready to be written. Its chunks are rows `offset … offset + chunks - 1` of the batch."""

    index: int  # its position in the request
    id: str
    delete: bool = False
    title: str | None = None
    metadata: str = "{}"  # a JSON object
    digest: str = ""  # of its content: 32 hex digits
    offset: int = 0
    chunks: int = 0
    lines: str | None = None  # JSON: the line of the file where each chunk begins, from 1; None: not known
    embedded_digest: str = ""  # of a document with vectors: its digest if the embedder had computed them
    former_digest: Callable[[], str] | None = None  # computes the digest that earlier versions stored


@dataclass(slots=True)
class DocumentBatch:
    """Documents of one request. `vectors` has shape (total chunks, dimension), float32, C-contiguous."""

    entries: list[Entry]
    texts: list[str | None]  # by chunk
    indexed: list[str | None]  # by chunk: the input of the embedder
    vectors: npt.NDArray[np.float32]
    words: Words | None = None  # index terms of the chunks; None: not computed yet
    embedded: list[int] = field(default_factory=list)  # rows whose vectors the library's embedder computed
    sums: bytes | None = None  # checksums of the chunks; None: the write computes them
    creates: bool = False  # whether the library is to be created, if it does not exist, even without a document
    created: Library | None = None  # the library, if the write of this batch created it


@dataclass(slots=True)
class Outcome:
    """The result of writing one document. `status` is added, updated, unchanged or deleted; `seq` is its event's."""

    index: int
    id: str
    status: str
    seq: int | None


@dataclass(slots=True)
class Document:
    """A stored document: metadata decoded; texts and vectors (little-endian float32) by position of the chunk, None
    until they are read."""

    label: int
    id: str
    title: str | None
    metadata: dict[str, Any]
    chunks: int
    lines: list[int] | None = None  # by chunk
    texts: list[str | None] | None = None
    vectors: list[bytes] | None = None


class Content(NamedTuple):
    """The chunks of a document version, each by position: texts, vectors (None: not read), and lines of the file (None:
    not known)."""

    texts: list[str | None]
    vectors: list[bytes] | None
    lines: list[int] | None

    @property
    def lines_json(self) -> str | None:
        """The lines, as an Entry has them."""
        return None if self.lines is None else _json(self.lines)


def whole(
    document_id: str,
    title: str | None,
    metadata: dict[str, Any],
    texts: Sequence[str | None],
    vectors: Sequence[bytes] | None,
    lines: Sequence[int] | None,
) -> dict[str, Any]:
    """A document with its chunks, as `get` returns it."""
    chunks: list[dict[str, Any]] = [
        {"chunk_id": events.chunk_id(document_id, position), "text": text} for position, text in enumerate(texts)
    ]
    for chunk, line in zip(chunks, lines or (), strict=False):
        chunk["line"] = line
    for chunk, vector in zip(chunks, vectors or (), strict=False):
        chunk["vector"] = vector
    return {"id": document_id, "title": title, "metadata": metadata, "chunks": chunks}


def content_digest(
    title: str | None,
    metadata: str,
    texts: list[str | None],
    vectors: Iterable[bytes] | None,
    lines: str | None = None,
) -> str:
    """The digest of a document's content, independent of the form of the request. `vectors` are those of the request;
    None if the library's embedder computes them from the texts."""
    content = blake2b(orjson.dumps((title, metadata, texts)), digest_size=16, person=_CONTENT)
    if lines is not None:
        content.update(lines.encode())
    for vector in vectors or ():
        content.update(vector)
    return content.hexdigest()


def indexed(title: str | None, text: str | None) -> str | None:
    """The embedder's input for a chunk: the document's title and the chunk's text."""
    return text if not title else f"{title}\n{text}" if text else title


# --- writing --------------------------------------------------------------------------------------------------------


def write(tx: Transaction, library: Library, batch: DocumentBatch, again: bool = False) -> list[Outcome]:
    """Adds, updates and deletes the batch's documents, as if they had been sent one by one. With `again`, unchanged
    documents are written too."""
    outcomes: list[Outcome] = []
    wave: list[Entry] = []
    ids: set[str] = set()
    for entry in batch.entries:
        if entry.id in ids:
            outcomes += _write_wave(tx, library, batch, wave, again)
            wave, ids = [], set()
        wave.append(entry)
        ids.add(entry.id)
    if wave:
        outcomes += _write_wave(tx, library, batch, wave, again)
    return outcomes


def _write_wave(
    tx: Transaction, library: Library, batch: DocumentBatch, wave: list[Entry], again: bool
) -> list[Outcome]:
    there = present(tx.db, library.library_id, [entry.id for entry in wave])
    same = set() if again else _same(tx.db, batch, wave, there)
    outcomes: list[Outcome] = []
    documents: list[NewDocument] = []
    lines: list[str | None] = []
    happened: list[tuple[int, int, int | None, int | None]] = []
    gone: list[tuple[int, int]] = []
    gone_chunks: list[int] = []
    rows: list[int] = []  # of the batch's chunks, those that are new
    label, seq = tx.label + 1, tx.seq + 1
    for place, entry in enumerate(wave):
        old = there.get(place)
        if entry.delete:
            if old is None:
                outcomes.append(Outcome(entry.index, entry.id, "unchanged", None))
                continue
            status, kind, new, chunks = "deleted", events.DOCUMENT_DELETED, None, 0
        else:
            if place in same:
                outcomes.append(Outcome(entry.index, entry.id, "unchanged", None))
                continue
            status, kind = ("added", events.DOCUMENT_ADDED) if old is None else ("updated", events.DOCUMENT_UPDATED)
            new, chunks = label, entry.chunks
            documents.append((label, entry.id, entry.title, entry.metadata, entry.digest, chunks))
            lines.append(entry.lines)
            rows.extend(range(entry.offset, entry.offset + chunks))
            label += chunks
        prior = None
        if old is not None:
            prior = old[0]
            gone.append((prior, seq))
            gone_chunks.extend(range(prior, prior + old[1]))
            chunks += old[1]
        happened.append((seq, kind, new, prior))
        outcomes.append(Outcome(entry.index, entry.id, status, seq))
        seq += 1 + chunks
    if not happened:
        return outcomes

    db, library_id = tx.db, library.library_id
    if gone:
        db.execute(
            "UPDATE documents SET removed_seq = gone.value ->> 1 FROM json_each(?) AS gone"
            " WHERE documents.label = gone.value ->> 0",
            (_json(gone),),
        )
    vectors = batch.vectors[:0]
    texts: list[str | None] = []
    words: Words | None = None
    if documents:
        everything = len(rows) == len(batch.texts)
        vectors = batch.vectors if everything else batch.vectors[rows]
        texts = batch.texts if everything else [batch.texts[row] for row in rows]
        words = batch.words if everything or batch.words is None else batch.words.only(rows)
        summed = [
            (*each, checksums.of_document(each[1], each[2], each[3], each[5], line), line)
            for each, line in zip(documents, lines, strict=True)
        ]
        db.execute(
            "INSERT INTO documents (label, library_id, id, title, metadata, digest, chunks, sum, lines)"
            " SELECT value ->> 0, ?2, value ->> 1, value ->> 2, value ->> 3, unhex(value ->> 4), value ->> 5,"
            " value ->> 6, value ->> 7 FROM json_each(?1)",
            (_json(summed), library_id),
        )
        sums = batch.sums if everything else None
        db.execute(
            "INSERT INTO chunks (label, text, vector, sums)"
            " SELECT ?1 + key, value, substr(?3, 1 + key * ?4, ?4), substr(?5, 1 + key * ?6, ?6) FROM json_each(?2)",
            (tx.label + 1, _json(texts), vectors.tobytes(), 4 * vectors.shape[1],
             sums or checksums.of_chunks(texts, vectors), checksums.CHUNK_BYTES),
        )  # fmt: skip
    events.append_documents(tx, library_id, _json(happened))
    labels = np.arange(tx.label + 1, label, dtype=np.int64)
    tx.label, tx.seq = label - 1, seq - 1
    tx.changes.append(Change(library_id, tx.seq, labels, vectors, gone_chunks, documents, texts, words))
    new_count = len(documents) - len(gone)
    now = tx.catalogue.by_id[library_id]
    processed = [] if now.second is None else [each for each in gone_chunks if each <= now.second_label]
    refused = _refused(tx.db, processed) if now.second_refused else 0
    libraries.count(tx, now, new_count, len(rows) - len(gone_chunks), -len(processed), -refused)
    return outcomes


def _refused(db: apsw.Connection, labels: list[int]) -> int:
    """How many of these chunks the embedder of the second stage has refused."""
    count: int = db.execute(
        "SELECT count(*) FROM json_each(?) AS wanted CROSS JOIN second_vectors ON label = wanted.value"
        " WHERE vector IS NULL",
        (_json(labels),),
    ).get
    return count


def _same(
    db: apsw.Connection, batch: DocumentBatch, wave: list[Entry], there: dict[int, tuple[int, int, str]]
) -> set[int]:
    """Positions in `wave` of documents that are stored already, unchanged."""
    same: set[int] = set()
    perhaps: list[tuple[int, int, int]] = []  # place, label, chunks
    for place, (label, chunks, digest) in there.items():
        entry = wave[place]
        if entry.delete:
            continue
        if digest == entry.digest:
            same.add(place)
        elif digest == entry.embedded_digest:
            perhaps.append((place, label, chunks))
        elif entry.former_digest is not None and digest == entry.former_digest():
            same.add(place)
    if perhaps:  # same but for the vectors: the stored ones are the embedder's, and the given ones may equal them
        made = contents(db, [(label, chunks) for _, label, chunks in perhaps], vectors=True, sound_only=True)
        for place, label, _ in perhaps:
            entry = wave[place]
            given = batch.vectors[entry.offset : entry.offset + entry.chunks]
            if label in made and given.tobytes() == b"".join(made[label][1] or ()):
                same.add(place)
    return same


def present(db: apsw.Connection, library_id: int, ids: list[str]) -> dict[int, tuple[int, int, str]]:
    """Position in `ids` -> (label, chunks, digest in hex), for the documents that exist now."""
    rows = db.execute(
        "SELECT wanted.key, label, chunks, hex(digest) FROM json_each(?) AS wanted CROSS JOIN documents"
        " ON library_id = ? AND documents.id = wanted.value AND removed_seq IS NULL",
        (_json(ids), library_id),
    )
    return {place: (label, chunks, digest.lower()) for place, label, chunks, digest in rows}


# --- reading --------------------------------------------------------------------------------------------------------


def get(db: apsw.Connection, library_id: int, ids: list[str]) -> list[Document | None]:
    """The current documents with these ids, without their chunks, in the order of the ids; None for a missing one."""
    found: list[Document | None] = [None] * len(ids)
    rows = db.execute(
        f"SELECT wanted.key, {_OUTLINE} FROM json_each(?) AS wanted"
        " CROSS JOIN documents ON library_id = ? AND documents.id = wanted.value AND removed_seq IS NULL",
        (_json(ids), library_id),
    )
    for place, *row in rows:
        found[place] = _document(db, row)
    return found


def page(db: apsw.Connection, library_id: int, last_label: int, after: str, count: int) -> list[Document]:
    """Up to `count` current documents with labels up to `last_label` (inclusive), without their chunks, in the order of
    their ids, after the id `after` (exclusive)."""
    # Without the hint, SQLite may scan by label and sort.
    rows = db.execute(
        f"SELECT {_OUTLINE} FROM documents INDEXED BY documents_live"
        " WHERE library_id = ? AND removed_seq IS NULL AND id > ? AND label <= ? ORDER BY id LIMIT ?",
        (library_id, after, last_label, count),
    )
    return [_document(db, row) for row in rows]


def removed(db: apsw.Connection, library_id: int, last_label: int, since: int, after: str) -> list[tuple[str, int]]:
    """Id and label of a library's documents that were removed after the seq `since` (exclusive), with labels up to
    `last_label` (inclusive) and ids after `after` (exclusive)."""
    rows = db.execute(
        "SELECT id, label FROM documents INDEXED BY documents_dead"
        " WHERE removed_seq > ? AND label <= ? AND library_id = ? AND id > ?",
        (since, last_label, library_id, after),
    )
    return list(rows)


class ChunkRow(NamedTuple):
    """What hits show of a chunk."""

    document_id: str
    position: int
    title: str | None
    text: str | None
    metadata: str  # JSON
    line: int | None  # of the file, where the chunk begins


def chunk_rows(db: apsw.Connection, labels: list[int], left_out: LeftOut) -> dict[int, ChunkRow]:
    """The data of hits, by chunk label, removed chunks included. Damaged chunks are left out."""
    rows = db.execute(
        "SELECT chunks.label, chunks.label - documents.label, CAST(text AS BLOB), CAST(sums AS BLOB),"
        f" documents.{_OUTLINE}"
        " FROM json_each(?) AS hit CROSS JOIN chunks ON chunks.label = hit.value"
        " CROSS JOIN documents ON documents.label ="
        " (SELECT label FROM documents WHERE label <= hit.value ORDER BY label DESC LIMIT 1)",
        (_json(labels),),
    )
    found = {}
    for label, position, text, sums, *outline in rows:
        try:
            document_id, title, metadata, lines = _outline(db, outline)
            line = None if lines is None else lines[position]
            found[label] = ChunkRow(document_id, position, title, _text(db, label, text, sums), metadata, line)
        except VecError as error:
            left_out(label, error)
    return found


def living(db: apsw.Connection, library_id: int) -> npt.NDArray[np.int64]:
    """The labels of all current chunks of a library, ascending."""
    return living_chunks(db, library_id)[0]


def living_chunks(db: apsw.Connection, library_id: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """The labels of all current chunks of a library, and those of the first chunks of its documents, both ascending.

    Raises VecError `damaged` for a number of chunks that no document can have.
    """
    # One row of JSON. To sort 100,000 rows as tuples, and to build an array of them, holds the interpreter lock for
    # 0.15 s. On a thread of low priority on a busy machine, that takes seconds, and no request is answered meanwhile.
    firsts_json, counts_json = db.execute(
        "SELECT json_group_array(label), json_group_array(chunks) FROM documents"
        " WHERE library_id = ? AND removed_seq IS NULL",
        (library_id,),
    ).get
    try:
        firsts, counts = np.array(orjson.loads(firsts_json), np.int64), np.array(orjson.loads(counts_json), np.int64)
    except (TypeError, ValueError, OverflowError) as error:
        raise _damaged_counts() from error
    if len(counts) and not 0 <= counts.min() <= counts.max() <= limits.DOCUMENT_CHUNKS_MAX:
        raise _damaged_counts()
    order = np.argsort(firsts)
    firsts, counts = firsts[order], counts[order]
    labels: npt.NDArray[np.int64] = np.repeat(firsts - (np.cumsum(counts) - counts), counts) + np.arange(counts.sum())
    return labels, firsts


def _damaged_counts() -> VecError:
    return VecError(
        Code.DAMAGED,
        "the store is damaged: a document's number of chunks is not possible",
        "`vec verify` lists the damage; restore a backup, or ingest these documents again",
    )


def worded(db: apsw.Connection, library_id: int) -> npt.NDArray[np.int64]:
    """The labels of all current chunks of a library that have a text, or whose document has a title, ascending."""
    packed: str = db.execute(
        "SELECT json_group_array(chunks.label) FROM documents CROSS JOIN chunks ON chunks.label BETWEEN documents.label"
        " AND documents.label + documents.chunks - 1 WHERE library_id = ? AND removed_seq IS NULL"
        " AND (text IS NOT NULL OR title IS NOT NULL)",
        (library_id,),
    ).get
    labels: npt.NDArray[np.int64] = np.sort(np.array(orjson.loads(packed), np.int64))
    return labels


def kept(db: apsw.Connection, labels: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """These chunks without those that the vacuum has deleted, in the same order."""
    packed: str = db.execute(
        "SELECT json_group_array(chunks.label) FROM json_each(?) AS wanted CROSS JOIN chunks"
        " ON chunks.label = wanted.value",
        (_json(labels.tolist()),),
    ).get
    return np.array(orjson.loads(packed), np.int64)


def vectors(
    db: apsw.Connection, labels: npt.NDArray[np.int64], left_out: LeftOut
) -> Iterator[tuple[npt.NDArray[np.int64], bytes]]:
    """The vectors of these chunks, removed ones included, in pages: labels, and the concatenated vectors as bytes.
    Damaged vectors are skipped: `left_out` is called with the label of each and the error about its document.

    A page is one statement with one row, because every row is a step (see __init__.py).
    """
    for start in range(0, len(labels), PAGE_ROWS):
        page = labels[start : start + PAGE_ROWS]
        # group_concat of blobs joins their bytes as they are; the outer json_each sets the order.
        joined, sums = db.execute(
            f"SELECT CAST(group_concat(vector, '') AS BLOB), {_SUMS} FROM json_each(?) AS wanted"
            " CROSS JOIN chunks ON chunks.label = wanted.value",
            (_json(page.tolist()),),
        ).get
        if next(checksums.bad_vectors(joined, sums), None) is not None:
            page, joined = _sound_vectors(db, page, left_out)
        yield page, joined


def _sound_vectors(
    db: apsw.Connection, page: npt.NDArray[np.int64], left_out: Callable[[int, VecError], None]
) -> tuple[npt.NDArray[np.int64], bytes]:
    """A page of `vectors` that has damaged ones. Each vector is read by itself: one of another length shifts all that
    are joined behind it."""
    rows: list[Any] = db.execute(
        "SELECT label, CAST(vector AS BLOB), CAST(sums AS BLOB) FROM json_each(?) AS wanted"
        " CROSS JOIN chunks ON chunks.label = wanted.value",
        (_json(page.tolist()),),
    ).fetchall()
    bad = [label for label, vector, sums in rows if checksums.bad_vector(vector, sums)]
    for label in bad:
        left_out(label, checksums.damaged(db, label, "a vector"))
    without = set(bad)
    sound = [(label, vector) for label, vector, _ in rows if label not in without]
    return np.array([label for label, _ in sound], np.int64), b"".join(vector for _, vector in sound)


def texts(
    db: apsw.Connection, labels: npt.NDArray[np.int64], left_out: LeftOut
) -> Iterator[tuple[npt.NDArray[np.int64], list[str | None], list[str | None]]]:
    """The texts of these chunks, removed ones included, in pages: labels, titles of their documents, texts. `labels`
    ascend. Damaged chunks are left out. A page is one statement with one row, unless something in it is damaged."""
    for start in range(0, len(labels), PAGE_ROWS):
        page = labels[start : start + PAGE_ROWS]
        packed, sums, titles = db.execute(
            f"SELECT CAST(json_group_array(CAST(text AS TEXT)) AS BLOB), {_SUMS},"
            " (SELECT CAST(json_group_array(json_array(label, title)) AS BLOB)"
            " FROM (SELECT label, CAST(title AS TEXT) AS title FROM documents WHERE label BETWEEN"
            " (SELECT max(label) FROM documents WHERE label <= ?2) AND ?3 ORDER BY label))"
            " FROM json_each(?1) AS wanted CROSS JOIN chunks ON chunks.label = wanted.value",
            (_json(page.tolist()), int(page[0]), int(page[-1])),
        ).get
        try:
            its_texts, titled = orjson.loads(packed), orjson.loads(titles)
        except orjson.JSONDecodeError:  # not UTF-8
            yield from _sound_texts(db, page, left_out)
            continue
        if checksums.first_bad_text(its_texts, sums) is not None:
            yield from _sound_texts(db, page, left_out)
            continue
        firsts = np.array([first for first, _ in titled], np.int64)
        places = np.searchsorted(firsts, page, "right") - 1
        yield page, [titled[place][1] for place in places.tolist()], its_texts


def _sound_texts(
    db: apsw.Connection, labels: npt.NDArray[np.int64], left_out: LeftOut
) -> Iterator[tuple[npt.NDArray[np.int64], list[str | None], list[str | None]]]:
    """As `texts`, row by row."""
    for start in range(0, len(labels), limits.PAGE_ITEMS):
        rows = chunk_rows(db, labels[start : start + limits.PAGE_ITEMS].tolist(), left_out)
        if rows:
            sound = np.array(sorted(rows), np.int64)
            yield sound, [rows[label][2] for label in sound.tolist()], [rows[label][3] for label in sound.tolist()]


def libraries_of(db: apsw.Connection, labels: list[int]) -> dict[int, int]:
    """Label -> library id of those of these chunks whose documents have not been removed."""
    found = db.execute(
        "SELECT wanted.value, library_id FROM json_each(?) AS wanted CROSS JOIN documents ON documents.label ="
        " (SELECT label FROM documents WHERE label <= wanted.value ORDER BY label DESC LIMIT 1)"
        " WHERE removed_seq IS NULL",
        (_json(labels),),
    )
    return dict(found)


#: The attributes of a document: label, chunks, id, title, metadata.
AttributeRow = tuple[int, int, str, str | None, dict[str, Any]]


def fields(db: apsw.Connection, library_id: int, left_out: LeftOut) -> Iterator[AttributeRow]:
    """All current documents of a library by label. Those that cannot be decoded are left out.

    A page is one statement with one row of JSON, because every row is a step (see __init__.py).
    """
    labels = db.execute(
        "SELECT json_group_array(label) FROM (SELECT label FROM documents INDEXED BY documents_live"
        " WHERE library_id = ? AND removed_seq IS NULL)",
        (library_id,),
    ).get
    waiting: list[int] = sorted(orjson.loads(labels))
    start, count = 0, 16
    while start < len(waiting):
        page = waiting[start : start + count]
        # As bytes: damaged text may not be UTF-8.
        packed: bytes = db.execute(
            "SELECT CAST(group_concat('[' || label || ',' || documents.chunks || ',' || json_quote(documents.id) || ','"
            " || json_quote(title) || ',' || metadata || ']', ',') AS BLOB) FROM json_each(?) AS wanted"
            " CROSS JOIN documents ON label = wanted.value",
            (_json(page),),
        ).get
        start += count
        count = max(1, min(limits.COLUMNS_PAGE_DOCUMENTS, count * limits.COLUMNS_PAGE_BYTES // len(packed), 2 * count))
        try:
            rows = orjson.loads(b"[%b]" % packed)
        except orjson.JSONDecodeError:
            rows = _decodable(db, page, left_out)
        yield from rows


def _decodable(db: apsw.Connection, labels: list[int], left_out: LeftOut) -> Iterator[AttributeRow]:
    """One by one, because at least one of them cannot be decoded."""
    rows: list[Any] = db.execute(
        f"SELECT {_OUTLINE} FROM json_each(?) AS wanted CROSS JOIN documents ON label = wanted.value", (_json(labels),)
    ).fetchall()
    for label, packed_id, title, metadata, chunks, *_ in rows:
        try:
            yield (
                label, chunks, packed_id.decode(), None if title is None else title.decode(), orjson.loads(metadata),
            )  # fmt: skip
        except (UnicodeDecodeError, orjson.JSONDecodeError):
            left_out(label, checksums.damaged(db, label, "its id, title or metadata"))


def by_id(db: apsw.Connection, labels: list[int]) -> list[int]:
    """The labels of these documents, removed ones included, in the order of their ids."""
    found = db.execute(
        "SELECT label FROM json_each(?) AS wanted CROSS JOIN documents ON documents.label = wanted.value"
        " ORDER BY documents.id",
        (_json(labels),),
    )
    return [label for (label,) in found]


def versions(db: apsw.Connection, labels: list[int]) -> list[tuple[str, str]]:
    """Id and digest (in hex) of these documents, removed ones included, in the order of their ids."""
    found = db.execute(
        "SELECT documents.id, lower(hex(digest)) FROM json_each(?) AS wanted CROSS JOIN documents"
        " ON documents.label = wanted.value ORDER BY documents.id",
        (_json(labels),),
    )
    return list(found)


def at(db: apsw.Connection, labels: list[int]) -> list[Document]:
    """The documents with these labels, removed ones included, without their chunks, in the order of the labels."""
    found = db.execute(
        f"SELECT {_OUTLINE} FROM json_each(?) AS wanted CROSS JOIN documents ON documents.label = wanted.value",
        (_json(labels),),
    )
    return [_document(db, row) for row in found]


def fill(db: apsw.Connection, documents: list[Document], *, vectors: bool, bytes_max: int | None = None) -> int:
    """Reads the texts and, with `vectors`, the vectors of the documents' chunks into them, until it has read more than
    about `bytes_max` bytes. Returns the number of documents read: at least one, if there is one. Raises VecError
    `damaged`."""
    size = 0
    for place, document in enumerate(documents):
        if bytes_max is not None and size > bytes_max:
            return place
        rows: list[Any] = db.execute(
            f"SELECT label, CAST(text AS BLOB), {'CAST(vector AS BLOB)' if vectors else 'NULL'}, CAST(sums AS BLOB)"
            " FROM chunks"
            " WHERE label BETWEEN ? AND ? ORDER BY label",
            (document.label, document.label + document.chunks - 1),
        ).fetchall()
        document.texts = [_text(db, label, text, sums) for label, text, _, sums in rows]
        document.vectors = None
        if vectors:
            for label, _, vector, sums in rows:
                if checksums.bad_vector(vector, sums):
                    raise checksums.damaged(db, label, "a vector")
            document.vectors = [vector for _, _, vector, _ in rows]
        if bytes_max is not None:
            size += sum(len(text or b"") + len(vector or b"") for _, text, vector, _ in rows)
    return len(documents)


def sizes(db: apsw.Connection, versions: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Bytes of the texts and of the vectors of these document versions, each given as (label, chunks)."""
    packed: str = db.execute(
        "SELECT json_group_array((SELECT json_array(coalesce(sum(octet_length(text)), 0), sum(octet_length(vector)))"
        " FROM chunks WHERE label BETWEEN value ->> 0 AND (value ->> 0) + (value ->> 1) - 1)) FROM json_each(?)",
        (_json(versions),),
    ).get
    return [(texts, vectors) for texts, vectors in map(orjson.loads, orjson.loads(packed))]


def contents(
    db: apsw.Connection, versions: list[tuple[int, int]], *, vectors: bool, sound_only: bool = False
) -> dict[int, Content]:
    """The chunks of these document versions, by label, each given as (label, chunks); vectors only with `vectors`. With
    `sound_only`, damaged ones are skipped. Raises VecError `damaged`."""
    column = "CAST(group_concat(vector, '') AS BLOB)" if vectors else "NULL"
    rows = db.execute(
        f"SELECT value ->> 0, (SELECT CAST(json_group_array(CAST(text AS TEXT)) AS BLOB) FROM {_CHUNKS_OF}),"
        f" (SELECT {column} FROM {_CHUNKS_OF}), (SELECT {_SUMS} FROM {_CHUNKS_OF}),"
        " (SELECT CAST(lines AS BLOB) FROM documents WHERE label = value ->> 0) FROM json_each(?)",
        (_json(versions),),
    )
    chunks = dict(versions)
    found: dict[int, Content] = {}
    for label, packed, joined, sums, packed_lines in rows:
        what = None
        texts: list[str | None] = []
        try:
            texts = orjson.loads(packed)
        except orjson.JSONDecodeError:  # not UTF-8
            what = "a text"
        else:
            if checksums.first_bad_text(texts, sums or b"") is not None:
                what = "a text"
            elif joined is not None and checksums.first_bad_vector(joined, sums or b"") is not None:
                what = "a vector"
        if what is None:
            lines = _lines(packed_lines, chunks[label]) if packed_lines is not None else None
            found[label] = Content(texts, None if joined is None else _cut(joined, chunks[label]), lines)
        elif not sound_only:
            raise checksums.damaged(db, label, what)
    return found


#: The chunks of the document version that `value` names, in their order.
_CHUNKS_OF = (
    "(SELECT text, vector, sums FROM chunks"
    " WHERE label BETWEEN value ->> 0 AND (value ->> 0) + (value ->> 1) - 1 ORDER BY label)"
)
#: Their checksums, concatenated, as checksums.first_bad_text takes them. (Columns are cast to their declared types: a
#: flipped bit in a row's header turns a text into a blob, or a blob into a text.)
_SUMS = f"CAST(group_concat(coalesce(sums, x'{checksums.NONE.hex()}'), '') AS BLOB)"


def _cut(joined: bytes, count: int) -> list[bytes]:
    size = len(joined) // count
    return [joined[place * size : (place + 1) * size] for place in range(count)]


def state(
    db: apsw.Connection, seq: int, after: int, count: int, libraries: list[int] | None
) -> list[tuple[int, int, int, str, str | None, str]]:
    """Up to `count` documents that existed at that seq, after the label `after` (exclusive), by label: label, chunks,
    library id, id, title, metadata (JSON). `libraries` None: of all libraries.

    The seq must not be before the log's horizon.
    """
    packed: bytes = db.execute(
        "SELECT CAST('[' || coalesce(group_concat(line, ','), '') || ']' AS BLOB) FROM ("
        "SELECT json_array(label, documents.chunks, documents.library_id, id, title, metadata) AS line"
        " FROM documents CROSS JOIN libraries ON libraries.library_id = documents.library_id"
        " WHERE label > ?2 AND label < coalesce(?5, label + 1) AND (removed_seq IS NULL OR removed_seq > ?1)"
        " AND (deleted_seq IS NULL OR deleted_seq > ?1)"
        " AND (?4 IS NULL OR documents.library_id IN (SELECT value FROM json_each(?4)))"
        " ORDER BY label LIMIT ?3)",
        (seq, after, count, None if libraries is None else _json(libraries), _first_label_after(db, seq)),
    ).get
    return [tuple(each) for each in checksums.packed_rows(packed)]


def _first_label_after(db: apsw.Connection, seq: int) -> int | None:
    """The label of the first document that was written after that seq."""
    sql = "SELECT label FROM events WHERE seq > ? AND label IS NOT NULL ORDER BY seq LIMIT 1"
    label: int | None = db.execute(sql, (seq,)).get
    return label


#: The columns that `_document` and `_outline` take. Texts are read as bytes: damaged ones may not be UTF-8.
_OUTLINE = (
    "label, CAST(documents.id AS BLOB), CAST(title AS BLOB), CAST(metadata AS BLOB), documents.chunks, sum,"
    " CAST(lines AS BLOB)"
)


def _document(db: apsw.Connection, row: Any) -> Document:
    """Raises VecError `damaged`."""
    document_id, title, metadata, lines = _outline(db, row)
    return Document(row[0], document_id, title, orjson.loads(metadata), row[4], lines)


def _outline(db: apsw.Connection, row: Any) -> tuple[str, str | None, str, list[int] | None]:
    """Id, title, metadata as JSON, and lines. Raises VecError `damaged`."""
    label, packed_id, packed_title, packed_metadata, chunks, wanted, packed_lines = row
    try:
        document_id, metadata = packed_id.decode(), packed_metadata.decode()
        title = None if packed_title is None else packed_title.decode()
        lines = None if packed_lines is None else packed_lines.decode()
        if wanted is None:
            orjson.loads(metadata)  # no checksum tells whether it can be decoded
    except (UnicodeDecodeError, orjson.JSONDecodeError):
        pass
    else:
        if wanted is None or wanted == checksums.of_document(document_id, title, metadata, chunks, lines):
            return document_id, title, metadata, None if lines is None else _lines(lines, chunks)
    raise checksums.damaged(db, label, "its id, title or metadata")


def _lines(packed: bytes | str, chunks: int) -> list[int] | None:
    """The lines of a document's chunks; None if they are damaged, which the checksum of the document says."""
    try:
        lines = orjson.loads(packed)
    except orjson.JSONDecodeError:
        return None
    return lines if isinstance(lines, list) and len(lines) == chunks else None


def _text(db: apsw.Connection, label: int, text: bytes | None, sums: bytes | None) -> str | None:
    """The text of a chunk. Raises VecError `damaged`."""
    if not checksums.bad_text(text, sums):
        with contextlib.suppress(UnicodeDecodeError):
            return None if text is None else text.decode()
    raise checksums.damaged(db, label, "a text")


def outlines(db: apsw.Connection, labels: Iterable[int]) -> dict[int, tuple[str, str | None, str]]:
    """Label -> id, title, and metadata as JSON, of these documents, removed ones included. Damaged ones are skipped."""
    found = {}
    for row in db.execute(
        f"SELECT {_OUTLINE} FROM json_each(?) AS wanted CROSS JOIN documents ON documents.label = wanted.value",
        (_json(list(labels)),),
    ):
        with contextlib.suppress(VecError):
            document_id, title, metadata, _ = _outline(db, row)
            found[row[0]] = document_id, title, metadata
    return found


def damaged(db: apsw.Connection, labels: Iterable[int]) -> set[int]:
    """Those of these documents, removed ones included, whose id, title or metadata are damaged."""
    found = set()
    for row in db.execute(
        f"SELECT {_OUTLINE} FROM json_each(?) AS wanted CROSS JOIN documents ON documents.label = wanted.value",
        (_json(list(labels)),),
    ):
        try:
            _outline(db, row)
        except VecError:
            found.add(row[0])
    return found


def _json(value: Any) -> str:
    return orjson.dumps(value).decode()
