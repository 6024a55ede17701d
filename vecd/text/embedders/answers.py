"""Vectors that come from a server or a program: their checks, and the parameters that the embedders which use them
share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from ... import limits
from ...errors import Code, VecError
from ...parameters import Parameter

#: What is in front of a text: some models are trained with different prefixes for queries and documents.
_PROMPT_CHARS_MAX: Final = 1_000

SHARED: Final[Mapping[str, Parameter]] = {
    "dimension": Parameter(
        "the components of a vector; default: those of the first", int, low=1, high=limits.DIMENSION_MAX
    ),
    "normalize": Parameter("whether to scale vectors to length 1", bool, default=True),
    "query_prompt": Parameter("what is put in front of each query", str, default=""),
    "text_prompt": Parameter("what is put in front of each text of a document", str, default=""),
}  # fmt: skip


def check_shared(parameters: Mapping[str, Any]) -> None:
    """Raises VecError `invalid_request`."""
    for name in ("query_prompt", "text_prompt"):
        if len(parameters.get(name) or "") > _PROMPT_CHARS_MAX:
            raise VecError(Code.INVALID_REQUEST, f"{name} is longer than {_PROMPT_CHARS_MAX:,} characters", field=name)


#: How the error of a text begins: it, or the embedder, is to blame, which only another text can tell.
REFUSED: Final = "the text cannot be embedded: "


class UnusableVector(Exception):
    """A vector that cannot be compared; the text is to blame, or the model."""


def refused(why: str) -> VecError:
    """The error of a batch in which a text is perhaps to blame: the caller sends it again in parts."""
    return VecError(Code.INVALID_DOCUMENT, f"{REFUSED}{why}", field="text")


def matrix(rows: Sequence[Any], dimension: int | None, source: str) -> npt.NDArray[np.float32]:
    """The vectors of an answer, shape (rows, dimension), float32. `source` is who answered, for messages.

    Raises UnusableVector for NaN, infinity or nothing in a vector, for what is no list of numbers, for vectors of
    different dimensions, and if the dimension is not the one that is expected.
    """
    for row in rows:
        if row is None or (isinstance(row, list) and None in row):
            raise UnusableVector(f"{source} answered with null in place of a number")
    lengths = {len(row) if isinstance(row, list) else -1 for row in rows}
    try:
        if -1 in lengths or 0 in lengths:
            raise ValueError
        if len(lengths) > 1:
            raise UnusableVector(f"{source} answered one request with vectors of {_listed(lengths)} dimensions")
        numbers = np.array(rows)
        if numbers.ndim != 2 or numbers.dtype.kind not in "fiu":
            raise ValueError
        with np.errstate(over="ignore"):  # becomes infinity
            made = numbers.astype(np.float32)
    except (ValueError, TypeError, OverflowError):
        raise UnusableVector(f"{source} answered with what is no list of numbers") from None
    if dimension is not None and made.shape[1] != dimension:
        raise UnusableVector(
            f"{source} answered with {made.shape[1]:,}-dimension vectors, and {dimension:,} are expected (if it does so"
            " for all texts, another model answers by this name now: create another library)"
        )
    if not np.isfinite(made).all():
        raise UnusableVector(f"{source} answered with a number that is not finite (NaN or infinity)")
    return made


def normalized(vectors: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Scaled to length 1; zeros stay zeros."""
    exact = vectors.astype(np.float64)  # squares of large components overflow float32
    lengths = np.linalg.norm(exact, axis=1, keepdims=True)
    return np.divide(exact, np.where(lengths == 0, 1, lengths)).astype(np.float32)


def _listed(lengths: set[int]) -> str:
    return " and ".join(f"{each:,}" for each in sorted(lengths)[:3])
