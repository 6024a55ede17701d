"""vec demo: demonstrates ingest, search, watch and status in a temporary instance.

The documents are the docstrings of Python's standard library, read from its source files without importing them.
"""

from __future__ import annotations

import ast
import os
import signal
import sys
import sysconfig
import time
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vecd.errors import VecError

from .. import options
from ..output import Output, printable

if TYPE_CHECKING:
    from vecd.settings import Settings

app = options.command()

_QUERIES = ("read a csv file", "compress bytes", "wait for a child process")
_BATCH = 512
_WINDOW = 4


@app.command(epilog="Exit status: 0 success, 69 the daemon cannot start. See vec-demo(1).")
def demo(json: options.Json = False) -> None:
    """Demonstrate vec in a temporary instance, with the docstrings of Python's standard library."""
    import tempfile

    from vecd import settings
    from vecd.client import Client
    from vecd.client.spawn import spawn_daemon

    with tempfile.TemporaryDirectory(prefix="vec-demo-") as home:
        environment = {key: value for key, value in os.environ.items() if not key.startswith("VEC_")}
        os.environ.clear()
        os.environ.update(environment, VEC_HOME=home)
        located = settings.load()
        interrupted: list[int] = []
        # Ctrl-C while the daemon starts must not leave it running, so it is handled when the pid is known.
        before = signal.signal(signal.SIGINT, lambda number, _: interrupted.append(number))
        try:
            client = Client(spawn_daemon(located))
            pid = int(client.status()["pid"])
        finally:
            signal.signal(signal.SIGINT, before)
        with client:
            try:
                if interrupted:
                    raise KeyboardInterrupt
                _show(client, Output(json))
            finally:
                _stop(client, pid, located)


def _show(client: Any, output: Output) -> None:
    def say(line: str = "") -> None:
        print(line, file=sys.stderr, flush=True)

    say("A temporary daemon is running. Ingest the docstrings of Python's standard library, as with")
    say("    cat docstrings.ndjson | vec ingest\n")
    count, elapsed_s = _ingest(client)
    say(f"{count:,} documents in {elapsed_s:.1f} s ({count / elapsed_s:,.0f}/s): durable, searchable and logged.\n")
    for query in _QUERIES:
        say(f'$ vec search "{query}" -k 3')
        for hit in client.search(query, k=3):
            if output.json:
                output.objects([{"query": query, **hit}])
            else:
                first = printable((hit["text"] or "").strip().split("\n")[0])
                print(f"{hit['rank']:>3}  {hit['score']:.4f}  {hit['document_id']:<34} {first[:70]}")
        sys.stdout.flush()
        say()
    head = client.status()["seq"]
    say("Every change is an event in one ordered log, and a watch can resume from any event:")
    say(f"$ vec watch --from {client.log}:{head - 4} --no-follow")
    for event in client.watch(f"{client.log}:{head - 4}", follow=False):
        if output.json:
            output.objects([event])
        else:
            about = event["data"].get("chunk_id") or event["data"].get("id")
            print(f"{event['time']}  {event['seq']:>7}  {event['type']:<15} {about}")
    sys.stdout.flush()
    say("\n$ vec status")
    from .status import show

    status = client.status()
    if output.json:
        output.objects([status])
    else:
        show(output, status)
    sys.stdout.flush()
    say("The temporary instance is removed. Now try your own documents, in your own instance:\n")
    say('    printf \'%s\\n\' \'{"id": "a", "text": "rotate the logs every night"}\' | vec ingest')
    say('    vec search "log rotation"')
    say("    vec watch --from beginning")
    say("    man vec, or vec help")


def _ingest(client: Any) -> tuple[int, float]:
    """Sends all docstrings, with several batches in flight; returns the number of documents and the seconds."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        files = _sources()
        reading = progress.add_task("reading source files", total=len(files))
        documents: list[dict[str, Any]] = []
        for name, path in files:
            documents += _docstrings(name, path)
            progress.advance(reading)
        writing = progress.add_task("ingesting", total=len(documents))
        started = time.monotonic()
        flying: deque[tuple[int, Any]] = deque()
        done = 0
        for start in range(0, len(documents), _BATCH):
            batch = documents[start : start + _BATCH]
            flying.append((len(batch), client.submit("ingest", documents=batch)))
            while flying and (len(flying) >= _WINDOW or start + _BATCH >= len(documents)):
                count, pending = flying.popleft()
                pending.result()
                done += count
                rate = done / (time.monotonic() - started)
                progress.update(writing, completed=done, description=f"ingesting  {rate:,.0f}/s")
    return done, time.monotonic() - started


def _sources() -> list[tuple[str, Path]]:
    """Returns the (module, file) pairs of the standard library, without its tests."""
    root = Path(sysconfig.get_path("stdlib"))
    found = []
    for path in sorted(root.rglob("*.py")):
        parts = path.relative_to(root).with_suffix("").parts
        if not {"test", "tests", "site-packages", "idle_test", "lib2to3", "__pycache__"} & set(parts):
            found.append((".".join(parts).removesuffix(".__init__"), path))
    return found


def _docstrings(module: str, path: Path) -> Iterator[dict[str, Any]]:
    """Yields a document for each function, class and module with a docstring."""
    try:
        tree = ast.parse(path.read_bytes())
    except (OSError, SyntaxError, ValueError):
        return
    stack: list[tuple[str, ast.AST]] = [(module, tree)]
    while stack:
        name, node = stack.pop()
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            text = ast.get_docstring(node)
            if text and text.strip():
                kind = {ast.Module: "module", ast.ClassDef: "class"}.get(type(node), "function")
                yield {"id": name, "title": name, "text": text, "metadata": {"kind": kind, "module": module}}
        for child in ast.iter_child_nodes(node):
            if isinstance(child, (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
                stack.append((f"{name}.{child.name}", child))


def _stop(client: Any, pid: int, settings: Settings) -> None:
    """Stops the temporary daemon and waits until it has released its data folder."""
    import contextlib

    from vecd import limits
    from vecd.data_lock import wait_until_free

    with contextlib.suppress(OSError):
        os.kill(pid, signal.SIGTERM)
    with contextlib.suppress(VecError):
        while True:
            client.wait()
    wait_until_free(settings, limits.STOP_S)
