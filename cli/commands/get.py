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
    """Prints a document for a person: id, title, metadata as a column, and the texts of its chunks. Long lines are left
    to the terminal, so that what is copied from it is whole."""
    from ..layout import Piece, paint, width
    from ..output import as_json, colours, one_line, printable

    coloured = colours()
    fields = {"title": document["title"]} if document["title"] else {}
    fields |= {one_line(key): value for key, value in document["metadata"].items()}
    name_cells = min(24, max(map(width, fields), default=0))
    print(paint([Piece(one_line(document["id"]), "bold")], coloured))
    for name, value in fields.items():
        shown = one_line(value if isinstance(value, str) else as_json(value))
        gap = " " * (max(0, name_cells - width(name)) + 2)
        print(paint([Piece(name, "cyan"), Piece(gap), Piece(shown)], coloured))
    for chunk in _unpacked(document)["chunks"]:
        line = f" line {chunk['line']}" if chunk.get("line") is not None else ""
        print(paint([Piece(f"--- {one_line(chunk['chunk_id'])}{line}", "dim")], coloured))
        if chunk["text"]:
            print(printable(chunk["text"]))
        if "vector" in chunk:
            print(paint([Piece(" ".join(f"{value:.4f}" for value in chunk["vector"]), "dim")], coloured))
