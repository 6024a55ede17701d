"""Brokers for the tests of workers."""

from tests.support.brokers.fixtures import own_redis, rabbitmq_server

__all__ = ["own_redis", "rabbitmq_server"]
