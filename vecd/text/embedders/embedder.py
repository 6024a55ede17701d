"""The protocol of embedders, and the declaration that each one's module makes as `EMBEDDER`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

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
        the code `embedder_failed` if another attempt may succeed (jobs retry it), otherwise with another code, for
        example `invalid_request`.
        """


@dataclass(frozen=True, slots=True)
class EmbedderKind:
    """The declaration of an embedder, which is available without loading it."""

    what: str  # description, for people
    make: Callable[[], Embedder]  # may read files; raises VecError `embedder_failed`
    dimension: int | None  # None: unknown before the first call, which sets the dimension of the library
    slow: bool = False  # milliseconds a text or more: it runs outside the daemon's process (workers/executor.py)
