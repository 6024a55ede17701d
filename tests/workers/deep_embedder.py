"""The embedder `deep`: 96 dimensions, slow, and knows some synonyms. Files in the folder VEC_TEST_DEEP tell it how to
behave: `hold` lets texts with the word "held" wait while it is there, `away` lets it fail, `stuck` lets all wait."""

from __future__ import annotations

import os
import re
import time
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from vecd.errors import Code, VecError
from vecd.text.embedders.embedder import EmbedderKind

DIMENSION: Final = 96
SYNONYMS: Final = {"feline": "cat", "automobile": "car", "physician": "doctor"}
_WAIT_S = 0.01


class Deep:
    dimension = DIMENSION

    def embed(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        folder = Path(os.environ["VEC_TEST_DEEP"])
        while (folder / "stuck").exists() or ((folder / "hold").exists() and any("held" in text for text in texts)):
            time.sleep(_WAIT_S)
        if (folder / "away").exists():
            raise VecError(Code.EMBEDDER_FAILED, "the model is away")
        with open(folder / "embedded", "a") as file:
            file.write("".join(f"{text}\n" for text in texts))
        return np.stack([_vector(text) for text in texts])


def _vector(text: str) -> npt.NDArray[np.float32]:
    vector = np.zeros(DIMENSION, np.float32)
    for word in re.findall(r"\w+", text.lower()):
        code = zlib.crc32(SYNONYMS.get(word, word).encode())
        vector[(code >> 1) % DIMENSION] += 1 if code & 1 else -1
    return vector / np.float32(np.linalg.norm(vector) or 1)


EMBEDDER: Final = EmbedderKind("words and synonyms, hashed; slow", Deep, DIMENSION, slow=True)
