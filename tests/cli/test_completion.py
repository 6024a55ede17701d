"""Completion of names that the daemon knows: from one that runs, quickly, in the shells themselves."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator

import pytest

from tests.support.instance import BIN, Instance
from vecd.store.events import ALL_TYPES

from .completions import generated
from .test_completions import needs


@pytest.fixture(scope="module")
def instance() -> Iterator[Instance]:
    with Instance({"VEC_EMBEDDER": "hash"}) as made:
        for library in ("notes", "mail"):
            made.vec("library", "create", library)
        made.vec("watch", "--consumer", "robot", "--from", "beginning", "--no-follow")
        made.vec("relay", "add", "out", f"file://{made.home}/out", "--paused")
        made.vec("sync", "add", str(made.home), "--name", "followed", "--paused")
        made.vec("jobs", "schedule", "add", "nightly", "@daily", "verify")
        made.vec("jobs", "submit", "noop", "--wait")
        yield made


def completed(instance: Instance, words: str) -> list[str]:
    """What bash is offered for the last word."""
    environment = {
        **instance.environment,
        "_VEC_COMPLETE": "complete_bash",
        "COMP_WORDS": words,
        "COMP_CWORD": str(len(words.split()) - (not words.endswith(" "))),
    }
    done = subprocess.run([BIN / "vec"], env=environment, capture_output=True, text=True, timeout=60, check=True)
    assert done.stderr == ""
    return done.stdout.split()


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("vec search -l ", ["mail", "notes"]),
        ("vec library show n", ["notes"]),
        ("vec watch --library m", ["mail"]),
        ("vec watch --consumer ", ["robot"]),
        ("vec consumers delete ", ["robot"]),
        ("vec relay show ", ["out"]),
        ("vec sync show ", ["followed"]),
        ("vec sync pa", ["pause"]),
        ("vec sync /tmp --dry", ["--dry-run"]),
        ("vec source show ", []),
        ("vec jobs schedule run n", ["nightly"]),
        ("vec jobs submit no", ["noop"]),
        ("vec watch --type document.d", ["document.deleted"]),
        ("vec jobs list --state c", ["completed", "cancelled"]),
        ("vec --explain comp", ["compacted"]),
        ("vec config http.l", ["http.listen"]),
        ("vec completion z", ["zsh"]),
        ("vec library create ", []),  # a new name
    ],
)
def test_names_are_completed(instance: Instance, words: str, expected: list[str]) -> None:
    assert completed(instance, words) == expected


def test_a_job_that_is_already_named_is_not_offered_again(instance: Instance) -> None:
    job = str(instance.objects("jobs", "list", "-n", "1")[0]["job_id"])
    assert job in completed(instance, "vec jobs show ")
    assert job not in completed(instance, f"vec jobs show {job} ")


def test_every_type_of_event_is_completed(instance: Instance) -> None:
    offered = completed(instance, "vec watch --type ")
    assert set(ALL_TYPES) <= set(offered)
    assert {each for each in offered if not each.endswith(".*")} == set(ALL_TYPES)


def test_no_daemon_is_started_to_complete_a_name() -> None:
    with Instance({"VEC_EMBEDDER": "hash"}) as own:
        assert completed(own, "vec search -l ") == []
        assert not own.settings.socket.exists()
        assert not own.settings.data.exists()


def test_a_daemon_that_does_not_answer_holds_the_shell_up_for_a_second_or_so() -> None:
    with Instance({"VEC_EMBEDDER": "hash"}) as own:
        process = own.start()
        process.send_signal(signal.SIGSTOP)
        try:
            started = time.monotonic()
            assert completed(own, "vec search -l ") == []
            assert time.monotonic() - started < 20  # the client alone would wait for 30 s
        finally:
            process.send_signal(signal.SIGCONT)


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_printed_script_completes_names_in_the_shell(instance: Instance, shell: str) -> None:
    needs(shell)
    script = generated(shell)
    ask = {
        "bash": 'COMP_WORDS=(vec search -l n); COMP_CWORD=3; _vec_completion vec; echo "${COMPREPLY[@]}"',
        "zsh": "_arguments() { print -r -- $* }; words=(vec search -l n); CURRENT=4; _vec_completion",
        "fish": 'complete -C "vec search -l n"',
    }[shell]
    start = "compdef() { :; }\n" if shell == "zsh" else ""
    options = {"bash": ["--norc"], "zsh": ["-f"], "fish": ["--no-config"]}[shell]
    path = f"{BIN}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        [shell, *options, "-c", f"{start}{script}\n{ask}"],
        env={**instance.environment, "PATH": path}, capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    assert "notes" in done.stdout
    assert "mail" not in done.stdout
