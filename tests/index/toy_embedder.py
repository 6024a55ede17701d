"""A toy embedder: one file, and one entry in `EMBEDDERS`. It learns its dimension from its first answer, and fails once
for a text that says so."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

from vecd.errors import Code, VecError
from vecd.text.embedders import EmbedderKind


class ToyEmbedder:
    """Counts the letters a, b and c."""

    def __init__(self) -> None:
        self.dimension: int | None = None
        self._failed = False

    def embed(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        if "fail" in " ".join(texts) and not self._failed:
            self._failed = True
            raise VecError(Code.EMBEDDER_FAILED, "the toy is out of order", "try again")
        self.dimension = 3
        counts = np.array([[text.count(letter) for letter in "abc"] for text in texts], np.float32).reshape(-1, 3)
        lengths = np.linalg.norm(counts, axis=1, keepdims=True)
        return np.divide(counts, np.where(lengths == 0, 1, lengths), dtype=np.float32)


EMBEDDER: Final = EmbedderKind("letters a, b and c, counted", ToyEmbedder, None)
