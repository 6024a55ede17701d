"""The embedder `slow`: the vectors of `hash`, 10 ms a text, or as many seconds as VEC_TEST_EMBED_S says; and texts that
fail in the ways in which a model may fail."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from vecd.errors import Code, VecError
from vecd.text.embedders.embedder import EmbedderKind
from vecd.text.embedders.hash import Hash

#: A process that embeds a text with this word is killed, as by a crash in native code.
POISON = "poison"
#: The same, for `vec worker` processes only.
WORKER_POISON = "venom"
#: A text with this word makes `vec worker` processes fail.
WORKER_FAILURE = "sickness"
#: A text with this word raises an exception that no embedder should raise.
BUG = "bug"
#: A text with this word is embedded by processes only that have no file of the name in VEC_TEST_STUCK; others wait.
STUCK = "stuck"

ROOT = Path(__file__).resolve().parents[2]


class Slow:
    """Waits without the interpreter lock, as a model in native code does."""

    dimension = Hash.dimension

    def __init__(self) -> None:
        self._hash = Hash()
        self._text_s = float(os.environ.get("VEC_TEST_EMBED_S", "0.01"))

    def embed(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        for text in texts:
            if POISON in text or (WORKER_POISON in text and "worker" in sys.argv):
                os.kill(os.getpid(), signal.SIGKILL)
            if WORKER_FAILURE in text and "worker" in sys.argv:
                raise VecError(Code.EMBEDDER_FAILED, "the model is away")
            if BUG in text:
                raise ZeroDivisionError("a bug in the model")
            if STUCK in text and "VEC_TEST_STUCK" in os.environ:
                Path(os.environ["VEC_TEST_STUCK"]).touch()
                time.sleep(3_600)
        time.sleep(self._text_s * len(texts))
        return self._hash.embed(texts)


EMBEDDER: Final = EmbedderKind("the vectors of hash, slowly", Slow, Hash.dimension, slow=True)


def environment(text_s: float = 0.01, **more: str) -> dict[str, str]:
    """For a process that knows the embedder."""
    path = os.pathsep.join((str(Path(__file__).parent / "site"), str(ROOT)))
    return {"PYTHONPATH": path, "VEC_TEST_EMBED_S": str(text_s), **more}
