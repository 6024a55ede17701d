"""Strict JSON: refuses, with the key's name, what a parser would silently change.

orjson reads an integer beyond 64 bits as a float and keeps the last of two equal keys. Both are looked for cheaply:
only a line that may hold one is read a second time, slowly, to find it and to name it.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from typing import Any

from ..errors import Code, VecError
from ..json_values import INTEGER_MAX, INTEGER_MIN, integer_refused, large_float, name_of

#: Two, because a pattern that begins with a literal is found ten times as fast as one that does not.
_QUOTE_COLON = re.compile(rb'"[ \t\r\n]*:')
_ESCAPED_QUOTE_COLON = re.compile(rb'\\"[ \t\r\n]*:')


class _Twice:
    """Stands for an object in which a key stands twice."""

    def __init__(self, key: str) -> None:
        self.key = key


class _NotFinite:
    """Stands for a number that is none of 64 bits, as it is written."""

    def __init__(self, digits: str) -> None:
        self.digits = digits


class _TooLarge:
    """Stands for an integer that does not fit 64 bits, with its digits."""

    def __init__(self, digits: str) -> None:
        self.digits = digits


def loads(data: bytes) -> Any:
    """A JSON text. Raises VecError `invalid_document` for a key that occurs twice in an object and for an integer
    beyond 64 bits, and orjson.JSONDecodeError (a ValueError) for what is not JSON."""
    import orjson

    value = orjson.loads(data)
    keys, large = _count(value)
    check(data, keys, large)
    return value


def check(data: bytes, keys: int, large: bool) -> None:
    """Refuses the text of a value that has lost something: it has so many keys, and `large` says whether one of its
    floats may have been an integer beyond 64 bits. Raises VecError `invalid_document`, naming the place."""
    if large or not _has_each_key_once(data, keys):
        _look_closely(data)


def _has_each_key_once(data: bytes, keys: int) -> bool:
    """Whether the text writes no more keys than the value has. False: perhaps not.

    Each key is followed by a colon, so a text with no more colons than keys is good. Otherwise the quotes before colons
    are counted; those within strings are escaped.
    """
    if data.count(b":") == keys:
        return True
    written = len(_QUOTE_COLON.findall(data))
    if written == keys:
        return True
    if b'\\\\"' in data:  # a string that ends with a backslash: its quote is no escaped one
        return False
    return written - len(_ESCAPED_QUOTE_COLON.findall(data)) == keys


def _count(value: Any) -> tuple[int, bool]:
    """How many keys a value has, at all depths, and whether it holds a float that may have been a large integer."""
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


def _look_closely(data: bytes) -> None:
    """Reads the text with the standard library's parser, which gives all keys and all digits."""

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
        if isinstance(each, _TooLarge):
            raise integer_refused(path, each.digits)
        if isinstance(each, _Twice):
            where = f"in '{name_of(path)}'" if path else "in the object"
            raise VecError(
                Code.INVALID_DOCUMENT,
                f"the key {each.key!r:.100} occurs twice {where}",
                "remove one of them",
                field=str(path[0]) if path else each.key,
            )


def not_finite(text: str) -> tuple[str, str] | None:
    """A number in a JSON text that no float of 64 bits can be, or that JSON does not have: its place, and how it is
    written. None if there is none, or the text is no JSON for another reason."""

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
    """Everything in a value, with the keys and positions that lead there."""
    waiting: list[tuple[tuple[str | int, ...], Any]] = [((), value)]
    while waiting:
        path, each = waiting.pop()
        yield path, each
        if isinstance(each, dict):
            waiting += (((*path, key), inner) for key, inner in each.items())
        elif isinstance(each, list):
            waiting += (((*path, place), inner) for place, inner in enumerate(each))
