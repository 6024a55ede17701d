"""Vectors on the wire: msgpack bin, little-endian float32, `4 * dimension` bytes. Standard library only."""

from __future__ import annotations

import sys
from array import array
from typing import Any

from ..errors import Code, VecError

_NUMBERS = frozenset((int, float))


def pack_vector(values: Any) -> bytes:
    """A vector in wire format: shape (dimension,), little-endian float32.

    Takes a sequence of numbers, including NumPy scalars; an object with a one-dimensional buffer of float32 or float64,
    such as a NumPy array; or packed bytes. Raises VecError `invalid_document` for anything else. The daemon, which
    knows the library, checks the dimension and that all components are finite.
    """
    if isinstance(values, bytes):
        return values
    if isinstance(values, (list, tuple)):
        wrong: Any = 0
        if not set(map(type, values)) <= _NUMBERS:
            values = [value.item() if _is_numpys_number(value) else value for value in values]
            wrong = next((value for value in values if type(value) not in _NUMBERS), 0)
        if type(wrong) not in _NUMBERS:
            raise VecError(
                Code.INVALID_DOCUMENT, f"a vector must be a list of numbers, but this one contains {_described(wrong)}"
            )
        try:
            packed = array("f", values)
        except OverflowError:
            raise VecError(Code.INVALID_DOCUMENT, "a vector contains a number too large for float32") from None
    else:
        try:
            view = memoryview(values)
        except (TypeError, ValueError):  # no buffer, or one without a format
            raise VecError(
                Code.INVALID_DOCUMENT, f"a vector must be a list of numbers, not {_described(values)}"
            ) from None
        if view.ndim != 1 or view.format not in ("f", "d", "<f", "<d"):
            raise VecError(
                Code.INVALID_DOCUMENT, f"a vector has one dimension of floats, not {view.ndim} of {view.format!r}"
            )
        if view.format[-1] == "f" and view.c_contiguous and sys.byteorder == "little":
            return view.tobytes()
        packed = array("f", view.tolist())
    if sys.byteorder == "big":
        packed.byteswap()
    return packed.tobytes()


def unpack_vector(data: bytes) -> list[float]:
    """The components of a packed vector."""
    values = array("f", data)
    if sys.byteorder == "big":
        values.byteswap()
    return values.tolist()


def _is_numpys_number(value: Any) -> bool:
    """Whether it is a NumPy scalar, integer or float, as in `list(array)`."""
    return getattr(getattr(value, "dtype", None), "kind", "") in ("i", "u", "f") and not value.shape


def _described(value: Any) -> str:
    names = {str: "a string", dict: "an object", list: "a list", bool: "true or false", type(None): "null"}
    return names.get(type(value), type(value).__name__)
