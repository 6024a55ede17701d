"""Executor: texts to vectors for the daemon, outside its interpreter: by workers of a framework if one is configured
(executor_remote.py), and in child processes of the daemon otherwise (local_pool.py).

It is for slow embedders, and for all with `[jobs] offload = "all"`: the built-in ones are faster than any broker.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from concurrent.futures import Future
from typing import Any

import numpy as np

from .. import limits
from ..text import embedders
from .executor_remote import RemoteExecutor
from .executor_settings import LOCAL, ExecutorSettings
from .local_pool import Batch, Embedded, LocalPool
from .messages import Floats


class Executor:
    """Thread-safe."""

    def __init__(self, settings: ExecutorSettings | None = None) -> None:
        """Raises VecError `invalid_settings`."""
        self._settings = settings or ExecutorSettings()
        self._pool = LocalPool(self._settings.executor_processes)
        self._remote = RemoteExecutor(self._settings, self._pool) if self._settings.remote else None

    def start(self) -> None:
        """Raises VecError `busy` if the system does not give the threads."""
        if self._remote is not None:
            self._remote.start()

    def close(self) -> None:
        """Drops what waits. Blocks."""
        if self._remote is not None:
            self._remote.close()
        self._pool.close()

    def offloads(self, embedder: str) -> bool:
        """Whether texts for this embedder go through `submit`. Raises VecError `unsupported`."""
        kind = embedders.kind_of(embedder)
        return kind is not None and (kind.slow or self._settings.offload == "all")

    def ahead(self, embedder: str) -> int:
        """How many batches one request or job should have in flight."""
        return limits.EMBED_AHEAD if self.offloads(embedder) else 1

    def submit(self, flow: Hashable, embedder: str, texts: Sequence[str]) -> Future[Embedded]:
        """Embeds at most EMBED_TEXTS texts, in fair order between flows. The future raises the VecError of the
        embedder. Raises VecError `busy` or `shutting_down`."""
        assert len(texts) <= limits.EMBED_TEXTS
        batch = Batch(flow, embedder, texts)
        if self._remote is None or len(texts) < limits.EMBED_TEXTS_MIN:
            self._pool.submit(batch)
        else:
            self._remote.submit(batch)
        return batch.future

    def status(self) -> dict[str, Any]:
        """For people: man/vec-workers.7."""
        here = {"here_waiting": self._pool.waiting, "here_texts": self._pool.texts}
        if self._remote is None:
            return {"executor": LOCAL, **here}
        return {"executor": self._settings.executor, **self._remote.status(), **here}


class OffloadedEmbedder:
    """An Embedder whose work is done outside the daemon's interpreter; blocks its caller."""

    def __init__(self, executor: Executor, name: str) -> None:
        self._executor = executor
        self._name = name

    @property
    def dimension(self) -> int | None:
        return embedders.dimension_of(self._name)

    def embed(self, texts: Sequence[str]) -> Floats:
        """As Embedder.embed."""
        parts = [
            self._executor.submit("", self._name, texts[start : start + limits.EMBED_TEXTS])
            for start in range(0, len(texts), limits.EMBED_TEXTS)
        ]
        made = [part.result() for part in parts]
        for each in made:
            for error in each.failed.values():
                raise error
        return (
            np.concatenate([each.vectors for each in made]) if made else np.zeros((0, self.dimension or 0), np.float32)
        )
