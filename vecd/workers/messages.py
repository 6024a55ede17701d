"""The messages between the daemon and what embeds for it: texts out, vectors back, both as bytes (msgpack).

A request is {"id", "embedder", "texts", "answers"}; `answers` names the queue for the answer, and "queries" is true if
the texts are queries, where it matters. An answer is {"id",
"worker", "dimension", "vectors"}, where the vectors are little-endian float32, row by row, or {"id", "worker",
"error"}, an error as the protocol has it. A request without texts is a ping: its answer says that a worker is there.

What comes from a broker is checked: an answer that does not fit its request is an error, never a wrong vector.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import msgpack
import numpy as np
import numpy.typing as npt

from ..errors import Code, VecError

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Request:
    """Texts for a worker."""

    id: str
    embedder: str
    texts: list[str]
    answers: str = ""  # the queue for the answer; empty: the caller knows
    queries: bool = False  # not texts of documents

    def encode(self) -> bytes:
        body = {"id": self.id, "embedder": self.embedder, "texts": self.texts, "answers": self.answers}
        packed: bytes = msgpack.packb({**body, "queries": True} if self.queries else body)
        return packed


@dataclass(frozen=True, slots=True)
class Answer:
    """The vectors of a request, or why there are none."""

    id: str
    worker: str  # who worked: unique among the workers that work at the same time
    dimension: int = 0
    vectors: bytes = b""
    error: VecError | None = None

    def encode(self) -> bytes:
        body: dict[str, Any] = {"id": self.id, "worker": self.worker}
        if self.error is not None:
            body["error"] = self.error.to_wire()
        else:
            body |= {"dimension": self.dimension, "vectors": self.vectors}
        packed: bytes = msgpack.packb(body)
        return packed

    def matrix(self, rows: int) -> Floats:
        """The vectors, shape (rows, dimension). Raises VecError: the answer's error, or `embedder_failed` if the answer
        does not fit, `invalid_document` for numbers that are not finite: one text may be to blame."""
        if self.error is not None:
            raise self.error
        if self.dimension < 1 or len(self.vectors) != 4 * rows * self.dimension:
            raise VecError(
                Code.EMBEDDER_FAILED,
                f"worker {self.worker} answered {rows} texts with {len(self.vectors):,} bytes of"
                f" {self.dimension}-dimension vectors",
                "run the same version of vecd on all machines",
            )
        matrix = np.frombuffer(self.vectors, "<f4").reshape(rows, self.dimension)
        if not np.isfinite(matrix).all():
            why = f"worker {self.worker} answered with numbers that are not finite"
            raise VecError(Code.INVALID_DOCUMENT, why, field="text")
        return matrix


def request(data: bytes) -> Request:
    """Decodes a request. Raises VecError `protocol_error`."""
    body = _map(data)
    texts = body.get("texts")
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise VecError(Code.PROTOCOL_ERROR, "a request to embed has no list of texts")
    return Request(
        _string(body, "id"), _string(body, "embedder"), texts, _string(body, "answers"), body.get("queries") is True
    )


def answer(data: bytes) -> Answer:
    """Decodes an answer. Raises VecError `protocol_error`."""
    body = _map(data)
    message_id, worker = _string(body, "id"), _string(body, "worker")
    if "error" in body:
        return Answer(message_id, worker, error=VecError.from_wire(body["error"]))
    dimension, vectors = body.get("dimension"), body.get("vectors")
    if not isinstance(dimension, int) or not isinstance(vectors, bytes):
        raise VecError(Code.PROTOCOL_ERROR, "an answer has no vectors")
    return Answer(message_id, worker, dimension, vectors)


def _map(data: bytes) -> dict[Any, Any]:
    try:
        body = msgpack.unpackb(data)
    except Exception as error:  # msgpack raises a dozen classes
        raise VecError(Code.PROTOCOL_ERROR, f"a message of {len(data):,} bytes is not msgpack: {error}") from error
    if not isinstance(body, dict):
        raise VecError(Code.PROTOCOL_ERROR, f"a message is a map, not {type(body).__name__}")
    return body


def _string(body: dict[Any, Any], key: str) -> str:
    value = body.get(key)
    if not isinstance(value, str):
        raise VecError(Code.PROTOCOL_ERROR, f"a message has no {key!r}")
    return value
