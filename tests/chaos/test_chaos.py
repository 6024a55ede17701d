"""Some seconds of chaos with each broker; `make chaos` goes on for minutes."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from tests.support.brokers.fixtures import require

from .run import run
from .scenarios import SCENARIOS

_SECONDS = 5.0


@pytest.mark.parametrize("name", SCENARIOS)
def test_every_event_arrives_whatever_fails(name: str, tmp_path: Path) -> None:
    """In order for each document, exactly once where that is promised; and acks wait for no broker."""
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    scenario = SCENARIOS[name]
    require(type(scenario.make(tmp_path)))
    print(run(scenario, _SECONDS, seed, tmp_path))
