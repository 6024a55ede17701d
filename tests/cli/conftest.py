"""An instance for the tests of a module, and libraries of their own; a module may have another instance."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.instance import Instance
from tests.support.running import fresh


@pytest.fixture(scope="module")
def instance() -> Iterator[Instance]:
    with Instance({"VEC_EMBEDDER": "hash"}) as made:
        made.vec("status")
        yield made


@pytest.fixture
def library(instance: Instance) -> str:
    """A library of texts."""
    return fresh(instance)


@pytest.fixture
def vectors(instance: Instance) -> str:
    """A library of 3-dimension vectors."""
    return fresh(instance, embedder="none", dimension=3)
