"""Brokers for the tests of connectors."""

from tests.support.brokers.fixtures import nats_server, own_nats, own_rabbitmq, own_redis, rabbitmq_server, redis_server

__all__ = ["nats_server", "own_nats", "own_rabbitmq", "own_redis", "rabbitmq_server", "redis_server"]
