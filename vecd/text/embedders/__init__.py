"""Embedders: models that map texts to vectors. A new one is one file, which declares an `EMBEDDER`, and one entry here.

A library stores the name of its embedder, so a name always means the same model: a better model gets a new name. The
table imports no embedder and no numpy, so that the command line can list the names.
"""

from __future__ import annotations

from importlib import import_module
from typing import Final

from ...errors import Code, VecError, nearest
from .embedder import Embedder, EmbedderKind

__all__ = ["EMBEDDERS", "FIRST", "Embedder", "EmbedderKind", "dimension_of", "embeds", "kind_of", "make"]

#: Name -> module that declares it; None: no embedder, the library takes vectors only.
EMBEDDERS: Final[dict[str, str | None]] = {
    "wordllama": "vecd.text.embedders.wordllama",
    "minilm": "vecd.text.embedders.minilm",
    "hash": "vecd.text.embedders.hash",
    "none": None,
}

#: The first embedder of a library whose own is slow, unless the settings name another fast one.
FIRST: Final = "wordllama"


def kind_of(name: str) -> EmbedderKind | None:
    """The declaration of an embedder; None for `none`. Raises VecError `unsupported` for an unknown name."""
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
    """Whether the name is an embedder that computes vectors. Raises VecError `unsupported`."""
    return kind_of(name) is not None


def dimension_of(name: str) -> int | None:
    """The dimension of the embedder's vectors, without loading it; None for `none`, and if it is unknown before the
    first call. Raises VecError `unsupported`."""
    kind = kind_of(name)
    return None if kind is None else kind.dimension


def make(name: str) -> Embedder | None:
    """Loads an embedder; None for `none`. Raises VecError `unsupported` or `embedder_failed`."""
    kind = kind_of(name)
    return None if kind is None else kind.make()
