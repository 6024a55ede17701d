"""The declaration of a kind of index: how it is built and restored, its properties and its parameters.

Each kind declares itself in its own file, as `KIND`; kinds.py has the table of them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy.typing as npt

from .structure import Spec, Structure


@dataclass(frozen=True, slots=True)
class Parameter:
    """One parameter of a kind: an integer from `low` to `high` (both inclusive) that `step` divides, or one of
    `choices`."""

    default: int | str
    what: str
    low: int = 0
    high: int = 0
    step: int = 1
    choices: tuple[int | str, ...] = ()

    @property
    def valid(self) -> str:
        """The valid values, for messages."""
        if self.choices:
            *most, last = map(str, self.choices)
            return f"{', '.join(most)} or {last}"
        what = f"a multiple of {self.step}" if self.step > 1 else "a whole number"
        return f"{what} from {self.low:,} to {self.high:,}"

    def accepts(self, value: Any) -> bool:
        if self.choices:
            return any(value == each and type(value) is type(each) for each in self.choices)
        whole = isinstance(value, int) and not isinstance(value, bool)
        return whole and self.low <= value <= self.high and not value % self.step


def _no_further_rules(metric: str, parameters: Mapping[str, Any]) -> None:
    """The check of a kind whose parameters do not depend on each other or on the metric."""


@dataclass(frozen=True, slots=True)
class IndexKind:
    """A kind of index. `make` is None for a kind without a structure; a structure is built from `rows_min` rows on."""

    what: str
    make: Callable[[Spec], Structure] | None = None
    restore: Callable[[Spec, Mapping[str, npt.NDArray[Any]]], Structure] | None = None
    rows_min: int = 0
    train_rows: int = 0  # size of the sample for `Structure.train`; 0: no training
    exact: bool = False  # whether it finds the same as a scan
    format: int = 1  # of its arrays in a snapshot; a snapshot of another format is replaced
    parameters: Mapping[str, Parameter] = field(default_factory=dict)
    refuses: Mapping[str, str] = field(default_factory=dict)  # metric -> why not
    #: Checks combinations: given the metric and all parameters, each valid, raises VecError.
    check: Callable[[str, Mapping[str, Any]], None] = _no_further_rules
