"""The `hash` embedder: feature hashing of words, no model (Weinberger et al., 2009, "Feature Hashing for Large Scale
Multitask Learning"). Texts are similar only if they share words. The same on every machine and in every version.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

from .embedder import EmbedderKind

_WORD = re.compile(r"\w+")
_DIMENSION = 256


class Hash:
    """The CRC-32 of a word selects a component and a sign; a text is the normalized sum of its words."""

    dimension = _DIMENSION

    def embed(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        vectors = np.zeros((len(texts), _DIMENSION), np.float32)
        for row, text in enumerate(texts):
            codes = np.array([zlib.crc32(word.encode()) for word in _WORD.findall(text.lower())], np.uint32)
            signs = np.where(codes & 1, np.float32(1), np.float32(-1))
            np.add.at(vectors[row], (codes >> 1) % _DIMENSION, signs)
        lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
        return np.divide(vectors, np.where(lengths == 0, 1, lengths), dtype=np.float32)


EMBEDDER: Final = EmbedderKind("words, hashed; no model", Hash, _DIMENSION)
