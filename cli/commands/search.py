"""vec search: searches a library by text, by vector, or by queries from stdin."""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Iterable, Iterator
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vecd import limits
from vecd.errors import Code, VecError

from .. import main, options
from ..output import Output, console, load_orjson, one_line, printable

if TYPE_CHECKING:
    from vecd.client import Client, Pending
    from vecd.wire.ndjson import Line

app = options.command()

#: The keys of a query of --stdin.
_QUERY_KEYS = (
    "query", "vector", "k", "mode", "where", "recall", "ef", "exact", "group_by", "min_score", "explain",
)  # fmt: skip
#: With --stdin: queries in flight.
_WINDOW = 16


class Mode(StrEnum):
    """The ranking to use."""

    AUTO = "auto"
    VECTOR = "vector"
    TEXT = "text"
    HYBRID = "hybrid"


class GroupBy(StrEnum):
    """The unit of a hit."""

    DOCUMENT = "document"
    CHUNK = "chunk"


@app.command(epilog="Exit status: 0 success, even without hits, 2 usage error, 4 no such library. See vec-search(1).")
def search(
    query: Annotated[str | None, typer.Argument(metavar="[QUERY]", help="The text to search for.")] = None,
    k: Annotated[
        int, typer.Option("-k", min=1, max=limits.HITS_MAX, help="The maximum number of hits.", metavar="K")
    ] = 10,
    library: options.Library = "default",
    mode: Annotated[
        Mode, typer.Option("--mode", help="Rank by vector, full text, or both; auto: both if possible.")
    ] = Mode.AUTO,
    vector: Annotated[
        str | None, typer.Option("--vector", help="Search for this vector, a JSON list of numbers.", metavar="JSON")
    ] = None,
    where: options.Where = None,
    group_by: Annotated[
        GroupBy | None,
        typer.Option(
            "--group-by",
            help="What a hit is: a document with its best chunk, or a chunk. Default: document on a terminal and in"
            " mode auto, otherwise chunk.",
        ),
    ] = None,
    min_score: Annotated[
        float | None,
        typer.Option("--min-score", callback=options.finite, help="Omit hits with a lower score.", metavar="S"),
    ] = None,
    recall: Annotated[
        float | None,
        typer.Option(
            "--recall",
            callback=options.finite,
            min=limits.RECALL_MIN,
            max=1.0,
            help="The target recall of an approximate search. Default: the recall that the library promises.",
            metavar="R",
        ),
    ] = None,
    exact: Annotated[
        bool, typer.Option("--exact", help="Compare the query with every vector, with any index.")
    ] = False,
    ef: Annotated[
        int | None,
        typer.Option(
            "--ef",
            min=1,
            max=limits.EF_MAX,
            help="The effort of an approximate search. Overrides --recall.",
            metavar="N",
        ),
    ] = None,
    explain: Annotated[
        bool, typer.Option("--explain", help="Show how each hit was found, and how reliable the answer is.")
    ] = False,
    stdin: Annotated[bool, typer.Option("--stdin", help="Read queries from stdin, one per line.")] = False,
    json: options.Json = False,
    socket: options.Socket = None,
    no_spawn: options.NoSpawn = False,
) -> None:
    """Search a library by text or by vector; higher scores are better."""
    if stdin == (query is not None or vector is not None):
        raise VecError(Code.INVALID_REQUEST, "specify either a QUERY, a --vector, or --stdin", "see vec help search")
    if query is not None and len(query) > limits.QUERY_CHARS_MAX:
        raise VecError(
            Code.INVALID_REQUEST,
            f"the query has {len(query):,} characters; the limit is {limits.QUERY_CHARS_MAX:,}",
            "shorten the query, or search by --vector",
        )
    output = Output(json)
    if group_by is None and not output.json:
        group_by = GroupBy.DOCUMENT
    common: dict[str, Any] = {
        "library": library, "k": k, "mode": mode.value, "where": where, "exact": exact or None, "ef": ef,
        "recall": recall, "group_by": group_by and group_by.value, "min_score": min_score, "explain": explain or None,
    }  # fmt: skip
    with options.open_client(socket, no_spawn) as client:
        if stdin:
            if _many(client, output, common):
                raise typer.Exit(main.PARTLY)
            return
        packed = None if vector is None else _vector(vector, "--vector")
        if explain:
            from vecd.client import explained

            answer = client.request("search", query=query, vector=packed, **common)
            hits: Iterable[dict[str, Any]] = iter(explained(answer))
            if not output.json:
                print(_sure(answer["explain"]), file=sys.stderr)
        else:
            hits = client.items("search", "hits", query=query, vector=packed, **common)
        if output.json:
            output.objects(hits)
        else:
            _show(hits)


#: The errors for which a line of --stdin is rejected; any other error ends the run.
_REFUSALS = (
    Code.INVALID_REQUEST, Code.INVALID_DOCUMENT, Code.INVALID_FILTER, Code.DIMENSION_MISMATCH, Code.UNSUPPORTED,
)  # fmt: skip


def _many(client: Client, output: Output, common: dict[str, Any]) -> int:
    """Answers queries from stdin in their order, with several in flight. Reports rejected lines on stderr, and returns
    their number."""
    from .. import input_lines

    flying: deque[tuple[str, dict[str, Any], Pending] | VecError] = deque()
    refused = 0

    def answer() -> None:
        nonlocal refused
        first = flying.popleft()
        if not isinstance(first, VecError):
            where, query, pending = first
            try:
                output.objects(({"query": query.get("query"), **hit} for hit in _hits(pending)), flush=True)
                return
            except VecError as error:
                if not _is_the_lines_own(error, query):
                    raise
                first = VecError(error.code, f"{where}: {error.message}", error.hint, **error.details)
        refused += 1
        main.tell(first)

    for line in input_lines.lines([], lambda fd: input_lines.readable(fd, bool(flying))):
        if line is None:
            answer()
            continue
        if line.data is None or line.data.strip():
            try:
                query = _query(line)
            except VecError as error:
                flying.append(error)
            else:
                pending = client.submit("search", **{**common, **query})
                flying.append((f"{line.file}:{line.number}", query, pending))
            if len(flying) >= _WINDOW:
                answer()
    while flying:
        answer()
    return refused


def _is_the_lines_own(error: VecError, query: dict[str, Any]) -> bool:
    """Whether a search failed because of its line, and not because of an option, which applies to all lines."""
    field = "where" if error.code == Code.INVALID_FILTER else error.details.get("field", "mode")
    return error.code in _REFUSALS and (error.code == Code.DIMENSION_MISMATCH or field in query)


def _query(line: Line) -> dict[str, Any]:
    """Parses a line of --stdin: a text, or an object with "query" and/or "vector" and overrides of the options. Raises
    VecError `invalid_request`, naming the line."""
    from vecd.wire import strict_json

    load_orjson()
    where = f"{line.file}:{line.number}"
    if line.data is None:
        raise VecError(Code.INVALID_REQUEST, f"{where}: the line exceeds {limits.LINE_BYTES_MAX:,} bytes")
    text = line.data.strip()
    try:
        if not text.startswith(b"{"):
            return {"query": text.decode()}
        given = strict_json.loads(text)
    except (VecError, ValueError) as error:
        raise VecError(Code.INVALID_REQUEST, f"{where}: not a query: {error}") from error
    for key in given:
        if key not in _QUERY_KEYS:
            hint = f"the keys of a query are {', '.join(_QUERY_KEYS)}"
            raise VecError(Code.INVALID_REQUEST, f"{where}: unknown key {key!r}", hint)
    query = {key: given[key] for key in _QUERY_KEYS if key in given and key != "vector"}
    if isinstance(query.get("where"), str):
        query["where"] = [query["where"]]
    if "vector" in given:
        query["vector"] = _vector(given["vector"], where)
    if "query" not in query and "vector" not in query:
        raise VecError(Code.INVALID_REQUEST, f'{where}: a query needs a "query" or a "vector"')
    return query


def _vector(given: Any, where: str) -> bytes:
    from vecd.wire.vectors import pack_vector

    try:
        if isinstance(given, str):
            import json

            given = json.loads(given)
        if not isinstance(given, list):
            raise ValueError("it is not a list")
        return pack_vector(given)
    except (ValueError, VecError) as error:
        raise VecError(
            Code.INVALID_REQUEST, f"{where}: not a vector: must be a JSON list of numbers ({error})"
        ) from error


def _hits(pending: Pending) -> Iterator[dict[str, Any]]:
    from vecd.client import explained

    for reply in pending.parts():
        if reply.kind == "items":
            yield from reply.body
        elif "explain" in reply.body:
            yield from explained(reply.body)
        else:
            yield from reply.body.get("hits", ())


def _sure(explain: dict[str, Any]) -> str:
    """Formats the reliability of an answer as one line."""
    if explain["exact"]:
        sure = "exact"
    else:
        measured = "not measured yet" if explain["recall"] is None else f"{explain['recall']:.3f} measured"
        kept = {True: " and met", False: " but not met", None: ""}[explain["met"]]
        sure = f"approximate, recall {measured}, {explain['promise']:g} promised{kept}"
    return f"mode {explain['mode']}, index {explain['index']}, as of event {explain['seq']:,}: {sure}"


def _from(explain: dict[str, Any]) -> str:
    """Formats the ranks and scores of a hit as one line."""
    rankings = [(name, explain[name]) for name in ("vector", "text") if explain.get(name)]
    return ", ".join(f"{name}: rank {each['rank']:,}, score {each['score']:.4f}" for name, each in rankings)


def _show(hits: Iterable[dict[str, Any]]) -> None:
    """Prints hits on a terminal: rank, score, chunk id, title, and the beginning of the text."""
    from rich.text import Text

    terminal = console()
    none = True
    for hit in hits:
        none = False
        head = Text.assemble(
            (f"{hit['rank']:>3}  ", "dim"), (f"{hit['score']:.4f}  ", "green"), (one_line(hit["chunk_id"]), "bold")
        )
        if hit["title"]:
            head.append(f"  {one_line(hit['title'])}")
        terminal.print(head, soft_wrap=True)
        if "explain" in hit:
            terminal.print(Text(f"     {_from(hit['explain'])}"), soft_wrap=True)
        if hit["text"]:
            text = " ".join(printable(hit["text"]).split())
            room = max(20, terminal.width - 5)
            terminal.print(Text(f"     {text if len(text) <= room else text[: room - 1] + '…'}", style="dim"))
    if none:
        print("no hits", file=sys.stderr)
