"""Embedders: texts in, vectors out. Adding one is one file, which declares its `EMBEDDER`, and one entry here.

An embedder's name is pinned in a library, so what a name means never changes: a better model is a new name. The table
itself imports no embedder and no numpy, so that the command line can list the names.
"""

from __future__ import annotations

from importlib import import_module
from typing import Final

from ...errors import Code, VecError, nearest
from .embedder import Embedder, EmbedderKind

__all__ = ["EMBEDDERS", "Embedder", "EmbedderKind", "dimension_of", "embeds", "kind_of", "make"]

#: Name -> the module that declares it; None: vectors only, texts are refused.
EMBEDDERS: Final[dict[str, str | None]] = {
    "wordllama": "vecd.text.embedders.wordllama",
    "hash": "vecd.text.embedders.hash",
    "none": None,
}


def kind_of(name: str) -> EmbedderKind | None:
    """What an embedder declares; None for `none`. Raises VecError `unsupported` for a name that is not in the table."""
    if name not in EMBEDDERS:
        close = nearest(name, list(EMBEDDERS))
        hint = f"did you mean {close!r}?" if close else f"known embedders: {', '.join(EMBEDDERS)}"
        raise VecError(Code.UNSUPPORTED, f"unknown embedder {name!r}", hint)
    module = EMBEDDERS[name]
    if module is None:
        return None
    kind: EmbedderKind = import_module(module).EMBEDDER
    return kind


def embeds(name: str) -> bool:
    """Whether it makes vectors of texts. Raises VecError `unsupported`."""
    return kind_of(name) is not None


def dimension_of(name: str) -> int | None:
    """The dimension of the embedder's vectors, without loading it; None for `none`, and where only its first answer
    tells. Raises VecError `unsupported`."""
    kind = kind_of(name)
    return None if kind is None else kind.dimension


def make(name: str) -> Embedder | None:
    """Loads an embedder; None for `none`. Raises VecError `unsupported` or `embedder_failed`."""
    kind = kind_of(name)
    return None if kind is None else kind.make()
