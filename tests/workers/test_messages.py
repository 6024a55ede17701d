"""Messages between the daemon and what embeds for it: what comes from a broker may be anything."""

from __future__ import annotations

import contextlib

import msgpack
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vecd.errors import Code, VecError
from vecd.workers import messages, tasks
from vecd.workers.messages import Answer, Request

_anything = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | st.text() | st.binary(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)
_keys = st.sampled_from(["id", "embedder", "texts", "answers", "worker", "dimension", "vectors", "error"])


@given(st.lists(st.text(), max_size=5), st.text(), st.text())
def test_a_request_arrives_as_it_was_sent(texts: list[str], message_id: str, answers: str) -> None:
    request = Request(message_id, "hash", texts, answers)
    assert messages.request(request.encode()) == request


@given(st.binary() | st.dictionaries(_keys, _anything).map(msgpack.packb))
def test_bytes_that_are_no_message_are_an_error_and_nothing_else(data: bytes) -> None:
    for decode in (messages.request, messages.answer):
        with contextlib.suppress(VecError):
            decode(data)


@pytest.mark.parametrize(
    "answer",
    [
        Answer("1", "w", 3, bytes(4 * 3)),  # one vector for two texts
        Answer("1", "w", 0, b""),
        Answer("1", "w", -3, bytes(4 * 3 * 2)),
    ],
)
def test_an_answer_that_does_not_fit_is_never_a_vector(answer: Answer) -> None:
    with pytest.raises(VecError) as refusal:
        messages.answer(answer.encode()).matrix(2)
    assert refusal.value.code == Code.EMBEDDER_FAILED


@pytest.mark.parametrize("number", [np.nan, np.inf])
def test_a_number_that_is_not_finite_is_perhaps_the_fault_of_a_text(number: float) -> None:
    answered = Answer("1", "w", 1, np.array([1.0, number], "<f4").tobytes())
    with pytest.raises(VecError, match="not finite") as refusal:
        messages.answer(answered.encode()).matrix(2)
    assert refusal.value.code == Code.INVALID_DOCUMENT


def test_a_task_answers_also_what_it_cannot_do() -> None:
    answer = messages.answer(tasks.embed(Request("7", "nonesuch", ["a text"]).encode(), "me"))
    assert (answer.id, answer.worker) == ("7", "me")
    with pytest.raises(VecError) as refusal:
        answer.matrix(1)
    assert refusal.value.code == Code.UNSUPPORTED
    assert messages.answer(tasks.embed(Request("8", "", []).encode())).error is None
    made = messages.answer(tasks.embed(Request("9", "hash", ["one", "two"]).encode())).matrix(2)
    assert made.shape == (2, 256)
