"""Fields: typed, checked access to the fields of a request. Every getter raises VecError `invalid_request`, naming the
field."""

from __future__ import annotations

import math
import reprlib
from typing import Any, NoReturn

from .. import limits
from ..errors import Code, VecError
from ..json_values import id_text

#: Characters of a value that an error quotes.
_SHOWN = 40


class Fields:
    """The fields of one request. A field that is null counts as missing; fields nobody asks for are ignored."""

    def __init__(self, op: str, fields: dict[str, Any]) -> None:
        self._op = op
        self._fields = fields

    def _refuse(self, name: str, wanted: str) -> NoReturn:
        value = self._fields.get(name)
        if value is None:
            got = "nothing"
        elif isinstance(value, (str, bytes)) and len(value) > _SHOWN:
            got = f"{type(value).__name__} {value[:_SHOWN]!r:.60}… of length {len(value):,}"
        else:
            got = f"{type(value).__name__} {reprlib.repr(value):.60}"
        raise VecError(Code.INVALID_REQUEST, f"{self._op}: field {name!r} must be {wanted}, not {got}", field=name)

    def text(self, name: str, default: str | None = None, *, chars_max: int = limits.QUERY_CHARS_MAX) -> str:
        value = self.optional_text(name, chars_max=chars_max)
        if value is None:
            value = default
        return value if value is not None else self._refuse(name, "a string")

    def optional_text(self, name: str, *, chars_max: int = limits.QUERY_CHARS_MAX) -> str | None:
        value = self._fields.get(name)
        if value is not None and (not isinstance(value, str) or len(value) > chars_max):
            self._refuse(name, f"a string of at most {chars_max:,} characters")
        return value

    def integer(self, name: str, default: int, *, low: int, high: int) -> int:
        value = self.optional_integer(name, low=low, high=high)
        return default if value is None else value

    def optional_integer(self, name: str, *, low: int, high: int) -> int | None:
        value = self._fields.get(name)
        if value is not None and (not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high):
            self._refuse(name, f"a whole number from {low:,} to {high:,}")
        return value

    def optional_seconds(self, name: str) -> float | None:
        """A number of seconds from 0 to limits.SECONDS_MAX, or None."""
        return self.bounded_seconds(name, high=limits.SECONDS_MAX)

    def optional_number(self, name: str, *, low: float = -math.inf, high: float = math.inf) -> float | None:
        """A finite number from `low` to `high`, both inclusive, or None."""
        value = self._fields.get(name)
        if value is None:
            return None
        if not isinstance(value, (int, float)) or isinstance(value, bool) or not low <= value <= high:
            bounds = f" from {low:g} to {high:g}" if math.isfinite(low) and math.isfinite(high) else ""
            self._refuse(name, f"a number{bounds}")
        if not math.isfinite(value):
            self._refuse(name, "a finite number")
        return float(value)

    def flag(self, name: str, default: bool = False) -> bool:
        value = self._fields.get(name)
        if value is not None and not isinstance(value, bool):
            self._refuse(name, "true or false")
        return default if value is None else value

    def bounded_seconds(self, name: str, *, high: float) -> float | None:
        """A number of seconds from 0 to `high`, or None."""
        value = self._fields.get(name)
        if value is not None and (
            not isinstance(value, (int, float)) or isinstance(value, bool) or not 0 <= value <= high
        ):
            self._refuse(name, f"a number of seconds from 0 to {high:,.0f}")
        return value

    def integers(self, name: str, *, count_max: int) -> list[int]:
        """A list of whole numbers from 0 up."""
        value = self.items(name, count_max=count_max)
        if not all(isinstance(each, int) and not isinstance(each, bool) and 0 <= each < 2**63 for each in value):
            self._refuse(name, "a list of whole numbers")
        return value

    def optional_bytes(self, name: str) -> bytes | None:
        value = self._fields.get(name)
        if value is not None and not isinstance(value, bytes):
            self._refuse(name, "bytes")
        return value

    def items(self, name: str, *, count_max: int) -> list[Any]:
        value = self._fields.get(name)
        if not isinstance(value, list) or len(value) > count_max:
            self._refuse(name, f"a list of at most {count_max:,} items")
        return value

    def texts(self, name: str, *, count_max: int, chars_max: int = limits.QUERY_CHARS_MAX) -> list[str]:
        """A list of strings of at most `chars_max` characters each."""
        value = self.items(name, count_max=count_max)
        if not all(isinstance(each, str) and len(each) <= chars_max for each in value):
            self._refuse(name, f"a list of strings of at most {chars_max:,} characters each")
        return value

    def ids(self, name: str, *, count_max: int) -> list[str]:
        """A list of ids of documents; whole numbers stand for their digits."""
        value = [id_text(each) for each in self.items(name, count_max=count_max)]
        if not all(isinstance(each, str) and len(each) <= limits.QUERY_CHARS_MAX for each in value):
            self._refuse(name, f"a list of ids: strings of at most {limits.QUERY_CHARS_MAX:,} characters")
        return value

    def optional_texts(
        self, name: str, *, count_max: int = 1_000, chars_max: int = limits.QUERY_CHARS_MAX
    ) -> list[str] | None:
        if self._fields.get(name) is None:
            return None
        return self.texts(name, count_max=count_max, chars_max=chars_max)

    def filters(self, name: str) -> list[str]:
        """The expressions of a filter; none if there is none."""
        return self.optional_texts(name, count_max=limits.FILTERS_MAX) or []

    def mapping(self, name: str) -> dict[str, Any]:
        """A map with strings for keys; empty if it is missing."""
        value = self._fields.get(name)
        if value is not None and not (
            isinstance(value, dict) and all(isinstance(key, str) and len(key) <= limits.KEY_CHARS_MAX for key in value)
        ):
            self._refuse(name, f"a map whose keys are strings of at most {limits.KEY_CHARS_MAX} characters")
        return value or {}

    def strings(self, name: str) -> dict[str, str]:
        """A map of strings to strings; empty if it is missing."""
        value = self.mapping(name)
        if len(value) > limits.SOURCE_PARTITIONS_MAX or not all(
            isinstance(each, str) and len(each) <= limits.SOURCE_VALUE_CHARS_MAX for each in value.values()
        ):
            self._refuse(
                name,
                f"a map of at most {limits.SOURCE_PARTITIONS_MAX:,} strings of at most"
                f" {limits.SOURCE_VALUE_CHARS_MAX:,} characters",
            )
        return value

    def raw(self, name: str) -> Any:
        return self._fields.get(name)
