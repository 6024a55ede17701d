"""Kafka for tests: `KafkaServer`, one broker with all that Kafka promises; and `kafka_mock`, three without.

What each really does, as tried:

                              noida-db 0.2.3                         mock cluster of librdkafka 2.16
    durable                   when it is stopped; killed, it loses   in memory
                              the last half second
    groups, offsets           yes, kept over a restart               yes
    idempotent producers      until it is killed: then it has        yes
                              forgotten them (fatal error there)
    transactions, fencing     yes, but a restart forgets an open     begin and commit; nothing is rolled back or
                              one: its commit succeeds with nothing  fenced
    isolation                 yes                                    aborted messages are visible
    compaction                yes, with small segments               no
    topics by AdminClient     yes                                    no answer; topics come into being with 4 partitions
    limits of message sizes   of each topic                          none
    several brokers           no                                     yes
    SASL, TLS                 no                                     no (tests/connectors/kafka_gate.py, the proxy)
"""

from __future__ import annotations

import contextlib
import importlib.util
import struct
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import ClassVar

from ..proxy import Proxy
from .broker import HOST, Broker


class KafkaServer(Broker):
    """The Kafka of noida-db. It creates topics when somebody writes to them."""

    name: ClassVar[str] = "kafka"

    @classmethod
    def missing(cls) -> str | None:
        return None if _program() else "noida-db (PyPI: noida-db)"

    def command(self) -> list[str]:
        place = ["--host", HOST, "--kafka-port", str(self.port), "--data-dir", str(self.folder / "data")]
        return [str(_program()), "start", "--only", "kafka", *place]

    @property
    def url(self) -> str:
        """Without a topic."""
        return f"kafka://{self.address}"

    @contextlib.contextmanager
    def behind_proxy(self, **options: object) -> Iterator[Proxy]:
        """A proxy in front of it. Clients stay behind the proxy: it gives them its own address for the broker's."""
        with Proxy((HOST, self.port), **options) as network:  # type: ignore[arg-type]
            network.rewrite = {_advertised(self.port): _advertised(network.port)}
            yield network


def _program() -> Path | None:
    """The server itself, without the Python script that waits for it."""
    spec = importlib.util.find_spec("noida_db")
    if spec is None or spec.origin is None:
        return None
    path = Path(spec.origin).with_name("noida-db")
    return path if path.exists() else None


def _advertised(port: int) -> bytes:
    """An address in Kafka's protocol, without the length of the host's name."""
    return HOST.encode() + struct.pack(">i", port)


@contextlib.contextmanager
def kafka_mock(brokers: int = 3) -> Iterator[Sequence[str]]:
    """The addresses of a cluster in this process."""
    import logging

    import confluent_kafka

    silent = logging.Logger("kafka-mock", level=logging.CRITICAL)
    cluster = confluent_kafka.Producer(
        {"test.mock.num.brokers": brokers, "bootstrap.servers": "", "client.id": "mock"}, logger=silent
    )
    found = cluster.list_topics(timeout=30).brokers.values()
    yield [f"{broker.host}:{broker.port}" for broker in found]
    del cluster
