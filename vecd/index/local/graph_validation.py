"""Validates the arrays of a graph from a snapshot, before native code uses them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
import numpy.typing as npt

DTYPES: Final[dict[str, type[np.generic]]] = {
    "labels": np.int64, "nodes": np.int32, "centre": np.float32, "codes": np.uint8, "levels": np.int32,
    "offsets": np.uint64, "neighbors": np.int32, "entry": np.int64,
}  # fmt: skip


def check(
    arrays: Mapping[str, npt.NDArray[Any]], links_below: npt.NDArray[Any], dimension: int, component_bytes: int
) -> None:
    """Raises ValueError unless the arrays, which have DTYPES, form a valid graph.

    `links_below`: by level, the number of links of a node on all levels below it.
    """
    labels, levels, offsets, neighbors = (arrays[name] for name in ("labels", "levels", "offsets", "neighbors"))
    count = len(levels)
    if not count or len(offsets) != count + 1 or len(arrays["entry"]) != 2 or len(labels) != len(arrays["nodes"]):
        raise ValueError("its arrays do not have the same number of rows")
    entry, level = arrays["entry"].tolist()
    sound = (
        len(arrays["codes"]) == count * dimension * component_bytes
        and len(arrays["centre"]) == dimension
        and np.isfinite(arrays["centre"]).all()
        and len(labels) >= count
        and labels[0] >= 0
        and (np.diff(labels) > 0).all()
        and levels.min() >= 1
        and levels.max() < len(links_below)
        and offsets[0] == 0
        and (np.diff(offsets.astype(np.int64)) == links_below[levels]).all()
        and offsets[-1] == len(neighbors)
        and neighbors.min(initial=-1) >= -1
        and neighbors.max(initial=-1) < count
        and 0 <= entry < count
        and level == levels.max() - 1 == levels[entry] - 1
    )
    if not sound:
        raise ValueError("its arrays are inconsistent")
    # A link on a level must lead to a node that has this level: faiss reads the links there.
    for at in range(1, int(level) + 1):
        here = (levels > at).nonzero()[0]
        first, last = int(links_below[at]), int(links_below[at + 1])
        linked = neighbors[offsets[here].astype(np.int64)[:, None] + np.arange(first, last)]
        if (levels[linked[linked >= 0]] <= at).any():
            raise ValueError("a link leads to a level that does not exist")
