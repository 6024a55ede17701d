"""The protocol of embedders, and the declaration that each one's module makes as `EMBEDDER`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from ...parameters import Parameter

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt


class Embedder(Protocol):
    """Maps texts to vectors. Thread-safe."""

    @property
    def dimension(self) -> int | None:
        """Components of its vectors; None before the first call, if it is unknown until then."""

    def embed(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        """One row per text: shape (len(texts), dimension), each of norm 1, or zeros for a text without known words.

        Called on a thread that may block, with a bounded number of texts, so it may take seconds. Raises VecError: with
        the code `embedder_failed` if another attempt may succeed (jobs retry it), with `invalid_document` if one of the
        texts cannot be embedded (the others are, in smaller batches), otherwise with another code.
        """


class QueryEmbedder(Embedder, Protocol):
    """An embedder that embeds queries otherwise than texts of documents."""

    def embed_queries(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        """As `embed`. A user waits: it gives up sooner."""


def _no_check(parameters: Mapping[str, Any]) -> None:
    pass


@dataclass(frozen=True, slots=True)
class EmbedderKind:
    """The declaration of an embedder, which is available without loading it."""

    what: str  # description, for people
    make: Callable[..., Embedder]  # takes the parameters by name; may read files; raises VecError `embedder_failed`
    dimension: int | None  # None: the parameter `dimension`, or unknown before the first call, which sets the library's
    slow: bool = False  # milliseconds a text or more: it runs outside the daemon's process (workers/executor.py)
    here: bool = False  # only on the daemon's machine: it needs a program, a server or a key that others may not have
    extra: str | None = None  # of pip install 'vecd[…]'
    requires: tuple[str, ...] = ()  # modules that the extra brings
    parameters: Mapping[str, Parameter] = field(default_factory=dict)
    check: Callable[[Mapping[str, Any]], None] = _no_check  # of all parameters; raises VecError `invalid_request`
