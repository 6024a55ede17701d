"""Libraries whose embedder is a server or a program of the user's, through the daemon."""

from __future__ import annotations

import json
import shlex
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.cli.terminal import on_a_terminal
from tests.support.http_receiver import Answer, Received, Receiver
from tests.support.instance import Instance
from tests.support.waiting import until
from vecd.client import Client
from vecd.errors import VecError

_LONG = 300


@pytest.fixture(scope="module")
def instance() -> Iterator[Instance]:
    with Instance() as started:
        started.start()
        yield started


@pytest.fixture
def client(instance: Instance) -> Iterator[Client]:
    with instance.connect(timeout_s=60) as connected:
        yield connected


@pytest.fixture
def server() -> Iterator[Receiver]:
    with Receiver() as receiver:
        receiver.answer = letters
        yield receiver


def vector_of(text: str) -> list[int]:
    return [text.count(letter) for letter in "abcdefghijklmnopqrstuvwxyz"]


def letters(request: Received) -> Answer:
    """Counts letters; refuses long texts."""
    texts = json.loads(request.body)["input"]
    if any(len(text) > _LONG for text in texts):
        return Answer(400, {}, b'{"error": {"message": "too long for the model"}}')
    data = [{"index": place, "embedding": vector_of(text)} for place, text in enumerate(texts)]
    return Answer(200, {}, json.dumps({"data": data[::-1]}).encode())


def create(client: Client, name: str, server: Receiver, first: str | None = "none", **parameters: Any) -> None:
    """By default writes wait for the server: there is one stage."""
    client.create_library(
        name,
        embedder="openai",
        embedder_parameters={"url": f"{server.url}/v1", "model": "letters", **parameters},
        first_embedder=first,
    )


def nearest(client: Client, library: str, query: str) -> str:
    return str(next(client.search(query, library=library, mode="vector", k=1))["document_id"])


def test_a_library_is_embedded_and_searched_by_the_server_it_names(client: Client, server: Receiver) -> None:
    create(client, "served", server, query_prompt="", batch="16")
    shown = client.library("served")
    assert (shown["embedder"], shown["dimension"]) == ("openai", None)
    assert shown["embedder_parameters"] == {
        "url": f"{server.url}/v1",
        "model": "letters",
        "query_prompt": "",
        "batch": 16,
    }
    documents = [{"id": letter, "text": f"{letter * 9} {number}"} for number, letter in enumerate("abcdefghij")]
    assert client.ingest(documents, "served")["added"] == 10
    assert client.library("served")["dimension"] == 26
    assert nearest(client, "served", "ggg") == "g"
    (stored,) = client.get(["c"], "served", vectors=True)
    assert stored is not None
    (chunk,) = stored["chunks"]
    wanted = np.array(vector_of(documents[2]["text"]), np.float32)
    np.testing.assert_allclose(np.frombuffer(chunk["vector"], "<f4"), wanted / np.linalg.norm(wanted), atol=1e-6)


def test_a_text_that_the_server_refuses_is_one_documents_error(client: Client, server: Receiver) -> None:
    create(client, "choosy", server)
    documents = [{"id": f"d{n}", "text": "e" * (_LONG + 1 if n == 5 else n + 1)} for n in range(30)]
    report = client.ingest(documents, "choosy")
    assert (report["added"], report["failed"]) == (29, 1)
    (error,) = report["errors"]
    assert error["code"] == "invalid_document"
    assert "too long for the model" in error["message"]


def test_a_server_that_hangs_delays_no_other_library(client: Client, server: Receiver, instance: Instance) -> None:
    release = threading.Event()
    with Receiver() as hanging:

        def hang(request: Received) -> Answer:
            release.wait(60)
            return letters(request)

        hanging.answer = hang
        create(client, "hanging", hanging)
        create(client, "lively", server)
        waiting = client.submit("ingest", library="hanging", documents=[{"id": "x", "text": "x"}])
        with instance.connect(timeout_s=60) as other:
            until(lambda: hanging.received, "the request that hangs")
            other.ingest([{"id": "y", "text": "yyy"}], "lively")
            assert nearest(other, "lively", "y") == "y"
            assert not waiting.ready
            release.set()
        assert waiting.result()["added"] == 1


def test_a_query_that_is_asked_again_is_not_embedded_again(client: Client, server: Receiver) -> None:
    create(client, "asked", server)
    client.ingest([{"id": "a", "text": "a"}, {"id": "b", "text": "b"}], "asked")
    server.received.clear()
    assert [nearest(client, "asked", query) for query in ("b", "b", "a", "b")] == ["b", "b", "a", "b"]
    assert [json.loads(request.body)["input"] for request in server.received] == [["b"], ["a"]]


def test_with_two_stages_a_document_is_found_while_its_server_hangs_and_better_afterwards(
    client: Client, server: Receiver
) -> None:
    release = threading.Event()

    def hang(request: Received) -> Answer:
        release.wait(60)
        return letters(request)

    server.answer = hang
    create(client, "staged", server, first="hash")
    documents = [{"id": letter, "text": f"word {letter * 9}"} for letter in "bcdfg"]
    assert client.ingest([*documents, {"id": "long", "text": "e" * (_LONG + 1)}], "staged")["added"] == 6
    assert nearest(client, "staged", "ggggggggg") == "g", "by the first embedder, which knows the whole word"
    release.set()
    until(lambda: client.library("staged")["second_stage"]["embedded"] == 6, "all chunks to be processed")
    assert nearest(client, "staged", "ccc") == "c", "by the second embedder, which knows its letters"
    assert nearest(client, "staged", "e" * (_LONG + 1)) == "long", "the server refuses it, and the first embedder not"


def test_a_server_that_is_down_is_an_error_that_names_it(client: Client, server: Receiver) -> None:
    create(client, "down", server)
    client.ingest([{"id": "a", "text": "a"}], "down")
    server.answer = lambda _: Answer(404, {}, b'{"error": {"message": "model not found"}}')
    with pytest.raises(VecError, match=f"{server.url}/v1/embeddings answered with status 404: model not found"):
        nearest(client, "down", "b")


def test_a_library_is_embedded_by_a_program(client: Client, tmp_path: Path) -> None:
    program = tmp_path / "letters.py"
    program.write_text(
        "import json, sys\n"
        "for line in sys.stdin:\n"
        "    text = json.loads(line)['text']\n"
        "    print(json.dumps([text.count(each) for each in 'abcdefghij']))\n"
    )
    command = shlex.join((sys.executable, str(program)))
    client.create_library(
        "programmed", embedder="command", embedder_parameters={"command": command}, first_embedder="none"
    )
    documents = [{"id": letter, "text": letter * 9} for letter in "abcdefghij"]
    assert client.ingest(documents, "programmed")["added"] == 10
    assert nearest(client, "programmed", "ggg") == "g"


# --- one text that is answered badly ----------------------------------------------------------------------------------

#: Writes down each text, and each start; answers a text with one of these words badly.
_BAD_PROGRAM = """
import json, pathlib, sys
folder = pathlib.Path(__file__).parent
with open(folder / "starts", "a") as file:
    file.write("x")
for line in sys.stdin:
    text = json.loads(line)["text"]
    if "CRASH" in text or (folder / "broken").exists():
        sys.exit(3)
    elif "NAN" in text:
        print("[" + ",".join(["NaN"] * 8) + "]")
    elif "SHORT" in text:
        print("[1, 2]")
    elif "WORDS" in text:
        print("Traceback (most recent call last)")
    elif "REFUSED" in text:
        print(json.dumps({"error": "no such language"}))
    elif "NOTHING" not in text:
        print(json.dumps([text.count(each) + 1 for each in "abcdefgh"]))
"""
_BAD = ("NAN", "SHORT", "WORDS", "CRASH", "NOTHING", "REFUSED")


@pytest.fixture
def program(tmp_path: Path) -> Path:
    path = tmp_path / "embed.py"
    path.write_text(_BAD_PROGRAM)
    return path


def create_programmed(client: Client, name: str, program: Path, first: str = "none") -> None:
    command = shlex.join((sys.executable, str(program)))
    client.create_library(name, embedder="command", embedder_parameters={"command": command}, first_embedder=first)


@pytest.mark.parametrize("count", [3, 40])
@pytest.mark.parametrize("bad", _BAD)
def test_a_text_that_a_program_answers_badly_is_refused_alone(
    client: Client, program: Path, bad: str, count: int
) -> None:
    name = f"bad-{bad}-{count}"
    create_programmed(client, name, program)
    place = count // 2
    documents = [{"id": f"d{n}", "text": f"a text {n}" + (f" {bad}" if n == place else "")} for n in range(count)]
    report = client.ingest(documents, name)
    assert (report["added"], report["failed"]) == (count - 1, 1)
    (error,) = report["errors"]
    assert (error["index"], error["code"]) == (place, "invalid_document")
    starts = (program.parent / "starts").read_text()
    assert len(starts) <= 4 + 2 * count.bit_length(), "the batch was halved, and not embedded text by text"


def test_a_first_text_that_is_answered_with_too_few_numbers_sets_no_dimension(client: Client, program: Path) -> None:
    create_programmed(client, "bad-first", program)
    report = client.ingest([{"id": "bad", "text": "SHORT"}], "bad-first")
    assert (report["failed"], report["errors"][0]["code"]) == (1, "invalid_document")
    assert client.ingest([{"id": "good", "text": "a"}], "bad-first")["added"] == 1
    assert client.library("bad-first")["dimension"] == 8


@pytest.mark.parametrize("bad", _BAD)
def test_in_the_second_stage_only_the_text_that_is_answered_badly_stays_without_a_vector(
    client: Client, program: Path, bad: str
) -> None:
    name = f"staged-{bad}"
    create_programmed(client, name, program, "hash")
    client.ingest([{"id": "a", "text": "aaa"}, {"id": "bad", "text": bad}, {"id": "b", "text": "bbb"}], name)
    until(lambda: client.library(name)["second_stage"]["embedded"] == 3, "all chunks to be processed")
    assert client.library(name)["second_stage"] == {"dimension": 8, "embedded": 3, "refused": 1, "error": None}
    answer = client.request("search", query="b", library=name, mode="vector", k=3, explain=True)
    assert {hit["document_id"] for hit in answer["hits"] if "second" in hit["explain"]} == {"a", "b"}


def test_what_the_second_stage_was_refused_is_counted_and_named_until_it_is_replaced(
    client: Client, instance: Instance, program: Path
) -> None:
    create_programmed(client, "counted", program, "hash")
    client.ingest([{"id": "a", "texts": ["aaa", "NAN"]}, {"id": "b", "text": "NAN CRASH"}], "counted")

    def stage() -> tuple[int, int]:
        about = client.library("counted")["second_stage"]
        return about["embedded"], about["refused"]

    until(lambda: stage() == (3, 2), "two chunks to be refused")
    until(lambda: "b#0" in instance.settings.log.read_text(), "the log to name them")
    log = instance.settings.log.read_text().splitlines()
    (first, second) = [line for line in log if "no second vector" in line and "library=counted" in line]
    assert "a#1" in first
    assert "not finite" in first
    assert "b#0" in second
    shown = on_a_terminal(instance, "library", "show", "counted", columns=200).out
    assert "embedded 3 of 3 chunks, refused: 2" in shown
    assert "library counted: embedded 3 of 3 chunks, refused: 2" in on_a_terminal(instance, "status", columns=200).out
    instance.vec("daemon", "restart")
    with instance.connect(timeout_s=60) as again:
        client = again
        assert stage() == (3, 2)
        client.request("update", library="counted", ids=["a"], set={"seen": True})
        until(lambda: stage() == (3, 2), "the same text to be refused again")
        client.delete(["b"], "counted")
        client.ingest([{"id": "a", "text": "aaa"}], "counted")
        until(lambda: stage() == (1, 0), "nothing to be refused any more")


def test_a_program_that_fails_for_every_text_is_called_twice_for_a_batch_and_blames_no_text(
    client: Client, program: Path
) -> None:
    create_programmed(client, "broken", program)
    broken, starts = program.parent / "broken", program.parent / "starts"
    broken.touch()
    documents = [{"id": f"d{n}", "text": f"a text {n}"} for n in range(200)]
    with pytest.raises(VecError, match=r"command embeds no text: .* ended with status 3") as caught:
        client.ingest(documents, "broken")
    assert (caught.value.code, caught.value.retryable) == ("embedder_failed", True)
    assert len(starts.read_text()) == 2
    broken.unlink()
    assert client.ingest(documents, "broken")["added"] == 200


def test_the_second_stage_waits_for_a_program_that_fails_for_every_text(client: Client, program: Path) -> None:
    broken = program.parent / "broken"
    broken.touch()
    create_programmed(client, "waits", program, "hash")
    client.ingest([{"id": f"d{n}", "text": f"a text {n}"} for n in range(100)], "waits")
    until(lambda: client.library("waits")["second_stage"]["error"], "the stage says that it waits")
    assert client.library("waits")["second_stage"]["embedded"] == 0
    broken.unlink()
    until(lambda: client.library("waits")["second_stage"]["embedded"] == 100, "all chunks to be embedded")


@pytest.mark.parametrize("vector", ["[NaN, 1.0]", "[1.0]", "[]", "null"])
def test_a_text_whose_vector_of_a_server_is_wrong_is_refused_alone(
    client: Client, server: Receiver, vector: str
) -> None:
    def one_wrong(request: Received) -> Answer:
        texts = json.loads(request.body)["input"]
        data = ",".join(
            f'{{"index": {n}, "embedding": {vector if "WRONG" in text else vector_of(text)}}}'
            for n, text in enumerate(texts)
        )
        return Answer(200, {}, f'{{"data": [{data}]}}'.encode())

    server.answer = one_wrong
    name = f"wrong-{len(vector)}"
    create(client, name, server)
    documents = [{"id": f"d{n}", "text": "WRONG" if n == 0 else f"a text {n}"} for n in range(30)]
    report = client.ingest(documents, name)
    assert (report["added"], report["failed"]) == (29, 1)
    assert (report["errors"][0]["index"], report["errors"][0]["code"]) == (0, "invalid_document")


def test_parameters_survive_a_restart_and_stand_in_the_event(instance: Instance, server: Receiver) -> None:
    with instance.connect(timeout_s=60) as client:
        create(client, "kept", server)
        client.ingest([{"id": "a", "text": "a"}, {"id": "b", "text": "b"}], "kept")
    instance.vec("daemon", "restart")
    with instance.connect(timeout_s=60) as client:
        assert nearest(client, "kept", "b") == "b"
        assert client.library("kept")["embedder_parameters"]["model"] == "letters"


def test_the_command_line_takes_parameters(instance: Instance, server: Receiver) -> None:
    created = instance.vec(
        "library", "create", "typed", "--embedder", "openai", "--embedder-param", f"url={server.url}/v1",
        "--embedder-param", "model=letters", "--embedder-param", "normalize=false", "--json",
    )  # fmt: skip
    assert json.loads(created.stdout)["embedder_parameters"] == {
        "url": f"{server.url}/v1", "model": "letters", "normalize": False,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("embedder", "parameters", "code"),
    [
        ("openai", {}, "invalid_request"),
        ("hash", {"model": "x"}, "invalid_request"),
        ("none", {"model": "x"}, "invalid_request"),
        ('openai {"model":"x","url":"http://localhost"}', {}, "unsupported"),
    ],
)
def test_wrong_parameters_are_refused(client: Client, embedder: str, parameters: dict[str, Any], code: str) -> None:
    with pytest.raises(VecError) as caught:
        client.create_library("wrong", embedder=embedder, embedder_parameters=parameters)
    assert caught.value.code == code
