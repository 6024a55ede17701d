"""vec list: lists the documents of a library, without the text of their chunks."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from vecd.errors import Code, VecError

from .. import options
from ..output import Output, as_json, colours, columns, one_line

app = options.command()

#: Documents that a terminal shows. A complete list of a large library goes to a pipe.
_SHOWN = 1_000
#: Cells between two columns, and of the least metadata that is worth showing.
_GAP, _METADATA_CELLS = 2, 12


@app.command("list", epilog="Exit status: 0 success, 2 usage error, 4 no such library. See vec-list(1).")
def list_(
    library: options.Library = "default",
    where: options.Where = None,
    count: Annotated[int | None, typer.Option("-n", min=1, help="List at most N documents.", metavar="N")] = None,
    sort: Annotated[
        str | None, typer.Option("--sort", help="Sort by this field, as 'year', instead of by id.", metavar="FIELD")
    ] = None,
    reverse: Annotated[bool, typer.Option("--reverse", "-r", help="With --sort: the largest first.")] = False,
    json: options.Json = False,
    socket: options.Socket = None,
    no_spawn: options.NoSpawn = False,
) -> None:
    """List the documents of a library, or those that match a filter, by id."""
    if reverse and sort is None:
        raise VecError(Code.INVALID_REQUEST, "--reverse needs --sort FIELD", "--sort document_id sorts by id")
    output = Output(json)
    cut = not output.json and (count is None or count > _SHOWN)
    with options.open_client(socket, no_spawn) as client:
        limit = _SHOWN + 1 if cut else count
        documents = client.documents(library, where=where or (), sort=sort, descending=reverse, limit=limit)
        if output.json:
            output.objects(documents)
            return
        shown = list(documents)
        _show(shown[:_SHOWN] if cut else shown)
        if cut and len(shown) > _SHOWN:
            typer.echo(f"showing the first {_SHOWN:,} documents; use --json or a pipe for all", err=True)


def _show(documents: list[dict[str, Any]]) -> None:
    """Prints a line for each document. An id is never cut or broken, so that it can be copied: one that is too long for
    its column has a line of its own."""
    from ..layout import Piece, cut, paint, width

    cells, coloured = columns(), colours()
    ids = [one_line(each["id"]) for each in documents]
    titles = [one_line(each["title"] or "") for each in documents]
    counts = [f"{each['chunks']:,}" for each in documents]
    id_cells = max((cells_of_id for cells_of_id in map(width, ids) if cells_of_id <= cells // 2), default=2)
    count_cells = max(map(len, ("chunks", *counts)))
    room = max(0, cells - id_cells - count_cells - 2 * _GAP)
    title_cells = min(max(map(width, ("title", *titles))), room if room < 2 * _METADATA_CELLS else room // 2)
    rest = room - title_cells - _GAP

    def line(name: str, title: str, count: str, metadata: str, style: str = "") -> str:
        pieces = [Piece(name, style or "bold"), Piece(" " * (id_cells - width(name) + _GAP))]
        if width(name) > id_cells:
            pieces[1] = Piece("\n" + " " * (id_cells + _GAP))
        if title_cells > 0:
            short = cut([Piece(title, style)], title_cells)
            pieces += [*short, Piece(" " * (title_cells - sum(width(each.text) for each in short) + _GAP))]
        pieces.append(Piece(count.rjust(count_cells), style))
        if metadata and rest >= _METADATA_CELLS:
            pieces += [Piece(" " * _GAP), *cut([Piece(metadata, style or "cyan")], rest)]
        return paint(pieces, coloured).rstrip()

    print(line("id", "title", "chunks", "metadata", "dim"))
    for each, name, title, count in zip(documents, ids, titles, counts, strict=True):
        print(line(name, title, count, one_line(as_json(each["metadata"])) if each["metadata"] else ""))
