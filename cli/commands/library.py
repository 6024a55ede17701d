"""vec library: create, list, show and delete libraries."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from enum import StrEnum
from typing import Annotated, Any

import typer

from vecd import limits
from vecd.errors import nearest
from vecd.index.kinds import DEFAULT, KINDS
from vecd.text.embedders import EMBEDDERS

from .. import options
from .. import recall as told
from ..output import Output, plural, size

app = options.command()

Name = Annotated[str, typer.Argument(metavar="NAME", help="The library's name.")]


class Metric(StrEnum):
    """How near two vectors are."""

    COSINE = "cosine"
    DOT = "dot"
    L2 = "l2"


class Vectors(StrEnum):
    """How a graph holds its vectors."""

    FLOAT32 = "float32"
    FLOAT16 = "float16"


def _one_of(names: Iterable[str], flag: str, text: str) -> Any:
    """An option that takes one of the names of a table, which a type known to mypy could not list."""
    known = [*names]

    def check(value: str | None) -> str | None:
        if value is not None and value not in known:
            close = nearest(value, known)
            hint = f" Did you mean {close}?" if close else ""
            raise typer.BadParameter(f"{value!r} is not one of {', '.join(known)}.{hint}")
        return value

    return typer.Option(flag, callback=check, autocompletion=lambda: known, help=text, metavar=f"<{'|'.join(known)}>")


Links = Annotated[int | None, typer.Option("--m", help="hnsw: links of a vector; 24 unless set.", metavar="N")]
EfConstruction = Annotated[
    int | None,
    typer.Option(
        "--ef-construction", help="hnsw: candidates looked at when a vector is linked; 128 unless set.", metavar="N"
    ),
]
VectorsAs = Annotated[
    Vectors | None, typer.Option("--vectors", help="hnsw: how vectors are held in memory; float32 unless set.")
]
Bits = Annotated[
    int | None,
    typer.Option(
        "--bits",
        help="pq: bits of a code for each dimension, 1, 2 or 4, or 0 for 4 up to 64 dimensions and 2 above; 0 unless"
        " set. lsh: bits of a code, a multiple of 8; 512 unless set.",
        metavar="N",
    ),
]
LeafSize = Annotated[
    int | None, typer.Option("--leaf-size", help="kdtree: vectors in a leaf; 32 unless set.", metavar="N")
]

Recall = Annotated[
    float | None,
    typer.Option(
        "--recall",
        callback=options.finite,
        min=limits.RECALL_MIN,
        max=1.0,
        help="The share of the nearest that approximate searches are to find; 1: all are exact.",
        metavar="R",
    ),
]


Params = Annotated[
    list[str] | None,
    typer.Option(
        "--param",
        help="A parameter of the index; repeatable. --m, --ef-construction, --vectors, --bits and --leaf-size are short"
        " forms.",
        metavar="NAME=VALUE",
    ),
]


def _params(
    m: int | None,
    ef_construction: int | None,
    vectors: Vectors | None,
    bits: int | None,
    leaf_size: int | None,
    params: list[str] | None,
) -> dict[str, Any]:
    """The parameters of the index that are set; the daemon checks them by the kind of index."""
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


def _number(value: str) -> int | float | str:
    """A number if it reads as one, else the text."""
    for kind in (int, float):
        with contextlib.suppress(ValueError):
            return kind(value)
    return value


@app.callback()
def library() -> None:
    """Create, list, show, rebuild and delete libraries."""


@app.command(
    epilog="Later changes: vec library rebuild (index, recall), vec jobs submit reembed (embedder, chunks). "
    "Exit status: 1 there is one of that name, 2 usage."
)
def create(
    name: Name,
    embedder: Annotated[
        str | None,
        _one_of(
            EMBEDDERS,
            "--embedder",
            "Makes vectors of texts; none: documents bring their own. Default: the daemon's setting, wordllama.",
        ),
    ] = None,
    dimension: Annotated[
        int | None,
        typer.Option(
            "--dimension",
            min=1,
            max=limits.DIMENSION_MAX,
            help="Components of a vector; with --embedder none. Default: the first vector's.",
            metavar="N",
        ),
    ] = None,
    metric: Annotated[Metric, typer.Option("--metric", help="How near two vectors are.")] = Metric.COSINE,
    index: Annotated[
        str | None,
        _one_of(KINDS, "--index", f"What finds the nearest vectors. Default: {DEFAULT}."),
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
            help="Characters of a chunk at most. Default: the daemon's setting, 1000.",
            metavar="N",
        ),
    ] = None,
    recall: Recall = None,
    language: Annotated[
        str | None,
        typer.Option(
            "--language",
            help="Whose word endings full text leaves off; none: words are as they are. Default: the daemon's setting,"
            " english.",
            metavar="L",
        ),
    ] = None,
    json: options.Json = False,
    socket: options.Socket = None,
    no_spawn: options.NoSpawn = False,
) -> None:
    """Create a library."""
    with options.open_client(socket, no_spawn) as client:
        body = client.request(
            "library.create", library=name, embedder=embedder, dimension=dimension,
            metric=metric.value, index=index, chunk_chars=chunk_chars,
            parameters=_params(m, ef_construction, vectors, bits, leaf_size, param), recall=recall, language=language,
        )  # fmt: skip
    dimension_told = f"{body['dimension']} dimensions" if body["dimension"] else "the first vector's dimension"
    Output(json).one(body, f"library {name}: {body['embedder']}, {dimension_told}, {body['metric']}, {body['index']}")


@app.command("list")
def list_(json: options.Json = False, socket: options.Socket = None, no_spawn: options.NoSpawn = False) -> None:
    """List the libraries."""
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
    """Show one library and the state of its index."""
    output = Output(json)
    with options.open_client(socket, no_spawn) as client:
        body = client.library(name)
    if output.json:
        output.objects([body])
    else:
        _describe(body)


@app.command(epilog="Reads and writes go on meanwhile. Exit status: 2 usage, 4 no such library.")
def rebuild(
    name: Name,
    index: Annotated[str | None, _one_of(KINDS, "--index", "Change it to this kind.")] = None,
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
    """Rebuild a library's index, as another kind or with other parameters; with --recall alone, change the promise."""
    with options.open_client(socket, no_spawn) as client:
        body = client.request(
            "library.rebuild", library=name, index=index,
            parameters=_params(m, ef_construction, vectors, bits, leaf_size, param), recall=recall,
        )  # fmt: skip
    built = f"{_index(body)}, {plural(body['vectors'], 'vector')} in {body['seconds']:.1f} s"
    if not body["seconds"]:
        built = f"{_index(body)}, recall {body['recall']['promise']:g}; nothing was built"
    Output(json).one(body, f"library {name}: {built}")


@app.command()
def delete(
    name: Name, json: options.Json = False, socket: options.Socket = None, no_spawn: options.NoSpawn = False
) -> None:
    """Delete a library and everything in it."""
    with options.open_client(socket, no_spawn) as client:
        body = client.delete_library(name)
    Output(json).one(body, f"library {name} deleted, with {plural(body['documents'], 'document')}")


def table(output: Output, libraries: list[dict[str, Any]]) -> None:
    """Libraries for people."""
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


def _describe(body: dict[str, Any]) -> None:
    """One library for people."""
    memory = body["memory"]
    dimension = "the first one's dimension" if body["dimension"] is None else f"{body['dimension']:,} dimensions"
    print(f"library      {body['name']}, made {body['created_at']}")
    print(f"holds        {plural(body['documents'], 'document')}, {plural(body['chunks'], 'chunk')}")
    print(f"embedder     {body['embedder']}, chunks of {body['chunk_chars']:,} characters")
    print(f"vectors      {dimension}, {body['metric']}")
    print(f"index        {_index(body)}")
    print(f"text         {body['language']}")
    print(f"in memory    {_in_memory(memory)}")
    if memory["state"] == "ready":
        print(f"             {memory['structure']:,} in the structure, {memory['tail']:,} in the tail", end="")
        print(f", {memory['dead']:,} dead and masked")
        print(f"maintenance  {memory['maintenance'] or 'none'}")
    _describe_recall(body["recall"])
    if "damage" in memory:
        print(f"damage       {memory['damage']}")


def _describe_recall(about: dict[str, Any]) -> None:
    """The promise, how the searches that came kept it, and what each sort of made-up query finds."""
    own, probe = about["own"], about["probe"]
    verdict = {True: "met", False: "not met", None: "not measured yet"}[about["met"]]
    exact = ", all searches are exact" if about["met"] and own is None else ""
    print(f"recall       promise {about['promise']:g}: {verdict}{exact}")
    for name, each in (own["classes"] if own else {}).items():
        print(f"             {name} searches: {told.figures(each)}, effort {told.effort(each['effort'])}")
    for name, each in (probe or {}).items():
        print(f"             by {name}: {told.figures(each)}")


def _index(body: dict[str, Any]) -> str:
    """The kind and its parameters."""
    parameters = ", ".join(f"{name} {value}" for name, value in body["parameters"].items())
    return f"{body['index']} ({parameters})" if parameters else str(body["index"])


def _in_memory(memory: dict[str, Any]) -> str:
    return size(memory["memory_bytes"]) if memory["state"] == "ready" else str(memory["state"])
