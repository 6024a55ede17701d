"""Brokers for the tests of connectors."""

from tests.support.brokers.fixtures import (
    kafka_cluster,
    kafka_server,
    nats_server,
    own_kafka,
    own_nats,
    own_rabbitmq,
    own_redis,
    rabbitmq_server,
    redis_server,
)

__all__ = [
    "kafka_cluster",
    "kafka_server",
    "nats_server",
    "own_kafka",
    "own_nats",
    "own_rabbitmq",
    "own_redis",
    "rabbitmq_server",
    "redis_server",
]
