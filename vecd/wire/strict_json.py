"""Exact JSON parsing: refuses values that a parser would silently change.

orjson reads an integer beyond 64 bits as a float and keeps the last of two equal keys. A cheap check finds texts that
may have either; only these are parsed again, by a slower parser, to find the value and to name it.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from typing import Any

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


def check_brackets(data: bytes) -> None:
    """Raises VecError `too_large` for a text whose lists and objects could take much more memory than the text."""
    count = data.count(b"[") + data.count(b"{")
    if count > limits.JSON_BRACKETS_MAX:
        raise VecError(
            Code.TOO_LARGE,
            f"the JSON has {count:,} lists and objects, more than {limits.JSON_BRACKETS_MAX:,}",
            "send less at a time",
        )


def loads(data: bytes) -> Any:
    """Parses a JSON text. Raises VecError `invalid_document` for a duplicate key or an integer beyond 64 bits, and
    orjson.JSONDecodeError (a ValueError) for invalid JSON."""
    import orjson

    value = orjson.loads(data)
    keys, large = _count(value)
    check(data, keys, large)
    return value


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
            refused.setdefault(path[1], _refusal(path[2:], each))
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
    waiting = [value]
    while waiting:
        each = waiting.pop()
        if isinstance(each, dict):
            keys += len(each)
            waiting += each.values()
        elif isinstance(each, list):
            waiting += each
        elif type(each) is float and large_float(each):
            large = True
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
    for path, each in _places(value):
        if isinstance(each, (_TooLarge, _Twice)):
            yield path, each


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
    found = [(path, each.digits) for path, each in _places(value) if isinstance(each, _NotFinite)]
    return (name_of(found[-1][0]), found[-1][1]) if found else None


def _nothing(digits: str) -> None:
    return None


def _places(value: Any) -> Iterator[tuple[tuple[str | int, ...], Any]]:
    """All values nested in a value, with the path of keys and positions to each."""
    waiting: list[tuple[tuple[str | int, ...], Any]] = [((), value)]
    while waiting:
        path, each = waiting.pop()
        yield path, each
        if isinstance(each, dict):
            waiting += (((*path, key), inner) for key, inner in each.items())
        elif isinstance(each, list):
            waiting += (((*path, place), inner) for place, inner in enumerate(each))
