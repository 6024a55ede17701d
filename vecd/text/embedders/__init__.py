"""Embedders: models that map texts to vectors. A new one is one file, which declares an `EMBEDDER`, and one entry here.

A library stores a *reference* to its embedder: the name, and its parameters, if it has any, as canonical JSON behind
it. So a reference always means the same model (a better one gets a new name), and is a key for what is cached or
queued by embedder. The table imports no embedder and no numpy, so that the command line can list the names.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Final

from ...errors import Code, VecError, nearest
from ...parameters import check_parameters, with_parameters, without_parameters
from .embedder import Embedder, EmbedderKind

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

__all__ = [
    "EMBEDDERS", "FIRST", "Embedder", "EmbedderKind", "check_installed", "dimension_of", "embeds", "for_workers",
    "kind_of", "make", "of_queries", "reference",
]  # fmt: skip

#: Name -> module that declares it; None: no embedder, the library takes vectors only.
EMBEDDERS: Final[dict[str, str | None]] = {
    "wordllama": "vecd.text.embedders.wordllama",
    "minilm": "vecd.text.embedders.minilm",
    "openai": "vecd.text.embedders.openai",
    "command": "vecd.text.embedders.command",
    "hash": "vecd.text.embedders.hash",
    "none": None,
}

#: The first embedder of a library whose own is slow, unless the settings name another fast one.
FIRST: Final = "wordllama"


def reference(name: str, parameters: Mapping[str, Any]) -> str:
    """The reference to an embedder with these parameters, which may be texts: "10", "true".

    Raises VecError `unsupported` for an unknown name or an embedder that is not installed, `invalid_request` for
    parameters that it does not take.
    """
    kind = _named(name)
    if not isinstance(parameters, Mapping):
        raise VecError(Code.INVALID_REQUEST, "the parameters of the embedder are not a JSON object", field="embedder")
    checked = check_parameters(
        f"the embedder {name}", "parameter", {} if kind is None else kind.parameters, parameters, texts=True
    )
    if kind is not None:
        kind.check(checked)
    check_installed(name)
    return with_parameters(name, checked)


def kind_of(embedder: str) -> EmbedderKind | None:
    """The declaration of an embedder, by its reference; None for `none`. Raises VecError `unsupported` for an unknown
    name."""
    return _named(without_parameters(embedder)[0])


def _named(name: str) -> EmbedderKind | None:
    if name not in EMBEDDERS:
        close = nearest(name, list(EMBEDDERS))
        hint = f"did you mean {close!r}?" if close else f"known embedders: {', '.join(EMBEDDERS)}"
        raise VecError(Code.UNSUPPORTED, f"unknown embedder {name!r:.60}", hint)
    module = EMBEDDERS[name]
    if module is None:
        return None
    kind: EmbedderKind = import_module(module).EMBEDDER
    return kind


def check_installed(name: str) -> None:
    """Raises VecError `unsupported` if the packages that the embedder needs are not installed."""
    kind = _named(name)
    if kind is not None and not all(map(find_spec, kind.requires)):
        raise VecError(
            Code.UNSUPPORTED,
            f"the embedder {name!r} needs packages that are not installed",
            f"pip install 'vecd[{kind.extra}]', and start the daemon again",
            field="embedder",
        )


def for_workers() -> list[str]:
    """The embedders that a worker on this machine can run: they need nothing of the daemon's, and are installed."""
    kinds = ((name, _named(name)) for name in EMBEDDERS)
    return [name for name, kind in kinds if kind and not kind.here and all(map(find_spec, kind.requires))]


def embeds(embedder: str) -> bool:
    """Whether the embedder computes vectors. Raises VecError `unsupported`."""
    return kind_of(embedder) is not None


def dimension_of(embedder: str) -> int | None:
    """The dimension of the embedder's vectors, without loading it; None for `none`, and if it is unknown before the
    first call. Raises VecError `unsupported`."""
    kind = kind_of(embedder)
    if kind is None:
        return None
    dimension: int | None = kind.dimension or without_parameters(embedder)[1].get("dimension")
    return dimension


def make(embedder: str) -> Embedder | None:
    """Loads an embedder; None for `none`. Raises VecError `unsupported` or `embedder_failed`."""
    name, given = without_parameters(embedder)
    kind = _named(name)
    if kind is None:
        return None
    # A store of a newer version may have parameters that this one does not know.
    parameters = check_parameters(f"the embedder {name}", "parameter", kind.parameters, given)
    defaults = {each: declared.default for each, declared in kind.parameters.items()}
    return kind.make(**(defaults | parameters))


def of_queries(embedder: Embedder) -> Callable[[Sequence[str]], npt.NDArray[np.float32]]:
    """The method that embeds queries: its own if it has one, otherwise that for texts."""
    method: Callable[[Sequence[str]], npt.NDArray[np.float32]] = getattr(embedder, "embed_queries", embedder.embed)
    return method
