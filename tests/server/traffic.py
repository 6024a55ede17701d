"""Writing and searching that goes on all the time beside a test, each on a connection of its own, and checks itself."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable
from typing import Self

import numpy as np

from tests.support.instance import Instance
from tests.support.vectors import Matrix, ids
from tests.support.waiting import until
from vecd.client import Client


class Traffic:
    """What is written is found by the next search, what is deleted never again, and there are always k hits.

    `rows` are the ids and vectors that are there before and stay; those that come and go here begin with `new-`.
    """

    def __init__(self, instance: Instance, library: str, rows: Matrix, where: list[str] | None = None) -> None:
        self.writes = self.searches = 0
        self._instance, self._library, self._rows = instance, library, rows
        self._where = where or []
        self._alive: dict[str, int] = {}  # as acknowledged
        self._dead: set[str] = set()  # their ids never come back
        self._stop = threading.Event()
        self._failures: list[BaseException] = []
        self._threads = [threading.Thread(target=self._run, args=(each,)) for each in (self._write, self._search)]

    def _run(self, work: Callable[[Client, int], None]) -> None:
        try:
            with self._instance.connect() as client:
                for turn in itertools.count():
                    work(client, turn)
                    if self._stop.is_set():
                        return
        except BaseException as failure:
            self._failures.append(failure)

    def _vector(self, turn: int) -> Matrix:
        """Near to row 0, and like no other."""
        noise = np.random.default_rng(turn).normal(size=self._rows.shape[1])
        return np.asarray(self._rows[0] + 0.01 * noise, np.float32)

    def _write(self, client: Client, turn: int) -> None:
        document_id, vector = f"new-{turn}", self._vector(turn)
        client.ingest([{"id": document_id, "vector": vector, "metadata": {"new": turn}}], self._library)
        self._alive[document_id] = turn
        assert ids(client.search(vector=vector, k=1, exact=True, library=self._library)) == [document_id]
        if turn >= 5:
            gone = f"new-{turn - 5}"
            if turn % 2:
                client.delete([gone], self._library)
            else:
                client.delete(library=self._library, where=[f"new = {turn - 5}"])
            del self._alive[gone]
            self._dead.add(gone)
            hits = client.search(vector=self._vector(turn - 5), k=20, library=self._library)
            assert gone not in ids(hits)
        self.writes += 1

    def _search(self, client: Client, turn: int) -> None:
        dead = set(self._dead)
        k = (1, 10, 100)[turn % 3]
        row = self._rows[turn % len(self._rows)]
        hits = list(client.search(vector=row, k=k, library=self._library, where=self._where if turn % 2 else []))
        found = ids(hits)
        assert len(found) == len(set(found)) == k
        assert not dead & set(found), "a deleted document is found"
        assert [hit["score"] for hit in hits] == sorted((hit["score"] for hit in hits), reverse=True)
        (best,) = client.search(vector=row, k=1, exact=True, library=self._library)
        assert best["document_id"] == str(turn % len(self._rows))
        self.searches += 1

    def check(self) -> None:
        """Raises what went wrong so far."""
        for failure in self._failures:
            raise failure

    def wait_for_more(self, count: int = 3) -> None:
        """Until so many more writes and searches are done."""
        writes, searches = self.writes + count, self.searches + count

        def done() -> bool:
            self.check()
            return self.writes >= writes and self.searches >= searches

        until(done, "writes and searches")

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()
        if kind is None:
            self.check()

    @property
    def left(self) -> set[str]:
        """The ids that are there at the end, beside those of `rows`."""
        return set(self._alive)
