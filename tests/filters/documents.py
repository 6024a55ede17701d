"""A store of documents whose every state is kept, so that it is known what the Attributes should answer."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import orjson

from vecd.filters.attributes import Attributes, DocumentRow, DocumentSelection
from vecd.filters.expressions import FilterWarning, parse

Document = dict[str, Any]


class Store:
    """Documents as the store would have them: every commit is a new state, and is left at the Attributes later."""

    def __init__(self) -> None:
        self.attributes = Attributes()
        self.states: list[dict[int, Document]] = [{}]  # by seq: the living documents by label
        self.told = 0  # the seq of the last commit that was left
        self._commits: list[tuple[list[DocumentRow], list[int]]] = [([], [])]  # by seq
        self._label = 0
        self._read: tuple[int, list[Document]] = (0, [])  # what the last load read

    @property
    def known(self) -> dict[int, Document]:
        """The documents that the Attributes should answer by."""
        return self.states[max(self.told, self._read[0])]

    def commit(self, documents: Iterable[Document] = (), removed: Iterable[int] = (), gap: int = 0) -> list[int]:
        """One commit, not left yet; returns the labels of its documents. `gap`: labels that others got before."""
        gone = set(removed)
        state = {label: each for label, each in self.states[-1].items() if label not in gone}
        self._label += gap
        labels = []
        for document in documents:
            self._label += 1
            state[self._label] = document
            labels.append(self._label)
            self._label += document["chunks"] - 1
        self.states.append(state)
        self._commits.append(([row_of(label, state[label]) for label in labels], list(gone)))
        return labels

    def leave(self, count: int = 1_000_000) -> None:
        """Tells the Attributes of the next commits."""
        for _ in range(min(count, len(self.states) - 1 - self.told)):
            self.told += 1
            self.attributes.leave(self.told, *self._commits[self.told])

    def read(self) -> tuple[int, Iterator[DocumentRow]]:
        state = self.states[-1]
        self._read = (len(self.states) - 1, list(state.values()))
        return self._read[0], (row_of(label, each) for label, each in state.items())

    def select(self, *texts: str) -> DocumentSelection:
        """What a search does: the fields that are missing are read, then all that was left counts."""
        where = parse(texts)
        fields = frozenset().union(*(each.fields for each in where))
        with self.attributes.pinned(fields):
            self.attributes.load(fields, self.read)
            return self.attributes.select(where)

    def warnings(self, *texts: str) -> list[FilterWarning]:
        return list(self.select(*texts).warnings)

    def found(self, *texts: str) -> list[int]:
        selection = self.select(*texts)
        labels: list[int] = selection.firsts[selection.matching].tolist()
        return labels


def row_of(label: int, document: Document) -> DocumentRow:
    metadata = orjson.dumps(document["metadata"]).decode()
    return DocumentRow(label, document["chunks"], document["id"], document["title"], metadata)


def document(number: int = 0, /, *, title: str | None = None, chunks: int = 1, **metadata: Any) -> Document:
    return {"id": f"d{number}", "title": title, "chunks": chunks, "metadata": metadata}


def stored(*documents: Document) -> Store:
    store = Store()
    store.commit(documents)
    store.leave()
    return store
