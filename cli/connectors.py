"""What `vec relay` and `vec source` share: parameters, tables, dead letters."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Annotated, Any

import typer

from vecd.errors import Code, VecError

from . import options
from .jobs import absolute
from .output import Output, as_json, one_line

Params = Annotated[
    list[str] | None,
    typer.Option("--param", "-p", help="A parameter of the broker's transport. Can be repeated.", metavar="NAME=VALUE"),
]
LetterIds = Annotated[list[int] | None, typer.Argument(metavar="[LETTER]…", help="Dead letters, by number.")]
All = Annotated[bool, typer.Option("--all", help="All dead letters.")]


def parameters_of(given: Sequence[str] | None, socket: str | None) -> dict[str, Any]:
    """Parses NAME=VALUE. The daemon converts each value to the declared type. Raises VecError `invalid_request`."""
    from vecd.connectors.parameters import PATHS

    parameters: dict[str, Any] = {}
    for each in given or ():
        name, equals, value = each.partition("=")
        if not equals or not name:
            raise VecError(Code.INVALID_REQUEST, f"--param {each!r:.60} is not NAME=VALUE")
        if name in parameters:
            raise VecError(Code.INVALID_REQUEST, f"--param {name!r:.60} is given twice")
        if name in PATHS and not options.remote(socket):  # the daemon has another working folder
            value = absolute(value)
        parameters[name] = value
    return parameters


def chosen(letter_ids: Sequence[int] | None, all_: bool) -> list[int] | None:
    """The chosen dead letters; None: all. Raises VecError `invalid_request`."""
    if bool(letter_ids) == all_:
        raise VecError(Code.INVALID_REQUEST, "name the dead letters, or use --all", "`dead` lists them by number")
    return None if all_ else list(letter_ids or ())


def show_all(
    output: Output,
    direction: str,
    columns: Sequence[str],
    rows: Sequence[Sequence[Any]],
    connectors: Sequence[dict[str, Any]],
) -> None:
    """Prints all connectors of a direction as a table, and below it the errors that they have now, with the remedies:
    in a column, these would be broken in the middle of words."""
    if not connectors:
        print(f"no {direction}s; `vec {direction} add` adds one")
        return
    output.table(columns, rows)
    for each in connectors:
        if each["state"] in ("retrying", "failing") and (error := each["error"]) is not None:
            print(f"{one_line(each['name'])} is {each['state']}: {one_line(error['message'])}")
            if error.get("hint"):
                print(f"  {one_line(error['hint'])}")


def show(output: Output, connector: dict[str, Any]) -> None:
    """Prints a connector: as JSON, or a line for each key that has a value."""
    lines = []
    for key, value in connector.items():
        if key == "error" and value is not None:
            value = f"{value['message']} ({value['code']})" + (f": {value['hint']}" if value.get("hint") else "")
        if value not in (None, "", [], {}, False):
            shown = value if isinstance(value, str) else as_json(value)
            lines.append(f"{key.replace('_', ' '):<14}{one_line(shown)}")
    output.one(connector, "\n".join(lines))


def show_letters(output: Output, letters: Iterable[dict[str, Any]]) -> None:
    """Prints dead letters; in JSON, with their bodies as text."""
    if output.json:
        output.objects({**each, "body": each["body"].decode("utf-8", "replace")} for each in letters)
        return
    rows = [
        (
            str(each["letter_id"]), each["time"][:19].replace("T", " "), each["position"], each["attempts"],
            ("to be retried: " if each["retrying"] else "") + each["reason"],
        )
        for each in letters
    ]  # fmt: skip
    output.table(("letter", "time", "position", "attempts", "reason"), rows)
