"""Hostile use of a real daemon, in short; `make fuzz` does the same for longer."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.fuzz import conversations
from tests.fuzz.ops import FIELDS, requests
from tests.fuzz.test_targets import damaged
from tests.support.instance import Instance
from tests.support.peer import Peer, frame
from vecd import limits
from vecd.errors import Code
from vecd.ops.table import OPS

_SHORT = settings(max_examples=120, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])


@pytest.fixture(scope="module")
def sound() -> Iterator[conversations.Sound]:
    with Instance({"VEC_EMBEDDER": "hash"}) as instance:
        instance.start()
        conversations.prepare(instance)
        yield conversations.Sound(instance)


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("kept") / "data"
    conversations.keep_store(folder)
    return folder


def test_every_op_has_its_fields_here() -> None:
    assert FIELDS.keys() == OPS.keys() - {"shutdown"}


@given(asked=st.lists(requests(), min_size=1, max_size=6))
@_SHORT
def test_requests_with_any_fields_are_answered_and_none_is_a_bug(
    sound: conversations.Sound, asked: list[dict[str, Any]]
) -> None:
    conversations.converse(sound, asked, list(range(1, len(asked) + 1)))


@given(asked=st.lists(requests(), min_size=2, max_size=6), data=st.data())
@settings(_SHORT, max_examples=40)
def test_requests_with_the_same_number_and_before_the_hello_are_no_bug(
    sound: conversations.Sound, asked: list[dict[str, Any]], data: st.DataObject
) -> None:
    numbers = data.draw(st.lists(st.integers(-1, 3), min_size=len(asked), max_size=len(asked)))
    conversations.converse(sound, asked, numbers, greeted=data.draw(st.booleans()))


@given(asked=st.lists(requests(), min_size=1, max_size=3), seed=st.integers(0, 2**32))
@settings(_SHORT, max_examples=60)
def test_damaged_requests_are_no_bug(sound: conversations.Sound, asked: list[dict[str, Any]], seed: int) -> None:
    conversations.raw(
        sound, damaged(b"".join(conversations.encoded(each, number) for number, each in enumerate(asked)), seed)
    )


def test_what_is_asked_of_a_watch_that_is_not_there_any_more_is_refused(sound: conversations.Sound) -> None:
    with Peer(sound.instance) as peer:
        peer.send(frame("watch", 1, follow=False) + frame("watch", 2))
        peer.until(lambda: any("end" in reply for reply in peer.answers(1)))
        peer.send(frame("cancel", 3, target=1) + frame("flush", 4, target=1) + frame("cancel", 5, target=5))
        assert peer.answer(3)["result"] == {"cancelled": False}
        assert peer.answer(4)["error"]["code"] == Code.NOT_FOUND
        assert peer.answer(5)["result"] == {"cancelled": False}
        peer.send(frame("cancel", 6, target=2) + frame("cancel", 7, target=2) + frame("flush", 8, target=2))
        assert peer.answer(6)["result"] == {"cancelled": True}
        assert "result" in peer.answer(7)
        assert peer.answer(8)["error"]["code"] == Code.NOT_FOUND or "end" in peer.answer(8)
    sound.check()


@pytest.mark.parametrize("name", ["vec.db", "indexes/1.text"])
def test_a_damaged_file_is_refused_or_replaced_and_is_no_bug(kept: Path, name: str) -> None:
    data = (kept / name).read_bytes()
    chance = random.Random(name)
    flipped = bytearray(data)
    for _ in range(30):
        flipped[chance.randrange(len(flipped))] ^= 1 << chance.randrange(8)
    for each in (bytes(flipped), data[: chance.randrange(len(data))]):
        conversations.start_damaged(kept, name, each)


def test_connections_beyond_the_limit_are_refused_and_the_others_are_served() -> None:
    wanted = limits.CONNECTIONS_MAX + 50
    with conversations.descriptors(wanted + 200) as there, Instance({"VEC_EMBEDDER": "hash"}) as instance:
        instance.start()
        count = min(wanted, there - 150)
        admitted, refused, took_s = conversations.crowd(instance, count)
        print(f"{admitted} admitted, {refused} refused, slowest ping {max(took_s) * 1e3:.0f} ms")
        assert admitted + refused == count
        assert (refused > 0) == (count >= limits.CONNECTIONS_MAX or admitted < count)
        with instance.connect() as client:
            client.ping()
