"""Exact JSON parsing: refuses values that a parser would silently change.

orjson reads an integer beyond 64 bits as a float and keeps the last of two equal keys. A cheap check finds texts that
may have either; only these are parsed again, by a slower parser, to find the value and to name it.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Iterator
from typing import Any, Final

from .. import limits
from ..errors import Code, VecError
from ..json_values import INTEGER_MAX, INTEGER_MIN, integer_refused, large_float, name_of

#: Two, because a pattern that begins with a literal is found ten times as fast as one that does not.
_QUOTE_COLON = re.compile(rb'"[ \t\r\n]*:')
_ESCAPED_QUOTE_COLON = re.compile(rb'\\"[ \t\r\n]*:')


class _Twice:
    """Replaces an object with a duplicate key."""

    def __init__(self, key: str) -> None:
        self.key = key


class _NotFinite:
    """Replaces a number that is not a finite 64-bit float, with its source text."""

    def __init__(self, digits: str) -> None:
        self.digits = digits


class _TooLarge:
    """Replaces an integer that does not fit 64 bits, with its digits."""

    def __init__(self, digits: str) -> None:
        self.digits = digits


#: What takes memory once it is parsed, by a character that stands for it, in bytes: an object with a key; a list; a
#: string, by each of its quotes; a number, or a place in a list or object.
_COSTS: Final = ((b"{", 232), (b"[", 64), (b'"', 28), (b",", 32))


#: Texts up to this size are not checked: their values take some megabytes at most.
_SMALL_BYTES: Final = 64 * limits.KIB


def check_size(data: bytes) -> None:
    """Raises VecError `too_large` for a text whose values could take more memory than JSON_VALUES_BYTES_MAX.

    An estimate from above, without parsing: characters within strings count too.
    """
    if len(data) <= _SMALL_BYTES:
        return
    size = sum(data.count(character) * cost for character, cost in _COSTS)
    if size > limits.JSON_VALUES_BYTES_MAX:
        raise VecError(
            Code.TOO_LARGE,
            f"the JSON has too many values: they may take {size:,} bytes of memory, more than"
            f" {limits.JSON_VALUES_BYTES_MAX:,}",
            "send less at a time",
        )


def loads(data: bytes) -> Any:
    """Parses a JSON text. Raises VecError `invalid_document` for a duplicate key or an integer beyond 64 bits, and
    orjson.JSONDecodeError (a ValueError) for invalid JSON."""
    import orjson

    value = orjson.loads(data)
    check_value(data, value)
    return value


def check_value(data: bytes, value: Any) -> None:
    """Refuses a text if its parsed value has lost something. Raises VecError `invalid_document`, naming the place."""
    keys, large = _count(value)
    check(data, keys, large)


def loads_items(data: bytes, key: str) -> tuple[Any, dict[int, VecError]]:
    """Parses a JSON text that is an object with a list `key`. What `loads` would refuse is, within an item of the list,
    the error of this item. Returns the value, and the errors by position. Raises what `loads` raises for the rest."""
    import orjson

    value = orjson.loads(data)
    keys, large = _count(value)
    refused: dict[int, VecError] = {}
    if large or not _has_each_key_once(data, keys):
        for path, each in _inexact(data):
            if len(path) < 2 or path[0] != key or not isinstance(path[1], int):
                raise _refusal(path, each)
            if path[1] not in refused:
                refused[path[1]] = _refusal(path[2:], each)
    return value, refused


def check(data: bytes, keys: int, large: bool) -> None:
    """Refuses a text if its parsed value has lost something. `keys` is the number of keys of the value, and `large`
    whether one of its floats may have been an integer beyond 64 bits. Raises VecError `invalid_document`, naming the
    place."""
    if large or not _has_each_key_once(data, keys):
        for path, each in _inexact(data):
            raise _refusal(path, each)


def _has_each_key_once(data: bytes, keys: int) -> bool:
    """Whether the text certainly has no more keys than the value. False means unknown.

    Each key is followed by a colon, so a text with no more colons than keys is good. Otherwise count the quotes before
    colons; those within strings are escaped.
    """
    if data.count(b":") == keys:
        return True
    written = len(_QUOTE_COLON.findall(data))
    if written == keys:
        return True
    if b'\\\\"' in data:  # a string that ends with a backslash: its closing quote is not escaped
        return False
    return written - len(_ESCAPED_QUOTE_COLON.findall(data)) == keys


def _count(value: Any) -> tuple[int, bool]:
    """The number of keys of a value, at all depths, and whether it has a float that may have been a large integer."""
    keys, large = 0, False
    waiting: list[Iterable[Any]] = [(value,)]
    while waiting:
        for each in waiting.pop():
            kind = type(each)
            if kind is float:
                if large_float(each):
                    large = True
            elif kind is dict:
                keys += len(each)
                waiting.append(each.values())
            elif kind is list:
                waiting.append(each)
    return keys, large


def _inexact(data: bytes) -> Iterator[tuple[tuple[str | int, ...], _TooLarge | _Twice]]:
    """The places of all values that parsing has changed, from the standard library's parser, which reports all keys and
    all digits."""

    def pairs(found: list[tuple[str, Any]]) -> Any:
        made = dict(found)
        if len(made) == len(found):
            return made
        seen: set[str] = set()
        return _Twice(next(key for key, _ in found if key in seen or seen.add(key)))  # type: ignore[func-returns-value]

    def integer(digits: str) -> Any:
        if len(digits) < 19 or (len(digits) <= 21 and INTEGER_MIN <= int(digits) <= INTEGER_MAX):
            return 0
        return _TooLarge(digits)

    try:
        value = json.loads(data, object_pairs_hook=pairs, parse_int=integer, parse_float=_nothing)
    except (RecursionError, ValueError) as error:
        raise VecError(Code.INVALID_DOCUMENT, f"not valid JSON ({error})") from error
    yield from _places(value, (_TooLarge, _Twice))


def _refusal(path: tuple[str | int, ...], found: _TooLarge | _Twice) -> VecError:
    if isinstance(found, _TooLarge):
        return integer_refused(path, found.digits)
    where = f"in '{name_of(path)}'" if path else "in the object"
    return VecError(
        Code.INVALID_DOCUMENT,
        f"the key {found.key!r:.100} occurs twice {where}",
        "remove one of them",
        field=str(path[0]) if path else found.key,
    )


def not_finite(text: str) -> tuple[str, str] | None:
    """A number in a JSON text that is beyond the range of 64-bit floats, or not JSON: its place and its source text.
    None if there is none, or if the text is invalid JSON for another reason."""

    def number(digits: str) -> Any:
        return None if math.isfinite(float(digits)) else _NotFinite(digits)

    try:
        value = json.loads(text, parse_float=number, parse_constant=_NotFinite)
    except (RecursionError, ValueError):
        return None
    for path, each in _places(value, (_NotFinite,)):
        return name_of(path), each.digits
    return None


def _nothing(digits: str) -> None:
    return None


def _places(value: Any, kinds: tuple[type, ...]) -> Iterator[tuple[tuple[str | int, ...], Any]]:
    """The values of these types nested in a value, in their order, with the path of keys and positions to each."""
    if isinstance(value, kinds):
        yield (), value
    path: list[str | int] = []
    entered = [_entries(value)]
    while entered:
        for key, each in entered[-1]:
            if isinstance(each, kinds):
                yield (*path, key), each
            elif isinstance(each, (dict, list)):
                path.append(key)
                entered.append(_entries(each))
                break
        else:
            entered.pop()
            if path:
                path.pop()


def _entries(value: Any) -> Iterator[tuple[Any, Any]]:
    if isinstance(value, dict):
        return iter(value.items())
    return iter(enumerate(value if isinstance(value, list) else ()))
