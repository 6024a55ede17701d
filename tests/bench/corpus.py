"""Real texts and their vectors, from what stands on the machine: Debian's package descriptions, if apt has them, and
the paragraphs of the docstrings of Python's library and of all that is installed with us. If that is not enough, the
rest are made-up clusters."""

from __future__ import annotations

import random
import re
import shutil
import subprocess
import sysconfig
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt

from tests.bench.measure import clustered
from vecd.text import embedders

_PARAGRAPH_MIN, _TEXT_MAX = 30, 400


def texts(count: int) -> list[str]:
    """Up to `count` different texts of 30 to 400 characters, in a random order that is always the same."""
    found = dict.fromkeys(text for text in _paragraphs() if len(text) >= _PARAGRAPH_MIN)
    ordered = sorted(found)
    random.Random(7).shuffle(ordered)
    return ordered[:count]


def vectors(count: int) -> tuple[list[str], npt.NDArray[np.float32], str]:
    """`count` texts and their vectors, shape (count, 256), and what they are."""
    real = texts(count)
    embedder = embedders.make("wordllama")
    assert embedder is not None
    made = embedder.embed(real)
    told = f"{len(real):,} real texts"
    if len(real) < count:
        told += f" and {count - len(real):,} made-up vectors in clusters"
        made = np.concatenate((made, clustered(count - len(real))))
        real += [f"made up {number}" for number in range(count - len(real))]
    order = np.random.default_rng(7).permutation(count)
    return [real[place] for place in order], made[order], told


def _paragraphs() -> Iterator[str]:
    for block in (*_descriptions(), *_docstrings()):
        for paragraph in re.split(r"\n\s*\n|\n \.\n", block):
            yield " ".join(paragraph.split())[:_TEXT_MAX]


def _descriptions() -> Iterator[str]:
    if shutil.which("apt-cache"):
        told = subprocess.run(["apt-cache", "dumpavail"], capture_output=True, text=True, check=False).stdout
        for match in re.finditer(r"^Description(?:-en)?: (.*(?:\n .*)*)", told, re.MULTILINE):
            yield match[1]


def _docstrings() -> Iterator[str]:
    paths = sysconfig.get_paths()
    for folder in sorted({paths["stdlib"], paths["purelib"], paths["platlib"]}):
        for path in sorted(Path(folder).rglob("*.py")):
            for match in re.finditer(r'"""(.*?)"""', path.read_text("utf-8", "ignore"), re.DOTALL):
                yield match[1]
