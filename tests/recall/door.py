"""Cells through the door."""

from collections.abc import Iterator
from .cells import Cell, Plan


def cells(plan: Plan, seed: int) -> Iterator[Cell]:
    yield from ()
