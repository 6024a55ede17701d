"""Frames: any stream of bytes, arriving in any pieces, is cut the same way, and never costs more than its limit."""

from __future__ import annotations

import struct
import tracemalloc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vecd import limits
from vecd.errors import Code, VecError
from vecd.wire.frames import FrameDecoder, encode_frame

PAYLOADS = st.lists(st.binary(max_size=200), max_size=12)
#: Where a stream is cut into the pieces in which it arrives; a place may come twice, which is an empty piece.
CUTS = st.lists(st.integers(0, 3_000), max_size=20)


def pieces(stream: bytes, cuts: list[int]) -> list[bytes]:
    places = sorted(min(cut, len(stream)) for cut in cuts)
    return [stream[a:b] for a, b in zip([0, *places], [*places, len(stream)], strict=True)]


@given(PAYLOADS, CUTS)
@settings(deadline=None)
def test_any_split_of_any_frames_gives_the_same_payloads_in_order(payloads: list[bytes], cuts: list[int]) -> None:
    decoder = FrameDecoder()
    stream = b"".join(map(encode_frame, payloads))
    assert [got for piece in pieces(stream, cuts) for got in decoder.feed(piece)] == payloads
    assert decoder.pending_bytes == 0
    decoder.eof()


@given(PAYLOADS)
@settings(deadline=None)
def test_a_byte_at_a_time_gives_each_payload_with_its_last_byte(payloads: list[bytes]) -> None:
    decoder = FrameDecoder()
    for payload in payloads:
        frame = encode_frame(payload)
        for place in range(len(frame) - 1):
            assert decoder.feed(frame[place : place + 1]) == []
            assert decoder.pending_bytes == place + 1
        assert decoder.feed(frame[-1:]) == [payload]


@given(st.lists(st.binary(max_size=64), max_size=20))
@settings(deadline=None)
def test_any_bytes_give_payloads_within_the_limit_or_a_vec_error(stream: list[bytes]) -> None:
    limit = 300
    decoder = FrameDecoder(limit)
    fed = taken = 0
    refusal: VecError | None = None
    for piece in stream:
        try:
            payloads = decoder.feed(piece)
        except VecError as error:
            refusal = error
            break
        fed += len(piece)
        taken += sum(4 + len(payload) for payload in payloads)
        assert all(len(payload) <= limit for payload in payloads)
        assert decoder.pending_bytes == fed - taken < limit + 4
    if refusal is not None:
        assert refusal.code == Code.FRAME_TOO_LARGE
        assert decoder.pending_bytes == 0


@given(PAYLOADS, st.binary(min_size=1, max_size=50), CUTS)
@settings(deadline=None)
def test_a_stream_that_ends_inside_a_frame_is_a_protocol_error(
    payloads: list[bytes], last: bytes, cuts: list[int]
) -> None:
    decoder = FrameDecoder()
    stream = b"".join(map(encode_frame, payloads)) + encode_frame(last)[:-1]
    assert [got for piece in pieces(stream, cuts) for got in decoder.feed(piece)] == payloads
    with pytest.raises(VecError) as caught:
        decoder.eof()
    assert caught.value.code == Code.PROTOCOL_ERROR
    assert f"{len(last) + 3} bytes" in caught.value.message


def test_a_length_over_the_limit_is_refused_before_its_bytes_are_kept() -> None:
    decoder = FrameDecoder()
    header = struct.pack(">I", limits.FRAME_BYTES_MAX + 1)
    assert decoder.feed(header[:3]) == []
    with pytest.raises(VecError) as caught:
        decoder.feed(header[3:] + b"x" * 1_000)
    assert caught.value.code == Code.FRAME_TOO_LARGE
    assert f"{limits.FRAME_BYTES_MAX:,}" in caught.value.message
    assert decoder.pending_bytes == 0


def test_after_an_error_a_decoder_takes_nothing_more() -> None:
    decoder = FrameDecoder(10)
    with pytest.raises(VecError):
        decoder.feed(struct.pack(">I", 11))
    for _ in range(2):
        with pytest.raises(VecError) as caught:
            decoder.feed(encode_frame(b"good"))
        assert caught.value.code == Code.PROTOCOL_ERROR
        assert decoder.pending_bytes == 0


@pytest.mark.parametrize("length", [0, 1, 10])
def test_the_limit_is_inclusive_on_both_sides(length: int) -> None:
    assert FrameDecoder(10).feed(encode_frame(b"x" * length, 10)) == [b"x" * length]


def test_a_payload_over_the_limit_is_not_encoded() -> None:
    with pytest.raises(VecError) as caught:
        encode_frame(b"x" * 11, 10)
    assert caught.value.code == Code.FRAME_TOO_LARGE


def test_an_announced_length_alone_costs_no_memory() -> None:
    tracemalloc.start()
    try:
        decoder = FrameDecoder()
        assert decoder.feed(struct.pack(">I", limits.FRAME_BYTES_MAX) + b"beginning") == []
        for announced in (limits.FRAME_BYTES_MAX + 1, 2**32 - 1):
            with pytest.raises(VecError):
                FrameDecoder().feed(struct.pack(">I", announced) + b"beginning")
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 64 * limits.KIB
