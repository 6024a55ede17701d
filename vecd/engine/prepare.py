"""Prepares a batch for the store: validates, chunks and embeds documents in the form that clients send.

A document is a map, one of
    {"id"?, "title"?, "text": str, "metadata"?: object}                        cut into chunks
    {"id"?, "title"?, "texts": [str, …], "metadata"?: object}                  one chunk each
    {"id"?, "title": str, "metadata"?: object}                                 one chunk without a text
either with "vector" (one chunk) or "vectors" (one a chunk), packed, which may also stand without a text; chunks that
are given one by one may have "lines", [int, …]: where in a file each begins, from 1; or
    {"op": "delete", "id": str}
    {"op": "create", "settings"?: object}       as the first: creates the library with these, if it does not exist
An id may be a whole number, which stands for its digits.

Rules: a document that is refused affects no other; its error names the field. A missing id is derived from the content,
so the same document sent twice is one. The digest is of the resulting content: a document that changes nothing is
recognised in whatever form it is sent.
This runs for every document of every stream, so it takes few steps a document and few calls a batch. A large request
takes seconds, on threads that are shared (fair_pool.py): so it is prepared as several batches, each written in one
transaction, and each batch in slices, between which the threads prepare other requests.
"""

from __future__ import annotations

import reprlib
import time
from collections.abc import Callable, Hashable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from hashlib import blake2b
from typing import Any

import msgpack
import numpy as np
import numpy.typing as npt
import orjson

from .. import limits
from ..errors import Code, VecError, nearest
from ..index import LENGTH_MAX
from ..json_values import id_text, records_hint, refusals
from ..store import checksums
from ..store import documents as store
from ..store import libraries as store_libraries
from ..store.catalogue import Library
from ..store.documents import DocumentBatch, Entry
from ..store.transaction import Words
from ..text import embedders
from ..text.chunking import chunks_by_span, chunks_of
from ..workers.local_pool import Embedded
from .chunk_terms import TermCollector
from .engine import Engine
from .kept_vectors import kept_vectors
from .slices import Slices

_KEYS = frozenset(("op", "id", "title", "text", "texts", "lines", "metadata", "vector", "vectors"))
_CONTENTS = frozenset(("title", "text", "texts", "vector", "vectors"))

#: The cost of a document, and of a text, beside its characters, in characters.
_DOCUMENT_CHARS, _TEXT_CHARS = 40, 20

Floats = npt.NDArray[np.float32]

NO_VECTORS: Floats = np.empty((0, 0), np.float32)


@dataclass(slots=True)
class PreparedBatch:
    """Documents `start` (inclusive) to `stop` (exclusive) of a request, prepared to be written in one transaction."""

    start: int
    stop: int
    batch: DocumentBatch
    refused: list[tuple[int, VecError]]  # (index, why), in the order of their indexes


def cost_s(documents: list[Any], start: int) -> float:
    """About how long the first slice of the documents from `start` on takes."""
    chars, stop = 0, start
    while stop < len(documents) and chars < limits.PREPARE_SLICE_CHARS:
        document = documents[stop]
        stop += 1
        chars += _DOCUMENT_CHARS
        if isinstance(document, dict):
            for text in (document.get("text"), *(document.get("texts") or ())):
                chars += len(text) if isinstance(text, str) else 0
    return limits.PREPARE_SLICE_S * min(1.0, chars / limits.PREPARE_SLICE_CHARS)


def prepare_in_slices(
    engine: Engine,
    library: Library,
    documents: list[Any],
    start: int,
    strict: bool,
    *,
    flow: Hashable = None,
    cut: Callable[[int], None] = lambda stop: None,
) -> Slices[PreparedBatch]:
    """Validates, chunks and embeds the documents from `start` on, until there are enough for a batch.

    If they are embedded outside the daemon, `cut` is called when that begins, with the batch's `stop`: the next batch
    can begin too. (It is still a guess with `strict`: a document may yet be refused.) `flow` is for fair order.
    Raises VecError `embedder_failed`.
    """
    builder, stop = BatchBuilder(library, strict), start
    while stop < len(documents) and len(builder.texts) < limits.PART_CHUNKS and builder.chars < limits.PART_CHARS:
        document, chunks = documents[stop], None
        if (text := builder.long_text(document)) is not None:
            chunks = []
            for span in chunks_by_span(text, library.chunk_chars, library.chunk_overlap):
                chunks += span
                yield from builder.end_slice()
        try:
            builder.add(stop, document, chunks)
        except VecError as error:
            builder.refused.append((stop, error))
        stop += 1
        if strict and builder.refused:
            break
        yield from builder.end_slice()
    builder.check_lengths()
    builder.order_refused()
    if strict and builder.refused:
        stop = len(documents)
    batch = yield from builder.batch(engine, flow, partial(cut, stop))
    return PreparedBatch(start, len(documents) if strict and builder.refused else stop, batch, builder.refused)


class BatchBuilder:
    """Builds a batch: chunks are columns, documents are Entries that point into them."""

    def __init__(self, library: Library, strict: bool = False) -> None:
        """With `strict`, documents after the first that is refused are dropped."""
        self.library = library
        self.strict = strict
        self.dimension = library.dimension
        self.embeds = embedders.embeds(library.embedder)
        self.pack = msgpack.Packer().pack
        self.entries: list[Entry] = []
        self.refused: list[tuple[int, VecError]] = []
        self.texts: list[str | None] = []
        self.titles: list[str | None] = []
        self.given: list[bytes | None] = []  # packed vectors; None: to be embedded
        self.chars = 0  # of the texts
        self.creates = False  # whether there was a create
        self._slice_ends = time.perf_counter() + limits.PREPARE_SLICE_S

    def end_slice(self) -> Slices[None]:
        """Yields, if the slice has taken its time."""
        if time.perf_counter() > self._slice_ends:
            yield None
            self._slice_ends = time.perf_counter() + limits.PREPARE_SLICE_S

    def long_text(self, document: Any) -> str | None:
        """The text of a document that is to be cut into chunks, if that takes more than a slice."""
        text = document.get("text") if isinstance(document, dict) else None
        if not self.embeds or not isinstance(text, str) or len(text) < limits.PREPARE_SLICE_CHARS or text.isspace():
            return None
        return text if document.get("vector") is None and document.get("vectors") is None else None

    def add(self, index: int, document: Any, chunks: list[str] | None = None) -> None:
        """Takes one document, or raises VecError `invalid_document` or `dimension_mismatch`. `chunks` are those of its
        text, if they have been made."""
        if not isinstance(document, dict):
            raise VecError(Code.INVALID_DOCUMENT, f"a document is a JSON object, not {_json_type(document)}")
        if document.get("op") == "create":
            self._add_create(document)
            return
        if not _KEYS.issuperset(document):
            raise _unknown_key(document)
        if "op" in document:
            self._add_delete(index, document)
            return
        title, metadata = document.get("title"), document.get("metadata")
        if title is not None:
            _check_text("title", title, limits.TITLE_BYTES_MAX)
        packed_metadata = metadata_json(metadata) if metadata else _no_metadata(metadata)
        texts, vectors = self._contents(document, title, chunks)
        dimension = self._check_vectors(vectors, len(texts)) if vectors is not None else self.dimension
        lines = _lines_json(document.get("lines"), document.get("text"), len(texts))
        form = (title, packed_metadata, document.get("text"), document.get("texts"), vectors)
        given = [*form, *([lines] if lines else [])]
        document_id = id_text(document.get("id"))
        if document_id is None:
            document_id = digest_of_form(given)
        else:
            _check_id(document_id)
        self.dimension = dimension  # by now nothing can refuse the document, whose vector may be the first
        embedded_digest = digest = store.content_digest(title, packed_metadata, texts, None, lines)
        if vectors:
            digest = store.content_digest(title, packed_metadata, texts, filter(None, vectors), lines)
        entry = Entry(
            index, document_id, False, title, packed_metadata, digest, len(self.texts), len(texts), lines,
            embedded_digest if vectors else "", partial(digest_of_form, given),
        )  # fmt: skip
        self.entries.append(entry)
        self.texts += texts
        self.titles += [title] * len(texts)
        self.given += vectors or [None] * len(texts)
        self.chars += sum(map(len, filter(None, texts)))

    def _add_create(self, document: dict[str, Any]) -> None:
        """The settings are used, and checked, where the library does not exist (libraries.find_for_writing)."""
        if more := [key for key in document if key not in ("op", "settings")]:
            raise VecError(Code.INVALID_DOCUMENT, f"a create takes only 'settings', not {more[0]!r:.60}", field=more[0])
        if not isinstance(document.get("settings", {}), dict):
            raise VecError(Code.INVALID_DOCUMENT, "the 'settings' of a create must be an object", field="settings")
        self.creates = True

    def _add_delete(self, index: int, document: dict[str, Any]) -> None:
        if document["op"] != "delete":
            raise VecError(
                Code.INVALID_DOCUMENT,
                f'unknown op {reprlib.repr(document["op"])}; there are "delete" and "create"',
                field="op",
            )
        if more := [key for key in document if key not in ("op", "id")]:
            raise VecError(Code.INVALID_DOCUMENT, f"a delete takes only an 'id', not {more[0]!r}", field=more[0])
        if document.get("id") is None:
            raise VecError(Code.INVALID_DOCUMENT, "a delete needs an 'id'", field="id")
        document_id = id_text(document["id"])
        _check_id(document_id)
        self.entries.append(Entry(index, document_id, delete=True))

    def _contents(
        self, document: dict[str, Any], title: str | None, chunks: list[str] | None
    ) -> tuple[list[str | None], list[bytes | None] | None]:
        """The texts of its chunks, and their packed vectors, if it brings its own."""
        text, texts = document.get("text"), document.get("texts")
        vector, vectors = document.get("vector"), document.get("vectors")
        if text is not None and texts is not None:
            raise VecError(Code.INVALID_DOCUMENT, "give 'text' or 'texts', not both", field="texts")
        if vector is not None and vectors is not None:
            raise VecError(Code.INVALID_DOCUMENT, "give 'vector' or 'vectors', not both", field="vectors")
        own = vector is not None or vectors is not None
        if vector is not None:
            vectors = [vector]
        found: list[str | None]
        if title is not None and isinstance(text, str) and (not text or text.isspace()):
            text = None
        if text is not None:
            _check_text("text", text)
            found = [text] if own else list(chunks or self._cut(text))
        elif texts is not None:
            if not isinstance(texts, list) or not texts:
                raise VecError(
                    Code.INVALID_DOCUMENT, f"'texts' must be a list of texts, not {_json_type(texts)}", field="texts"
                )
            for place, each in enumerate(texts):
                _check_text(f"texts[{place}]", each)
            found = list(texts)
        elif own:
            found = [None] * len(vectors) if isinstance(vectors, list) else []
        elif title is not None:
            found = [None]
        else:
            raise VecError(
                Code.INVALID_DOCUMENT,
                "a document needs a 'text', 'texts', a 'vector', 'vectors' or a 'title'",
                field="text",
            )
        if len(found) > limits.DOCUMENT_CHUNKS_MAX:
            raise VecError(
                Code.INVALID_DOCUMENT,
                f"a document of {len(found):,} chunks is over the limit of {limits.DOCUMENT_CHUNKS_MAX:,}",
                "send it as several documents",
            )
        if own:
            return found, vectors
        if not self.embeds:
            raise VecError(
                Code.INVALID_DOCUMENT,
                f"library {self.library.name!r} has no embedder, so a document needs a 'vector'",
                field="vector",
            )
        return found, None

    def _cut(self, text: str) -> list[str]:
        return chunks_of(text, self.library.chunk_chars, self.library.chunk_overlap)

    def _check_vectors(self, vectors: Any, chunks: int) -> int:
        """Their dimension, which is the library's if that is known."""
        dimension = self.dimension
        if not isinstance(vectors, list) or not vectors:
            raise VecError(
                Code.INVALID_DOCUMENT,
                f"'vectors' must be a list of vectors, not {_json_type(vectors)}",
                field="vectors",
            )
        if len(vectors) != chunks:
            raise VecError(
                Code.INVALID_DOCUMENT,
                f"{chunks} text{'s' * (chunks != 1)} and {len(vectors)} vectors do not match",
                field="vectors",
            )
        for vector in vectors:
            if not isinstance(vector, bytes) or len(vector) % 4 or not vector:
                raise VecError(
                    Code.INVALID_DOCUMENT,
                    "a vector must be bytes: one or more little-endian float32",
                    field="vector",
                )
            if dimension is None:
                if len(vector) > 4 * limits.DIMENSION_MAX:
                    raise VecError(
                        Code.INVALID_DOCUMENT,
                        f"a vector of {len(vector) // 4:,} dimensions is over the limit of {limits.DIMENSION_MAX:,}",
                        field="vector",
                    )
                if (why := why_unusable(np.frombuffer(vector, "<f4"))) is not None:
                    raise VecError(Code.INVALID_DOCUMENT, f"the vector {why}", field="vector")
                dimension = len(vector) // 4
            elif len(vector) != 4 * dimension:
                raise store_libraries.mismatch(self.library, len(vector) // 4, dimension)
        assert dimension is not None
        return dimension

    def check_lengths(self) -> None:
        """Refuses documents whose own vectors hold NaN or infinity or are too long, all at once."""
        given = b"".join(vector for vector in self.given if vector is not None)
        if why_unusable(np.frombuffer(given, "<f4")) is None:
            return  # together they are short enough, so each is
        kept = []
        for entry in self.entries:
            own = (vector for vector in self.given[entry.offset : entry.offset + entry.chunks] if vector is not None)
            reasons = [why for vector in own if (why := why_unusable(np.frombuffer(vector, "<f4")))]
            if reasons:
                refusal = VecError(Code.INVALID_DOCUMENT, f"the vector {reasons[0]}", field="vector")
                self.refused.append((entry.index, refusal))
            else:
                kept.append(entry)
        self.entries = kept

    def order_refused(self) -> None:
        """Sorts what is refused, and with `strict` drops the documents after the first of it."""
        self.refused.sort(key=lambda pair: pair[0])
        if self.strict and self.refused:
            self.entries = [entry for entry in self.entries if entry.index < self.refused[0][0]]
            del self.refused[1:]

    def batch(self, engine: Engine, flow: Hashable, begun: Callable[[], None]) -> Slices[DocumentBatch]:
        """Embeds what needs it, and removes the chunks of documents that were refused after they had been added."""
        if sum(entry.chunks for entry in self.entries) != len(self.texts):
            self._repack()
        indexed = self._indexed()
        missing: list[int] = []
        given = [vector for vector in self.given if vector is not None]
        if not self.texts:
            vectors = NO_VECTORS
        elif len(given) == len(self.given):
            vectors = np.frombuffer(b"".join(given), "<f4").reshape(len(self.texts), -1)
        else:
            missing = [row for row, vector in enumerate(self.given) if vector is None]
            kept = kept_vectors(engine, self.library, self.entries, indexed, missing)
            changed = [row for row in missing if row not in kept]
            vectors = NO_VECTORS
            failed: dict[int, VecError] = {}
            if changed and engine.executor.offloads(self.library.embedder):
                vectors, failed = yield from self._embedded_outside(engine, changed, indexed, flow, begun)
            elif changed:
                vectors = yield from self._embedded(engine, changed, indexed)
            for row, vector in (*enumerate(self.given), *kept.items()):
                if vector is not None:
                    vectors = self._filled(vectors, [row], np.frombuffer(vector, "<f4")[np.newaxis])
            if failed:
                vectors = vectors[self._without(failed)]
                indexed = self._indexed()
                missing = [row for row, vector in enumerate(self.given) if vector is None]
        sums = checksums.of_chunks(self.texts, vectors)
        words = yield from self._words(engine)
        return DocumentBatch(self.entries, self.texts, indexed, vectors, words, missing, sums, self.creates)

    def _indexed(self) -> list[str | None]:
        return [store.indexed(title, text) for title, text in zip(self.titles, self.texts, strict=True)]

    def _embedded(self, engine: Engine, missing: list[int], indexed: list[str | None]) -> Slices[Floats]:
        """Vectors for all rows; those that are not `missing` are undefined."""
        embedder = engine.embedder(self.library.embedder)
        assert embedder is not None
        vectors = NO_VECTORS
        for rows in _slices(missing, indexed):
            vectors = self._filled(vectors, rows, embedder.embed([indexed[row] or "" for row in rows]))
            yield from self.end_slice()
        return vectors

    def _embedded_outside(
        self,
        engine: Engine,
        missing: list[int],
        indexed: list[str | None],
        flow: Hashable,
        begun: Callable[[], None],
    ) -> Slices[tuple[Floats, dict[int, VecError]]]:
        """The same by the executor, and the rows that it could not embed. All parts are in flight at once."""
        futures: list[tuple[list[int], Future[Embedded]]] = []
        for start in range(0, len(missing), limits.EMBED_TEXTS):
            rows = missing[start : start + limits.EMBED_TEXTS]
            texts = [indexed[row] or "" for row in rows]
            futures.append((rows, engine.executor.embed(flow, self.library.embedder, texts)))
        try:
            begun()
            vectors = NO_VECTORS
            failed: dict[int, VecError] = {}
            for rows, future in futures:
                yield future
                embedded = future.result()
                if embedded.vectors.shape[1]:
                    vectors = self._filled(vectors, rows, embedded.vectors)
                failed |= {rows[place]: error for place, error in embedded.failed.items()}
        finally:
            for _, future in futures:
                future.cancel()  # nothing, for those that are done
        self._slice_ends = time.perf_counter() + limits.PREPARE_SLICE_S
        if vectors is NO_VECTORS:  # all have failed
            vectors = np.zeros((len(self.texts), self.dimension or 0), np.float32)
        return vectors, failed

    def _filled(self, vectors: Floats, rows: Sequence[int], embedded: Floats) -> Floats:
        if vectors is NO_VECTORS:  # an embedder may learn its dimension from its first answer
            if self.dimension not in (None, embedded.shape[1]):
                raise store_libraries.mismatch(self.library, embedded.shape[1], self.dimension)
            vectors = np.empty((len(self.texts), embedded.shape[1]), np.float32)
        vectors[rows] = embedded
        return vectors

    def _without(self, failed: dict[int, VecError]) -> list[int]:
        """Refuses the documents of these rows; returns the rows that remain."""
        kept = []
        for entry in self.entries:
            rows = range(entry.offset, entry.offset + entry.chunks)
            error = next((failed[row] for row in rows if row in failed), None)
            if error is None:
                kept.append(entry)
            else:
                self.refused.append((entry.index, error))
        self.entries = kept
        self.order_refused()
        return self._repack()

    def _words(self, engine: Engine) -> Slices[Words | None]:
        """The terms of the chunks, for full text; None if no index in memory takes them."""
        if not engine.indexes.takes_terms(self.library):
            return None
        words = TermCollector(self.library)
        for rows in _slices(range(len(self.texts)), self.texts):
            words.add(self.titles[rows[0] : rows[-1] + 1], self.texts[rows[0] : rows[-1] + 1])
            yield from self.end_slice()
        return words.batch()

    def _repack(self) -> list[int]:
        """Removes the rows that belong to no entry; returns those that remain."""
        rows: list[int] = []
        for entry in self.entries:
            rows += range(entry.offset, entry.offset + entry.chunks)
            entry.offset = len(rows) - entry.chunks
        self.texts = [self.texts[row] for row in rows]
        self.titles = [self.titles[row] for row in rows]
        self.given = [self.given[row] for row in rows]
        return rows


def _slices(rows: Sequence[int], texts: list[str | None]) -> Iterator[Sequence[int]]:
    """The rows, in groups that have the characters of a slice."""
    start = chars = 0
    for place, row in enumerate(rows):
        chars += len(texts[row] or "") + _TEXT_CHARS
        if chars >= limits.PREPARE_SLICE_CHARS:
            yield rows[start : place + 1]
            start, chars = place + 1, 0
    if start < len(rows):
        yield rows[start:]


def digest_of_form(given: list[Any]) -> str:
    """What earlier versions kept as a document's digest, and what the id of a document without one has always been:
    the digest of title, metadata, text, texts and vectors as they were sent."""
    packed: bytes = msgpack.packb(given)
    return blake2b(packed, digest_size=16).hexdigest()


def why_unusable(vector: npt.NDArray[np.float32]) -> str | None:
    """Why a vector, shape (dimension,), cannot be compared, as what follows "the vector"; None if it can."""
    with np.errstate(over="ignore", invalid="ignore"):
        square = float(vector @ vector)
    if square <= LENGTH_MAX**2:
        return None
    finite = np.isfinite(vector)
    if not finite.all():
        return f"holds a number that is not finite (component {int(finite.argmin())}: NaN, infinity, or over 3.4e38)"
    return f"is too large: longer than {LENGTH_MAX:.0e}, it cannot be compared in 32 bits"


def _unknown_key(document: dict[str, Any]) -> VecError:
    key = next(key for key in document if key not in _KEYS)
    close = nearest(str(key), _KEYS)
    within = None if document.keys() & _CONTENTS else records_hint(document)
    hint = within or (
        f"did you mean {close!r}?"
        if close
        else "what is your own belongs under 'metadata'; `--map metadata=rest` moves it there"
    )
    return VecError(Code.INVALID_DOCUMENT, f"unknown key {key!r:.60}", hint, field=str(key))


def _check_id(value: Any) -> None:
    if not isinstance(value, str):
        what = f"'id' must be a string or a whole number, not {_fraction_or_type(value)}"
        raise VecError(Code.INVALID_DOCUMENT, what, field="id")
    if not value or "\0" in value or "\n" in value:
        raise VecError(
            Code.INVALID_DOCUMENT, "'id' must not be empty or contain a line break or a NUL character", field="id"
        )
    if len(value) > limits.ID_BYTES_MAX // 4 and len(value.encode()) > limits.ID_BYTES_MAX:
        raise VecError(
            Code.INVALID_DOCUMENT,
            f"'id' has {len(value.encode()):,} bytes, the limit is {limits.ID_BYTES_MAX:,}",
            field="id",
        )


def _check_text(field: str, value: Any, bytes_max: int | None = None) -> None:
    if not isinstance(value, str):
        raise VecError(Code.INVALID_DOCUMENT, f"'{field}' must be a string, not {_json_type(value)}", field=field)
    if not value or value.isspace():
        raise VecError(Code.INVALID_DOCUMENT, f"'{field}' is empty", field=field)
    if bytes_max is not None and len(value) > bytes_max // 4 and len(value.encode()) > bytes_max:
        raise VecError(
            Code.INVALID_DOCUMENT,
            f"'{field}' has {len(value.encode()):,} bytes, the limit is {bytes_max:,}",
            field=field,
        )


def _lines_json(lines: Any, text: Any, chunks: int) -> str | None:
    """The lines of a document's chunks, as the store has them."""
    if lines is None:
        return None
    if text is not None and chunks > 1:
        raise VecError(Code.INVALID_DOCUMENT, "'lines' is for 'texts': a 'text' is cut into chunks here", field="lines")
    if not isinstance(lines, list) or not all(type(each) is int and 0 < each <= limits.LINE_MAX for each in lines):
        raise VecError(
            Code.INVALID_DOCUMENT,
            f"'lines' must be a list of line numbers from 1 to {limits.LINE_MAX:,}, not {_json_type(lines)}",
            field="lines",
        )
    if len(lines) != chunks:
        raise VecError(
            Code.INVALID_DOCUMENT,
            f"{chunks} chunk{'s' * (chunks != 1)} and {len(lines)} lines do not match",
            field="lines",
        )
    return orjson.dumps(lines).decode()


def _no_metadata(metadata: Any) -> str:
    if metadata is None or metadata == {}:
        return "{}"
    raise _not_an_object(metadata)


def metadata_json(metadata: Any) -> str:
    """Metadata as the store has it. Raises VecError `invalid_document`."""
    if not isinstance(metadata, dict):
        raise _not_an_object(metadata)
    try:
        packed = orjson.dumps(metadata, option=orjson.OPT_SORT_KEYS)
    except (TypeError, orjson.JSONEncodeError) as error:
        refusal = next(refusals({"metadata": metadata}), None)
        raise refusal or VecError(
            Code.INVALID_DOCUMENT, f"'metadata' cannot be stored as JSON: {error}", field="metadata"
        ) from error
    # NaN and infinity would be kept as null, and what is nested too deep could not be written with more around it.
    if b"null" in packed or packed.count(b"{") + packed.count(b"[") > limits.METADATA_DEPTH_MAX:
        for refusal in refusals({"metadata": metadata}):
            raise refusal
    if len(packed) > limits.METADATA_BYTES_MAX:
        raise VecError(
            Code.INVALID_DOCUMENT,
            f"'metadata' has {len(packed):,} bytes, the limit is {limits.METADATA_BYTES_MAX:,}",
            field="metadata",
        )
    return packed.decode()


def _not_an_object(value: Any) -> VecError:
    return VecError(Code.INVALID_DOCUMENT, f"'metadata' must be an object, not {_json_type(value)}", field="metadata")


def _fraction_or_type(value: Any) -> str:
    return f"{value!r:.40}" if isinstance(value, float) else _json_type(value)


def _json_type(value: Any) -> str:
    """The JSON type of a value, with its article."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true or false"
    if isinstance(value, (int, float)):
        return "a number"
    if isinstance(value, list):
        return "a list" if value else "an empty list"
    return {"str": "a string", "dict": "an object"}.get(type(value).__name__, type(value).__name__)
