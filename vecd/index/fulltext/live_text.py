"""LiveText: a library's full text as a part of its LiveIndex, searchable while it changes.

It has the LiveIndex's owner: one thread at a time (the strand), which gives it every write in the order of the commits.
So the vectors and the words of one search are of the same moment. What takes longer than a slice is done aside, and its
result is handed to the strand by `call`:

- loading, begun by the first search for words: what a snapshot holds, and the rest from the store. Writes that come
  meanwhile wait here and are applied on top; those that the load saw are passed over by their seq.
- merging segments and saving snapshots (inverted_index.py says what a merge does).

An index of a library that was empty when its LiveIndex was made needs no load.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from .. import snapshot_file
from ..rows import Floats, Labels, Selection
from ..source import StoredText, TextSource
from .inverted_index import Frozen, InvertedIndex, MergePlan, TermQuery
from .segments import TermCounts

log = logging.getLogger("vecd.index")

#: Rows that came since the last snapshot before the next one is worth it: so many, and this share of all.
_SAVE_ROWS_MIN, _SAVE_SHARE = 5_000, 0.1
#: The same when the daemon stops.
_SAVE_ROWS_AT_STOP = 1_000
#: Chunks of one write whose words are made on the strand, in some 20 ms.
_MADE_AT_ONCE = 2_000


@dataclass(slots=True)
class _Pending:
    """A write that came while the index was being loaded."""

    seq: int
    labels: Labels
    words: TermCounts | Callable[[], TermCounts]
    removed: Labels


class LiveText:
    """On the strand, but for `describe` and `save`."""

    def __init__(
        self,
        source: TextSource,
        loaders: Executor,
        builders: Executor,
        call: Callable[[Callable[[], Any]], Any],
        failed: Callable[[BaseException], None],
    ) -> None:
        """`call` has the strand do something; `failed` is called, on any thread, when the text cannot be loaded."""
        self._source = source
        self._loaders, self._builders = loaders, builders
        self._call, self._failed = call, failed
        self._index: InvertedIndex | None = None
        self._seq = 0  # what is here stands for the log up to here
        self._loading = False
        self._pending: list[_Pending] = []  # while it is being loaded
        self._aside: str | None = None
        self._plan: MergePlan | None = None  # the merge that is due, or goes on
        self._rows = 0  # that ever were in the index, so that what is new since a snapshot can be counted
        self._saved_rows = 0
        self._closed = False
        self._damage: str | None = None  # what was wrong with the snapshot that was found

    @property
    def ready(self) -> bool:
        return self._index is not None

    @property
    def labels(self) -> Labels | None:
        """Of all chunks that are alive and have words, ascending; None if it is not loaded."""
        return None if self._index is None else self._index.alive

    @property
    def busy(self) -> bool:
        """Whether something goes on aside."""
        return self._aside is not None or self._loading

    def begin_empty(self, seq: int) -> None:
        """The library has no chunks as of that seq."""
        self._index, self._seq = InvertedIndex(), seq

    def want(self) -> None:
        """Begins to load it, if nobody has yet."""
        if self._index is None and not self._loading:
            self._loading = True
            self._submit(self._loaders, self._load)

    def write(self, seq: int, labels: Labels, words: TermCounts | Callable[[], TermCounts], removed: Labels) -> None:
        """What one commit did: the chunks that came, and their words; the labels that went. Many words that still have
        to be made are not made here, where searches wait: all is loaded again aside."""
        if callable(words) and self._index is not None:
            if len(labels) > _MADE_AT_ONCE:
                self._index = self._plan = None
                self.want()
            else:
                words = words()
        if self._index is not None:
            assert not callable(words)
            self._apply(self._index, seq, labels, words, removed)
        elif self._loading:
            self._pending.append(_Pending(seq, labels, words, removed))

    def search(self, query: TermQuery, k: int, selection: Selection | None) -> tuple[Floats, Labels]:
        """The k best chunks that have a word of the query: scores (BM25) and labels of shape (m,), best first."""
        assert self._index is not None
        return self._index.search(query, k, selection)

    def due(self) -> bool:
        """Whether something is to begin in the background; `begin` begins it."""
        if self._index is None or self._aside is not None or self._closed:
            return False
        self._plan = self._plan or self._index.merge_due()
        return self._plan is not None or self._save_due(max(_SAVE_ROWS_MIN, int(_SAVE_SHARE * self._saved_rows)))

    def begin(self) -> None:
        """Begins what is due."""
        if self._plan is not None:
            self._begin("merging", partial(self._merge, self._plan))
        else:
            self._begin_saving()

    def describe(self) -> dict[str, Any]:
        """For `vec status`; the figures may be a turn old."""
        index = self._index
        damage = {} if self._damage is None else {"damage": self._damage}
        if index is None:
            return {"state": "loading" if self._loading else "unloaded", **damage}
        return {
            "state": "ready",
            **damage,
            "chunks": len(index),
            "segments": index.segments,
            "dead": index.dead,
            "memory_bytes": index.memory_bytes,
            "maintenance": self._aside,
        }

    def close(self) -> None:
        """Begins nothing any more."""
        self._closed = True

    def save(self) -> None:
        """Keeps it for the next start, if there is enough new in it. Only when the strands have ended.

        Raises OSError."""
        if self._save_due(_SAVE_ROWS_AT_STOP) and (save := self.saving()) is not None:
            save()

    # --- on the strand ----------------------------------------------------------------------------------------------

    def _apply(self, index: InvertedIndex, seq: int, labels: Labels, words: TermCounts, removed: Labels) -> None:
        if seq <= self._seq:
            return
        if len(removed):
            index.remove(removed)
        index.add(labels, words)
        self._rows += len(labels)
        self._seq = seq

    def _adopt(self, index: InvertedIndex, seq: int, saved_rows: int) -> None:
        if unmade := [write for write in self._pending if write.seq > seq and callable(write.words)]:
            self._submit(self._loaders, lambda: self._make(unmade, index, seq, saved_rows))
            return
        self._seq, self._loading = seq, False
        self._rows = len(index)
        self._saved_rows = saved_rows
        for write in self._pending:
            if write.seq > seq:
                assert not callable(write.words)
                self._apply(index, write.seq, write.labels, write.words, write.removed)
        self._pending.clear()
        self._index = index

    def _begin(self, what: str, work: Callable[[], None]) -> None:
        self._aside = what
        self._submit(self._builders, work)

    def saving(self) -> Callable[[], int] | None:
        """What writes a snapshot of it as it is now, for any thread, and returns its chunks; None if the last one has
        nothing less, or none can be kept. It raises OSError."""
        if self._index is None or not self._save_due(1):
            return None
        return partial(self._save, self._index.freeze(), self._seq, self._rows, len(self._index))

    def _begin_saving(self) -> None:
        if (save := self.saving()) is not None:
            self._begin("saving", partial(self._save_aside, save, self._rows))

    def _submit(self, pool: Executor, work: Callable[[], None]) -> None:
        try:
            pool.submit(work)
        except RuntimeError:  # shut down
            self._closed = True

    def _adopt_merged(self, plan: MergePlan) -> None:
        self._aside = None
        if self._index is not None and plan is self._plan:
            self._plan = None
            self._index.adopt(plan)

    def _ended(self) -> None:
        self._aside = None

    def _save_due(self, rows: int) -> bool:
        return self._index is not None and self._source.text_path is not None and self._rows - self._saved_rows >= rows

    # --- aside ------------------------------------------------------------------------------------------------------

    def _load(self) -> None:
        try:
            with self._source.read_text() as stored:
                index = self._restored(stored) or InvertedIndex()
                index.keep_only(stored.labels)
                saved = len(index)
                missing = stored.labels[np.searchsorted(stored.labels, index.last_label, "right") :]
                for labels, words in stored.words(missing):
                    if self._closed:
                        return
                    index.add(labels, words)
                seq = stored.seq
        except Exception as error:
            self._failed(error)
            return
        self._call(lambda: self._adopt(index, seq, saved))

    def _make(self, writes: list[_Pending], index: InvertedIndex, seq: int, saved_rows: int) -> None:
        try:
            for write in writes:
                write.words = write.words() if callable(write.words) else write.words
        except Exception as error:
            self._failed(error)
        else:
            self._call(lambda: self._adopt(index, seq, saved_rows))

    def _restored(self, stored: StoredText) -> InvertedIndex | None:
        """What the snapshot holds; None if there is none that can be used."""
        path = self._source.text_path
        if path is None:
            return None
        try:
            about, arrays = snapshot_file.load(path)
            seq = about.pop("seq", 0)  # earlier versions did not keep it
            if about != self._source.text_identity:
                log.info("text analysed again", extra={"file": path.name})
                return None
            index = InvertedIndex.restore(arrays)
            snapshot_file.check_seq(seq, stored.seq)
            _spot_check(index, stored)
            return index
        except FileNotFoundError:
            return None
        except (snapshot_file.UnusableSnapshot, ValueError, OSError) as error:
            aside = path.with_name(path.name + ".damaged")
            with contextlib.suppress(OSError):
                path.replace(aside)
            self._damage = f"the snapshot {error}; it is set aside as {aside}"
            log.warning("snapshot of text unusable", extra={"file": str(aside), "error": str(error)})
            return None

    def _merge(self, plan: MergePlan) -> None:
        try:
            plan.run()
        except Exception as error:
            self._failed(error)
        else:
            self._call(lambda: self._adopt_merged(plan))

    def _save_aside(self, save: Callable[[], int], rows: int) -> None:
        try:
            save()
        except Exception as error:
            log.error("snapshot of text not saved", exc_info=error)
            self._saved_rows = rows  # not again before there is as much more
        self._call(self._ended)

    def _save(self, frozen: Frozen, seq: int, rows: int, chunks: int) -> int:
        assert self._source.text_path is not None
        about = {**self._source.text_identity, "seq": seq}
        size = snapshot_file.save(self._source.text_path, about, frozen.arrays())
        self._saved_rows, self._damage = rows, None
        log.info("snapshot of text saved", extra={"file": self._source.text_path.name, "chunks": chunks, "bytes": size})
        return chunks


def _spot_check(index: InvertedIndex, stored: StoredText) -> None:
    """Raises UnusableSnapshot if the index's rows are not the store's."""
    labels = stored.labels[: np.searchsorted(stored.labels, index.last_label, "right")]
    labels = labels[snapshot_file.spots(len(labels))]
    ours = index.terms_of(labels)
    for its_labels, batch in stored.words(labels):
        theirs: dict[int, dict[str, int]] = {label: {} for label in its_labels[batch.places].tolist()}
        for row, term, count in zip(batch.rows.tolist(), batch.terms.tolist(), batch.counts.tolist(), strict=True):
            theirs[int(its_labels[batch.places[row]])][batch.vocabulary[term]] = count
        if {label: ours[label] for label in its_labels.tolist() if label in ours} != theirs:
            raise snapshot_file.UnusableSnapshot("is of another state of the store: its texts differ")
