"""Attributes: an in-memory column store of a library's documents that evaluates filters to boolean masks.

Documents are numbered in the order of their labels. A document's row never changes (an update is a new row), so a
filter's mask stays valid, and is only extended for new documents. Only fields that a filter has named have a column
(columns.py). Fields that are named later get their columns in one pass over the documents; columns that exist are not
read again. Beyond a bound, the least recently used columns are dropped.

The writer appends each commit to an inbox, and the next reader applies it, so a commit does no work here. Three locks,
acquired in this order: `_load_lock` while documents are read, which takes a while; `_lock` while readers and index
threads use columns; `_inbox_lock` for an append by the writer, and for state that must be visible at once.
"""

from __future__ import annotations

import threading
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from .. import limits
from ..errors import nearest
from .columns import Bools, Columns, DocumentRow, Growing, Labels, SortKeys, pages
from .expressions import OWN, All, Field, FilterWarning, Node, Not, Test, Value, Where

__all__ = ["Attributes", "DocumentRow", "DocumentSelection", "DocumentSet"]

_KINDS = {float: "numbers", str: "strings", bool: "true or false"}
#: What people call the document's own id in a filter.
_ID_NAMES = ("id", "_id", "doc_id", "docid", "documentid")
#: Warnings reported for one filter; more are only counted.
_WARNINGS_MAX = 10


@dataclass(slots=True)
class _Left:
    """The documents that one commit added and removed."""

    seq: int
    rows: list[DocumentRow]
    removed: list[int]  # labels


@dataclass(frozen=True, slots=True)
class DocumentSelection:
    """The documents that match a filter, as of one seq (implements vecd.index's Selection)."""

    basis: object
    mask: Bools  # by document number, with an extra False at the end
    last_label: int
    firsts: Labels  # by document number, ascending: the label of its first chunk
    chunks: npt.NDArray[np.int32]  # by document number
    alive: Bools  # by document number
    seq: int  # the last commit that changed the library; the state is as of this seq
    warnings: tuple[FilterWarning, ...] = ()  # tests that are probably mistakes

    def numbers(self, labels: Labels) -> npt.NDArray[np.int32]:
        """The number of the document of each label, -1 for none. `labels` ascend."""
        if not len(self.firsts):
            return np.full(len(labels), -1, np.int32)
        numbers = np.searchsorted(self.firsts, labels, "right") - 1
        inside = (numbers >= 0) & (labels < self.firsts[numbers] + self.chunks[numbers])
        return np.where(inside, numbers, -1).astype(np.int32)

    @property
    def documents(self) -> int:
        """The number of matching documents that are not removed."""
        return int(np.count_nonzero(self.matching))

    @property
    def matching(self) -> Bools:
        """By document number: whether it matches and is not removed."""
        found: Bools = self.mask[:-1] & self.alive
        return found

    def written_since(self, label: int) -> DocumentSelection:
        """Those of them whose first chunk has this label or a higher one."""
        mask = self.mask.copy()
        mask[: np.searchsorted(self.firsts, label)] = False
        return replace(self, mask=mask)


class Attributes:
    """The column store of one library. Call `load` before the first `select`, within `pinned`."""

    def __init__(self) -> None:
        self._load_lock = threading.Lock()
        self._lock = threading.Lock()
        self._inbox_lock = threading.Lock()
        self._inbox: deque[_Left] = deque()
        self._pins: Counter[Field] = Counter()  # fields that callers are about to select by
        self.pending = 0  # documents in the inbox
        self._table = _Table(())
        self._taken: list[_Left] | None = None  # during a load: commits that the table has applied since it began
        self._seq: int | None = None  # the columns are as of this seq; None: not loaded

    @property
    def fields(self) -> frozenset[Field]:
        """The fields that have columns."""
        return frozenset(self._table.columns.by_field)

    def has(self, fields: Iterable[Field]) -> bool:
        """Whether all these fields have columns."""
        there = self._table.columns.by_field
        return self.loaded and all(each in there for each in fields)

    @contextmanager
    def pinned(self, fields: frozenset[Field]) -> Iterator[None]:
        """Prevents columns of these fields from being dropped until the block ends."""
        with self._inbox_lock:
            self._pins.update(fields)
        try:
            yield
        finally:
            with self._inbox_lock:
                self._pins.subtract(fields)
                for each in fields:
                    if not self._pins[each]:
                        del self._pins[each]

    def leave(self, seq: int, rows: list[DocumentRow], removed: list[int]) -> None:
        """Appends a commit to the inbox; `rows` are in the order of their labels. Any thread; does not block."""
        with self._inbox_lock:
            self._inbox.append(_Left(seq, rows, removed))
            self.pending += len(rows)

    @property
    def loaded(self) -> bool:
        return self._seq is not None

    @property
    def worn(self) -> bool:
        """Whether a reload costs less than continuing: the inbox is very long, or most documents are removed."""
        return self.pending > max(limits.ATTRIBUTES_PENDING, self._table.firsts.count) or self._table.worn

    def load(self, fields: frozenset[Field], read: Callable[[], tuple[int, Iterable[DocumentRow]]]) -> None:
        """Ensures that these fields have columns. `read` returns the seq of a snapshot and its current documents by
        label; it is only called if documents may have these fields. Other filters can be evaluated meanwhile."""
        with self._load_lock:
            with self._lock:
                again = self._seq is None or self._table.worn
                if not again:
                    self._take_inbox()
                missing = self.fields | fields if again else self._table.columns.missing(fields)
                if not missing and not again:
                    self._drop_unused(fields)
                    return
                self._taken = []
                known = self._table.last_first
            try:
                seq, rows = read()
                if again:
                    table = _Table(missing)
                    table.take(rows)
                else:
                    new = _NewColumns(missing, known)
                    new.take(rows)
                with self._lock:
                    if again:
                        with self._inbox_lock:
                            self._table, self._seq = table, seq
                            self._inbox.extendleft(reversed(self._taken))
                            self.pending += sum(len(left.rows) for left in self._taken)
                    else:
                        self._join(new, seq)
                    self._drop_unused(fields)
            finally:
                self._taken = None

    def select(self, where: Sequence[Where]) -> DocumentSelection:
        """The documents that match all these filters, after applying the inbox."""
        with self._lock:
            self._take_inbox()
            assert self._seq is not None
            return self._table.select(where, self._seq)

    def select_sorted(self, where: Sequence[Where], field: Field) -> tuple[DocumentSelection, SortKeys]:
        """As `select`, and what the documents are sorted by. `where` names the field, so that it is loaded."""
        with self._lock:
            self._take_inbox()
            assert self._seq is not None
            selection = self._table.select(where, self._seq)
            return selection, self._table.columns.by_field[field].sort_keys(len(selection.firsts))

    def _join(self, new: _NewColumns, seq: int) -> None:
        """Adds new columns, which hold the documents of the snapshot at that seq."""
        assert self._taken is not None
        assert self._seq is not None
        self._take_inbox()
        later = [left for left in self._taken if left.seq > seq]
        table = self._table
        if seq > self._seq:  # the snapshot has commits that are not in the inbox yet
            table.take(row for row in new.late if row.label > table.last_first)
        count = table.firsts.count - sum(len(left.rows) for left in later)
        numbers = np.searchsorted(table.firsts.values, np.array(new.labels, np.int64)).astype(np.int32)
        read = np.zeros(count, np.bool_)
        read[numbers] = True
        table.known.values[:count] &= read
        if seq > self._seq:
            table.alive.values[:count] &= read
            self._seq = seq
        new.columns.renumber(numbers)
        for left in later:
            new.columns.fill(count, left.rows)
            count += len(left.rows)
        with self._inbox_lock:
            table.columns.add(new.columns)

    def _drop_unused(self, wanted: frozenset[Field]) -> None:
        """Drops the least recently used columns, while they take too much memory or are too many."""
        columns, size = self._table.columns, self._table.columns.size_bytes
        count = len(columns.by_field)
        if size <= limits.FILTER_COLUMNS_BYTES and count <= limits.FILTER_COLUMNS_MAX:
            return
        with self._inbox_lock:
            for each, column in sorted(columns.by_field.items(), key=lambda pair: pair[1].used):
                if size <= limits.FILTER_COLUMNS_BYTES and count <= limits.FILTER_COLUMNS_MAX:
                    break
                if each not in wanted and each not in self._pins:
                    size -= column.size_bytes
                    count -= 1
                    columns.drop(each)
            self._table.forget_masks()

    def _take_inbox(self) -> None:
        with self._inbox_lock:
            left, self._inbox, self.pending = self._inbox, deque(), 0
        if self._taken is not None:
            self._taken.extend(left)
        assert self._seq is not None
        for each in left:
            if each.seq > self._seq:
                self._table.take(each.rows)
                self._table.remove(each.removed)
                self._seq = each.seq


class DocumentSet:
    """A fixed set of documents, removed or not, to evaluate filters on that name these fields."""

    def __init__(self, fields: Iterable[Field], rows: Iterable[DocumentRow]) -> None:
        self._table = _Table(fields)
        self._table.take(rows)

    def passing(self, where: Sequence[Where]) -> list[bool]:
        """For each document, whether it matches all these filters."""
        return self._table.passing(where)


class _NewColumns:
    """New columns, of the documents of one snapshot, before they are added to a table."""

    def __init__(self, fields: Iterable[Field], known: int) -> None:
        self.columns = Columns(fields)
        self.labels: list[int] = []
        self.late: list[DocumentRow] = []  # those with labels above `known`
        self._known = known

    def take(self, rows: Iterable[DocumentRow]) -> None:
        for page in pages(rows):
            self.columns.fill(len(self.labels), page)
            self.labels += [row.label for row in page]
            if page[-1].label > self._known:
                self.late += [row for row in page if row.label > self._known]


class _Table:
    """The columns of documents, and the masks of filters that were computed from them."""

    def __init__(self, fields: Iterable[Field]) -> None:
        self.columns = Columns(fields)
        self._basis = object()
        self.firsts, self.chunks, self.alive = Growing(np.int64), Growing(np.int32), Growing(np.bool_)
        #: Which documents all columns contain: not those that were removed before a column was loaded. These match no
        #: filter, so that an index that has not applied a deletion yet never returns a document that does not match.
        self.known = Growing(np.bool_)
        self._masks: OrderedDict[Where, Bools] = OrderedDict()
        self._clock = 0

    @property
    def last_first(self) -> int:
        """The first label of the last document, -1 if there is none."""
        return int(self.firsts.values[-1]) if self.firsts.count else -1

    @property
    def worn(self) -> bool:
        """Whether most documents are removed."""
        known = self.firsts.count
        if known <= limits.ATTRIBUTES_PENDING:
            return False
        return known - int(np.count_nonzero(self.alive.values)) > known // 2

    def take(self, rows: Iterable[DocumentRow]) -> None:
        """Appends documents, in the order of their labels."""
        for page in pages(rows):
            self.columns.fill(self.firsts.count, page)
            self.firsts.extend([row.label for row in page])
            self.chunks.extend([row.chunks for row in page])
            self.alive.extend([True] * len(page))
            self.known.extend([True] * len(page))

    def remove(self, labels: list[int]) -> None:
        """Marks documents as removed, by the labels of their first chunks; ignores other labels."""
        firsts = self.firsts.values
        if labels and len(firsts):
            gone = np.array(labels, np.int64)
            places = np.minimum(np.searchsorted(firsts, gone), len(firsts) - 1)
            self.alive.values[places[firsts[places] == gone]] = False

    def select(self, where: Sequence[Where], seq: int) -> DocumentSelection:
        count = self.firsts.count
        self._clock += 1
        for each in where:
            for name in each.fields:
                self.columns.by_field[name].used = self._clock
        masks = [] if where else [np.arange(count + 1) < count]
        masks += (self._mask(each) for each in where)
        mask: Bools = masks[0] if len(masks) == 1 else np.logical_and.reduce(masks)
        last_label = int(self.firsts.values[-1] + self.chunks.values[-1] - 1) if count else -1
        alive = self.alive.values.copy()
        warnings = tuple(self._warnings(where)) if alive.any() else ()
        firsts, chunks = self.firsts.values, self.chunks.values
        return DocumentSelection(self._basis, mask, last_label, firsts, chunks, alive, seq, warnings)

    def passing(self, where: Sequence[Where]) -> list[bool]:
        """By document number: whether it matches all these filters."""
        masks = [self._evaluate(each.node, 0, self.firsts.count) for each in where]
        found: list[bool] = np.logical_and.reduce(masks).tolist()
        return found

    def forget_masks(self) -> None:
        self._masks.clear()

    def _mask(self, where: Where) -> Bools:
        """By document number, with an extra False at the end. Extends a mask that was computed before."""
        count = self.firsts.count
        known = self._masks.pop(where, None)
        start = 0 if known is None else len(known) - 1
        if known is None or start < count:
            new = self._evaluate(where.node, start, count)
            new &= self.known.values[start:count]
            known = np.concatenate((new[:0] if known is None else known[:-1], new, np.zeros(1, np.bool_)))
        self._masks[where] = known
        if len(self._masks) > limits.FILTER_MASKS_KEPT:
            self._masks.popitem(last=False)
        return known

    def _evaluate(self, node: Node, start: int, stop: int) -> Bools:
        """By document number, from `start` to `stop` (exclusive); a new array."""
        if isinstance(node, Not):
            inner = self._evaluate(node.inner, start, stop)
            return np.logical_not(inner, out=inner)
        if isinstance(node, All):
            mask = self._evaluate(node.inner[0], start, stop)
            for each in node.inner[1:]:
                mask &= self._evaluate(each, start, stop)
            return mask
        mask = np.zeros(stop - start, np.bool_)
        for each in (node,) if isinstance(node, Test) else node.inner:
            if isinstance(each, Test):
                for numbers in self.columns.by_field[each.field].matching(each, start):
                    mask[numbers - start] = True
            else:
                mask |= self._evaluate(each, start, stop)
        return mask

    def _warnings(self, where: Sequence[Where]) -> Iterator[FilterWarning]:
        """Tests that are probably mistakes: of fields that no document has, or against a type that the field never
        has."""
        reported: set[tuple[Field, type | None]] = set()
        more = 0
        for each in where:
            for test in sorted(each.tests, key=lambda test: test.column):
                warning = self._warning(each.text, test, reported)
                if warning is not None and len(reported) <= _WARNINGS_MAX:
                    yield warning
                elif warning is not None:
                    more += 1
        if more:
            yield FilterWarning(where[-1].text, 1, f"{more:,} more of its tests never hold", None)

    def _warning(self, text: str, test: Test, reported: set[tuple[Field, type | None]]) -> FilterWarning | None:
        column, alive = self.columns.by_field[test.field], self.alive.values
        if not test.field.own and not column.lives(None, alive):
            if (test.field, None) in reported:
                return None
            reported.add((test.field, None))
            hint = self._suggestion(test.field) if len(reported) <= _WARNINGS_MAX else None
            return FilterWarning(text, test.column, f"no document has the field {str(test.field)!r:.200}", hint)
        kinds = {kind_of(value) for value in test.values}
        if not kinds or any(column.lives(kind, alive) for kind in kinds):
            return None
        held = [kind for kind in _KINDS if kind not in kinds and column.lives(kind, alive)]
        if not held or (test.field, kind_of(test.values[0])) in reported:
            return None
        reported.add((test.field, kind_of(test.values[0])))
        return _mismatch(text, test, held)

    def _suggestion(self, name: Field) -> str | None:
        """A hint with the most similar field name that documents have."""
        if str(name).lower() in _ID_NAMES:
            return "did you mean document_id? It is the document's own id"
        close = nearest(str(name), [*OWN, *(known for known in self.columns.known_names() if known != str(name))])
        return f"did you mean {close}?" if close else None


def kind_of(value: Value) -> type:
    """The type as which a value is compared: float for all numbers."""
    if isinstance(value.value, bool):
        return bool
    return str if isinstance(value.value, str) else float


def _mismatch(text: str, test: Test, held: list[type]) -> FilterWarning:
    value = test.values[0]
    kind = kind_of(value)
    kinds = " and ".join(sorted(_KINDS[each] for each in held))
    what = {float: "a number", str: "a string", bool: "true or false"}[kind]
    hint = None
    if kind is float and str in held:
        hint = f"to use it as a string, quote it: '{value.text}'"
    elif kind is str and value.quoted and float in held:
        hint = "for the number, leave out the quotes"
    message = f"the field {str(test.field)!r:.200} holds {kinds}, and {value.text:.100} is {what}"
    return FilterWarning(text, value.column, message, hint)
