"""vec search: searches libraries by text, by vector, by a document, or by queries from stdin."""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Iterator
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

from vecd import limits
from vecd.errors import Code, VecError

from .. import main, options
from ..output import Output, colours, columns, load_orjson, printable

if TYPE_CHECKING:
    from vecd.client import Client, Pending
    from vecd.wire.ndjson import Line

app = options.command()

#: What is searched for: a query has one of these keys.
_SEARCHED = ("query", "vector", "like")
#: The keys of a query of --stdin. Others are passed through to its hits.
_QUERY_KEYS = (
    *_SEARCHED, "k", "offset", "mode", "where", "since", "recall", "ef", "exact", "group_by", "min_score", "explain",
    "library", "libraries", "passage_chars",
)  # fmt: skip
_KEYS_HINT = f"the keys of a query are {', '.join(_QUERY_KEYS)}; others are passed through"
#: How similar a key is to one of a query, of 1, if it is probably misspelt: query_id is not.
_MISSPELT = 0.8
#: The keys of a hit.
_HIT_KEYS = frozenset(
    ("rank", "score", "document_id", "chunk_id", "title", "text", "metadata", "passage", "line", "path")
)
#: The length of a passage for --format grep, which prints a line of it.
_GREP_CHARS = 200
#: With --stdin: queries in flight.
_WINDOW = 16


class Mode(StrEnum):
    """The ranking to use."""

    AUTO = "auto"
    VECTOR = "vector"
    TEXT = "text"
    HYBRID = "hybrid"


class Format(StrEnum):
    """How hits are printed."""

    TEXT = "text"
    JSON = "json"
    GREP = "grep"


class GroupBy(StrEnum):
    """The unit of a hit."""

    DOCUMENT = "document"
    CHUNK = "chunk"


@app.command(epilog="Exit status: 0 success, even without hits, 2 usage error, 4 no such library. See vec-search(1).")
def search(
    query: Annotated[
        list[str] | None, typer.Argument(metavar="[QUERY]...", help="The text to search for; needs no quotes.")
    ] = None,
    k: Annotated[
        int, typer.Option("-k", min=1, max=limits.HITS_MAX, help="The maximum number of hits.", metavar="K")
    ] = 10,
    offset: Annotated[
        int, typer.Option("--offset", min=0, max=limits.HITS_MAX, help="Skip the best N hits.", metavar="N")
    ] = 0,
    library: options.Libraries = None,
    mode: Annotated[
        Mode, typer.Option("--mode", help="Rank by vector, full text, or both; auto: both if possible.")
    ] = Mode.AUTO,
    vector: Annotated[
        str | None,
        typer.Option(
            "--vector", help="Search for this vector, a JSON list of numbers; @FILE or - reads it.", metavar="JSON"
        ),
    ] = None,
    like: Annotated[
        str | None, typer.Option("--like", help="Search for documents similar to this one.", metavar="ID")
    ] = None,
    where: options.Where = None,
    since: Annotated[
        str | None,
        typer.Option(
            "--since", help="Only documents changed since then: a cursor, an RFC 3339 time, or as -15m.", metavar="WHEN"
        ),
    ] = None,
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
    form: Annotated[
        Format | None,
        typer.Option(
            "--format",
            help="How to print hits; grep: PATH:LINE:TEXT, for editors. Default: text on a terminal, else json.",
        ),
    ] = None,
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="On a terminal, show all of each hit: text, metadata, id.")
    ] = False,
    json: options.Json = False,
    socket: options.Socket = None,
    no_spawn: options.NoSpawn = False,
) -> None:
    """Search libraries by text or by vector; higher scores are better."""
    text = " ".join(query) if query else None
    _check(text, vector, like, stdin)
    if form is not None and (json or (stdin and form is not Format.JSON)):
        given = "--json" if json else "--stdin"
        raise VecError(Code.INVALID_REQUEST, f"{given} cannot be combined with --format {form}", field="format")
    output = Output(json)
    grep, in_json = form is Format.GREP, output.json if form is None else form is Format.JSON
    if group_by is None and not in_json:
        group_by = GroupBy.CHUNK if grep else GroupBy.DOCUMENT
    common: dict[str, Any] = {
        **_named(library), "k": k, "offset": offset or None, "mode": mode.value, "where": where, "since": since,
        "exact": exact or None, "ef": ef, "recall": recall, "group_by": group_by and group_by.value,
        "min_score": min_score, "explain": explain or None,
    }  # fmt: skip
    with options.open_client(socket, no_spawn) as client:
        if stdin:
            if _many(client, output, common):
                raise typer.Exit(main.PARTLY)
            return
        if not in_json and k <= limits.PASSAGES_MAX:
            from ..hits import passage_chars

            common["passage_chars"] = _GREP_CHARS if grep else passage_chars(columns())
        packed = None if vector is None else _vector(_given(vector), "--vector")
        answer = _Answer(client.submit("search", query=text, vector=packed, like=like, **common))
        if in_json:
            output.objects(answer.hits())
        elif grep:
            _print_lines(answer)
        else:
            _show(answer, verbose=verbose, by_chunk=group_by is GroupBy.CHUNK)
        if not answer.count and (others := "" if library else _others(client)):
            print(f"no hits: library 'default' is empty; {others}", file=sys.stderr)
        elif not answer.count and not in_json and not grep:
            why = answer.about.get("no_hits")
            print(f"no hits: {printable(why)}" if why else "no hits", file=sys.stderr)


#: Libraries that are named to a person who did not say which to search.
_NAMED = 3


def _others(client: Client) -> str:
    """Where else to search if the library `default` has not been made, or is empty; else nothing."""
    try:
        found = client.libraries()
    except VecError:  # a key may permit searches only
        return ""
    if any(each["name"] == "default" and each["documents"] for each in found):
        return ""
    names = [each["name"] for each in found if each["documents"]]
    if not names:
        return "vec ingest adds documents to it"
    shown = ", ".join(f"-l {printable(name)}" for name in names[:_NAMED])
    return f"search another: {shown}{', …' if len(names) > _NAMED else ''}"


def _check(text: str | None, vector: str | None, like: str | None, stdin: bool) -> None:
    """Refuses what is not one query. Raises VecError `invalid_request`."""
    given = {
        "a QUERY": text is not None, "--vector": vector is not None, "--like": like is not None, "--stdin": stdin
    }  # fmt: skip
    found = [name for name, is_given in given.items() if is_given]
    if len(found) > 1 and found != ["a QUERY", "--vector"]:
        one, other = found[0], found[-1]
        raise VecError(
            Code.INVALID_REQUEST,
            f"{one} and {other} cannot be combined" if one == "a QUERY" else f"{one} cannot be combined with {other}",
            "only a QUERY and --vector can be, for a hybrid search; see vec help search",
        )
    if not found:
        raise VecError(
            Code.INVALID_REQUEST, "specify either a QUERY, a --vector, --like, or --stdin", "see vec help search"
        )
    if text is not None and len(text) > limits.QUERY_CHARS_MAX:
        raise VecError(
            Code.INVALID_REQUEST,
            f"the query has {len(text):,} characters; the limit is {limits.QUERY_CHARS_MAX:,}",
            "shorten the query, or search by --vector",
        )


def _named(libraries: list[str] | None) -> dict[str, Any]:
    """The fields of a request that name the libraries to search."""
    if not libraries:
        return {"library": "default"}
    if "all" in libraries:
        return {"libraries": ["*"]}
    return {"library": libraries[0]} if len(libraries) == 1 else {"libraries": libraries}


def _given(vector: str) -> str:
    """The value of --vector: itself, or what is in the file that it names. Raises VecError `invalid_request`."""
    if vector != "-" and not vector.startswith("@"):
        return vector
    path = "stdin" if vector in ("-", "@-") else vector[1:]
    try:
        if path == "stdin":
            return sys.stdin.buffer.read(limits.LINE_BYTES_MAX).decode()
        with open(path, "rb") as file:
            return file.read(limits.LINE_BYTES_MAX).decode()
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise VecError(Code.INVALID_REQUEST, f"--vector: cannot read {path} ({why})") from error


class _Answer:
    """The answer to one search, as it arrives."""

    def __init__(self, pending: Pending) -> None:
        self._pending = pending
        self.count = 0  # of the hits that have been read
        self.about: dict[str, Any] = {}  # what it has beside the hits, once these have been read

    def hits(self) -> Iterator[dict[str, Any]]:
        """The hits. Raises VecError."""
        for hit in self._hits():
            self.count += 1
            yield hit

    def _hits(self) -> Iterator[dict[str, Any]]:
        from vecd.client import explained

        for reply in self._pending.parts():
            if reply.kind == "items":
                yield from reply.body
                continue
            self.about = reply.body
            yield from explained(reply.body) if "explain" in reply.body else reply.body.get("hits", ())


def _print_lines(answer: _Answer) -> None:
    """Prints the hits as `grep -n` does."""
    from ..hits import grep_line, working_folder

    folder = working_folder()
    for hit in answer.hits():
        print(grep_line(hit, folder))


def _show(answer: _Answer, *, verbose: bool, by_chunk: bool) -> None:
    """Prints the hits on a terminal."""
    from ..hits import HitView, certainty, working_folder

    view = HitView(
        columns=columns(), colours=colours(), verbose=verbose, by_chunk=by_chunk, folder=working_folder()
    )  # fmt: skip
    for hit in answer.hits():
        if answer.count == 1 and "explain" in answer.about:
            for line in certainty(answer.about["explain"]):
                print(line, file=sys.stderr)
        print("\n".join(view.lines(hit)))


#: The errors for which a line of --stdin is rejected; any other error ends the run.
_REFUSALS = (
    Code.INVALID_REQUEST, Code.INVALID_DOCUMENT, Code.INVALID_FILTER, Code.DIMENSION_MISMATCH, Code.UNSUPPORTED,
)  # fmt: skip
#: The same, if the line has one of these fields.
_REFUSALS_OF = {Code.NOT_FOUND: ("library", "libraries", "like"), Code.COMPACTED: ("since",)}


def _many(client: Client, output: Output, common: dict[str, Any]) -> int:
    """Answers queries from stdin in their order, with several in flight. Reports rejected lines on stderr, and returns
    their number."""
    from .. import input_lines

    flying: deque[tuple[str, _Query, Pending] | VecError] = deque()
    refused = 0
    similar: set[str] = set()

    def answer() -> None:
        nonlocal refused
        first = flying.popleft()
        if not isinstance(first, VecError):
            where, query, pending = first
            about = {"query": query.fields.get("query"), **query.passed}
            try:
                output.objects(({**about, **hit} for hit in _Answer(pending).hits()), flush=True)
                return
            except VecError as error:
                if not _is_the_lines_own(error, query.fields):
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
                for key in query.passed.keys() - similar:
                    _warn_similar(key, f"{line.file}:{line.number}")
                similar |= query.passed.keys()
                pending = client.submit("search", **query.over(common))
                flying.append((f"{line.file}:{line.number}", query, pending))
            if len(flying) >= _WINDOW:
                answer()
    while flying:
        answer()
    return refused


def _is_the_lines_own(error: VecError, query: dict[str, Any]) -> bool:
    """Whether a search failed because of its line, and not because of an option, which applies to all lines."""
    if error.code in _REFUSALS_OF:
        return any(field in query for field in _REFUSALS_OF[error.code])
    field = "where" if error.code == Code.INVALID_FILTER else error.details.get("field", "mode")
    return error.code in _REFUSALS and (error.code == Code.DIMENSION_MISMATCH or field in query)


class _Query(NamedTuple):
    """A line of --stdin."""

    fields: dict[str, Any]  # of the request
    passed: dict[str, Any]  # what its hits are to have

    def over(self, common: dict[str, Any]) -> dict[str, Any]:
        """The request, where the options are `common`."""
        if "library" in self.fields or "libraries" in self.fields:
            common = {key: value for key, value in common.items() if key not in ("library", "libraries")}
        return {**common, **self.fields}


def _query(line: Line) -> _Query:
    """Parses a line of --stdin: a text, or an object with a query and overrides of the options. Raises VecError
    `invalid_request`, naming the line."""
    from vecd.json_values import id_text
    from vecd.wire import strict_json

    load_orjson()
    where = f"{line.file}:{line.number}"
    if line.data is None:
        raise VecError(Code.INVALID_REQUEST, f"{where}: the line exceeds {limits.LINE_BYTES_MAX:,} bytes")
    text = line.data.strip()
    try:
        if not text.startswith(b"{"):
            return _Query({"query": text.decode()}, {})
        given = strict_json.loads(text)
    except (VecError, ValueError) as error:
        raise VecError(Code.INVALID_REQUEST, f"{where}: not a query: {error}") from error
    fields = {key: given[key] for key in _QUERY_KEYS if key in given and key != "vector"}
    passed = {key: value for key, value in given.items() if key not in _QUERY_KEYS}
    for key in passed.keys() & _HIT_KEYS:
        raise VecError(
            Code.INVALID_REQUEST, f"{where}: the key {key!r} is one of a hit, and cannot be passed through", _KEYS_HINT
        )
    if "like" in fields:
        fields["like"] = id_text(fields["like"])
    if isinstance(fields.get("where"), str):
        fields["where"] = [fields["where"]]
    if "vector" in given:
        fields["vector"] = _vector(given["vector"], where)
    if not any(key in fields for key in _SEARCHED):
        raise VecError(Code.INVALID_REQUEST, f'{where}: a query needs a "query", a "vector" or a "like"', _KEYS_HINT)
    return _Query(fields, passed)


def _warn_similar(key: str, where: str) -> None:
    """Warns of a key that is passed through and may be a misspelt one of a query."""
    import difflib

    for close in difflib.get_close_matches(key[:20], _QUERY_KEYS, 1, _MISSPELT):
        options.say(f"warning: {where}: the key {key!r:.60} is passed through to the hits; did you mean {close!r}?")


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
