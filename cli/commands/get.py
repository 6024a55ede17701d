"""vec get: prints complete documents by id."""

from __future__ import annotations

import sys
from typing import Annotated, Any

import typer

from vecd.errors import Code, VecError

from .. import input_lines, main, options
from ..output import Output

app = options.command()

_PAGE_IDS = 100


@app.command(epilog="Exit status: 0 success, 4 documents are missing (reported on stderr). See vec-get(1).")
def get(
    ids: Annotated[list[str] | None, typer.Argument(metavar="[ID]...", help="The documents' ids.")] = None,
    library: options.Library = "default",
    stdin: Annotated[
        bool, typer.Option("--stdin", help='Read ids from stdin, one per line: "ID", {"id": …}, or a bare id.')
    ] = False,
    vectors: Annotated[bool, typer.Option("--vectors", help="Include the vectors of the chunks.")] = False,
    json: options.Json = False,
    socket: options.Socket = None,
    no_spawn: options.NoSpawn = False,
) -> None:
    """Print documents by id."""
    if stdin == bool(ids):
        raise VecError(Code.INVALID_REQUEST, "specify either ids or --stdin")
    output = Output(json)
    missing = False
    with options.open_client(socket, no_spawn) as client:
        for page in input_lines.id_pages(ids or [], stdin, _PAGE_IDS):
            for document_id, document in zip(page, client.get(page, library, vectors=vectors), strict=True):
                if document is None:
                    missing = True
                    print(
                        f"vec: document {document_id!r} does not exist in library {library!r} (not_found)",
                        file=sys.stderr,
                    )
                elif output.json:
                    output.objects([_unpacked(document)], flush=stdin)
                else:
                    _show(document)
    if missing:
        raise typer.Exit(main.NOT_FOUND)


def _unpacked(document: dict[str, Any]) -> dict[str, Any]:
    from vecd.wire.vectors import unpack_vector

    for chunk in document["chunks"]:
        if "vector" in chunk:
            chunk["vector"] = unpack_vector(chunk["vector"])
    return document


def _show(document: dict[str, Any]) -> None:
    from rich.text import Text

    from ..output import as_json, console, one_line, printable

    terminal = console()
    terminal.print(Text(one_line(document["id"]), style="bold"), soft_wrap=True)
    if document["title"]:
        terminal.print(Text(f"title     {one_line(document['title'])}"), soft_wrap=True)
    for key, value in document["metadata"].items():
        terminal.print(
            Text(f"{one_line(key):<9} {one_line(value if isinstance(value, str) else as_json(value))}", style="cyan"),
            soft_wrap=True,
        )
    for chunk in _unpacked(document)["chunks"]:
        terminal.print(Text(f"--- {one_line(chunk['chunk_id'])}", style="dim"), soft_wrap=True)
        if chunk["text"]:
            terminal.print(Text(printable(chunk["text"])), soft_wrap=True)
        if "vector" in chunk:
            terminal.print(Text(" ".join(f"{value:.4f}" for value in chunk["vector"]), style="dim"))
