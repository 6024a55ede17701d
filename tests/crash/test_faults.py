"""A sample of the storage faults; `make faults` runs all of them (faults.py)."""

from __future__ import annotations

import random
import shutil
import sys
from pathlib import Path

import pytest

from . import faults

pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or shutil.which("cc") is None, reason="needs LD_PRELOAD and a C compiler"
)

#: Another seed tries other points; the ids of the tests say which.
SEED = 20_261_127


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return faults.built(tmp_path_factory.mktemp("faults"))


def _sample() -> list[str]:
    # Numbers that the scenario surely reaches. The first writes make the store and its reserve.
    chance = random.Random(SEED)
    return [
        *(f"sync {chance.randrange(1, 40)}" for _ in range(2)),
        *(f"{kind} {chance.randrange(1, 400)}" for kind in ("io", "torn", "short", "full", "fullon")),
    ]


@pytest.mark.parametrize("fault", _sample())
def test_after_a_fault_of_storage_all_that_was_answered_is_there_and_nothing_is_by_halves(
    library: Path, fault: str
) -> None:
    assert faults.fail(library, fault, restart=False).hit != "not reached"


def test_after_a_power_loss_all_that_was_answered_is_there_and_nothing_is_by_halves(library: Path) -> None:
    chance = random.Random(SEED)
    recorded = faults.Recorded(library)
    assert len(recorded.acknowledged) > 5
    for how in ("dropped", "kept", "torn"):
        for _ in range(6):
            recorded.power_loss(chance.randrange(len(recorded.calls) + 1), how, chance.randrange(2**32))
