"""Validation of JSON values: which values are stored exactly, and errors for the others that name their place.

Metadata may be any JSON with two bounds: integers fit 64 bits (-2^63 to 2^64 - 1), the range of msgpack and orjson;
objects and lists are nested at most METADATA_DEPTH_MAX deep. Floats are 64-bit, without NaN and infinity; a literal
with more digits becomes the nearest float, as in any JSON.
"""

from __future__ import annotations

import itertools
import math
import operator
import re
from collections.abc import Iterator
from typing import Any, Final

from . import limits
from .errors import Code, VecError

#: The range of integers that msgpack and the store's JSON parser represent exactly.
INTEGER_MIN: Final = -(2**63)
INTEGER_MAX: Final = 2**64 - 1

_PLAIN_KEY = re.compile(r"[^\s.\[\]'\"]+")
_HINTS = {
    "datetime": "write it as a string: .isoformat()",
    "date": "write it as a string: .isoformat()",
    "timedelta": "write it as a number of seconds: .total_seconds()",
    "bytes": "write it as a string, as base64 for example",
    "bytearray": "write it as a string, as base64 for example",
    "memoryview": "write it as a string, as base64 for example",
    "bytes_": "write it as a string, as base64 for example",
    "set": "make it a list",
    "frozenset": "make it a list",
    "range": "make it a list",
    "generator": "make it a list",
    "Decimal": "make it a float, or a string",
    "longdouble": "make it a float, which has 64 bits",
    "UUID": "write it as a string: str()",
    "PosixPath": "write it as a string: str()",
    "datetime64": "write it as a string: str()",
    "timedelta64": "write it as a number, or a string: str()",
    "ndarray": "make it a list: .tolist()",
}


def large_float(value: float) -> bool:
    """Whether it may have been written as an integer beyond 64 bits."""
    return not -9.2e18 < value < 9.2e18


def name_of(path: tuple[str | int, ...]) -> str:
    """A place in a document, for people: metadata.a[2]."""
    import json  # only errors need it, and it would slow the start of every command

    name = ""
    for key in path:
        if isinstance(key, int):
            name += f"[{key}]"
        else:
            shown = key if _PLAIN_KEY.fullmatch(key) else json.dumps(key, ensure_ascii=False)
            name += f".{shown:.100}" if name else f"{shown:.100}"
    return name


def id_text(value: Any) -> Any:
    """The id of a document, as text if it is a whole number; what is no id comes back as it is."""
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


def integer_refused(path: tuple[str | int, ...], digits: str) -> VecError:
    """The error for an integer that does not fit 64 bits."""
    shown = digits if len(digits) <= 60 else f"{digits[:40]}… ({len(digits):,} digits)"
    field = str(path[0]) if path else ""
    return VecError(
        Code.INVALID_DOCUMENT,
        f"'{name_of(path)}' is the integer {shown}, outside the range from -2^63 to 2^64 - 1",
        f'write it as a string: "{shown}"',
        field=field,
        path=name_of(path),
    )


def refusals(document: Any, *, texts: bool = False, path: tuple[str | int, ...] = ()) -> Iterator[VecError]:
    """The errors of a document, or of a part of it at `path`, place by place. With `texts`, also checks that all
    strings can be encoded as UTF-8, which takes longer."""
    waiting: list[tuple[tuple[str | int, ...], Any]] = [(path, document)]
    while waiting:
        path, value = waiting.pop()
        if isinstance(value, bool) or value is None:
            continue
        if isinstance(value, str):
            if texts and (refusal := _not_utf8(path, value)) is not None:
                yield refusal
        elif isinstance(value, int):
            if not INTEGER_MIN <= value <= INTEGER_MAX:
                yield integer_refused(path, _digits(value))
        elif isinstance(value, float):
            if not math.isfinite(value):
                yield _refused(path, f"is {value}, and JSON has no NaN and no infinity", "write null, or leave it out")
        elif isinstance(value, (dict, list, tuple)):
            if len(path) > limits.METADATA_DEPTH_MAX:
                yield too_deep(path)
                continue
            if len(value) > limits.ARRAY_ITEMS_MAX:
                yield _refused(
                    path,
                    f"holds {len(value):,} items in one place, which is over the limit of {limits.ARRAY_ITEMS_MAX:,}",
                )
                continue
            if path in (("vectors",), ("vector",)):
                continue  # packed
            pairs = list(value.items()) if isinstance(value, dict) else list(enumerate(value))
            for key, item in reversed(pairs):
                if isinstance(value, dict) and not isinstance(key, str):
                    yield _odd_key(path, key)
                elif texts and isinstance(key, str) and (refusal := _not_utf8(path, key)) is not None:
                    yield refusal
                else:
                    waiting.append(((*path, key), item))
        elif not (isinstance(value, bytes) and path == ("vector",)):
            name = type(value).__name__
            hint = _HINTS.get(name) or "write it as a string, a number, a list or an object"
            yield _refused(path, f"is of type {name}, which JSON does not have", hint)


def plain_numbers(value: Any, depth: int = 0) -> Any:
    """The value with NumPy scalars (integers, booleans, floats of up to 64 bits) replaced by equal Python values; the
    same object if it has none. Does not import NumPy: a caller with NumPy scalars has imported it."""
    if isinstance(value, (dict, list, tuple)):
        if depth > limits.METADATA_DEPTH_MAX:
            return value
        items = list(value.values()) if isinstance(value, dict) else list(value)
        plain = [plain_numbers(item, depth + 1) for item in items]
        if all(map(operator.is_, plain, items)):
            return value
        return dict(zip(value, plain, strict=True)) if isinstance(value, dict) else plain
    if type(value).__module__ == "numpy" and getattr(value, "shape", None) == () and hasattr(value, "dtype"):
        kind = value.dtype.kind
        if type(value).__name__ != "ndarray" and kind in "iufb" and value.dtype.itemsize <= 8:
            return value.item()
    return value


def too_deep(path: tuple[str | int, ...]) -> VecError:
    """The error for a value that is nested too deep."""
    return VecError(
        Code.INVALID_DOCUMENT,
        f"'{path[0]}' is nested more than {limits.METADATA_DEPTH_MAX} deep",
        field=str(path[0]),
    )


def _refused(path: tuple[str | int, ...], what: str, hint: str | None = None) -> VecError:
    return VecError(
        Code.INVALID_DOCUMENT, f"'{name_of(path)}' {what}", hint, field=str(path[0]) if path else "", path=name_of(path)
    )


def _odd_key(path: tuple[str | int, ...], key: Any) -> VecError:
    if not path:
        return VecError(Code.INVALID_DOCUMENT, f"the key {key!r:.40} is not a string", field=str(key))
    return _refused(path, f"has a key that is not a string: {key!r:.40}")


def _not_utf8(path: tuple[str | int, ...], text: str) -> VecError | None:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        return _refused(path, f"holds half a surrogate pair at character {error.start}, which is no text")
    return None


def _digits(number: int) -> str:
    """The digits of an integer; an approximation for a very long one."""
    bits = number.bit_length()
    return str(int(number)) if bits < 10_000 else f"{'-' if number < 0 else ''}2^{bits - 1}…"


#: How deep the records of an answer of a web service are: {"data": {"items": [...]}}.
_RECORDS_DEPTH: Final = 3
#: A longer path of them is in no hint.
_PATH_CHARS_MAX: Final = 200


def records_hint(value: dict[str, Any]) -> str | None:
    """What to do with an object that is no document, if its only list of objects could be the documents; else None."""
    paths = [*itertools.islice(_lists_of_objects(value, ""), 2)]
    if len(paths) != 1 or len(paths[0]) > _PATH_CHARS_MAX:
        return None
    return f"for the objects in its list: jq -c '{paths[0]}[]' FILE | vec ingest"


def _lists_of_objects(value: dict[str, Any], path: str, depth: int = 1) -> Iterator[str]:
    import json  # only errors need it

    for key, each in value.items():
        if _JQ_KEY.fullmatch(key):
            name = f".{key}"
        else:
            quoted = json.dumps(key, ensure_ascii=False).replace("'", "\\u0027")  # the path is in quotes of the shell
            name = f"[{quoted}]" if path else f".[{quoted}]"
        if isinstance(each, list) and each and all(isinstance(one, dict) for one in each):
            yield path + name
        elif isinstance(each, dict) and depth < _RECORDS_DEPTH:
            yield from _lists_of_objects(each, path + name, depth + 1)


_JQ_KEY: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
