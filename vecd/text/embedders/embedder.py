"""The protocol of an embedder, and what each declares in its own file as `EMBEDDER`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt


class Embedder(Protocol):
    """Makes vectors of texts. Safe to call from several threads at once."""

    @property
    def dimension(self) -> int | None:
        """Components of its vectors; None before its first answer, if it cannot be known earlier."""

    def embed(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        """One row a text: shape (len(texts), dimension), each of length 1, or of zeros where nothing is known.

        Called on a thread that may wait, with a bounded number of texts, so it may take seconds. Raises VecError: with
        the code `embedder_failed` where another attempt may succeed (jobs retry it), and with another code, such as
        `invalid_request`, where it would not.
        """


@dataclass(frozen=True, slots=True)
class EmbedderKind:
    """What is known of an embedder without loading it."""

    what: str
    make: Callable[[], Embedder]  # may read files; raises VecError `embedder_failed`
    dimension: int | None  # None: its first answer tells, and pins the dimension of the library
