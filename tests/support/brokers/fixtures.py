"""Fixtures of brokers. A conftest.py imports those that its tests use.

`redis_server` is one Redis for all tests, which must not stop it; `own_redis` is one for the test that asks for it, to
be stopped and killed. The others are named alike. Where the server is not installed, the test is skipped.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TypeVar

import pytest

from .broker import Broker, shared
from .kafka import KafkaServer, kafka_mock
from .nats import NatsServer
from .rabbitmq import RabbitMQ
from .redis import RedisServer

B = TypeVar("B", bound=Broker)


def require(kind: type[Broker]) -> None:
    """Skips the test if the server is not installed."""
    if (what := kind.missing()) is not None:
        pytest.skip(f"needs {what}")


def shared_broker(kind: type[B], factory: pytest.TempPathFactory) -> Iterator[B]:
    """The body of a session's fixture: one server for all processes of pytest-xdist."""
    require(kind)
    own = factory.getbasetemp()
    with shared(kind, own.parent if "PYTEST_XDIST_WORKER" in os.environ else own) as broker:
        yield broker


def own_broker(kind: type[B], folder: Path) -> Iterator[B]:
    """The body of a test's fixture."""
    require(kind)
    with kind(folder / kind.name) as broker:
        yield broker


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    yield from shared_broker(RedisServer, tmp_path_factory)


@pytest.fixture
def own_redis(tmp_path: Path) -> Iterator[RedisServer]:
    yield from own_broker(RedisServer, tmp_path)


@pytest.fixture(scope="session")
def nats_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NatsServer]:
    yield from shared_broker(NatsServer, tmp_path_factory)


@pytest.fixture
def own_nats(tmp_path: Path) -> Iterator[NatsServer]:
    yield from own_broker(NatsServer, tmp_path)


@pytest.fixture(scope="session")
def kafka_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KafkaServer]:
    yield from shared_broker(KafkaServer, tmp_path_factory)


@pytest.fixture
def own_kafka(tmp_path: Path) -> Iterator[KafkaServer]:
    yield from own_broker(KafkaServer, tmp_path)


@pytest.fixture(scope="session")
def kafka_cluster() -> Iterator[Sequence[str]]:
    """The addresses of three brokers; see what they cannot do in kafka.py."""
    with kafka_mock() as addresses:
        yield addresses


@pytest.fixture(scope="session")
def rabbitmq_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RabbitMQ]:
    yield from shared_broker(RabbitMQ, tmp_path_factory)


@pytest.fixture
def own_rabbitmq(tmp_path: Path) -> Iterator[RabbitMQ]:
    yield from own_broker(RabbitMQ, tmp_path)
