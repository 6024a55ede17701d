"""LiveText: the full text of a library as part of its LiveIndex, searchable while it changes.

It has the owner of the LiveIndex: one thread at a time (the strand), which applies every write in commit order. So the
vectors and the terms of one search show the same state. Long tasks run in the background, and hand their result to the
strand with `call`:

- loading, started by the first full-text search: from the snapshot and the store. Writes that are posted during a load
  are queued and applied afterwards; those that the load has read are skipped by their seq.
- merging segments (inverted_index.py) and saving snapshots.

A library that was empty when its LiveIndex was made needs no load.
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

#: The number of new rows for the next snapshot: at least this number, and this share of all.
_SAVE_ROWS_MIN, _SAVE_SHARE = 5_000, 0.1
#: The minimum when the daemon stops.
_SAVE_ROWS_AT_STOP = 1_000
#: Chunks of one write whose terms are computed on the strand, in about 20 ms.
_COMPUTED_AT_ONCE = 2_000


@dataclass(slots=True)
class _Pending:
    """A write that was posted during a load."""

    seq: int
    labels: Labels
    words: TermCounts | Callable[[], TermCounts]
    removed: Labels


class LiveText:
    """The full text of one library. Methods run on the strand, except `describe` and `save`."""

    def __init__(
        self,
        source: TextSource,
        loaders: Executor,
        builders: Executor,
        call: Callable[[Callable[[], Any]], Any],
        failed: Callable[[BaseException], None],
    ) -> None:
        """`call` runs a function on the strand; `failed` is called, on any thread, when the text cannot be loaded."""
        self._source = source
        self._loaders, self._builders = loaders, builders
        self._call, self._failed = call, failed
        self._index: InvertedIndex | None = None
        self._seq = 0  # the index includes the log up to here
        self._loading = False
        self._pending: list[_Pending] = []  # during a load
        self._running: str | None = None  # the task in the background
        self._plan: MergePlan | None = None  # the merge that is due or running
        self._rows = 0  # ever added, to count the new ones since a snapshot
        self._saved_rows = 0
        self._closed = False
        self._damage: str | None = None  # why the snapshot could not be used
        self._left_out: Labels = np.empty(0, np.int64)  # chunks that the last load found damaged, or deleted since

    @property
    def ready(self) -> bool:
        return self._index is not None

    @property
    def labels(self) -> Labels | None:
        """The labels of all living chunks with terms, ascending; None if it is not loaded."""
        return None if self._index is None else self._index.alive

    @property
    def busy(self) -> bool:
        """Whether a task runs in the background."""
        return self._running is not None or self._loading

    def begin_empty(self, seq: int) -> None:
        """Starts with an empty index: the library has no chunks as of that seq."""
        self._index, self._seq = InvertedIndex(), seq

    def want(self) -> None:
        """Starts to load it, unless it is loaded or loading."""
        if self._index is None and not self._loading:
            self._loading = True
            self._submit(self._loaders, self._load)

    def write(self, seq: int, labels: Labels, words: TermCounts | Callable[[], TermCounts], removed: Labels) -> None:
        """Applies one commit: the labels and terms of added chunks, and the removed labels. If the terms of many chunks
        must still be computed, searches would wait for that here; instead the index is loaded again."""
        if callable(words) and self._index is not None:
            if len(labels) > _COMPUTED_AT_ONCE:
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
        """The k best chunks for a query: BM25 scores and labels of shape (m,), best first."""
        assert self._index is not None
        return self._index.search(query, k, selection)

    def due(self) -> bool:
        """Whether a background task is due; `begin` starts it."""
        if self._index is None or self._running is not None or self._closed:
            return False
        self._plan = self._plan or self._index.merge_due()
        return self._plan is not None or self._save_due(max(_SAVE_ROWS_MIN, int(_SAVE_SHARE * self._saved_rows)))

    def begin(self) -> None:
        """Starts the task that is due."""
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
            "maintenance": self._running,
        }

    def close(self) -> None:
        """No task starts any more."""
        self._closed = True

    def save(self) -> None:
        """Saves a snapshot if enough is new. Call only after the strands have ended. Raises OSError."""
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
        if uncomputed := [write for write in self._pending if write.seq > seq and callable(write.words)]:
            self._submit(self._loaders, lambda: self._compute(uncomputed, index, seq, saved_rows))
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
        self._running = what
        self._submit(self._builders, work)

    def saving(self) -> Callable[[], int] | None:
        """A function, for any thread, that saves a snapshot of the current state and returns its chunks; None if
        nothing is new or no snapshot can be stored. It raises OSError."""
        if self._index is None or not self._save_due(1):
            return None
        return partial(self._save, self._index.freeze(), self._seq, self._rows, len(self._index), self._left_out)

    def _begin_saving(self) -> None:
        if (save := self.saving()) is not None:
            self._begin("saving", partial(self._save_in_background, save, self._rows))

    def _submit(self, pool: Executor, work: Callable[[], None]) -> None:
        try:
            pool.submit(work)
        except RuntimeError:  # shut down
            self._closed = True

    def _adopt_merged(self, plan: MergePlan) -> None:
        self._running = None
        if self._index is not None and plan is self._plan:
            self._plan = None
            self._index.adopt(plan)

    def _ended(self) -> None:
        self._running = None

    def _save_due(self, rows: int) -> bool:
        return self._index is not None and self._source.text_path is not None and self._rows - self._saved_rows >= rows

    # --- in the background --------------------------------------------------------------------------------------------

    def _load(self) -> None:
        try:
            with self._source.read_text() as stored:
                index, left_out = self._restored(stored) or (InvertedIndex(), np.empty(0, np.int64))
                index.keep_only(stored.labels)
                saved = len(index)
                missing = stored.labels[np.searchsorted(stored.labels, index.last_label, "right") :]
                added = [left_out[:0]]
                for labels, words in stored.words(missing):
                    if self._closed:
                        return
                    index.add(labels, words)
                    added.append(labels)
                self._left_out = np.union1d(left_out, np.setdiff1d(missing, np.concatenate(added)))
                seq = stored.seq
        except Exception as error:
            self._failed(error)
            return
        self._call(lambda: self._adopt(index, seq, saved))

    def _compute(self, writes: list[_Pending], index: InvertedIndex, seq: int, saved_rows: int) -> None:
        try:
            for write in writes:
                write.words = write.words() if callable(write.words) else write.words
        except Exception as error:
            self._failed(error)
        else:
            self._call(lambda: self._adopt(index, seq, saved_rows))

    def _restored(self, stored: StoredText) -> tuple[InvertedIndex, Labels] | None:
        """The index of the snapshot, and the chunks that it lacks because they are damaged in the store; None if there
        is no snapshot that can be used."""
        path = self._source.text_path
        if path is None:
            return None
        try:
            about, arrays = snapshot_file.load(path)
            seq = about.pop("seq", 0)  # earlier versions did not store it
            left_out = np.intersect1d(np.array(about.pop("left_out", []), np.int64), stored.labels)
            if about != self._source.text_identity:
                log.info("text analysed again", extra={"file": path.name})
                return None
            index = InvertedIndex.restore(arrays)
            snapshot_file.check_seq(seq, stored.seq)
            _spot_check(index, stored)
            if any(len(labels) for labels, _ in stored.words(left_out)):
                raise snapshot_file.UnusableSnapshot("belongs to another state of the store: it lacks texts")
            return index, left_out
        except FileNotFoundError:
            return None
        except (snapshot_file.UnusableSnapshot, ValueError, OSError) as error:
            renamed = path.with_name(path.name + ".damaged")
            with contextlib.suppress(OSError):
                path.replace(renamed)
            self._damage = f"the snapshot {error}; it was renamed to {renamed}"
            log.warning("snapshot of text unusable", extra={"file": str(renamed), "error": str(error)})
            return None

    def _merge(self, plan: MergePlan) -> None:
        try:
            plan.run()
        except Exception as error:
            self._failed(error)
        else:
            self._call(lambda: self._adopt_merged(plan))

    def _save_in_background(self, save: Callable[[], int], rows: int) -> None:
        try:
            save()
        except Exception as error:
            log.error("snapshot of text not saved", exc_info=error)
            self._saved_rows = rows  # do not try again before there are as many new rows
        self._call(self._ended)

    def _save(self, frozen: Frozen, seq: int, rows: int, chunks: int, left_out: Labels) -> int:
        assert self._source.text_path is not None
        about = {**self._source.text_identity, "seq": seq}
        if len(left_out):  # another start has to find them, and labels before the last one are not read again
            about["left_out"] = left_out.tolist()
        size = snapshot_file.save(self._source.text_path, about, frozen.arrays())
        self._saved_rows, self._damage = rows, None
        log.info("snapshot of text saved", extra={"file": self._source.text_path.name, "chunks": chunks, "bytes": size})
        return chunks


def _spot_check(index: InvertedIndex, stored: StoredText) -> None:
    """Raises UnusableSnapshot if the rows of the index differ from those in the store."""
    labels = stored.labels[: np.searchsorted(stored.labels, index.last_label, "right")]
    labels = labels[snapshot_file.spots(len(labels))]
    ours = index.terms_of(labels)
    for its_labels, batch in stored.words(labels):
        theirs: dict[int, dict[str, int]] = {label: {} for label in its_labels[batch.places].tolist()}
        for row, term, count in zip(batch.rows.tolist(), batch.terms.tolist(), batch.counts.tolist(), strict=True):
            theirs[int(its_labels[batch.places[row]])][batch.vocabulary[term]] = count
        if {label: ours[label] for label in its_labels.tolist() if label in ours} != theirs:
            raise snapshot_file.UnusableSnapshot("belongs to another state of the store: its texts differ")
