"""A gateway for the tests of a module, and libraries of their own."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest

from tests.support.gateway import Gateway
from tests.support.instance import Instance
from tests.support.running import fresh
from tests.support.waiting import PATIENCE_S


@pytest.fixture(scope="module")
def instance() -> Iterator[Instance]:
    with Instance({"VEC_EMBEDDER": "hash"}) as made:
        made.vec("status")
        yield made


@pytest.fixture(scope="module")
def gateway(instance: Instance) -> Iterator[Gateway]:
    with Gateway(instance) as made:
        yield made


@pytest.fixture(scope="module")
def http(gateway: Gateway) -> Iterator[httpx.Client]:
    """A client of the gateway, with keep-alive."""
    with httpx.Client(base_url=gateway.url, timeout=PATIENCE_S) as client:
        yield client


@pytest.fixture
def library(instance: Instance) -> str:
    """A library of texts."""
    return fresh(instance)


@pytest.fixture
def vectors(instance: Instance) -> str:
    """A library of 3-dimension vectors."""
    return fresh(instance, embedder="none", dimension=3)
