"""Some seconds of chaos with each broker; `make chaos` goes on for minutes."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from tests.support.brokers import Broker, RabbitMQ
from tests.support.brokers.fixtures import rabbitmq_server, require

from .run import run
from .scenarios import SCENARIOS

__all__ = ["rabbitmq_server"]  # a fixture

_SECONDS = 4.0


@pytest.mark.parametrize("name", [each for each in SCENARIOS if each != "rabbitmq"])
def test_every_event_arrives_whatever_fails(name: str, tmp_path: Path) -> None:
    """In order for each document, exactly once where that is promised; and acks wait for no broker."""
    require(type(SCENARIOS[name].make(tmp_path)))
    _run(name, tmp_path)


def test_every_event_arrives_at_rabbitmq_whatever_else_fails(rabbitmq_server: RabbitMQ, tmp_path: Path) -> None:
    """This server takes half a minute to start again: test_replica.py kills it, and `make chaos`."""
    _run("rabbitmq", tmp_path, rabbitmq_server)


def _run(name: str, folder: Path, shared: Broker | None = None) -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    print(run(SCENARIOS[name], _SECONDS, seed, folder, shared))
