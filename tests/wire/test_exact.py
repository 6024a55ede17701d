"""Lines of JSON are read exactly: two equal keys and integers beyond 64 bits are found, however the line is written."""

from __future__ import annotations

import contextlib
import json
import tracemalloc
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vecd import limits
from vecd.errors import VecError
from vecd.wire import strict_json

_KEYS = st.sampled_from(["a", "b", '"', "\\", 'x":', "\\\\", ' "y" : ', "ü", ""])
_VALUES = st.one_of(
    st.none(), st.booleans(), st.integers(-(2**63), 2**64 - 1), st.floats(allow_nan=False, allow_infinity=False),
    st.sampled_from(['say "x": y', '"a" : "b"', "C:\\", 'end with \\"', '\\":', ": :", '{"a":1,"a":2}', "\n\t:"]),
)  # fmt: skip
#: An object as its pairs, so that a key can stand in it twice.
_OBJECTS: st.SearchStrategy[Any] = st.recursive(
    st.lists(st.tuples(_KEYS, _VALUES), max_size=4).map(lambda pairs: ("object", pairs)),
    lambda inner: st.lists(st.tuples(_KEYS, st.one_of(_VALUES, inner)), max_size=4).map(
        lambda pairs: ("object", pairs)
    ),
    max_leaves=4,
)


def written(value: Any, colon: str, escaped: bool) -> str:
    if isinstance(value, tuple):
        pairs = (f"{json.dumps(key)}{colon}{written(each, colon, escaped)}" for key, each in value[1])
        return "{" + ",".join(pairs) + "}"
    return json.dumps(value, ensure_ascii=escaped)


def twice(value: Any) -> bool:
    if not isinstance(value, tuple):
        return False
    keys = [key for key, _ in value[1]]
    return len(keys) != len(set(keys)) or any(twice(each) for _, each in value[1])


@given(value=_OBJECTS, colon=st.sampled_from([":", ": ", " :", " : ", "\t:", "  \r :"]), escaped=st.booleans())
def test_a_key_that_stands_twice_is_found_and_nothing_else_is_refused(value: Any, colon: str, escaped: bool) -> None:
    text = written(value, colon, escaped)
    try:
        found = strict_json.loads(text.encode())
    except VecError as error:
        assert error.code == "invalid_document"
        assert "occurs twice" in error.message
        assert twice(value), text
    else:
        assert not twice(value), text
        assert found == json.loads(text)


@given(number=st.one_of(st.integers(), st.integers(2**63 - 3, 2**64 + 3), st.integers(-(2**63) - 3, -(2**63) + 3)))
def test_an_integer_is_read_exactly_or_refused_with_its_digits(number: int) -> None:
    text = json.dumps({"a": {"b": [1, number]}}).encode()
    if -(2**63) <= number < 2**64:
        assert strict_json.loads(text) == {"a": {"b": [1, number]}}
        return
    with pytest.raises(VecError) as raised:
        strict_json.loads(text)
    assert f"'a.b[1]' is the integer {str(number)[:40]}" in raised.value.message
    assert "write it as a string" in str(raised.value.hint)


@pytest.mark.parametrize("text", ['{"a": 1e20}', '{"a": 1.0e300}', '{"a": 12345678901234567890123.5}', '{"a": -0.0}'])
def test_a_float_may_be_as_large_as_floats_are(text: str) -> None:
    assert repr(strict_json.loads(text.encode())) == repr(json.loads(text))


def test_an_integer_of_many_digits_is_refused_in_few_words() -> None:
    with pytest.raises(VecError) as raised:
        strict_json.loads(b'{"a": ' + b"9" * 300 + b"}")
    assert "(300 digits)" in raised.value.message
    assert len(str(raised.value.hint)) < 200


@pytest.mark.parametrize(
    "piece",
    ["[]", "{}", "[[]]", '{"a":1}', '{"a":[]}', '{"a":{"b":{}}}', '{"a":1,"a":1}', '""', '"ab"', '"\u00fc"', '"\\\\"',
     '["a","b"]', "1", "999", "1.5", "-0.123456", "1e25", "null", '{"id":"a","vector":[0.25,0.5]}'],
)  # fmt: skip
@pytest.mark.parametrize("head", ["[", '{"a":1e25,"b":[', '{"a":99999999999999999999999,"b":['])
def test_what_passes_the_check_of_its_size_takes_bounded_memory(
    monkeypatch: pytest.MonkeyPatch, head: str, piece: str
) -> None:
    """Also if a number makes the slow parser read the text again, and keep both values."""
    monkeypatch.setattr(limits, "JSON_VALUES_BYTES_MAX", 2 * limits.MIB)
    accepted = 0
    for count in (1 << power for power in range(20)):
        text = (head + ",".join([piece] * count) + "]" + "}" * head.count("{")).encode()
        try:
            strict_json.check_size(text)
        except VecError as error:
            assert error.code == "too_large"
            break
        accepted = len(text)
        tracemalloc.start()
        try:
            with contextlib.suppress(VecError):
                strict_json.loads(text)
            assert tracemalloc.get_traced_memory()[1] < 3 * limits.JSON_VALUES_BYTES_MAX
        finally:
            tracemalloc.stop()
    assert accepted >= 32 * limits.KIB  # the last power of two below what is never checked


def test_of_two_inexact_values_the_first_is_named() -> None:
    number = "9" * 30
    with pytest.raises(VecError) as raised:
        strict_json.loads(f'{{"a": [{{"b": {number}}}, {number}], "c": {number}}}'.encode())
    assert "'a[0].b'" in raised.value.message
