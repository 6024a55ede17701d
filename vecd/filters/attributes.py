"""Attributes: the documents of a library as columns, so that a filter is answered from memory.

Documents are numbered in the order of their labels. A document's row never changes (an update is a new one), so the
part of a filter's mask that has been worked out stays right: only new documents are looked at. Only fields that some
filter has named have a column.

What commits bring is left here by the writer and taken in by the next who asks, so a commit costs nothing. Two locks:
`_lock` is held while columns are worked on, by readers and by index strands; `_inbox_lock` for an append by the writer.
"""

from __future__ import annotations

import operator
import threading
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import orjson

from .. import limits
from .language import All, Field, Node, Not, Test, Value, Where, refuse

Bools = npt.NDArray[np.bool_]
Labels = npt.NDArray[np.int64]

_ORDER: dict[str, Callable[[Any, Any], Any]] = {
    "=": operator.eq, "<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge,
}  # fmt: skip
_KINDS = {float: "numbers", str: "strings", bool: "true or false"}


class Row(NamedTuple):
    """A document: the label of its first chunk, how many it has, and its fields (metadata as JSON)."""

    label: int
    chunks: int
    id: str
    title: str | None
    metadata: str


@dataclass(slots=True)
class _Left:
    """What one commit did."""

    seq: int
    rows: list[Row]
    removed: list[int]  # labels


@dataclass(frozen=True, slots=True)
class DocumentSelection:
    """What a filter lets through, as of one moment (a Selection of vecd.index)."""

    basis: object
    mask: Bools  # by document number; one more at the end, False
    last_label: int
    firsts: Labels  # by document number, ascending: the label of its first chunk
    chunks: npt.NDArray[np.int32]  # by document number
    alive: Bools  # by document number
    seq: int  # the state is that of the log up to here: the last commit that changed the library

    def numbers(self, labels: Labels) -> npt.NDArray[np.int32]:
        """The number of each label's document, -1 for none; labels ascend."""
        if not len(self.firsts):
            return np.full(len(labels), -1, np.int32)
        numbers = np.searchsorted(self.firsts, labels, "right") - 1
        inside = (numbers >= 0) & (labels < self.firsts[numbers] + self.chunks[numbers])
        return np.where(inside, numbers, -1).astype(np.int32)

    @property
    def matching(self) -> Bools:
        """By document number: alive and let through."""
        found: Bools = self.mask[:-1] & self.alive
        return found


class _Growing:
    """A numpy array that takes more at its end."""

    def __init__(self, dtype: npt.DTypeLike) -> None:
        self._room: npt.NDArray[Any] = np.empty(64, dtype)
        self.count = 0

    @property
    def values(self) -> npt.NDArray[Any]:
        return self._room[: self.count]

    def extend(self, values: list[Any]) -> None:
        total = self.count + len(values)
        if total > len(self._room):
            room = np.empty(max(total, 2 * len(self._room)), self._room.dtype)
            room[: self.count] = self.values
            self._room = room
        self._room[self.count : total] = values
        self.count = total


class _Typed:
    """The values of one type in a column: `numbers` of documents, ascending, and what they have there."""

    def __init__(self, dtype: npt.DTypeLike) -> None:
        self.numbers = _Growing(np.int32)
        self.values = _Growing(dtype)
        self._numbers: list[int] = []
        self._values: list[Any] = []

    def add(self, number: int, value: Any) -> None:
        self._numbers.append(number)
        self._values.append(value)

    def flush(self) -> None:
        if self._numbers:
            self.numbers.extend(self._numbers)
            self.values.extend(self._values)
            self._numbers, self._values = [], []

    def since(self, start: int) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
        """Document numbers from `start` on, and their values."""
        first = int(np.searchsorted(self.numbers.values, np.int32(start)))  # another type would copy them all
        return self.numbers.values[first:], self.values.values[first:]


class _Column:
    """One field of all documents, by type; strings by their place in `words`."""

    def __init__(self) -> None:
        self.there = _Typed(np.bool_)  # documents that have anything but null there
        self.floats = _Typed(np.float64)
        self.bools = _Typed(np.bool_)
        self.strings = _Typed(np.int32)
        self.words: list[str] = []
        self._places: dict[str, int] = {}

    def add(self, number: int, value: Any) -> None:
        """Takes a value; a list's items are values of the same document."""
        if value is None:
            return
        self.there.add(number, True)
        for each in _items(value):
            if isinstance(each, bool):
                self.bools.add(number, each)
            elif isinstance(each, (int, float)):
                self.floats.add(number, float(each))
            elif isinstance(each, str):
                place = self._places.setdefault(each, len(self.words))
                if place == len(self.words):
                    self.words.append(each)
                self.strings.add(number, place)

    def flush(self) -> None:
        for typed in (self.there, self.floats, self.bools, self.strings):
            typed.flush()

    def kinds(self) -> set[type]:
        """The types that it holds."""
        typed = ((float, self.floats), (str, self.strings), (bool, self.bools))
        return {kind for kind, values in typed if values.numbers.count}

    def matching(self, test: Test, start: int) -> Iterator[npt.NDArray[Any]]:
        """The numbers, from `start` on, of documents that pass the test."""
        if test.operator == "exists":
            yield self.there.since(start)[0]
            return
        compare = _ORDER.get("=" if test.operator == "in" else test.operator)
        for value in test.values:
            if isinstance(value.value, bool):
                numbers, values = self.bools.since(start)
                yield numbers[values == value.value]
            elif isinstance(value.value, float):
                numbers, values = self.floats.since(start)
                assert compare is not None
                yield numbers[compare(values, value.value)]
        if texts := [value.value for value in test.values if isinstance(value.value, str)]:
            numbers, places = self.strings.since(start)
            yield numbers[self._passing(test.operator, compare, texts)[places]]

    def _passing(self, sign: str, compare: Callable[[Any, Any], Any] | None, texts: list[str]) -> Bools:
        """By place: whether the word passes."""
        if sign in ("=", "in"):
            passing = np.zeros(len(self.words), np.bool_)
            passing[[self._places[text] for text in texts if text in self._places]] = True
            return passing
        text = texts[0]
        if compare is None:
            return np.fromiter((word.startswith(text) for word in self.words), np.bool_, len(self.words))
        return np.fromiter((compare(word, text) for word in self.words), np.bool_, len(self.words))


class Attributes:
    """The columns of one library. `load` before the first `select`."""

    def __init__(self) -> None:
        self._load_lock = threading.Lock()  # held while columns are read, which takes a while; taken before `_lock`
        self._lock = threading.Lock()
        self._inbox_lock = threading.Lock()
        self._inbox: deque[_Left] = deque()
        self.pending = 0  # documents in the inbox
        self._table = _Table(frozenset())
        self._taken: list[_Left] | None = None  # while new columns are read: what the old ones have taken in meanwhile
        self._seq: int | None = None  # what is in the columns stands for the log up to here

    @property
    def fields(self) -> frozenset[Field]:
        """Those that have columns."""
        return self._table.fields

    def leave(self, seq: int, rows: list[Row], removed: list[int]) -> None:
        """What a commit did; rows are in the order of their labels. Any thread; does not wait."""
        with self._inbox_lock:
            self._inbox.append(_Left(seq, rows, removed))
            self.pending += len(rows)

    @property
    def loaded(self) -> bool:
        return self._seq is not None

    @property
    def worn(self) -> bool:
        """Whether starting anew costs less than going on: nobody takes in what waits, or most of it is dead."""
        known = self._table.firsts.count
        dead = known - int(np.count_nonzero(self._table.alive.values)) if known > limits.ATTRIBUTES_PENDING else 0
        return self.pending > max(limits.ATTRIBUTES_PENDING, known) or dead > known // 2

    def load(self, fields: frozenset[Field], read: Callable[[], tuple[int, Iterable[Row]]]) -> None:
        """Makes sure that these fields have columns. `read` gives the living documents by label, and the seq that they
        are as of; it is called only if something is missing. Filters that need nothing new go on meanwhile."""
        with self._load_lock:
            if self._seq is not None and fields <= self.fields:
                return
            table = _Table(self.fields | fields)
            with self._lock:
                self._taken = []
            try:
                seq, rows = read()
                table.take(rows)
            except BaseException:
                self._taken = None
                raise
            with self._lock, self._inbox_lock:
                self._table, self._seq = table, seq
                self._inbox.extendleft(reversed(self._taken))
                self._taken = None

    def select(self, where: Sequence[Where]) -> DocumentSelection:
        """What these filters let through together, as of all that has been left here.

        Raises VecError `invalid_filter` if a field holds values only of types that the filter cannot compare with.
        """
        with self._lock:
            self._take_inbox()
            assert self._seq is not None
            return self._table.select(where, self._seq)

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


class Some:
    """Some documents, alive or not, to be held against filters that name these fields."""

    def __init__(self, fields: Iterable[Field], rows: Iterable[Row]) -> None:
        self._table = _Table(frozenset(fields))
        self._table.take(rows)

    def passing(self, where: Sequence[Where]) -> list[bool]:
        """Which of them the filters let through together. A type that cannot be compared does not pass: these are some
        documents of many, and others may hold another."""
        return self._table.passing(where)


class _Table:
    """The columns themselves, and the masks that were worked out of them."""

    def __init__(self, fields: frozenset[Field]) -> None:
        self.fields = fields
        self._columns = {field: _Column() for field in fields}
        self._basis = object()
        self.firsts, self.chunks, self.alive = _Growing(np.int64), _Growing(np.int32), _Growing(np.bool_)
        self._masks: OrderedDict[Node, Bools] = OrderedDict()

    def take(self, rows: Iterable[Row]) -> None:
        """Takes in documents, in the order of their labels."""
        number = self.firsts.count
        firsts, chunks = [], []
        nested = [(column, field.path) for field, column in self._columns.items() if not field.own]
        ids, titles = (self._columns.get(Field(True, (name,))) for name in ("document_id", "title"))
        for row in rows:
            firsts.append(row.label)
            chunks.append(row.chunks)
            if nested and row.metadata != "{}":
                metadata = orjson.loads(row.metadata)
                for column, path in nested:
                    column.add(number, _at(metadata, path))
            if ids is not None:
                ids.add(number, row.id)
            if titles is not None:
                titles.add(number, row.title)
            number += 1
        self.firsts.extend(firsts)
        self.chunks.extend(chunks)
        self.alive.extend([True] * len(firsts))
        for column in self._columns.values():
            column.flush()

    def remove(self, labels: list[int]) -> None:
        """Notes that documents are dead, by the labels of their first chunks; other labels are passed over."""
        firsts = self.firsts.values
        if labels and len(firsts):
            gone = np.array(labels, np.int64)
            places = np.minimum(np.searchsorted(firsts, gone), len(firsts) - 1)
            self.alive.values[places[firsts[places] == gone]] = False

    def select(self, where: Sequence[Where], seq: int) -> DocumentSelection:
        count = self.firsts.count
        masks = [] if where else [np.arange(count + 1) < count]
        for each in where:
            for test in each.tests:
                self._check(each.text, test)
            masks.append(self._mask(each.node))
        mask: Bools = masks[0] if len(masks) == 1 else np.logical_and.reduce(masks)
        last_label = int(self.firsts.values[-1] + self.chunks.values[-1] - 1) if count else -1
        alive = self.alive.values.copy()
        return DocumentSelection(self._basis, mask, last_label, self.firsts.values, self.chunks.values, alive, seq)

    def passing(self, where: Sequence[Where]) -> list[bool]:
        """By document number, whether all of these let it through."""
        masks = (self._work_out(each.node, 0, self.firsts.count) for each in where)
        found: list[bool] = reduce(np.logical_and, masks).tolist()
        return found

    def _mask(self, node: Node) -> Bools:
        """By document number, and one more, False; what was worked out before is only added to."""
        count = self.firsts.count
        known = self._masks.pop(node, None)
        start = 0 if known is None else len(known) - 1
        if known is None or start < count:
            new = self._work_out(node, start, count)
            known = np.concatenate((new[:0] if known is None else known[:-1], new, np.zeros(1, np.bool_)))
        self._masks[node] = known
        if len(self._masks) > limits.FILTER_MASKS_KEPT:
            self._masks.popitem(last=False)
        return known

    def _work_out(self, node: Node, start: int, stop: int) -> Bools:
        """By document number, from `start` on."""
        if isinstance(node, Not):
            return ~self._work_out(node.inner, start, stop)
        if isinstance(node, Test):
            mask = np.zeros(stop - start, np.bool_)
            for numbers in self._columns[node.field].matching(node, start):
                mask[numbers - start] = True
            return mask
        join = np.logical_and if isinstance(node, All) else np.logical_or
        return reduce(join, (self._work_out(inner, start, stop) for inner in node.inner))

    def _check(self, text: str, test: Test) -> None:
        """Refuses to compare with a type that the field never has: nothing would be found, and nobody told why."""
        held = self._columns[test.field].kinds()
        for value in test.values:
            if held and type(value.value) not in held:
                _refuse_type(text, test.field, held, value)


def _refuse_type(text: str, field: Field, held: set[type], value: Value) -> None:
    kinds = " and ".join(sorted(_KINDS[kind] for kind in held))
    what = {float: "a number", str: "a string", bool: "true or false"}[type(value.value)]
    hint = None
    if isinstance(value.value, float) and str in held:
        hint = f"for the string, write it in quotes: '{value.text}'"
    elif isinstance(value.value, str) and value.quoted and float in held:
        hint = "for the number, leave out the quotes"
    refuse(text, value.column, f"the field {str(field)!r} holds {kinds}, and {value.text} is {what}", hint)


def _items(value: Any) -> Iterator[Any]:
    """A value's own values: a list's items, at any depth, or itself."""
    if isinstance(value, list):
        for each in value:
            yield from _items(each)
    else:
        yield value


def _at(value: Any, path: tuple[str, ...]) -> Any:
    """What the keys lead to; through a list, what they lead to in each of its items. None: nothing."""
    for place, key in enumerate(path):
        if isinstance(value, list):
            found = [each for each in (_at(item, path[place:]) for item in value) if each is not None]
            return found or None
        if not isinstance(value, dict):
            return None
        value = value.get(key)
    return value
