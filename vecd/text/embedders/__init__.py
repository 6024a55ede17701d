"""Embedders: texts in, vectors out. One file each; adding one touches the table below and nothing else.

An embedder's name is pinned in a library, so what a name means never changes: a better model is a new name.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, Protocol

import numpy as np
import numpy.typing as npt

from ...errors import Code, VecError, nearest


class Embedder(Protocol):
    """Must be safe to call from several threads at once."""

    @property
    def dimension(self) -> int:
        """Components of its vectors."""

    def embed(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        """One row a text: shape (len(texts), dimension), each of length 1, or of zeros where nothing is known."""


def _wordllama() -> Embedder:
    from .wordllama import WordLlama

    return WordLlama()


def _hash() -> Embedder:
    from .hash import Hash

    return Hash()


#: Name -> how to make it and its dimension; None: vectors only, texts are refused.
EMBEDDERS: Final[dict[str, tuple[Callable[[], Embedder], int] | None]] = {
    "wordllama": (_wordllama, 256),
    "hash": (_hash, 256),
    "none": None,
}


def dimension_of(name: str) -> int | None:
    """The dimension of the embedder's vectors, without loading it; None for `none`.

    Raises VecError `unsupported` for a name that is not in the table.
    """
    if name not in EMBEDDERS:
        close = nearest(name, list(EMBEDDERS))
        hint = f"did you mean {close!r}?" if close else f"known embedders: {', '.join(EMBEDDERS)}"
        raise VecError(Code.UNSUPPORTED, f"unknown embedder {name!r}", hint)
    made = EMBEDDERS[name]
    return None if made is None else made[1]


def make(name: str) -> Embedder | None:
    """Loads an embedder; None for `none`. Raises VecError `unsupported` or `embedder_failed`."""
    dimension_of(name)
    made = EMBEDDERS[name]
    return None if made is None else made[0]()
