"""The kinds of index: what is asked for is refused with a reason, or complete."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.index_source import REFUSED, spec
from vecd.errors import VecError
from vecd.index import METRICS, kinds


def test_parameters_that_are_not_given_have_their_defaults() -> None:
    assert kinds.checked("hnsw", "cosine", {"m": 32}) == {"m": 32, "ef_construction": 128, "vectors": "float32"}
    assert kinds.checked("lsh", "l2", {}) == {"bits": 512}
    assert kinds.checked("flat", "dot", {}) == {}


@pytest.mark.parametrize(("name", "metric"), sorted(REFUSED))
def test_what_is_not_tested_is_refused(name: str, metric: str) -> None:
    with pytest.raises(VecError) as refused:
        spec(name, metric, 4)
    assert refused.value.code == "unsupported"
    assert f"{metric!r}" in refused.value.message
    assert refused.value.hint is not None


def test_every_kind_does_every_metric_that_it_does_not_refuse() -> None:
    for kind in kinds.KINDS:
        for metric in METRICS:
            if metric not in kinds.KINDS[kind].refuses:
                assert kinds.checked(kind, metric, {}).keys() == kinds.KINDS[kind].parameters.keys()


@pytest.mark.parametrize(
    ("kind", "metric", "parameters", "code", "words"),
    [
        ("hsnw", "cosine", {}, "unsupported", ["'hsnw'", "did you mean 'hnsw'?"]),
        ("hnsw", "euclid", {}, "unsupported", ["'euclid'", "cosine, dot, l2"]),
        ("hnsw", "l2", {"bits": 64}, "invalid_request", ["'bits'", "m, ef_construction, vectors"]),
        ("flat", "l2", {"m": 8}, "invalid_request", ["'m'", "it has no parameters"]),
        ("hnsw", "l2", {"m": 3}, "invalid_request", ["m must be a whole number from 4 to 128, not 3"]),
        ("hnsw", "l2", {"ef_constructoin": 99}, "invalid_request", ["'hnsw'", "did you mean 'ef_construction'?"]),
        ("hnsw", "l2", {"m": 129}, "invalid_request", ["from 4 to 128, not 129"]),
        ("hnsw", "l2", {"m": True}, "invalid_request", ["not True"]),
        ("hnsw", "l2", {"m": 16.0}, "invalid_request", ["not 16.0"]),
        ("hnsw", "l2", {"m": "16"}, "invalid_request", ["not '16'"]),
        ("hnsw", "l2", {"vectors": "float64"}, "invalid_request", ["float32 or float16, not 'float64'"]),
        (
            "lsh",
            "l2",
            {"bits": 100},
            "invalid_request",
            ["'lsh'", "bits must be a multiple of 8 from 64 to 8,192, not 100"],
        ),
        ("kdtree", "l2", {"leaf_size": 0}, "invalid_request", ["from 1 to 4,096, not 0"]),
        ("kdtree", "l2", {"leaf_size": None}, "invalid_request", ["not None"]),
    ],
)
def test_what_there_is_not_is_refused_with_what_there_is(
    kind: str, metric: str, parameters: dict[str, Any], code: str, words: list[str]
) -> None:
    with pytest.raises(VecError) as refused:
        kinds.checked(kind, metric, parameters)
    assert refused.value.code == code
    for each in words:
        assert each in str(refused.value)


def test_a_metric_that_a_kind_cannot_do_is_refused_with_what_to_use_instead() -> None:
    with pytest.raises(VecError) as refused:
        kinds.checked("kdtree", "dot", {})
    assert refused.value.code == "unsupported"
    assert "'dot'" in refused.value.message
    assert refused.value.hint is not None
    assert "cosine, l2" in refused.value.hint
    assert refused.value.details == {"field": "metric"}
