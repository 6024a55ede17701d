"""Declared parameters of pluggable kinds (kinds of job, transports of connectors, embedders), and the check of given
values."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from .errors import Code, VecError, nearest

_NAMES: Final[Mapping[type, str]] = {
    str: "a string",
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    list: "a list of strings",
}


@dataclass(frozen=True, slots=True)
class Parameter:
    """One parameter."""

    what: str
    type: type  # str, int, float, bool, list (of strings)
    required: bool = False
    low: float | None = None  # inclusive
    high: float | None = None  # inclusive
    choices: tuple[str, ...] = ()
    default: Any = None

    @property
    def valid(self) -> str:
        """The valid values, for messages."""
        if self.choices:
            return f"one of {', '.join(self.choices)}"
        low = "" if self.low is None else f" from {self.low:,}"
        return _NAMES[self.type] + low + ("" if self.high is None else f" to {self.high:,}")

    def accepts(self, value: Any) -> bool:
        if isinstance(value, bool) and self.type is not bool:
            return False
        if self.choices:
            return value in self.choices
        if self.type is list:
            return isinstance(value, list) and all(isinstance(each, str) for each in value)
        if self.type in (int, float):
            if not isinstance(value, (int, float) if self.type is float else int) or not math.isfinite(value):
                return False
            # Without bounds it must still be a number that the store can represent.
            low, high = self.low, self.high
            return (-(2**62) if low is None else low) <= value <= (2**62 if high is None else high)
        return isinstance(value, self.type)

    def parsed(self, text: str) -> Any:
        """The value that a text stands for; the text itself if it stands for none."""
        if self.type is bool:
            return {"true": True, "false": False}.get(text.lower(), text)
        try:
            return self.type(text) if self.type in (int, float) else text
        except ValueError:
            return text


def check_parameters(
    owner: str, word: str, declared: Mapping[str, Parameter], given: Mapping[str, Any], *, texts: bool = False
) -> dict[str, Any]:
    """The given values that are not null, each of its declared type.

    `owner` is what has the parameters ("the transport redis"), and `word` what it calls one. With `texts`, a value may
    be text where another type is declared, as it comes from a command line: "true", "10", "0.5". Raises VecError
    `invalid_request` for an unknown name, an invalid value, or a required one that is missing.
    """
    values: dict[str, Any] = {}
    for name, value in given.items():
        if name not in declared:
            close = nearest(name, list(declared))
            known = f"it has {', '.join(declared)}" if declared else "it has none"
            hint = f"did you mean {close!r}?" if close else known
            raise VecError(Code.INVALID_REQUEST, f"{owner} has no {word} {name!r:.60}", hint, field=name)
        if value is None:
            continue
        parameter = declared[name]
        if texts and isinstance(value, str):
            value = parameter.parsed(value)
        if not parameter.accepts(value):
            raise VecError(
                Code.INVALID_REQUEST,
                f"{owner}: the {word} {name!r} must be {parameter.valid}, not {value!r:.60}",
                field=name,
            )
        values[name] = value
    for name, parameter in declared.items():
        if parameter.required and name not in values:
            raise VecError(Code.INVALID_REQUEST, f"{owner} needs the {word} {name!r}: {parameter.what}", field=name)
    return values


def with_parameters(name: str, parameters: Mapping[str, Any]) -> str:
    """A name and its parameters as one text, the same for the same parameters: `NAME`, or `NAME {canonical JSON}`."""
    canonical = json.dumps(parameters, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return f"{name} {canonical}" if parameters else name


def without_parameters(text: str) -> tuple[str, dict[str, Any]]:
    """The name and the parameters of such a text."""
    name, space, parameters = text.partition(" ")
    return name, json.loads(parameters) if space else {}
