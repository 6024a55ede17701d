"""vec trim: the oldest events go, as far as the limits say and the consumers let."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.instance import Instance

from .watching import head, past, put


@pytest.fixture
def instance() -> Iterator[Instance]:
    """An instance of ten documents: 21 events."""
    with Instance({"VEC_EMBEDDER": "hash"}) as made:
        put(made, "default", [{"id": f"d{number}", "text": f"text {number}"} for number in range(10)])
        yield made


def trim(instance: Instance, *arguments: str) -> dict[str, Any]:
    (body,) = instance.objects("trim", *arguments)
    assert list(body) == ["trimmed", "oldest", "held_by", "bytes", "free_bytes"]
    assert isinstance(body, dict)
    return body


def test_what_is_left_is_what_was_asked_for_and_status_says_so(instance: Instance) -> None:
    everything = past(instance, "--from", "beginning")
    body = trim(instance, "--keep-count", "4")
    assert (body["trimmed"], body["oldest"], body["held_by"]) == (17, everything[16]["cursor"], None)
    assert past(instance, "--from", body["oldest"]) == everything[17:]
    assert instance.objects("status")[0]["oldest"] == body["oldest"]
    assert trim(instance, "--keep-count", "4")["trimmed"] == 0


def test_a_documents_events_are_kept_or_go_together(instance: Instance) -> None:
    body = trim(instance, "--keep-count", "5")
    assert past(instance, "--from", body["oldest"])[0]["type"] == "document.added"
    assert body["trimmed"] == 15


def test_ages_and_sizes_are_written_with_units(instance: Instance) -> None:
    assert trim(instance, "--keep-age", "1h")["trimmed"] == 0
    assert trim(instance, "--keep-bytes", "1.5MB")["trimmed"] == 0
    assert trim(instance, "--keep-age", "7d", "--keep-bytes", "2GiB", "--keep-count", "1000")["trimmed"] == 0
    assert trim(instance, "--keep-bytes", "0")["trimmed"] == 21


def test_any_of_the_limits_lets_go(instance: Instance) -> None:
    assert trim(instance, "--keep-age", "1h", "--keep-count", "1")["trimmed"] > 0


def test_a_consumer_is_not_passed_unless_told_so(instance: Instance) -> None:
    past(instance, "--consumer", "slow", "--from", "beginning", "-n", "3")
    everything = past(instance, "--from", "beginning")
    body = trim(instance, "--keep-count", "0")
    assert (body["trimmed"], body["held_by"]) == (3, "slow")
    assert past(instance, "--consumer", "slow") == everything[3:]
    assert trim(instance, "--keep-count", "0")["oldest"] == head(instance)


def test_a_consumer_that_was_passed_is_told_what_it_lost(instance: Instance) -> None:
    past(instance, "--consumer", "slow", "--from", "beginning", "-n", "3")
    body = trim(instance, "--keep-count", "0", "--past-consumers")
    assert (body["trimmed"], body["held_by"], body["oldest"]) == (21, None, head(instance))
    assert "(compacted)" in instance.vec("watch", "--no-follow", "--consumer", "slow", status=5).stderr
    mended = instance.vec("watch", "--no-follow", "--consumer", "slow", "--on-gap", "oldest")
    assert "(compacted)" in mended.stderr
    assert past(instance, "--consumer", "slow") == []


def test_with_wait_the_space_is_free_when_it_returns(instance: Instance) -> None:
    with instance.connect() as client:
        for turn in range(30):
            client.ingest([{"id": f"b{number}", "text": f"{turn} " * 2_000} for number in range(20)])
    trim(instance, "--keep-count", "0", "--wait")
    again = trim(instance, "--keep-count", "0", "--wait")
    assert again["trimmed"] == 0
    assert again["free_bytes"] == 0
    with instance.connect() as client:
        assert client.count()["documents"] == 30


@pytest.mark.parametrize(
    "arguments",
    [[], ["--keep-age", "7"], ["--keep-age", "x"], ["--keep-bytes", "2XB"], ["--keep-count", "-1"], ["--wait"]],
)
def test_a_trim_that_says_not_how_much_is_a_usage_error_and_trims_nothing(
    instance: Instance, arguments: list[str]
) -> None:
    before = past(instance, "--from", "beginning")
    assert instance.vec("trim", *arguments, status=2).stdout == ""
    assert past(instance, "--from", "beginning") == before
