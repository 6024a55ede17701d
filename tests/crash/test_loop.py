"""A short crash loop. `make crash` runs a long one."""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest

from . import loop, points

pytestmark = pytest.mark.skipif(not points.AVAILABLE, reason="needs LD_PRELOAD and a C compiler")


def test_after_each_of_eight_kills_everything_that_was_acked_is_there_and_nothing_happened_twice(
    tmp_path: Path,
) -> None:
    seed = int(os.environ.get("SEED", random.randrange(2**32)))
    print(f"seed {seed}")
    tally = loop.Tally()
    loop.run(8, seed, points.build(tmp_path), tmp_path, 8, lambda _: None, tally)
    assert tally.total >= 8
    assert tally.acked > 20, "too little was written to mean anything"


@pytest.mark.parametrize("point", ["begin", "commit.torn", "answered"])
def test_the_daemon_dies_at_the_point_that_is_armed(point: str, tmp_path: Path) -> None:
    tally = loop.Tally()
    loop.run(1, 1, points.build(tmp_path), tmp_path, 1, lambda _: None, tally, [point])
    assert (tally.kills[point], tally.missed[point]) == (1, 0)
