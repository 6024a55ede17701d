"""The embedder `command` with programs that do well, and with programs that fail in the ways in which programs do."""

from __future__ import annotations

import shlex
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from vecd.errors import VecError
from vecd.text.embedders import Embedder, make, of_queries, reference
from vecd.text.embedders.command import Command

GOOD = """
import json, sys
for line in sys.stdin:
    asked = json.loads(line)
    print(json.dumps([len(asked["text"]), 1.0, float(asked["query"])]), flush=True)
"""


_made: list[Command] = []


@pytest.fixture(autouse=True)
def closing() -> Iterator[None]:
    yield
    while _made:
        _made.pop().close()


def made(tmp_path: Path, program: str, **parameters: Any) -> Command:
    path = tmp_path / "embed.py"
    path.write_text(program)
    command = shlex.join((sys.executable, str(path)))
    embedder = make(reference("command", {"command": command, "timeout_s": 20, **parameters}))
    assert isinstance(embedder, Command)
    _made.append(embedder)
    return embedder


def failure(embedder: Embedder, texts: list[str]) -> VecError:
    with pytest.raises(VecError) as caught:
        embedder.embed(texts)
    return caught.value


@pytest.mark.parametrize("keep", [False, True])
def test_texts_become_vectors_in_their_order(tmp_path: Path, keep: bool) -> None:
    embedder = made(tmp_path, GOOD, keep=keep, normalize=False, query_prompt="find: ")
    for _ in range(2):
        np.testing.assert_array_equal(embedder.embed(["a", "日本語\n", "", "\ud800"]), [
            [1, 1, 0], [4, 1, 0], [0, 1, 0], [1, 1, 0],
        ])  # fmt: skip
    np.testing.assert_array_equal(of_queries(embedder)(["a"]), [[7, 1, 1]])
    assert embedder.dimension == 3


def test_vectors_are_normalized_unless_told_otherwise(tmp_path: Path) -> None:
    np.testing.assert_allclose(made(tmp_path, GOOD).embed(["abc"]), np.array([[3, 1, 0]]) / 10**0.5, atol=1e-6)


def test_more_texts_than_a_pipe_holds_are_embedded(tmp_path: Path) -> None:
    texts = [f"{n} " * 20_000 for n in range(20)]
    assert made(tmp_path, GOOD).embed(texts).shape == (20, 3)


def test_a_program_that_is_kept_is_started_once_and_again_when_it_has_died(tmp_path: Path) -> None:
    program = f"open({str(tmp_path / 'starts')!r}, 'a').write('x')\n" + GOOD.replace(
        "    print", "    assert asked['text'] != 'die'\n    print"
    )
    embedder = made(tmp_path, program, keep=True)
    embedder.embed(["a"])
    embedder.embed(["b"])
    assert (tmp_path / "starts").read_text() == "x"
    assert "ended with status 1" in failure(embedder, ["die"]).message
    embedder.embed(["c"])
    assert (tmp_path / "starts").read_text() == "xx"


def test_a_text_that_the_program_refuses_is_the_documents_error(tmp_path: Path) -> None:
    error = failure(made(tmp_path, 'print(\'{"error": "too long"}\')'), ["a"])
    assert (error.code, error.message) == ("invalid_document", "the text cannot be embedded: too long")


@pytest.mark.parametrize(
    ("program", "message"),
    [
        ("print('[1, 2]')", "answered 2 texts with 1 vectors"),
        ("print('[1]\\n[2]\\n[3]')", "more lines than it was given texts"),
        ("print('hello\\nhello')", "not JSON: b'hello"),
        ("print('[1]\\n[1, 2]')", "1 and 2 dimensions"),
        ("print('{}\\n{}')", "null"),
        ("print('[1]\\n[2]'); raise SystemExit(3)", "ended with status 3"),
        ("import os; os.kill(os.getpid(), 9)", "ended with signal 9"),
    ],
)
def test_a_program_that_answers_wrongly_is_refused(tmp_path: Path, program: str, message: str) -> None:
    error = failure(made(tmp_path, program), ["a", "b"])
    assert message in error.message
    assert error.code == "invalid_document", "one text may be to blame: the batch is divided"


def test_a_program_that_hangs_is_killed_with_what_it_has_started(tmp_path: Path) -> None:
    program = "import subprocess; subprocess.run(['sleep', '600'])"
    began = time.monotonic()
    error = failure(made(tmp_path, program, timeout_s=0.5), ["a"])
    assert (error.code, "has not answered within 0.5 s" in error.message) == ("embedder_failed", True)
    assert time.monotonic() - began < 15


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("", "empty"), ("   ", "empty"), ("'unclosed", "cannot be split"), ("./embed.py", "relative path"),
        ("no-such-program-anywhere --x", "is not there"),
    ],
)  # fmt: skip
def test_a_command_that_cannot_run_is_refused_before_a_library_has_it(command: str, message: str) -> None:
    with pytest.raises(VecError, match=message) as caught:
        reference("command", {"command": command})
    assert caught.value.code == "invalid_request"
