"""Kafka for tests: `KafkaServer`, one broker with all that Kafka promises; and `kafka_mock`, three without.

What each really does, as tried:

                              noida-db 0.2.3                         mock cluster of librdkafka 2.16
    durable                   what was confirmed half a second       in memory
                              before it ends, however it ends
    groups, offsets           yes, kept over a restart               yes
    idempotent producers      until it is killed: then it has        yes
                              forgotten them (fatal error there)
    transactions, fencing     yes, but a restart forgets an open     begin and commit; nothing is rolled back or
                              one: its commit succeeds with nothing  fenced
    isolation                 yes, but see below                     aborted messages are visible
    compaction                yes, with small segments               no
    topics by AdminClient     yes                                    no answer; topics come into being with 4 partitions
    limits of message sizes   of each topic                          none
    several brokers           no                                     yes
    SASL, TLS                 any PLAIN login; the proxy ends TLS    no

Each reply of noida-db to Fetch names all transactions of the partition that were ever rolled back, where Kafka names
those of the range that was asked for: a client that reads committed messages, and whose fetch begins behind a
roll-back, drops all that the same producer has committed since, while no offset and no error tells of it
(tests/support/test_kafka_server.py shows it without a failing network and without vec). `behind_proxy` corrects these
replies (kafka_fetches.py).
"""

from __future__ import annotations

import contextlib
import importlib.util
import struct
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import ClassVar, Final

from ..proxy import Proxy
from .broker import HOST, Broker
from .kafka_fetches import FetchReplies

#: After this time the server has written what it has confirmed. It does not say when.
_WRITTEN_S: Final = 1.0


class KafkaServer(Broker):
    """The Kafka of noida-db. It creates topics when somebody writes to them."""

    name: ClassVar[str] = "kafka"

    @classmethod
    def missing(cls) -> str | None:
        return None if _program() else "noida-db (PyPI: noida-db)"

    def command(self) -> list[str]:
        place = ["--host", HOST, "--kafka-port", str(self.port), "--data-dir", str(self.folder / "data")]
        return [str(_program()), "start", "--only", "kafka", *place]

    def stop(self) -> None:
        time.sleep(_WRITTEN_S)
        super().stop()

    def kill(self) -> None:
        time.sleep(_WRITTEN_S)
        super().kill()

    def restart(self, *, killed: bool = False) -> None:
        """Loses what is confirmed meanwhile: use `restart_behind` while somebody writes."""
        time.sleep(_WRITTEN_S)
        super().restart(killed=killed)

    def restart_behind(self, network: Proxy) -> None:
        """Cuts the network, kills the broker, which loses what is open and nothing that is confirmed, and starts it."""
        network.down()
        self.restart(killed=True)
        network.heal()

    @property
    def url(self) -> str:
        """Without a topic."""
        return f"kafka://{self.address}"

    @contextlib.contextmanager
    def behind_proxy(self, **options: object) -> Iterator[Proxy]:
        """A proxy in front of it, which corrects what it says of roll-backs.

        Clients stay behind the proxy: it gives them its own address for the broker's.
        """
        with Proxy((HOST, self.port), **options) as network:  # type: ignore[arg-type]
            network.corrector = FetchReplies
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
