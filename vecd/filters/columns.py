"""Typed columns of metadata fields: for each type, arrays of values and of the numbers of the documents that have them.

Numbers are compared exactly, as Python does: integers are stored as integers, and a comparison with a value that a
column's type cannot hold is rewritten to an equivalent one. Not thread-safe: attributes.py locks.
"""

from __future__ import annotations

import math
import operator
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from itertools import islice
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import orjson

from .. import limits
from . import dates, patterns
from .expressions import Field, Test, refuse_slow

Bools = npt.NDArray[np.bool_]
Labels = npt.NDArray[np.int64]

_ORDER: dict[str, Callable[[Any, Any], Any]] = {
    "=": operator.eq, "<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge,
}  # fmt: skip
#: Whether a word (second) compares with a filter's text (first).
_COMPARE_TEXT: dict[str, Callable[[str, str], bool]] = {
    "<": operator.gt, "<=": operator.ge, ">": operator.lt, ">=": operator.le,
    "^=": lambda text, word: word.startswith(text), "contains": lambda text, word: text in word,
}  # fmt: skip
_PAGE_ROWS = 512
#: Approximate bytes of a column without its arrays, and of a word without its characters.
_COLUMN_BYTES = 4_000
_WORD_BYTES = 120
#: Field names that are kept for suggestions.
_NAMES_MAX = 10_000
#: Values of an `in` list up to which each is compared separately; longer lists take one pass.
_VALUES_ONE_BY_ONE = 4
#: Documents that the first step of a search for a current one inspects; later steps inspect more.
_FIRST_STEP = 64


class DocumentRow(NamedTuple):
    """A document: the label of its first chunk, its number of chunks, and its fields; metadata as JSON or a dict."""

    label: int
    chunks: int
    id: str
    title: str | None
    metadata: str | dict[str, Any]


def pages(rows: Iterable[DocumentRow]) -> Iterator[list[DocumentRow]]:
    """The rows, in pages."""
    waiting = iter(rows)
    while page := list(islice(waiting, _PAGE_ROWS)):
        yield page


class Growing:
    """A numpy array with amortized append."""

    def __init__(self, dtype: npt.DTypeLike) -> None:
        self._buffer: npt.NDArray[Any] = np.empty(0, dtype)
        self.count = 0

    @property
    def values(self) -> npt.NDArray[Any]:
        return self._buffer[: self.count]

    @property
    def size_bytes(self) -> int:
        return self._buffer.nbytes

    def extend(self, values: Sequence[Any] | npt.NDArray[Any]) -> None:
        total = self.count + len(values)
        if total > len(self._buffer):
            buffer = np.empty(max(total, 2 * len(self._buffer), 64), self._buffer.dtype)
            buffer[: self.count] = self.values
            self._buffer = buffer
        self._buffer[self.count : total] = values
        self.count = total


class _Typed:
    """The values of one type in a column: document `numbers`, ascending, and their `values`."""

    def __init__(self, dtype: npt.DTypeLike) -> None:
        self.numbers = Growing(np.int32)
        self.values = Growing(dtype)
        self._numbers: list[int] = []
        self._values: list[Any] = []

    def add(self, number: int, value: Any) -> None:
        self._numbers.append(number)
        self._values.append(value)

    def extend(self, numbers: npt.NDArray[np.int32], values: Sequence[Any] | npt.NDArray[Any]) -> None:
        self.numbers.extend(numbers)
        self.values.extend(values)

    def flush(self) -> None:
        if self._numbers:
            self.numbers.extend(self._numbers)
            self.values.extend(self._values)
            self._numbers, self._values = [], []

    def since(self, start: int) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
        """Document numbers from `start` on, and their values."""
        # searchsorted releases the interpreter lock. While other threads are busy it takes long to get it back: half of
        # the time of matching a few documents against many filters. Another type of `start` would copy the numbers.
        first = int(np.searchsorted(self.numbers.values, np.int32(start))) if start and self.numbers.count else 0
        return self.numbers.values[first:], self.values.values[first:]

    def lives(self, alive: Bools) -> bool:
        """Whether any of the documents is alive."""
        numbers, start, count = self.numbers.values, 0, _FIRST_STEP
        while start < len(numbers):
            if alive[numbers[start : start + count]].any():
                return True
            start, count = start + count, 4 * count
        return False


#: The kind of a document without a value, in SortKeys.
_NO_VALUE = 3


class SortKeys(NamedTuple):
    """What documents are sorted by, by document number."""

    kinds: npt.NDArray[np.int8]
    values: npt.NDArray[np.float64]

    def order(self, numbers: npt.NDArray[Any], descending: bool) -> npt.NDArray[np.int64]:
        """The positions in `numbers` in the order of these documents' values; of equal ones, in the order given."""
        kinds, values = self.kinds[numbers], self.values[numbers]
        if descending:  # those without a value are last all the same
            kinds, values = np.where(kinds == _NO_VALUE, kinds, 2 - kinds), -values
        return np.lexsort((values, kinds))


class Column:
    """The values of one field in all documents, by type. Strings are dictionary-encoded: stored as indexes into
    `_words`."""

    def __init__(self) -> None:
        self.used = 0  # logical time of the last use by a filter
        self._there = _Typed(np.bool_)  # documents with a value that is not null
        self._integers = _Typed(np.int64)
        self._large = _Typed(np.uint64)  # integers from 2^63 on
        self._floats = _Typed(np.float64)
        self._bools = _Typed(np.bool_)
        self._strings = _Typed(np.int32)
        self._words: list[str] = []
        self._places: dict[str, int] = {}
        self._words_bytes = 0
        self._instants = Growing(np.int64)  # of the words, as far as they have been compared as dates

    @property
    def _typed(self) -> tuple[_Typed, ...]:
        return self._there, self._integers, self._large, self._floats, self._bools, self._strings

    @property
    def size_bytes(self) -> int:
        """Approximate bytes in memory."""
        arrays = sum(typed.numbers.size_bytes + typed.values.size_bytes for typed in self._typed)
        return _COLUMN_BYTES + arrays + self._words_bytes + self._instants.size_bytes

    def extend(self, start: int, values: Sequence[Any]) -> None:
        """Appends the values of documents from the number `start` on. A list gives its document several values."""
        kinds = set(map(type, values))
        if kinds in ({int}, {float}, {bool}) and (kinds != {int} or max(values) < 2**63):  # fast path: one type
            numbers = np.arange(start, start + len(values), dtype=np.int32)
            self._there.extend(numbers, np.ones(len(values), np.bool_))
            typed = self._integers if kinds == {int} else self._floats if kinds == {float} else self._bools
            typed.extend(numbers, values)
            return
        there, integers, large, floats = self._there, self._integers, self._large, self._floats
        for number, value in enumerate(values, start):
            if value is None:
                continue
            there.add(number, True)
            for each in _items(value) if type(value) is list else (value,):
                kind = type(each)
                if kind is str:
                    place = self._places.setdefault(each, len(self._words))
                    if place == len(self._words):
                        self._words.append(each)
                        self._words_bytes += _WORD_BYTES + len(each)
                    self._strings.add(number, place)
                elif kind is int:
                    (integers if each < 2**63 else large).add(number, each)
                elif kind is float:
                    floats.add(number, each)
                elif kind is bool:
                    self._bools.add(number, each)
        for typed in self._typed:
            typed.flush()

    def sort_keys(self, count: int) -> SortKeys:
        """By document number, up to `count` (exclusive), what the documents are sorted by: a number before a string,
        that before a truth value, and documents without a value last. Of several values, the first of its type
        counts."""
        kinds, values = np.full(count, _NO_VALUE, np.int8), np.zeros(count)
        rank = np.empty(len(self._words))
        rank[sorted(range(len(self._words)), key=self._words.__getitem__)] = np.arange(len(self._words))
        strings = rank[self._strings.values.values] if len(rank) else np.zeros(0)
        for kind, typed, found in (
            (2, self._bools, self._bools.values.values),
            (1, self._strings, strings),
            (0, self._large, self._large.values.values),
            (0, self._integers, self._integers.values.values),
            (0, self._floats, self._floats.values.values),
        ):
            inside = typed.numbers.values < count
            numbers = typed.numbers.values[inside][::-1]  # backwards: the first value of a document is written last
            kinds[numbers], values[numbers] = kind, found[inside][::-1]
        return SortKeys(kinds, values)

    def renumber(self, numbers: npt.NDArray[np.int32]) -> None:
        """Replaces document number n by `numbers[n]`; `numbers` ascend."""
        for typed in self._typed:
            typed.numbers.values[:] = numbers[typed.numbers.values]

    def lives(self, kind: type | None, alive: Bools) -> bool:
        """Whether a document that is alive has a value of this type (float: any number; None: any but null)."""
        typed: dict[type | None, tuple[_Typed, ...]] = {
            None: (self._there,), str: (self._strings,), bool: (self._bools,),
            float: (self._integers, self._floats, self._large),
        }  # fmt: skip
        return any(each.lives(alive) for each in typed[kind])

    def matching(self, test: Test, start: int) -> Iterator[npt.NDArray[Any]]:
        """The numbers, from `start` on, of documents that match the test."""
        if test.operator == "exists":
            yield self._there.since(start)[0]
            return
        sign = "=" if test.operator == "in" else test.operator
        texts = [value.value for value in test.values if isinstance(value.value, str)]
        if texts:
            numbers, places = self._strings.since(start)
            if len(numbers):
                if (period := test.values[0].period) is not None:
                    yield numbers[self._passing_period(sign, period, places)]
                else:
                    yield numbers[self._passing(sign, texts, places)]
        if sign == "=" and len(test.values) > _VALUES_ONE_BY_ONE:
            yield from self._equal_to_one([value.value for value in test.values], start)
            return
        for value in test.values:
            if isinstance(value.value, bool):
                numbers, values = self._bools.since(start)
                yield numbers[values == value.value]
            elif isinstance(value.value, (int, float)):
                for typed, low, high in ((self._integers, -(2**63), 2**63 - 1), (self._large, 2**63, 2**64 - 1)):
                    numbers, values = typed.since(start)
                    if len(numbers):
                        yield numbers[_integers_passing(values, sign, value.value, low, high)]
                numbers, values = self._floats.since(start)
                if len(numbers):
                    yield numbers[_floats_passing(values, sign, value.value)]

    def _equal_to_one(self, wanted: Sequence[Any], start: int) -> Iterator[npt.NDArray[Any]]:
        """The numbers, from `start` on, of documents that have one of many values other than strings. Takes one pass
        over the values of each type, for any number of wanted values. Exact: a number is only looked up in types that
        can hold it."""
        bools = {value for value in wanted if isinstance(value, bool)}
        numbers, values = self._bools.since(start)
        yield numbers[np.isin(values, list(bools))]
        others = [value for value in wanted if isinstance(value, (int, float)) and not isinstance(value, bool)]
        whole = {int(value) for value in others if isinstance(value, int) or value.is_integer()}
        for typed, low, high in ((self._integers, -(2**63), 2**63 - 1), (self._large, 2**63, 2**64 - 1)):
            numbers, values = typed.since(start)
            held = [value for value in whole if low <= value <= high]
            yield numbers[np.isin(values, np.array(held, values.dtype))]
        numbers, values = self._floats.since(start)
        yield numbers[np.isin(values, np.array([float(value) for value in others if _is_float(value)], np.float64))]

    def _passing(self, sign: str, texts: list[str], places: npt.NDArray[Any]) -> Bools:
        """For each index into `_words`, whether the word matches. Strings are compared by code point."""
        passing: Bools
        if sign == "=":
            wanted = [self._places[text] for text in texts if text in self._places]
            passing = np.isin(places, wanted) if len(wanted) > 1 else places == (wanted[0] if wanted else -1)
            return passing
        text, words = texts[0], self._words
        compare = _bounded(patterns.matcher(text), text) if sign == "~" else partial(_COMPARE_TEXT[sign], text)
        if len(places) < len(words):
            passing = np.fromiter((compare(words[place]) for place in places.tolist()), np.bool_, len(places))
        else:
            passing = np.fromiter(map(compare, words), np.bool_, len(words))[places]
        return passing

    def _passing_period(self, sign: str, period: dates.Period, places: npt.NDArray[Any]) -> Bools:
        """For each index into `_words`, whether the word is a date that matches."""
        words = self._words[self._instants.count :]
        self._instants.extend(np.fromiter(map(dates.instant_us, words), np.int64, len(words)))
        instants = self._instants.values[places]
        bound = period.end_us if sign in ("<=", ">") else period.start_us
        passing: Bools = (instants < bound) if sign[0] == "<" else (instants >= bound)
        passing &= instants != dates.NO_DATE
        return passing


def _bounded(matches: Callable[[str], bool], pattern: str) -> Callable[[str], bool]:
    """The function, which raises VecError `invalid_filter` after FILTER_PATTERN_S."""
    ends = time.perf_counter() + limits.FILTER_PATTERN_S

    def bounded(word: str) -> bool:
        if time.perf_counter() > ends:
            refuse_slow(pattern)
        return matches(word)

    return bounded


class Columns:
    """A set of columns, by field and by first metadata key."""

    def __init__(self, fields: Iterable[Field]) -> None:
        self.by_field: dict[Field, Column] = {}
        self._by_key: dict[str, dict[Field, Column]] = {}  # metadata columns, by the first key of their path
        self._keys: set[str] = set()  # all top-level metadata keys seen
        self._paths: dict[str, None] = {}  # some nested fields seen, as filters name them
        for each in fields:
            self._put(each, Column())

    def _put(self, name: Field, column: Column) -> None:
        self.by_field[name] = column
        if not name.own:
            self._by_key.setdefault(name.path[0], {})[name] = column

    def add(self, other: Columns) -> None:
        """Adds the columns of another set, of the same documents."""
        for name, column in other.by_field.items():
            self._put(name, column)
        self._keys |= other._keys
        for path in other._paths:
            self._remember(path)

    def drop(self, name: Field) -> None:
        del self.by_field[name]
        if not name.own:
            del self._by_key[name.path[0]][name]

    def missing(self, fields: Iterable[Field]) -> set[Field]:
        """The fields without a column for which documents must be read. A field whose first key no document has had
        gets an empty column at once."""
        missing = set()
        for each in fields:
            if each in self.by_field:
                continue
            if each.own or each.path[0] in self._keys:
                missing.add(each)
            else:
                self._put(each, Column())
        return missing

    @property
    def size_bytes(self) -> int:
        return sum(column.size_bytes for column in self.by_field.values())

    def known_names(self) -> Iterable[str]:
        """Names of fields that documents have, for suggestions: all top-level keys, and some nested fields."""
        return {*(str(Field(False, (key,))) for key in islice(self._keys, _NAMES_MAX)), *self._paths}

    def fill(self, start: int, rows: Sequence[DocumentRow]) -> None:
        """Appends documents; the first has the number `start`."""
        if not rows:
            return
        for name in ("document_id", "title"):
            if (column := self.by_field.get(Field(True, (name,)))) is not None:
                column.extend(start, [row.id if name == "document_id" else row.title for row in rows])
        found = [
            orjson.loads(row.metadata) if isinstance(row.metadata, str) else row.metadata for row in rows
        ]  # fmt: skip
        keys: set[str] = set().union(*found)
        if not keys <= self._keys:
            self._keys |= keys
        for path in _paths_of(found[0]):
            self._remember(path)
        for key in keys & self._by_key.keys():
            values = [each.get(key) for each in found]
            for field, column in self._by_key[key].items():
                deeper = field.path[1:]
                column.extend(start, [_at(each, deeper) for each in values] if deeper else values)

    def renumber(self, numbers: npt.NDArray[np.int32]) -> None:
        for column in self.by_field.values():
            column.renumber(numbers)

    def _remember(self, path: str) -> None:
        if len(self._paths) < _NAMES_MAX:
            self._paths[path] = None


def _integers_passing(values: npt.NDArray[Any], sign: str, wanted: float, low: int, high: int) -> Bools:
    """Which of these integers, all in the range of the type, `low` to `high` (inclusive), match. Exact for any int or
    float."""
    if isinstance(wanted, float) and not wanted.is_integer():
        if sign == "=":
            return np.zeros(len(values), np.bool_)
        bound = math.floor(wanted) if sign in ("<=", ">") else math.ceil(wanted)
    else:
        bound = int(wanted)
    if low <= bound <= high:
        found: Bools = _ORDER[sign](values, values.dtype.type(bound))
        return found
    return np.full(len(values), sign in ((">", ">=") if bound < low else ("<", "<=")))


def _floats_passing(values: npt.NDArray[Any], sign: str, wanted: float) -> Bools:
    """Which of these floats match. Exact for any int or float."""
    found: Bools
    try:
        bound = float(wanted)
    except OverflowError:
        return np.full(len(values), sign in (("<", "<=") if wanted > 0 else (">", ">=")))
    if bound == wanted:
        found = _ORDER[sign](values, bound)
    elif sign == "=":
        found = np.zeros(len(values), np.bool_)
    else:  # no float lies between an integer and the float that is nearest to it
        below = sign in ("<", "<=")
        found = _ORDER[("<" if bound > wanted else "<=") if below else (">=" if bound > wanted else ">")](values, bound)
    return found


def _is_float(value: float) -> bool:
    """Whether a 64-bit float represents the number exactly."""
    try:
        return float(value) == value
    except OverflowError:
        return False


def _items(value: Any) -> Iterator[Any]:
    """The items of a list, flattened; or the value itself."""
    if isinstance(value, list):
        for each in value:
            yield from _items(each)
    else:
        yield value


def _at(value: Any, path: tuple[str, ...]) -> Any:
    """The value at a path of keys, None if there is none. A list gives the values at the path in each of its items."""
    for place, key in enumerate(path):
        if isinstance(value, list):
            found = [each for each in (_at(item, path[place:]) for item in value) if each is not None]
            return found or None
        if not isinstance(value, dict):
            return None
        value = value.get(key)
    return value


def _paths_of(metadata: dict[str, Any]) -> Iterator[str]:
    """The nested fields of one document that are not objects, as filters name them; only some, if there are many."""
    waiting: list[tuple[tuple[str, ...], Any]] = [((key,), value) for key, value in islice(metadata.items(), 100)]
    left = 200
    while waiting and left:
        path, value = waiting.pop()
        left -= 1
        if isinstance(value, dict):
            waiting += (((*path, key), inner) for key, inner in islice(value.items(), 100))
        elif isinstance(value, list):
            waiting += ((path, inner) for inner in value[:3] if isinstance(inner, dict))
        elif len(path) > 1:
            yield str(Field(False, path))
