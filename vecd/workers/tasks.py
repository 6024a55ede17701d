"""The task that every worker runs: texts in, vectors out. Pure: it reads no store and writes nothing, so it may run
twice, be killed, or come too late.

It answers every message, also with an error, so that the daemon does not wait for its limit. Embedders are loaded on
first use and kept.
"""

from __future__ import annotations

import os
import socket
import threading

from ..errors import Code, VecError
from ..text import embedders
from . import messages
from .messages import Answer

_lock = threading.Lock()
_loaded: dict[str, embedders.Embedder | None] = {}


def embed(data: bytes, worker: str = "") -> bytes:
    """Answers a request (messages.py). `worker` is who works; by default this process and thread. Raises VecError
    `protocol_error` for bytes that are no request, which nobody can be told of."""
    request = messages.request(data)
    name = worker or f"{socket.gethostname()}:{os.getpid()}:{threading.get_native_id()}"
    if not request.texts:
        return Answer(request.id, name).encode()
    try:
        embedder = _embedder(request.embedder)
        if embedder is None:
            raise VecError(Code.UNSUPPORTED, f"the embedder {request.embedder!r} makes no vectors")
        embed_texts = embedders.of_queries(embedder) if request.queries else embedder.embed
        vectors = embed_texts(request.texts)
    except VecError as error:
        return Answer(request.id, name, error=error).encode()
    except Exception as error:
        # Another attempt would fail as well: a bug of the embedder, or a text that it does not take.
        failed = VecError(Code.INTERNAL, f"the embedder {request.embedder!r} failed: {error!r:.300}")
        return Answer(request.id, name, error=failed).encode()
    return Answer(request.id, name, vectors.shape[1], vectors.astype("<f4", copy=False).tobytes()).encode()


def _embedder(name: str) -> embedders.Embedder | None:
    with _lock:
        if name not in _loaded:
            _loaded[name] = embedders.make(name)
        return _loaded[name]
