"""Brokers for tests: real servers, started where a test needs them.

`broker.py` has the base class and how a server is shared; each server has a file of its own; `fixtures.py` makes pytest
fixtures of them. Nothing here imports a broker's client library.
"""

from .broker import HOST, Broker, free_ports, fresh_name, shared
from .kafka import KafkaServer, kafka_mock
from .nats import NatsServer
from .rabbitmq import RabbitMQ
from .redis import RedisServer

__all__ = [
    "HOST",
    "Broker",
    "KafkaServer",
    "NatsServer",
    "RabbitMQ",
    "RedisServer",
    "free_ports",
    "fresh_name",
    "kafka_mock",
    "shared",
]
