"""Messages and vectors: what is sent arrives, and any bytes at all are a message or a VecError, at a bounded cost."""

from __future__ import annotations

import contextlib
import math
import struct
import tracemalloc
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from typing import Any

import msgpack
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from vecd import PROTOCOL, limits
from vecd.errors import Code, VecError
from vecd.wire.frames import FrameDecoder
from vecd.wire.messages import (
    ReplyMessage,
    check_protocol,
    decode,
    encode,
    hello,
    parse_reply,
    parse_request,
    request_id,
)
from vecd.wire.vectors import pack_vector, unpack_vector

SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False)
    | st.text(max_size=20)
    | st.binary(max_size=20)
)
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4)
)
MESSAGES = st.dictionaries(st.text(max_size=8), VALUES, max_size=6)


def test_the_id_of_a_request_is_found_without_making_what_is_large_in_it() -> None:
    row = b"\xdc\x3f\xff" + b"\x80" * 0x3FFF  # an array of 16,383 empty maps
    many = b"\xdc\x00\xff" + row * 0xFF
    number = b"\xa2id\x07"
    assert request_id(b"\x82" + b"\xa1x" + many + number) == 7
    tracemalloc.start()
    try:
        assert request_id(b"\x82" + many + b"\x01" + number) is None  # a key
        assert request_id(b"\x81" + b"\xa2id" + many) is None
        assert tracemalloc.get_traced_memory()[1] < 32 * limits.MIB
    finally:
        tracemalloc.stop()


#: The encodings of ext type -1 that msgpack's own unpacker turns into a Timestamp.
TIMESTAMPS = {
    "fixext 4": b"\xd6\xff" + bytes(4),
    "fixext 8": b"\xd7\xff" + bytes(8),
    "ext 8, 4": b"\xc7\x04\xff" + bytes(4),
    "ext 8, 8": b"\xc7\x08\xff" + bytes(8),
    "ext 8, 12": b"\xc7\x0c\xff" + bytes(12),
    "ext 16": b"\xc8\x00\x0c\xff" + bytes(12),
    "ext 32": b"\xc9\x00\x00\x00\x0c\xff" + bytes(12),
}


def payload_of(message: dict[str, Any]) -> bytes:
    (payload,) = FrameDecoder().feed(encode(message))
    return payload


# --- round trips ------------------------------------------------------------------------------------------------------


@given(MESSAGES)
@settings(deadline=None)
def test_what_is_encoded_is_decoded(message: dict[str, Any]) -> None:
    assert decode(payload_of(message)) == message


@given(st.lists(MESSAGES, max_size=6), st.lists(st.integers(0, 500), max_size=12))
@settings(deadline=None)
def test_any_split_of_any_messages_gives_the_same_messages(messages: list[dict[str, Any]], cuts: list[int]) -> None:
    stream = b"".join(map(encode, messages))
    places = [0, *sorted(min(cut, len(stream)) for cut in cuts), len(stream)]
    decoder = FrameDecoder()
    got = [decode(each) for a, b in pairwise(places) for each in decoder.feed(memoryview(stream)[a:b])]
    assert got == messages


@given(st.text(max_size=20), st.integers(0, 2**62), st.dictionaries(st.text(max_size=8), VALUES, max_size=4))
@settings(deadline=None)
def test_a_request_round_trips(op: str, number: int, fields: dict[str, Any]) -> None:
    fields = {key: value for key, value in fields.items() if key not in ("op", "id")}
    assert parse_request(decode(payload_of({"op": op, "id": number, **fields}))) == (op, number, fields)


@pytest.mark.parametrize(
    ("message", "reply"),
    [
        ({"id": 7, "result": {"a": 1}}, ReplyMessage(7, "result", {"a": 1}, {})),
        ({"id": 7, "items": [1], "cursor": "c:1"}, ReplyMessage(7, "items", [1], {"cursor": "c:1"})),
        ({"id": 7, "end": {}}, ReplyMessage(7, "end", {}, {})),
        ({"id": None, "error": {"code": "x"}}, ReplyMessage(None, "error", {"code": "x"}, {})),
        ({"error": {"code": "x"}}, ReplyMessage(None, "error", {"code": "x"}, {})),
    ],
)
def test_each_kind_of_reply_is_told_apart(message: dict[str, Any], reply: ReplyMessage) -> None:
    assert parse_reply(decode(payload_of(message))) == reply


def test_a_hello_says_the_protocol_and_is_number_zero() -> None:
    request = parse_request(decode(payload_of(hello("vec 9"))))
    assert request == ("hello", 0, {"protocol": PROTOCOL, "client": "vec 9"})


# --- bytes from anywhere ----------------------------------------------------------------------------------------------


def refusal_of(call: Callable[[], object]) -> VecError | None:
    """The VecError that a call raises, if it does; any other exception is raised on."""
    try:
        call()
    except VecError as error:
        return error
    return None


def message_or_error(payload: bytes) -> dict[str, Any] | None:
    """The message, or None if it was refused as it should be."""
    messages: list[dict[str, Any]] = []
    error = refusal_of(lambda: messages.append(decode(payload)))
    if error is None:
        return messages[0]
    assert error.code == Code.PROTOCOL_ERROR
    assert not error.message.endswith(": "), "the reason is missing"
    return None


@given(st.binary(max_size=300))
@example(b"")
@example(b"\xc1")
@example(b"\x81\xa1a")
@example(b"\x80\x80")
@example(b"\x81\xa2\xff\xfe\x01")
@settings(deadline=None, max_examples=500)
def test_any_bytes_are_a_map_with_string_keys_or_a_protocol_error(payload: bytes) -> None:
    message = message_or_error(payload)
    assert message is None or all(isinstance(key, str) for key in message)


@given(MESSAGES, st.data())
@settings(deadline=None, max_examples=300)
def test_a_damaged_message_is_a_message_or_a_protocol_error(message: dict[str, Any], data: st.DataObject) -> None:
    payload = bytearray(payload_of(message))
    for place in data.draw(st.lists(st.integers(0, len(payload) - 1), min_size=1, max_size=4)):
        payload[place] = data.draw(st.integers(0, 255))
    decoded = message_or_error(bytes(payload))
    assert decoded is None or isinstance(decoded, dict)


@given(st.binary(max_size=200), st.lists(st.integers(0, 200), max_size=6))
@settings(deadline=None, max_examples=300)
def test_any_stream_gives_requests_and_replies_or_a_vec_error(stream: bytes, cuts: list[int]) -> None:
    places = [0, *sorted(min(cut, len(stream)) for cut in cuts), len(stream)]
    for parse in (parse_request, parse_reply):
        decoder = FrameDecoder(1_000)

        def read_on(parse: Callable[[dict[str, Any]], object] = parse, decoder: FrameDecoder = decoder) -> None:
            for a, b in pairwise(places):
                for payload in decoder.feed(stream[a:b]):
                    parse(decode(payload))

        error = refusal_of(read_on)
        assert error is None or error.code in (Code.PROTOCOL_ERROR, Code.FRAME_TOO_LARGE)


@given(MESSAGES)
@settings(deadline=None, max_examples=300)
def test_any_message_is_a_request_and_a_reply_or_a_protocol_error(message: dict[str, Any]) -> None:
    for parse in (parse_request, parse_reply):
        error = refusal_of(partial(parse, dict(message)))
        assert error is None or error.code == Code.PROTOCOL_ERROR


@pytest.mark.parametrize("payload", [b"\x90", b"\xc0", b"\x01", b"\xa1a", b"\xc3", b"\xc4\x01a"])
def test_a_payload_that_is_no_map_is_refused(payload: bytes) -> None:
    assert message_or_error(payload) is None


@pytest.mark.parametrize("key", [b"\x01", b"\xc4\x01a", b"\xc0", b"\x90", b"\xcb" + bytes(8)])
def test_a_key_that_is_no_string_is_refused(key: bytes) -> None:
    assert message_or_error(b"\x81" + key + b"\x01") is None


@pytest.mark.parametrize("ext", [b"\xd4\x05a", b"\xc7\x03\x01abc", *TIMESTAMPS.values()], ids=repr)
@pytest.mark.parametrize(
    "around",
    [
        lambda ext: b"\x81\xa1a" + ext,
        lambda ext: b"\x82\xa1a\x01\xa1b\x92\x01" + ext,
        lambda ext: b"\x81\xa1a\x81\xa1b\x91\x81\xa1c" + ext,
        lambda ext: b"\x81\xa1a\x92\xc4\x02\xff\xff\x81\xa1b\x91" + ext,
        lambda ext: b"\x81\xa1a" + b"\x91" * 500 + ext,
    ],
)
def test_no_ext_type_is_taken_wherever_it_stands(ext: bytes, around: Callable[[bytes], bytes]) -> None:
    with pytest.raises(VecError) as caught:
        decode(around(ext))
    assert caught.value.code == Code.PROTOCOL_ERROR
    assert "ext type" in caught.value.message


@pytest.mark.parametrize("value", [b"\xff" * 1_024, -1, 0xFF, 2**64 - 1, ["ÿ", b"\xd6\xff\0\0\0\0"], "x" * 0xFF])
def test_the_byte_of_a_timestamp_is_no_timestamp(value: Any) -> None:
    message = {"a": value, "b": [{"c": [value]}]}
    assert decode(payload_of(message)) == message


# --- what a hostile frame may cost -----------------------------------------------------------------------------------


def peak_bytes(payload: bytes) -> int:
    """The most that decoding these bytes ever held."""
    tracemalloc.start()
    try:
        with contextlib.suppress(VecError):
            decode(payload)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


ANNOUNCED = {
    "array32": b"\xdd",
    "map32": b"\xdf",
    "str32": b"\xdb",
    "bin32": b"\xc6",
    "ext32": b"\xc9",
}


@pytest.mark.parametrize("count", [limits.ARRAY_ITEMS_MAX + 1, 2**31, 2**32 - 1])
@pytest.mark.parametrize("kind", ANNOUNCED)
def test_a_header_that_announces_much_allocates_nothing(kind: str, count: int) -> None:
    payload = b"\x81\xa1a" + ANNOUNCED[kind] + struct.pack(">I", count)
    assert message_or_error(payload) is None
    assert peak_bytes(payload) < 64 * limits.KIB


@pytest.mark.parametrize("header", [b"\xdd", b"\xdf"])
def test_nested_headers_at_the_limit_stay_within_what_limits_says(header: bytes) -> None:
    """limits.ARRAY_ITEMS_MAX promises 128 MiB at most, and those never touched."""
    level = header + struct.pack(">I", limits.ARRAY_ITEMS_MAX) + (b"\xa1a" if header == b"\xdf" else b"")
    payload = b"\x81\xa1a" + level * 5_000
    assert message_or_error(payload) is None
    assert peak_bytes(payload) <= 1_024 * limits.ARRAY_ITEMS_MAX * 8 + limits.MIB


@pytest.mark.parametrize("level", [b"\x91", b"\x81\xa1a", b"\xdc\x00\x01"], ids=["arrays", "maps", "arrays of 16 bits"])
def test_a_depth_bomb_is_refused_at_once(level: bytes) -> None:
    payload = b"\x81\xa1a" + level * (limits.FRAME_BYTES_MAX // len(level))
    assert message_or_error(payload) is None
    assert peak_bytes(payload) < limits.MIB


def test_more_items_than_the_limit_are_refused_even_if_they_are_there() -> None:
    fits = {"a": [None] * limits.ARRAY_ITEMS_MAX}
    assert decode(payload_of(fits)) == fits
    assert message_or_error(payload_of({"a": [None] * (limits.ARRAY_ITEMS_MAX + 1)})) is None
    assert message_or_error(payload_of({"a": {str(n): n for n in range(limits.ARRAY_ITEMS_MAX + 1)}})) is None


def test_a_value_as_deep_as_the_decoder_takes_is_told_of_without_an_overflow() -> None:
    depth = next(n for n in range(1_100, 0, -1) if message_or_error(b"\x81\xa1a" + b"\x91" * n + b"\xc0") is not None)
    assert depth > 500
    deep = decode(b"\x81\xa1a" + b"\x91" * depth + b"\xc0")["a"]
    with pytest.raises(VecError) as caught:
        check_protocol(deep, who="client")
    assert caught.value.code == Code.VERSION_MISMATCH


# --- refusals ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "message",
    [
        {},
        {"id": 1},
        {"op": "ping"},
        {"op": None, "id": 1},
        {"op": 5, "id": 1},
        {"op": b"ping", "id": 1},
        {"op": "ping", "id": None},
        {"op": "ping", "id": "1"},
        {"op": "ping", "id": 1.0},
        {"op": "ping", "id": True},
    ],
)
def test_a_request_without_an_op_or_a_number_is_a_protocol_error(message: dict[str, Any]) -> None:
    with pytest.raises(VecError) as caught:
        parse_request(message)
    assert caught.value.code == Code.PROTOCOL_ERROR


@pytest.mark.parametrize(
    "message",
    [
        {},
        {"id": 1},
        {"id": 1, "answer": {}},
        {"id": "1", "result": {}},
        {"id": 1.0, "result": {}},
        {"id": True, "result": {}},
        {"id": 1, "result": None},
        {"id": 1, "result": [1, 2]},
        {"id": 1, "items": {}},
        {"id": 1, "items": "abc"},
        {"id": 1, "end": 3},
        {"id": 1, "error": "it failed"},
    ],
)
def test_a_map_that_is_no_reply_is_a_protocol_error(message: dict[str, Any]) -> None:
    with pytest.raises(VecError) as caught:
        parse_reply(message)
    assert caught.value.code == Code.PROTOCOL_ERROR


def test_unknown_keys_are_kept_beside_what_is_known() -> None:
    assert parse_reply({"id": 1, "result": {}, "later": 2}).extra == {"later": 2}
    assert parse_request({"op": "ping", "id": 1, "later": 2}).fields == {"later": 2}


@pytest.mark.parametrize("value", [object(), {1, 2}, 2**64, -(2**63) - 1, "\ud800", 1j])
def test_a_value_without_a_place_on_the_wire_is_an_invalid_request(value: Any) -> None:
    with pytest.raises(VecError) as caught:
        encode({"a": [value]})
    assert caught.value.code == Code.INVALID_REQUEST


def test_a_value_that_holds_itself_is_an_invalid_request() -> None:
    circle: list[Any] = []
    circle.append(circle)
    with pytest.raises(VecError) as caught:
        encode({"a": circle})
    assert caught.value.code == Code.INVALID_REQUEST


def test_a_message_over_the_frame_limit_is_refused_before_it_is_sent() -> None:
    with pytest.raises(VecError) as caught:
        encode({"a": bytes(limits.FRAME_BYTES_MAX)})
    assert caught.value.code == Code.FRAME_TOO_LARGE


@pytest.mark.parametrize("theirs", [None, 0, PROTOCOL + 1, str(PROTOCOL), [PROTOCOL], {}])
@pytest.mark.parametrize("who", ["client", "daemon"])
def test_another_protocol_version_is_refused_naming_both(theirs: Any, who: Any) -> None:
    with pytest.raises(VecError) as caught:
        check_protocol(theirs, who=who)
    assert caught.value.code == Code.VERSION_MISMATCH
    assert repr(theirs) in caught.value.message
    assert f"speaks {PROTOCOL}" in caught.value.message
    check_protocol(PROTOCOL, who=who)


@given(MESSAGES)
@settings(deadline=None)
def test_any_map_can_be_read_as_an_error(wire: dict[str, Any]) -> None:
    error = VecError.from_wire(wire)
    assert {key: error.details[key] for key in wire if key not in ("code", "message", "hint")} == error.details


def test_an_error_travels_whole() -> None:
    sent = VecError(Code.NOT_FOUND, "no such library", "make it", library="notes", line=12)
    got = VecError.from_wire(decode(payload_of(sent.to_wire())))
    assert (got.code, got.message, got.hint, got.details) == (sent.code, sent.message, sent.hint, sent.details)


# --- vectors ----------------------------------------------------------------------------------------------------------

FLOATS = st.lists(st.floats(width=32, allow_nan=False), max_size=40)


@given(FLOATS)
@settings(deadline=None)
def test_a_vector_travels_exactly_whatever_it_comes_as(values: list[float]) -> None:
    wanted = struct.pack(f"<{len(values)}f", *values)
    single, double = np.array(values, np.float32), np.array(values, np.float64)
    strided = np.repeat(single, 2)[::2]
    for given_as in (values, tuple(values), single, double, strided, single.data, list(single), tuple(double), wanted):
        assert pack_vector(given_as) == wanted
    assert unpack_vector(wanted) == values


def test_whole_numbers_are_numbers() -> None:
    assert unpack_vector(pack_vector([1, 2.5, -3])) == [1.0, 2.5, -3.0]
    assert unpack_vector(pack_vector([np.int8(1), np.float16(2.5), -3, np.uint64(4)])) == [1.0, 2.5, -3.0, 4.0]


def test_nan_and_infinity_pass_for_the_daemon_to_refuse() -> None:
    for values in ([math.nan, 1.0], np.array([math.nan, 1.0]), np.array([math.nan, 1.0], np.float32)):
        assert math.isnan(unpack_vector(pack_vector(values))[0])
    assert unpack_vector(pack_vector([math.inf, -math.inf])) == [math.inf, -math.inf]


@pytest.mark.parametrize("wrong", [True, "1", None, [1.0], {}, b"\0", 1j, np.True_, np.ones(1)])
@pytest.mark.parametrize("kind", [list, tuple])
def test_a_component_that_is_no_number_is_refused(wrong: Any, kind: Callable[[list[Any]], Any]) -> None:
    with pytest.raises(VecError) as caught:
        pack_vector(kind([0.5, wrong]))
    assert caught.value.code == Code.INVALID_DOCUMENT


@pytest.mark.parametrize(
    "wrong",
    [
        None,
        True,
        5,
        0.5,
        "0.5",
        {},
        {1.0},
        pytest.param(object(), id="an object"),
        bytearray(4),
        np.ones((2, 2), np.float32),
        np.ones(2, np.int64),
        np.ones(2, np.float16),
        np.ones(2, ">f4"),
        np.array(["2020-01-01"], "datetime64[D]"),
        np.array([None]),
        np.float32(1),
    ],
    ids=repr,
)
def test_what_is_no_vector_is_refused(wrong: Any) -> None:
    with pytest.raises(VecError) as caught:
        pack_vector(wrong)
    assert caught.value.code == Code.INVALID_DOCUMENT


def test_a_whole_number_too_large_for_a_float_is_refused() -> None:
    with pytest.raises(VecError) as caught:
        pack_vector([1, 10**400])
    assert caught.value.code == Code.INVALID_DOCUMENT
    assert "too large" in caught.value.message


@pytest.mark.parametrize("large", [[1e39], (1e39,), np.array([1e39])])
def test_a_float_too_large_is_never_a_finite_one(large: Any) -> None:
    """It becomes infinite, or is refused here; what is infinite the daemon refuses."""
    packed: list[bytes] = []
    error = refusal_of(lambda: packed.append(pack_vector(large)))
    if error is None:
        assert unpack_vector(packed[0]) == [math.inf]
    else:
        assert error.code == Code.INVALID_DOCUMENT


def test_msgpack_still_makes_timestamps_by_itself() -> None:
    """Why `decode` looks for them: should this fail one day, that walk can go."""
    assert isinstance(msgpack.unpackb(TIMESTAMPS["fixext 4"], ext_hook=lambda *_: None), msgpack.Timestamp)
