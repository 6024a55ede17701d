"""vec library: create, list, show and delete libraries."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any

import typer

from vecd import limits

from .. import options
from ..output import Output, plural, size

app = options.command()

Name = Annotated[str, typer.Argument(metavar="NAME", help="The library's name.")]


class Metric(StrEnum):
    """How near two vectors are."""

    COSINE = "cosine"
    DOT = "dot"
    L2 = "l2"


class Index(StrEnum):
    """What holds the vectors in memory."""

    FLAT = "flat"


class Embedder(StrEnum):
    """What makes vectors of texts."""

    WORDLLAMA = "wordllama"
    HASH = "hash"
    NONE = "none"


@app.callback()
def library() -> None:
    """Create, list, show and delete libraries."""


@app.command(epilog="Everything that is set here is set for good. Exit status: 1 there is one of that name already.")
def create(
    name: Name,
    embedder: Annotated[
        Embedder | None,
        typer.Option(
            "--embedder", help="Makes vectors of texts; none: you bring them. Default: the daemon's setting, wordllama."
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
    index: Annotated[Index, typer.Option("--index", help="What holds the vectors in memory.")] = Index.FLAT,
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
    json: options.Json = False,
    socket: options.Socket = None,
    no_spawn: options.NoSpawn = False,
) -> None:
    """Make a library."""
    with options.open_client(socket, no_spawn) as client:
        body = client.request(
            "library.create", library=name, embedder=embedder and embedder.value, dimension=dimension,
            metric=metric.value, index=index.value, chunk_chars=chunk_chars,
        )  # fmt: skip
    dimension_told = f"{body['dimension']} dimensions" if body["dimension"] else "the first vector's dimension"
    Output(json).one(body, f"library {name}: {body['embedder']}, {dimension_told}, {body['metric']}, {body['index']}")


@app.command("list")
def list_(json: options.Json = False, socket: options.Socket = None, no_spawn: options.NoSpawn = False) -> None:
    """List the libraries."""
    output = Output(json)
    with options.open_client(socket, no_spawn) as client:
        libraries = client.request("library.list")["libraries"]
    if output.json:
        output.objects(libraries)
    else:
        table(output, libraries)


@app.command()
def show(
    name: Name, json: options.Json = False, socket: options.Socket = None, no_spawn: options.NoSpawn = False
) -> None:
    """Show one library."""
    output = Output(json)
    with options.open_client(socket, no_spawn) as client:
        body = client.request("library.show", library=name)
    if output.json:
        output.objects([body])
    else:
        table(output, [body])


@app.command()
def delete(
    name: Name, json: options.Json = False, socket: options.Socket = None, no_spawn: options.NoSpawn = False
) -> None:
    """Delete a library and all it holds."""
    with options.open_client(socket, no_spawn) as client:
        body = client.request("library.delete", library=name)
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


def _in_memory(memory: dict[str, Any]) -> str:
    return size(memory["memory_bytes"]) if memory["state"] == "ready" else str(memory["state"])
