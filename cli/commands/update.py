"""vec update: changes the metadata of documents, by id or by a filter, without embedding them again."""

from __future__ import annotations

import re
import sys
from typing import Annotated, Any

import typer

from vecd.errors import Code, VecError

from .. import input_lines, main, options
from ..output import Output, plural

app = options.command()

_PAGE_IDS = 1_000
#: KEY=VALUE, where a key in quotes can contain an equals sign.
_SET = re.compile(r"""((?:"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*'|[^="'])+)=(.*)""", re.S)


@app.command(epilog="Exit status: 0 success, 3 some documents failed, 4 documents are missing. See vec-update(1).")
def update(
    ids: Annotated[list[str] | None, typer.Argument(metavar="[ID]...", help="The documents' ids.")] = None,
    library: options.Library = "default",
    set_: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            help="Set a metadata key to a value: JSON, or else a string. Can be repeated.",
            metavar="KEY=VALUE",
        ),
    ] = None,
    unset: Annotated[
        list[str] | None, typer.Option("--unset", help="Remove a metadata key. Can be repeated.", metavar="KEY")
    ] = None,
    stdin: Annotated[
        bool, typer.Option("--stdin", help='Read ids from stdin, one per line: "ID", {"id": …}, or a bare id.')
    ] = False,
    where: options.Where = None,
    json: options.Json = False,
    socket: options.Socket = None,
    no_spawn: options.NoSpawn = False,
) -> None:
    """Change the metadata of documents, by id or by a filter, without embedding them again."""
    if stdin + bool(ids) + bool(where) != 1:
        raise VecError(Code.INVALID_REQUEST, "specify either ids, --where, or --stdin")
    values, removed = _values(set_ or []), unset or []
    if not values and not removed:
        raise VecError(Code.INVALID_REQUEST, "nothing to change", "specify --set KEY=VALUE or --unset KEY")
    total: dict[str, Any] = dict.fromkeys(("updated", "unchanged", "missing", "failed"), 0)
    with options.open_client(socket, no_spawn) as client:
        if where:
            _add(total, client.update(library=library, where=where, set=values, unset=removed), library)
        else:
            for page in input_lines.id_pages(ids or [], stdin, _PAGE_IDS, mixed=False):
                _add(total, client.update(page, library, set=values, unset=removed), library)
    text = f"{plural(total['updated'], 'document')} updated, {total['unchanged']:,} unchanged"
    text += "".join(f", {total[key]:,} {key}" for key in ("missing", "failed") if total[key])
    Output(json).one(total, text)
    if total["failed"]:
        raise typer.Exit(main.PARTLY)
    if total["missing"]:
        raise typer.Exit(main.NOT_FOUND)


def _values(given: list[str]) -> dict[str, Any]:
    """The fields and values of --set."""
    found: dict[str, Any] = {}
    for each in given:
        match = _SET.fullmatch(each)
        if match is None:
            raise VecError(Code.INVALID_REQUEST, f"--set {each!r:.60} is not KEY=VALUE", "for example --set year=2026")
        key, value = match.groups()
        if key in found:
            raise VecError(Code.INVALID_REQUEST, f"--set {key} is given twice")
        found[key] = _value(value)
    return found


def _value(text: str) -> Any:
    """JSON, or else a string."""
    import json

    def not_json(name: str) -> None:  # NaN and Infinity
        raise ValueError(name)

    try:
        return json.loads(text, parse_constant=not_json)
    except (ValueError, RecursionError):
        return text


def _add(total: dict[str, Any], answer: dict[str, Any], library: str) -> None:
    """Adds an answer to the total, and reports what is missing or failed."""
    for key in ("updated", "unchanged", "missing", "failed"):
        total[key] += answer[key]
    total["seq"] = answer["seq"]
    for document_id in answer["missing_ids"]:
        print(f"vec: document {document_id!r} does not exist in library {library!r} (not_found)", file=sys.stderr)
    for each in answer["errors"]:
        options.say(f"document {each['id']!r}: {each['message']} ({each['code']})")
    if (more := answer["failed"] - len(answer["errors"])) > 0:
        options.say(f"{more:,} more documents failed")
