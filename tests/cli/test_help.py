"""vec help: the same text as --help, for vec, its commands and their subcommands."""

from __future__ import annotations

import pytest

from tests.support.instance import Instance

from .test_completions import BIN, run


@pytest.mark.parametrize("command", [[], ["search"], ["library"], ["library", "create"], ["jobs", "schedule", "add"]])
def test_help_prints_what_the_option_prints(instance: Instance, command: list[str]) -> None:
    assert instance.vec("help", *command).stdout == instance.vec(*command, "--help").stdout


def test_help_of_an_unknown_command_is_a_usage_error_that_names_the_nearest(instance: Instance) -> None:
    done = instance.vec("help", "libary", status=2)
    assert done.stdout == ""
    assert done.stderr.startswith("vec: no such command: vec libary (invalid_request)\n     did you mean 'library'?")
    assert "no such command: vec get deep" in instance.vec("help", "get", "deep", status=2).stderr


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("vec help sea", ["search"]),
        ("vec help library cr", ["create"]),
        ("vec help jobs schedule r", ["run", "remove"]),
    ],
)
def test_help_completes_the_names_of_commands(words: str, expected: list[str]) -> None:
    last = len(words.split()) - 1
    told = run(BIN / "vec", _VEC_COMPLETE="complete_bash", COMP_WORDS=words, COMP_CWORD=str(last))
    assert told.split() == expected
