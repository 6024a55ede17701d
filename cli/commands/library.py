"""vec library: create, list, show, set, copy, rename, rebuild and delete libraries."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from enum import StrEnum
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperOption

from vecd import limits
from vecd.errors import VecError, nearest
from vecd.index.kinds import DEFAULT, KINDS
from vecd.text.embedders import EMBEDDERS

from .. import options
from .. import recall as formatted
from ..jobs import absolute
from ..output import Output, as_json, one_line, plural, size

app = options.command()

Name = Annotated[
    str, typer.Argument(metavar="NAME", help="The library's name.", autocompletion=options.names("library"))
]


class Metric(StrEnum):
    """The similarity of two vectors."""

    COSINE = "cosine"
    DOT = "dot"
    L2 = "l2"


class Vectors(StrEnum):
    """The type in which a graph stores vectors."""

    FLOAT32 = "float32"
    FLOAT16 = "float16"


def _one_of(names: Iterable[str], flag: str, text: str) -> Any:
    """An option that takes a name from a table. An enum, as mypy knows it, cannot list the names of a table."""
    known = [*names]

    def check(value: str | None) -> str | None:
        if value is not None and value not in known:
            close = nearest(value, known)
            hint = f" Did you mean {close}?" if close else ""
            raise typer.BadParameter(f"{value!r} is not one of {', '.join(known)}.{hint}")
        return value

    return typer.Option(flag, callback=check, autocompletion=lambda: known, help=text, metavar=f"<{'|'.join(known)}>")


# Short forms of --param. `_IndexCommand` adds the help of the parameter from the table of kinds.
Links = Annotated[int | None, typer.Option("--m", help="Short for --param m=N.", metavar="N")]
EfConstruction = Annotated[
    int | None, typer.Option("--ef-construction", help="Short for --param ef_construction=N.", metavar="N")
]
VectorsAs = Annotated[Vectors | None, typer.Option("--vectors", help="Short for --param vectors=TYPE.")]
Bits = Annotated[int | None, typer.Option("--bits", help="Short for --param bits=N.", metavar="N")]
LeafSize = Annotated[int | None, typer.Option("--leaf-size", help="Short for --param leaf_size=N.", metavar="N")]

Recall = Annotated[
    float | None,
    typer.Option(
        "--recall",
        callback=options.finite,
        min=limits.RECALL_MIN,
        max=1.0,
        help="The fraction of the nearest vectors that approximate searches find; 1: exact.",
        metavar="R",
    ),
]


Params = Annotated[
    list[str] | None,
    typer.Option(
        "--param",
        help="A parameter of the index. Can be repeated.",
        metavar="NAME=VALUE",
    ),
]


Map = Annotated[
    list[str] | None,
    typer.Option(
        "--map",
        help="How any JSON becomes documents: id=url, text=title,body, metadata=rest. Can be repeated.",
        metavar="FIELD=PATH",
    ),
]


class _IndexCommand(TyperCommand):
    """A command with the options of index parameters. Their help names the kinds that have the parameter, its meaning
    and its default. It is filled in when help is printed, because the kinds import numpy."""

    def format_options(self, ctx: Any, formatter: Any) -> None:
        for option in self.params:
            name = option.name or ""
            found = {each: kind.parameters[name] for each, kind in KINDS.items() if name in kind.parameters}
            if found and isinstance(option, TyperOption):
                option.help = " ".join(f"{kind}: {each.what}; default: {each.default}." for kind, each in found.items())
        super().format_options(ctx, formatter)


def _params(
    m: int | None,
    ef_construction: int | None,
    vectors: Vectors | None,
    bits: int | None,
    leaf_size: int | None,
    params: list[str] | None,
) -> dict[str, Any]:
    """Collects the index parameters that are set. The daemon checks them."""
    short = {
        "m": m, "ef_construction": ef_construction, "vectors": vectors and vectors.value, "bits": bits,
        "leaf_size": leaf_size,
    }  # fmt: skip
    found: dict[str, Any] = {name: value for name, value in short.items() if value is not None}
    for each in params or ():
        name, equals, value = each.partition("=")
        if not name or not equals or not value:
            raise typer.BadParameter(f"{each!r} is not NAME=VALUE", param_hint="--param")
        if name in found:
            raise typer.BadParameter(f"{name} is set twice", param_hint="--param")
        found[name] = _number(value)
    return found


def _embedder_parameters(given: list[str] | None, socket: str | None) -> dict[str, str]:
    """Parses NAME=VALUE. The daemon converts each value to the declared type."""
    found: dict[str, str] = {}
    for each in given or ():
        name, equals, value = each.partition("=")
        if not name or not equals:
            raise typer.BadParameter(f"{each!r} is not NAME=VALUE", param_hint="--embedder-param")
        if name in found:
            raise typer.BadParameter(f"{name} is set twice", param_hint="--embedder-param")
        if name == "key_file" and not options.remote(socket):  # the daemon has another working folder
            value = absolute(value)
        found[name] = value
    return found


def _number(value: str) -> int | float | str:
    """Parses a number; anything else stays a string."""
    for kind in (int, float):
        with contextlib.suppress(ValueError):
            return kind(value)
    return value


@app.callback()
def library() -> None:
    """Create, list, show, set, copy, rename, rebuild and delete libraries."""


@app.command(
    cls=_IndexCommand,
    epilog="To change these settings later: vec library rebuild (index, recall), vec jobs submit reembed (embedder,"
    " chunks). Exit status: 1 a library with this name exists, 2 usage.",
)
def create(
    name: Name,
    embedder: Annotated[
        str | None,
        _one_of(
            EMBEDDERS,
            "--embedder",
            "Turns text into vectors; none: documents have vectors. Default: the daemon's setting, wordllama.",
        ),
    ] = None,
    embedder_param: Annotated[
        list[str] | None,
        typer.Option(
            "--embedder-param",
            help="A parameter of the embedder: url and model of openai, command of command. Can be repeated.",
            metavar="NAME=VALUE",
        ),
    ] = None,
    first_embedder: Annotated[
        str | None,
        _one_of(
            EMBEDDERS,
            "--first-embedder",
            "Finds documents until a slow embedder has embedded them; none: writes wait for it. Default: wordllama if"
            " the embedder is slow.",
        ),
    ] = None,
    dimension: Annotated[
        int | None,
        typer.Option(
            "--dimension",
            min=1,
            max=limits.DIMENSION_MAX,
            help="Components of a vector, with --embedder none. Default: those of the first vector.",
            metavar="N",
        ),
    ] = None,
    metric: Annotated[Metric, typer.Option("--metric", help="The similarity metric.")] = Metric.COSINE,
    index: Annotated[
        str | None,
        _one_of(KINDS, "--index", f"The kind of index. Default: {DEFAULT}."),
    ] = None,
    m: Links = None,
    ef_construction: EfConstruction = None,
    vectors: VectorsAs = None,
    bits: Bits = None,
    leaf_size: LeafSize = None,
    param: Params = None,
    chunk_chars: Annotated[
        int | None,
        typer.Option(
            "--chunk-chars",
            min=50,
            max=limits.CHUNK_CHARS_MAX,
            help="The maximum number of characters of a chunk. Default: the daemon's setting, 1000.",
            metavar="N",
        ),
    ] = None,
    chunk_overlap: Annotated[
        int | None,
        typer.Option(
            "--chunk-overlap",
            min=0,
            max=limits.CHUNK_CHARS_MAX // 2,
            help="Characters that a chunk may repeat from the end of the one before it, at most. Default: 0.",
            metavar="N",
        ),
    ] = None,
    recall: Recall = None,
    language: Annotated[
        str | None,
        typer.Option(
            "--language",
            help="The language of the stemmer for full-text search; none: no stemming. Default: the daemon's setting,"
            " english.",
            metavar="L",
        ),
    ] = None,
    rules: Map = None,
    json: options.Json = False,
    socket: options.Socket = None,
    no_spawn: options.NoSpawn = False,
) -> None:
    """Create a library."""
    mapping = options.pairs("--map", rules, "FIELD=PATH, as in text=body") or None
    embedder_parameters = _embedder_parameters(embedder_param, socket)
    with options.open_client(socket, no_spawn) as client:
        body = client.request(
            "library.create", library=name, embedder=embedder, embedder_parameters=embedder_parameters or None,
            first_embedder=first_embedder, dimension=dimension,
            metric=metric.value, index=index, chunk_chars=chunk_chars, chunk_overlap=chunk_overlap,
            parameters=_params(m, ef_construction, vectors, bits, leaf_size, param), recall=recall, language=language,
            mapping=mapping,
        )  # fmt: skip
    size = f"{body['dimension']} dimensions" if body["dimension"] else "dimension set by the first vector"
    embedders = f"{body['embedder']} after {body['first_embedder']}" if body["first_embedder"] else body["embedder"]
    Output(json).one(body, f"library {name}: {embedders}, {size}, {body['metric']}, {body['index']}")


@app.command("list")
def list_(json: options.Json = False, socket: options.Socket = None, no_spawn: options.NoSpawn = False) -> None:
    """List libraries by name."""
    output = Output(json)
    with options.open_client(socket, no_spawn) as client:
        libraries = client.libraries()
    if output.json:
        output.objects(libraries)
    else:
        table(output, libraries)


@app.command()
def show(
    name: Name, json: options.Json = False, socket: options.Socket = None, no_spawn: options.NoSpawn = False
) -> None:
    """Show a library, the state of its index and its recall."""
    output = Output(json)
    with options.open_client(socket, no_spawn) as client:
        body = client.library(name)
    if output.json:
        output.objects([body])
    else:
        _describe(body)


@app.command("set", epilog="Exit status: 2 usage, 4 no such library. See vec-source(1) for the rules.")
def set_(
    name: Name,
    rules: Map = None,
    no_map: Annotated[
        bool, typer.Option("--no-map", help="Remove the rules: the library takes documents as they are.")
    ] = False,
    json: options.Json = False,
    socket: options.Socket = None,
    no_spawn: options.NoSpawn = False,
) -> None:
    """Change what a library does with its input: the rules by which any JSON becomes documents."""
    mapping = options.pairs("--map", rules, "FIELD=PATH, as in text=body")
    if bool(mapping) == no_map:
        raise typer.BadParameter("give --map FIELD=PATH, or --no-map", param_hint="--map")
    with options.open_client(socket, no_spawn) as client:
        body = client.set_library(name, mapping=mapping)
    Output(json).one(body, f"library {name}: {_mapping(body)}")


@app.command(cls=_IndexCommand, epilog="Reads and writes continue. Exit status: 2 usage, 4 no such library.")
def rebuild(
    name: Name,
    index: Annotated[str | None, _one_of(KINDS, "--index", "The new kind of index. Default: the current kind.")] = None,
    m: Links = None,
    ef_construction: EfConstruction = None,
    vectors: VectorsAs = None,
    bits: Bits = None,
    leaf_size: LeafSize = None,
    param: Params = None,
    recall: Recall = None,
    json: options.Json = False,
    socket: options.Socket = None,
    no_spawn: options.NoSpawn = False,
) -> None:
    """Rebuild the index of a library. The kind and the parameters can change. With --recall only: change the promised
    recall without building."""
    with options.open_client(socket, no_spawn) as client:
        body = client.request(
            "library.rebuild", library=name, index=index,
            parameters=_params(m, ef_construction, vectors, bits, leaf_size, param), recall=recall,
        )  # fmt: skip
    built = f"{_index(body)}, {plural(body['vectors'], 'vector')} in {body['seconds']:.1f} s"
    if not body["seconds"]:
        built = f"{_index(body)}, recall {body['recall']['promise']:g}; nothing was built"
    Output(json).one(body, f"library {name}: {built}")


@app.command(
    epilog="A background job does it: with Ctrl-C it continues. Exit status: 1 a library with the new name exists, or"
    " the job failed, 4 no such library."
)
def copy(
    name: Name,
    to: Annotated[str, typer.Argument(metavar="TO", help="The name of the new library.")],
    background: Annotated[bool, typer.Option("--background", help="Print the job, and do not wait for it.")] = False,
    json: options.Json = False,
    socket: options.Socket = None,
    no_spawn: options.NoSpawn = False,
) -> None:
    """Copy a library into a new one, with its settings and vectors. Nothing is embedded again."""
    from .. import jobs

    output = Output(json)
    with options.open_client(socket, no_spawn) as client:
        job = client.submit_job("copy", {"to": to}, library=name)
    if background:
        output.one(job, f"job {job['job_id']}")
        return
    (ended,) = jobs.wait(lambda: options.open_client(socket, no_spawn), [job["job_id"]])
    if ended["error"]:
        raise VecError.from_wire(ended["error"])
    if ended["state"] != "completed":
        raise typer.Exit(jobs.status_of([ended]))
    output.one(ended["result"], f"library {name} copied to {to}, {plural(ended['result']['documents'], 'document')}")


@app.command(epilog="Exit status: 1 a library with the new name exists, 4 no such library, 75 a job works on it.")
def rename(
    name: Name,
    to: Annotated[str, typer.Argument(metavar="TO", help="The new name.")],
    json: options.Json = False,
    socket: options.Socket = None,
    no_spawn: options.NoSpawn = False,
) -> None:
    """Rename a library. Its relays, sources, schedules, jobs and consumers go on."""
    with options.open_client(socket, no_spawn) as client:
        body = client.rename_library(name, to)
    Output(json).one(body, f"library {name} is now {to}, with {plural(body['documents'], 'document')}")


@app.command()
def delete(
    name: Name, json: options.Json = False, socket: options.Socket = None, no_spawn: options.NoSpawn = False
) -> None:
    """Delete a library and all its documents, without confirmation."""
    with options.open_client(socket, no_spawn) as client:
        body = client.delete_library(name)
    Output(json).one(body, f"library {name} deleted, with {plural(body['documents'], 'document')}")


def table(output: Output, libraries: list[dict[str, Any]]) -> None:
    """Prints libraries as a table."""
    columns = ("library", "documents", "chunks", "dimension", "metric", "index", "embedder", "in memory")
    output.table(
        columns,
        [
            (
                each["name"], each["documents"], each["chunks"], each["dimension"], each["metric"], each["index"],
                each["embedder"], _in_memory(each["memory"]),
            )
            for each in libraries
        ],
    )  # fmt: skip


def _overlap(body: dict[str, Any]) -> str:
    return f", {body['chunk_overlap']:,} of them repeated" if body.get("chunk_overlap") else ""


def _describe(body: dict[str, Any]) -> None:
    """Prints the details of a library."""
    memory = body["memory"]
    dimension = (
        "dimension set by the first vector" if body["dimension"] is None else f"{body['dimension']:,} dimensions"
    )
    print(f"library      {body['name']}, created {body['created_at']}")
    print(f"holds        {plural(body['documents'], 'document')}, {plural(body['chunks'], 'chunk')}")
    print(f"embedder     {body['embedder']}, chunks of {body['chunk_chars']:,} characters{_overlap(body)}")
    for name, value in body.get("embedder_parameters", {}).items():
        print(f"             {name}={value if isinstance(value, str) else as_json(value)}")
    if (stage := body.get("second_stage")) is not None:
        print(f"             {_embedded(body)}; {body['first_embedder']} finds the others")
        if stage["error"]:
            print(f"             waiting: {one_line(stage['error'])}")
    print(f"vectors      {dimension}, {body['metric']}")
    print(f"index        {_index(body)}")
    print(f"text         {body['language']}")
    if body["mapping"]:
        print(f"mapping      {_mapping(body)}")
    print(f"in memory    {_in_memory(memory)}")
    if memory["state"] == "ready":
        print(f"             {memory['structure']:,} in the structure, {memory['tail']:,} in the tail", end="")
        print(f", {memory['dead']:,} deleted, not yet removed")
        print(f"maintenance  {memory['maintenance'] or 'none'}")
    _describe_recall(body["recall"])
    if "damage" in memory:
        print(f"damage       {memory['damage']}")


def _embedded(body: dict[str, Any]) -> str:
    """How far the second stage of a library is."""
    stage = body["second_stage"]
    refused = f", refused: {stage['refused']:,}" if stage.get("refused") else ""
    return f"embedded {stage['embedded']:,} of {plural(body['chunks'], 'chunk')}{refused}"


def waiting(body: dict[str, Any]) -> str | None:
    """What the second stage of a library has to do, or what it could not do, in a line; None: nothing."""
    stage = body.get("second_stage")
    if stage is None or (stage["embedded"] >= body["chunks"] and not stage.get("refused")):
        return None
    why = f", waiting: {one_line(stage['error'])}" if stage["error"] else ""
    return f"{_embedded(body)}{why}"


def _describe_recall(about: dict[str, Any]) -> None:
    """Prints the promised recall, the measured recall of real searches, and that of synthetic queries."""
    own, probe = about["own"], about["probe"]
    verdict = {True: "met", False: "not met", None: "not measured yet"}[about["met"]]
    exact = ", all searches are exact" if about["met"] and own is None else ""
    print(f"recall       promise {about['promise']:g}: {verdict}{exact}")
    for name, each in (own["classes"] if own else {}).items():
        print(f"             {name} searches: {formatted.figures(each)}, effort {formatted.effort(each['effort'])}")
    for name, each in (probe or {}).items():
        print(f"             by {name}: {formatted.figures(each)}")


def _index(body: dict[str, Any]) -> str:
    """Formats the kind of an index and its parameters."""
    parameters = ", ".join(f"{name} {value}" for name, value in body["parameters"].items())
    return f"{body['index']} ({parameters})" if parameters else str(body["index"])


def _mapping(body: dict[str, Any]) -> str:
    """Formats the rules by which JSON becomes documents."""
    return " ".join(f"{name}={rule}" for name, rule in body["mapping"].items()) or "takes documents as they are"


def _in_memory(memory: dict[str, Any]) -> str:
    return size(memory["memory_bytes"]) if memory["state"] == "ready" else str(memory["state"])
