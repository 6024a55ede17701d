"""vec delete: deletes documents by id or by a filter."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from vecd.errors import Code, VecError

from .. import input_lines, options
from ..output import Output, plural

app = options.command()

_PAGE_IDS = 1_000


@app.command(epilog="Exit status: 0 success, even if documents were missing, 4 no such library. See vec-delete(1).")
def delete(
    ids: Annotated[list[str] | None, typer.Argument(metavar="[ID]...", help="The documents' ids.")] = None,
    library: options.Library = "default",
    stdin: Annotated[
        bool, typer.Option("--stdin", help='Read ids from stdin, one per line: "ID", {"id": …}, or a bare id.')
    ] = False,
    where: options.Where = None,
    json: options.Json = False,
    socket: options.Socket = None,
    no_spawn: options.NoSpawn = False,
) -> None:
    """Delete documents by id or by a filter."""
    if stdin + bool(ids) + bool(where) != 1:
        raise VecError(Code.INVALID_REQUEST, "specify either ids, --where, or --stdin")
    if where:
        with options.open_client(socket, no_spawn) as client:
            answer = client.delete(library=library, where=where)
        total = {key: answer[key] for key in ("deleted", "missing", "seq")}
        Output(json).one(total, f"{plural(total['deleted'], 'document')} deleted")
        return
    deleted, missing, seq = 0, 0, None
    failure: VecError | None = None
    try:
        with options.open_client(socket, no_spawn) as client:
            for page in input_lines.id_pages(ids or [], stdin, _PAGE_IDS, mixed=False):
                answer = client.delete(page, library)
                deleted, missing, seq = deleted + answer["deleted"], missing + answer["missing"], answer["seq"]
                for document_id in answer["missing_ids"]:
                    print(f"vec: document {document_id!r} does not exist in library {library!r}", file=sys.stderr)
    except VecError as error:
        if not deleted:
            raise
        failure = error  # raised after the summary of what has been deleted
    total = {"deleted": deleted, "missing": missing, "seq": seq}
    Output(json).one(total, f"{plural(deleted, 'document')} deleted, {missing:,} missing")
    if failure is not None:
        raise failure
