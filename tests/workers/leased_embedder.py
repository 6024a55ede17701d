"""The embedder `slow`: it sleeps for each text, as one that asks another computer does; SLOW_EMBEDDER_MS is in the
environment. Its vectors are those of `hash`, rotated, so a test can tell which embedder made them and for which text.

A text with `poison` kills a worker, and one with `broken` makes it fail; the daemon embeds both.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

from vecd.errors import Code, VecError
from vecd.text.embedders import EmbedderKind
from vecd.text.embedders.hash import Hash


class SlowEmbedder(Hash):
    """As `hash`, slow, and rotated by one component."""

    def embed(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        if "worker" in sys.argv and any("poison" in text for text in texts):
            os.kill(os.getpid(), signal.SIGKILL)
        if "worker" in sys.argv and any("broken" in text for text in texts):
            raise VecError(Code.EMBEDDER_FAILED, "the model is broken")
        time.sleep(len(texts) * float(os.environ.get("SLOW_EMBEDDER_MS", "10")) / 1e3)
        return np.roll(super().embed(texts), 1, axis=1)


EMBEDDER: Final = EmbedderKind("words, hashed, slowly", SlowEmbedder, 256)
