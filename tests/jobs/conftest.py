"""An instance for the tests of a module, with the kinds that only tests have."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.instance import Instance
from vecd.client import Client


@pytest.fixture(scope="module")
def instance() -> Iterator[Instance]:
    with Instance({"VEC_EMBEDDER": "hash"}) as made:
        made.start(module="tests.jobs.vecd")
        yield made


@pytest.fixture
def client(instance: Instance) -> Iterator[Client]:
    with instance.connect() as connected:
        yield connected
