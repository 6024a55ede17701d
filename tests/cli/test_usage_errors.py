"""Usage errors look like all other errors; suggestions never delete."""

from __future__ import annotations

import importlib
from typing import Any

import pytest

from tests.support.instance import Instance

usage_errors: Any = importlib.import_module("vec_cli.usage_errors")


@pytest.mark.parametrize(
    ("arguments", "first", "second"),
    [
        (["serach"], "no such command: vec serach", "did you mean 'search'? see `vec help`"),
        (["library", "shw"], "no such command: vec library shw", "did you mean 'show'? see `vec help library`"),
        (["search", "--mod", "x"], "no such option: --mod", "did you mean --mode? see `vec help search`"),
        (["search", "-k", "x", "a"], "invalid value for '-k': 'x' is not a whole number", "see `vec help search`"),
        (["search", "-k", "0", "a"], "invalid value for '-k': 0 is not from 1 to 1000000", "see `vec help search`"),
        (["jobs", "wait"], "missing argument 'ID...'", "see `vec help jobs wait`"),
        (["get", "-xy"], "no such option: -x", "put an argument that begins with - after --: vec get -- -xy; "),
        (["consumers"], "missing command", "its commands are list, reset, delete; see `vec help consumers`"),
        (["--explain", "compact"], "'compact' is neither an exit status nor an error code", "did you mean"),
    ],
)
def test_a_usage_error_is_a_message_with_a_code_and_a_hint(
    instance: Instance, arguments: list[str], first: str, second: str
) -> None:
    done = instance.vec(*arguments, status=2)
    assert done.stdout == ""
    told = done.stderr.splitlines()
    assert told[0] == f"vec: {first} (invalid_request)"
    assert told[1].startswith(f"     {second}")
    assert len(told) == 2


@pytest.mark.parametrize(
    "arguments",
    [["delte"], ["trm"], ["library", "delet"], ["relay", "remov"], ["trim", "--past-consumer"], ["help", "restor"]],
)
def test_nothing_destructive_is_suggested(instance: Instance, arguments: list[str]) -> None:
    assert "did you mean" not in instance.vec(*arguments, status=2).stderr


def test_another_name_is_suggested_for_reading_and_not_for_deleting(instance: Instance) -> None:
    instance.vec("library", "create", "meetings")
    assert "did you mean 'meetings'?" in instance.vec("library", "show", "meeting", status=4).stderr
    done = instance.vec("library", "delete", "meeting", status=4)
    assert done.stderr == "vec: library 'meeting' does not exist (not_found)\n"


@pytest.mark.parametrize(
    "arguments", [["show", "N"], ["delete", "N"], ["rename", "N", "to"], ["copy", "N", "to"], ["rebuild", "N"]]
)
def test_no_library_is_created_to_work_on_it(instance: Instance, arguments: list[str]) -> None:
    done = instance.vec("library", *["zzzzzzzz" if each == "N" else each for each in arguments], status=4)
    assert done.stderr.startswith("vec: library 'zzzzzzzz' does not exist (not_found)\n")
    assert "create" not in done.stderr
    assert ("vec library list" in done.stderr) == (arguments[0] != "delete")


def test_every_destructive_word_is_a_command_or_an_option() -> None:
    from .test_man import COMMANDS, spelled

    def commands(command: Any) -> set[str]:
        return {name for sub, each in getattr(command, "commands", {}).items() for name in (sub, *commands(each))}

    words = set(COMMANDS).union(*(commands(each) | spelled(name, each) for name, each in COMMANDS.items()))
    assert usage_errors.DESTRUCTIVE - words <= {"--unset"}
