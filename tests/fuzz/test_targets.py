"""Whatever bytes come, what reads them refuses them or takes them; a short run of `make fuzz` without its guidance."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fuzz.targets import TARGETS, seeds

_SHORT = settings(max_examples=150, deadline=None, derandomize=True)


def damaged(data: bytes, seed: int) -> bytes:
    """The bytes with a few changes: flipped bits, bytes that are missing, doubled or of another value."""
    chance = random.Random(seed)
    found = bytearray(data)
    for _ in range(chance.randint(1, 6)):
        place = chance.randrange(len(found) + 1)
        what = chance.randrange(5)
        if what == 0 and place < len(found):
            found[place] ^= 1 << chance.randrange(8)
        elif what == 1:
            del found[place : place + chance.randint(1, 8)]
        elif what == 2:
            found[place:place] = found[place : place + chance.randint(1, 64)]
        elif what == 3:
            found[place:place] = bytes(chance.choice(b"\x00\xff\x80\xdd\x91()\"'.,:@-\\{}[]") for _ in range(4))
        else:
            del found[place + chance.randint(0, 64) :]
    return bytes(found)


@pytest.mark.parametrize("name", TARGETS)
def test_what_is_right_is_taken(name: str) -> None:
    for seed in seeds(name):
        TARGETS[name](seed)


@pytest.mark.parametrize("name", TARGETS)
@given(data=st.data())
@_SHORT
def test_damaged_bytes_are_refused_or_taken(name: str, data: st.DataObject) -> None:
    seed = data.draw(st.sampled_from(seeds(name)))
    TARGETS[name](damaged(seed, data.draw(st.integers(0, 2**32))))


@pytest.mark.parametrize("name", TARGETS)
@given(data=st.one_of(st.binary(max_size=200), st.text(max_size=100).map(lambda text: text.encode("utf-8", "replace"))))
@_SHORT
def test_any_bytes_are_refused_or_taken(name: str, data: bytes) -> None:
    TARGETS[name](data)
