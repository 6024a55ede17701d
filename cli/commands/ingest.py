"""vec ingest: writes documents from NDJSON; pipeline.py sends them, spool.py submits them as a job."""

from __future__ import annotations

import os
import sys
import time
from enum import StrEnum
from typing import Annotated

import typer

from vecd import limits
from vecd.errors import Code, VecError

from .. import main, options
from ..output import Output
from ..progress import Progress

app = options.command()


class Format(StrEnum):
    """A format of input; vecd/wire/records.py has the readers."""

    NDJSON = "ndjson"
    JSON = "json"
    CSV = "csv"
    TSV = "tsv"
    PARQUET = "parquet"
    ARROW = "arrow"
    MBOX = "mbox"
    EML = "eml"


@app.command(
    epilog="Exit status: 0 success, 3 some lines were rejected, 75 temporary failure, try again. See vec-ingest(1)."
)
def ingest(
    files: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[FILE|DIR]...", help="Files, can be compressed, and folders of files; - or none: stdin."
        ),
    ] = None,
    library: options.Library = "default",
    form: Annotated[
        Format | None,
        typer.Option("--format", help="The format of the input. Default: by the suffix of the file, else ndjson."),
    ] = None,
    id_: Annotated[str | None, typer.Option("--id", help="Short for --map id=PATH.", metavar="PATH")] = None,
    title: Annotated[
        str | None, typer.Option("--title", help="Short for --map title=PATH[,PATH].", metavar="PATH")
    ] = None,
    text: Annotated[
        str | None, typer.Option("--text", help="Short for --map text=PATH[,PATH].", metavar="PATH")
    ] = None,
    vector: Annotated[str | None, typer.Option("--vector", help="Short for --map vector=PATH.", metavar="PATH")] = None,
    metadata: Annotated[
        str | None, typer.Option("--metadata", help="Short for --map metadata=PATH[,PATH]|rest|none.", metavar="PATH")
    ] = None,
    given: Annotated[
        list[str] | None,
        typer.Option(
            "--map",
            "-m",
            help="Where a field of the document is in an object or row of the input: text=title,body or"
            " metadata.year=meta.year. Can be repeated.",
            metavar="FIELD=PATH",
        ),
    ] = None,
    no_map: Annotated[
        bool, typer.Option("--no-map", help="Read documents as they are, whatever mapping the library has.")
    ] = False,
    exclude: Annotated[
        list[str] | None,
        typer.Option(
            "--exclude",
            help="Skip files of folders that match; the syntax is that of .gitignore. Can be repeated.",
            metavar="PATTERN",
        ),
    ] = None,
    hidden: Annotated[
        bool, typer.Option("--hidden", help="Also files and folders whose names begin with a dot.")
    ] = False,
    links: Annotated[bool, typer.Option("--links", help="Also what symbolic links in folders point to.")] = False,
    strict: Annotated[bool, typer.Option("--strict", help="Stop at the first rejected line.")] = False,
    ack: Annotated[bool, typer.Option("--ack", help="Print a line for each acknowledged document.")] = False,
    batch: Annotated[
        int, typer.Option("--batch", min=1, max=limits.BATCH_DOCUMENTS_MAX, help="Documents per request.", metavar="N")
    ] = 512,
    background: Annotated[
        bool, typer.Option("--background", help="Submit an ingest job, print its id, and exit.")
    ] = False,
    json: options.Json = False,
    socket: options.Socket = None,
    no_spawn: options.NoSpawn = False,
) -> None:
    """Add, update and delete documents: files, folders, or records (NDJSON, JSON, tables, mail), also from stdin."""
    paths = files or []
    short = {"id": id_, "title": title, "text": text, "vector": vector, "metadata": metadata}
    rules = _rules({**short, **options.pairs("--map", given, "FIELD=PATH, as in text=body")})
    _check(rules, no_map)
    chosen = {} if no_map else rules or None  # None: the library's
    if not paths and sys.stdin.isatty():
        print("vec: reading documents from the terminal; end with Ctrl-D", file=sys.stderr)
    output = Output(json)
    if background:
        from .. import spool

        if ack:
            raise VecError(
                Code.INVALID_REQUEST,
                "--ack cannot be combined with --background",
                "vec jobs logs prints the rejected lines",
            )
        _only_records(paths, form)
        what = "--background gives the daemon files of its own machine"
        options.only_local(socket, what, "ingest without --background: the documents are sent over the connection")
        with options.open_client(socket, no_spawn) as client:
            if not client.limits.get("create"):
                client.count(library)  # reports a missing library before any input is read
            job = spool.submit(client, paths, library, strict, form, chosen)
        output.one({"job_id": job["job_id"]}, f"job {job['job_id']}")
        return
    from vecd.files.options import FileOptions
    from vecd.wire.ingest_batch import STATUSES

    from ..pipeline import Pipeline

    progress = Progress(paths)
    run = Pipeline(
        lambda: options.open_client(socket, no_spawn), library, output, progress,
        strict=strict, ack=ack, batch=batch, name_files=len(paths) > 1 or any(map(os.path.isdir, paths)),
        form=form, rules=chosen,
        file_options=FileOptions(hidden=hidden, links=links, exclude=tuple(exclude or ())),
    )  # fmt: skip
    started = time.monotonic()
    failure: BaseException | None = None
    try:
        with progress:
            run.run(paths)
    except (VecError, KeyboardInterrupt) as error:
        failure = error
    counts, elapsed_s = run.counts, time.monotonic() - started
    done = sum(counts[status] for status in STATUSES[:-1])
    summary: dict[str, object] = {
        **{status: counts[status] for status in STATUSES},
        "seq": run.seq,
        "elapsed_s": round(elapsed_s, 3),
    }
    if run.files is not None and run.files.skipped:
        summary["skipped"] = dict(run.files.skipped.most_common())
        progress.say(f"vec: {run.files.summary()}")
    told = ", ".join(f"{counts[status]:,} {status}" for status in STATUSES if counts[status]) or "nothing"
    output.one(summary, f"{told} in {elapsed_s:.1f} s ({done / max(elapsed_s, 1e-9):,.0f}/s)")
    if isinstance(failure, VecError):
        raise failure
    if failure is not None or run.interrupted:
        raise typer.Exit(main.INTERRUPTED)
    if counts["failed"]:
        raise typer.Exit(main.PARTLY)


def _only_records(paths: list[str], form: str | None) -> None:
    """Raises VecError `invalid_request` for a folder, or a file that is a document as a whole."""
    from ..input_lines import is_files

    if (path := next((each for each in paths if form is None and each != "-" and is_files(each)), None)) is not None:
        raise VecError(
            Code.INVALID_REQUEST,
            f"--background reads files of records, and {path!r:.200} is a folder or a document",
            "ingest it without --background, or let the daemon follow a folder: vec sync add",
        )


#: Fields of which a mapping needs one.
_CONTENTS = ("text", "texts", "vector", "vectors")


def _rules(given: dict[str, str | None]) -> dict[str, str]:
    """The rules of a mapping; none without any option. If none says where the contents are, they have their own
    names."""
    rules = {name: rule for name, rule in given.items() if rule is not None}
    if rules and not any(name in rules for name in _CONTENTS):
        rules |= {"text": "text", "vector": "vector"}
    return rules


def _check(rules: dict[str, str], no_map: bool) -> None:
    """Raises VecError `invalid_request`."""
    if rules and no_map:
        raise VecError(Code.INVALID_REQUEST, "--no-map cannot be combined with --map or a short form of it")
    if rules:
        from vecd.wire.mapping import DocumentMapping

        DocumentMapping.parse(rules)
