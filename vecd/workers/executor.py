"""Executor: who embeds texts for the daemon.

- Workers of a framework, if one is configured (executor_remote.py).
- Otherwise `vec worker` processes, if any are present (leased_tasks.py).
- Otherwise the daemon: a slow embedder in child processes (local_pool.py), a fast one in its own.

Embedders that need a program, a server or a key of the daemon's machine are always run there.

The executor is for what is *offloaded*: slow embedders, and all with `[jobs] offload = "all"`. The built-in embedders
are faster than any broker; a reembed offers its texts to `vec worker` processes all the same.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import Future
from typing import Any, Final, Protocol

import numpy as np

from .. import limits
from ..errors import VecError
from ..parameters import without_parameters
from ..text import embedders
from ..units import format_time
from .executor_remote import RemoteExecutor
from .executor_settings import LOCAL, ExecutorSettings
from .leased_tasks import Embed, EmbeddingTasks
from .local_pool import Batch, Embedded, LocalPools
from .messages import Floats

#: How often a thread that waits for vectors looks whether it must stop.
_LOOK_S: Final = 0.25


class Submitted(Protocol):
    """Texts of a job that are being embedded."""

    def result(self, embed: Embed, stopping: Callable[[], bool] = ...) -> Floats | None:
        """The vectors, one row per text, in order; None if there are no texts, or as soon as the caller must stop.
        What nobody takes is embedded by `embed`. Blocks; raises VecError."""

    def cancel(self) -> None:
        """Nobody needs them any more."""


class Executor:
    """Thread-safe."""

    def __init__(self, settings: ExecutorSettings | None = None) -> None:
        """Raises VecError `invalid_settings`."""
        self.leased = EmbeddingTasks()
        self._settings = settings or ExecutorSettings()
        self._pool = LocalPools(self._settings.executor_processes)
        self._remote = RemoteExecutor(self._settings, self._pool) if self._settings.remote else None

    def start(self) -> None:
        """Raises VecError `busy` if the system does not give the threads."""
        if self._remote is not None:
            self._remote.start()

    def close(self) -> None:
        """Ends what waits with VecError `shutting_down`. Blocks."""
        if self._remote is not None:
            self._remote.close()
        self._pool.close()

    def offloads(self, embedder: str) -> bool:
        """Whether this embedder runs outside the daemon's process. Raises VecError `unsupported`."""
        kind = embedders.kind_of(embedder)
        return kind is not None and (kind.slow or self._settings.offload == "all")

    def embed(
        self, flow: Hashable, embedder: str, texts: Sequence[str], *, queries: bool = False, bulk: bool = False
    ) -> Future[Embedded]:
        """Embeds at most EMBED_TEXTS texts for an offloaded embedder, in fair order between flows. `queries`: they are
        no texts of documents. A few texts pass large batches, unless they are `bulk`: nobody waits for them, and no
        query is to wait behind them. The future raises the VecError of the embedder. Raises VecError `busy` or
        `shutting_down`."""
        assert len(texts) <= limits.EMBED_TEXTS
        batch = Batch(flow, embedder, texts, queries=queries, bulk=bulk)
        if len(texts) < limits.EMBED_TEXTS_MIN or _only_here(embedder):
            self._pool.submit(batch)
        elif self._remote is not None:
            self._remote.submit(batch)
        else:
            leased = self.leased.submit("embed", embedder, texts)
            leased.future.add_done_callback(lambda made: self._leased(batch, made))
        return batch.future

    def _leased(self, batch: Batch, made: Future[Floats | None]) -> None:
        """`vec worker` processes have embedded a batch, or have not."""
        try:
            vectors = made.result()
            if vectors is None:
                self._pool.submit(batch)
            else:
                batch.resolve(Embedded(vectors, {}))
        except VecError as error:
            batch.resolve(error)

    # --- for jobs ---------------------------------------------------------------------------------------------------

    def window(self, kind: str, embedder: str) -> int:
        """How many batches of a job should be in flight. `kind` is one of leased_tasks.TASK_KINDS."""
        if not self.offloads(embedder):
            return self.leased.window(kind, embedder)
        if self._remote is not None:
            return limits.EMBED_AHEAD
        return max(self.leased.window(kind, embedder), self._settings.executor_processes + 1)

    def submit(
        self, kind: str, embedder: str, texts: Sequence[str], *, job_id: int | None = None, library: str | None = None
    ) -> Submitted:
        """Has texts of a job embedded."""
        offloads = self.offloads(embedder)
        if not _only_here(embedder) and (not offloads or self._remote is None):
            leased = self.leased.submit(kind, embedder, texts, job_id=job_id, library=library)
            if not offloads or not leased.future.done():
                return leased
        parts = (texts[start : start + limits.EMBED_TEXTS] for start in range(0, len(texts), limits.EMBED_TEXTS))
        return _Parts([self.embed(("job", job_id), embedder, part) for part in parts])

    def status(self) -> dict[str, Any]:
        """For people: man/vec-workers.7."""
        failing = []
        for embedder, (at_us, error) in self._pool.failures().items():
            name, parameters = without_parameters(embedder)
            about = {"embedder": name, "embedder_parameters": parameters}
            failing.append({**about, "at": format_time(at_us), "error": error.message})
        here = {"here_waiting": self._pool.waiting, "here_texts": self._pool.texts, "here_failing": failing}
        if self._remote is None:
            return {"executor": LOCAL, **here}
        return {"executor": self._settings.executor, **self._remote.status(), **here}


def _only_here(embedder: str) -> bool:
    """Whether workers on other machines cannot run this embedder."""
    kind = embedders.kind_of(embedder)
    return kind is not None and kind.here


class _Parts:
    """A batch of a job, as several of the executor."""

    def __init__(self, parts: list[Future[Embedded]]) -> None:
        self._parts = parts

    def result(self, embed: Embed, stopping: Callable[[], bool] = lambda: False) -> Floats | None:
        made: list[Floats] = []
        while len(made) < len(self._parts):
            if stopping():
                return None
            try:
                made.append(_whole(self._parts[len(made)].result(_LOOK_S)))
            except TimeoutError:
                continue
        return np.concatenate(made) if made else None

    def cancel(self) -> None:
        for part in self._parts:
            part.cancel()


class OffloadedEmbedder:
    """An Embedder whose work is done outside the daemon's process; blocks its caller."""

    def __init__(self, executor: Executor, name: str) -> None:
        self._executor = executor
        self._name = name

    @property
    def dimension(self) -> int | None:
        return embedders.dimension_of(self._name)

    def embed(self, texts: Sequence[str]) -> Floats:
        """As Embedder.embed."""
        return self._embedded(texts, queries=False)

    def embed_queries(self, texts: Sequence[str]) -> Floats:
        """As QueryEmbedder.embed_queries."""
        return self._embedded(texts, queries=True)

    def _embedded(self, texts: Sequence[str], queries: bool) -> Floats:
        parts = [
            self._executor.embed("", self._name, texts[start : start + limits.EMBED_TEXTS], queries=queries)
            for start in range(0, len(texts), limits.EMBED_TEXTS)
        ]
        if not parts:
            return np.zeros((0, self.dimension or 0), np.float32)
        return np.concatenate([_whole(part.result()) for part in parts])


def _whole(embedded: Embedded) -> Floats:
    """The vectors of all texts. Raises the VecError of the first that has none."""
    for error in embedded.failed.values():
        raise error
    return embedded.vectors
