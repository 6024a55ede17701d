"""The embedder `openai` against a server that answers in every way in which servers do."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.support.http_receiver import Answer, Received, Receiver
from vecd.errors import VecError
from vecd.text.embedders import Embedder, make, of_queries, reference
from vecd.text.embedders.openai import OpenAI

_DIMENSION = 4


@pytest.fixture
def server() -> Iterator[Receiver]:
    with Receiver() as receiver:
        receiver.answer = good
        yield receiver


def vector_of(text: str) -> list[float]:
    """Different for different texts; not of length 1."""
    return [float(len(text)), float(text.count("a")), float(text.count("b")), 1.0]


def data_of(request: Received) -> list[dict[str, Any]]:
    texts = json.loads(request.body)["input"]
    return [{"object": "embedding", "index": place, "embedding": vector_of(text)} for place, text in enumerate(texts)]


def answer(data: Any, status: int = 200, **headers: str) -> Answer:
    return Answer(status, {"content-type": "application/json", **headers}, json.dumps(data).encode())


def good(request: Received) -> Answer:
    return answer({"object": "list", "data": data_of(request), "model": "toy"})


_made: list[OpenAI] = []


@pytest.fixture(autouse=True)
def closing() -> Iterator[None]:
    yield
    while _made:
        _made.pop().close()


def made(server: Receiver, **parameters: Any) -> OpenAI:
    embedder = make(reference("openai", {"url": f"{server.url}/v1", "model": "toy", **parameters}))
    assert isinstance(embedder, OpenAI)
    _made.append(embedder)
    return embedder


def check(vectors: Any, texts: list[str]) -> None:
    wanted = np.array([vector_of(text) for text in texts])
    np.testing.assert_allclose(vectors, wanted / np.linalg.norm(wanted, axis=1, keepdims=True), atol=1e-6)


def once(first: Callable[[Received], Answer]) -> Callable[[Received], Answer]:
    """The first answer, and good ones after it."""
    answers = iter((first,))
    return lambda request: next(answers, good)(request)


def failure(embedder: Embedder, texts: list[str]) -> VecError:
    with pytest.raises(VecError) as caught:
        embedder.embed(texts)
    return caught.value


def test_texts_become_vectors_of_length_one_and_the_dimension_is_learnt(server: Receiver) -> None:
    embedder = made(server)
    assert embedder.dimension is None
    check(embedder.embed(["a", "bb", "abc"]), ["a", "bb", "abc"])
    assert embedder.dimension == _DIMENSION
    (request,) = server.received
    assert request.path == "/v1/embeddings"
    assert json.loads(request.body) == {"model": "toy", "encoding_format": "float", "input": ["a", "bb", "abc"]}
    assert "authorization" not in request.headers


def test_vectors_in_another_order_come_to_their_texts(server: Receiver) -> None:
    server.answer = lambda request: answer({"data": data_of(request)[::-1]})
    check(made(server).embed(["a", "bb", "abc"]), ["a", "bb", "abc"])


def test_vectors_without_an_index_are_in_the_order_of_the_texts(server: Receiver) -> None:
    server.answer = lambda request: answer({"data": [{"embedding": each["embedding"]} for each in data_of(request)]})
    check(made(server).embed(["a", "bb"]), ["a", "bb"])


def test_the_key_the_dimension_and_the_prompts_are_sent(server: Receiver, tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.write_text("s3cret\n")
    embedder = made(server, dimension=_DIMENSION, key_file=str(key), query_prompt="query: ", text_prompt="passage: ")
    check(embedder.embed(["a"]), ["passage: a"])
    check(of_queries(embedder)(["a"]), ["query: a"])
    assert [request.headers["authorization"] for request in server.received] == ["Bearer s3cret"] * 2
    assert json.loads(server.received[0].body)["dimensions"] == _DIMENSION


def test_vectors_may_keep_their_lengths(server: Receiver) -> None:
    np.testing.assert_array_equal(made(server, normalize="false").embed(["aab"]), [vector_of("aab")])


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504])
def test_a_passing_failure_is_tried_again(server: Receiver, status: int) -> None:
    server.answer = once(lambda _: answer({"error": {"message": "later"}}, status))
    check(made(server).embed(["a"]), ["a"])
    assert len(server.received) == 2


def test_retry_after_is_obeyed(server: Receiver) -> None:
    server.answer = once(lambda _: answer({}, 429, **{"retry-after": "1"}))
    check(made(server).embed(["a"]), ["a"])
    first, second = server.received
    assert second.at - first.at >= 1


def test_a_server_that_stays_unavailable_is_given_up_for_a_query_soon(server: Receiver) -> None:
    server.answer = lambda _: answer({"error": "overloaded"}, 503, **{"retry-after": "3600"})
    embed_queries = of_queries(made(server))
    with pytest.raises(VecError, match="status 503: overloaded") as caught:
        embed_queries(["a"])
    assert caught.value.code == "embedder_failed"
    assert caught.value.retryable


def test_a_cut_answer_and_a_cut_connection_are_tried_again(server: Receiver) -> None:
    def cut(request: Received) -> Answer:
        body = good(request).body
        return Answer(200, {"content-length": str(len(body) + 100), "connection": "close"}, body)

    server.answer = once(cut)
    check(made(server, timeout_s=2).embed(["a"]), ["a"])
    assert len(server.received) == 2


def test_a_slow_answer_is_cut_off_as_a_whole_and_tried_again(server: Receiver) -> None:
    """Also if bytes trickle: each read has its byte in time."""
    release = threading.Event()

    def slow(request: Received) -> Answer:
        release.wait(20)
        return good(request)

    server.answer = once(slow)
    began = time.monotonic()
    try:
        check(made(server, timeout_s=0.5).embed(["a"]), ["a"])
    finally:
        release.set()
    assert time.monotonic() - began < 15


@pytest.mark.parametrize("status", [400, 413, 422])
def test_a_batch_that_is_refused_is_sent_in_halves_and_the_size_is_remembered(server: Receiver, status: int) -> None:
    def at_most_three(request: Received) -> Answer:
        too_many = len(json.loads(request.body)["input"]) > 3
        return answer({"error": {"message": "too many inputs"}}, status) if too_many else good(request)

    server.answer = at_most_three
    texts = ["a" * n for n in range(1, 11)]
    embedder = made(server)
    check(embedder.embed(texts), texts)
    server.received.clear()
    check(embedder.embed(texts), texts)
    assert max(len(json.loads(request.body)["input"]) for request in server.received) <= 3


@pytest.mark.parametrize(
    ("status", "message"),
    [
        (400, "This model's maximum context length is 512 tokens"),
        (500, "input is too large to process. increase the physical batch size"),  # llama.cpp
    ],
)
def test_a_text_that_is_refused_alone_is_the_documents_error(server: Receiver, status: int, message: str) -> None:
    def short(request: Received) -> Answer:
        too_long = any(len(text) > 100 for text in json.loads(request.body)["input"])
        return answer({"error": {"message": message}}, status) if too_long else good(request)

    server.answer = short
    embedder = made(server)
    refusal = failure(embedder, ["a", "b" * 200, "c"])
    assert refusal.code == "invalid_document"
    assert message in refusal.message
    server.received.clear()
    embedder.embed(["a", "b", "c"])
    assert len(server.received) == 1, "one long text makes no later batch smaller"


@pytest.mark.parametrize("status", [301, 401, 403, 404, 405])
def test_a_wrong_url_model_or_key_is_told_at_once(server: Receiver, status: int) -> None:
    server.answer = lambda _: answer({"error": {"message": "model 'toy' not found"}}, status)
    error = failure(made(server), ["a"])
    assert (error.code, error.retryable) == ("invalid_settings", False)
    assert "model 'toy' not found" in error.message
    assert len(server.received) == 1


def nan(request: Received) -> Answer:
    return Answer(200, {}, b'{"data": [{"index": 0, "embedding": [1.0, NaN, 0.0, 1.0]}]}')


def null(request: Received) -> Answer:
    return answer({"data": [{"index": 0, "embedding": [1.0, None, 0.0, 1.0]}]})


def huge(request: Received) -> Answer:
    return Answer(200, {}, b'{"data": [{"index": 0, "embedding": [1.0, 1e300, 0.0, 1.0]}]}')


@pytest.mark.parametrize("answered", [nan, null, huge])
def test_a_vector_that_cannot_be_compared_is_the_documents_error(
    server: Receiver, answered: Callable[[Received], Answer]
) -> None:
    server.answer = answered
    assert failure(made(server), ["a"]).code == "invalid_document"


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"data": []}, "1 texts were answered with 0 vectors"),
        ({"embeddings": [[1.0]]}, "no list `data`"),
        ([], "no list `data`"),
        ({"data": [{"index": 3, "embedding": [1.0]}]}, "`index`"),
    ],
)
def test_what_is_no_answer_of_this_api_is_refused(server: Receiver, body: Any, message: str) -> None:
    server.answer = lambda _: answer(body)
    error = failure(made(server), ["a"])
    assert error.code == "embedder_failed"
    assert message in error.message


@pytest.mark.parametrize("vector", ["AACAPw==", [[1.0]], [], ["1"]])
def test_what_is_no_vector_is_perhaps_the_fault_of_the_text(server: Receiver, vector: Any) -> None:
    server.answer = lambda _: answer({"data": [{"index": 0, "embedding": vector}]})
    error = failure(made(server), ["a"])
    assert error.code == "invalid_document"
    assert "no list of numbers" in error.message


def test_vectors_of_two_dimensions_are_refused(server: Receiver) -> None:
    embedder = made(server)
    embedder.embed(["a"])
    server.answer = lambda request: answer({"data": [{**each, "embedding": [1.0, 2.0]} for each in data_of(request)]})
    error = failure(embedder, ["a"])
    assert error.code == "invalid_document"
    assert "2-dimension vectors, and 4 are expected" in error.message


def test_a_server_that_is_not_there_is_told_with_its_address(server: Receiver) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}"  # nobody listens
        embedder = made(server, url=f"{url}/v1")
    with pytest.raises(VecError, match=f"{url}/v1/embeddings") as caught:
        of_queries(embedder)(["a"])
    assert caught.value.code == "embedder_failed"


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"model": "x"}, "needs the parameter 'url'"),
        ({"url": "http://localhost/v1"}, "needs the parameter 'model'"),
        ({"url": "localhost:11434", "model": "x"}, "cannot be the URL"),
        ({"url": "http://user:hunter2@localhost/v1", "model": "x"}, "cannot be the URL"),
        ({"url": "http://localhost:99999/v1", "model": "x"}, "cannot be the URL"),
        ({"url": "http://localhost/a b", "model": "x"}, "cannot be the URL"),
        ({"url": "http://localhost/v1", "model": "x", "key_file": "key"}, "relative path"),
        ({"url": "http://example.org/v1", "model": "x", "key_env": "KEY"}, "without encryption"),
        ({"url": "http://localhost/v1", "model": "x", "key_env": "A", "key_file": "/k"}, "both given"),
        ({"url": "http://localhost/v1", "model": "x", "batch": "0"}, "from 1"),
        ({"url": "http://localhost/v1", "modle": "x"}, "no parameter 'modle'"),
    ],
)
def test_wrong_parameters_are_refused_before_a_library_has_them(parameters: dict[str, Any], message: str) -> None:
    with pytest.raises(VecError, match=message) as caught:
        reference("openai", parameters)
    assert caught.value.code == "invalid_request"
    assert "hunter2" not in str(caught.value)
