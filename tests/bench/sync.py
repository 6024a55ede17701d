"""vec sync: a folder for the first time beside an ingest of the same texts as NDJSON, the same folder unchanged, and
the time from a save to the hit.

The first two take turns, each with a library of its own, as whole processes with a running daemon. Files are notes of
some paragraphs: `python -m tests.bench sync`, or `python -m tests.bench.sync FILES`.
"""

from __future__ import annotations

import json
import random
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from tests.bench.measure import sentences, sizes, times_ms, told
from tests.support.instance import Instance

_ROUNDS: Final = 3
_SAVES: Final = 30


def main() -> None:
    (count,) = sizes(10_000)
    with tempfile.TemporaryDirectory(prefix="vec-bench-") as name, Instance() as instance:
        folder, lines = Path(name) / "notes", Path(name) / "notes.ndjson"
        _write(folder, lines, count)
        instance.start()
        instance.vec("ingest", str(lines), "-l", "warm-up")
        instance.vec("library", "delete", "warm-up")
        shares = []
        for number in range(_ROUNDS):
            ingest_s = _seconds(instance, "ingest", str(lines), "-l", f"lines-{number}")
            sync_s = _seconds(instance, "sync", str(folder), "-l", f"files-{number}")
            shares.append(ingest_s / sync_s)
            print(
                f"{count:,} files for the first time: {count / sync_s:,.0f}/s; the same as NDJSON:"
                f" {count / ingest_s:,.0f}/s; {shares[-1]:.2f} of it",
                flush=True,
            )
        print(f"median: {statistics.median(shares):.2f} of the same as NDJSON")
        taken = times_ms(lambda: instance.vec("sync", str(folder), "-l", "files-0"), 7, warm_up=1)
        print(f"unchanged, the whole process: {told(taken)}")
        _saves(instance, Path(name) / "live")


def _write(folder: Path, lines: Path, count: int) -> None:
    """The files, and the same as NDJSON."""
    chance = random.Random(7)
    texts = iter(sentences(count * 6))
    with lines.open("w") as file:
        for number in range(count):
            path = folder / f"{number % 100:02}" / f"{number:05}.md"
            text = f"# Note {number}\n\n" + "\n".join(next(texts) for _ in range(chance.randrange(2, 7))) + "\n"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
            document: dict[str, Any] = {
                "id": f"{number % 100:02}/{number:05}.md",
                "title": f"Note {number}",
                "text": text,
            }
            document["metadata"] = {"path": str(path), "size": len(text), "type": "markdown"}
            file.write(json.dumps(document) + "\n")


def _seconds(instance: Instance, *arguments: str) -> float:
    began = time.perf_counter()
    instance.vec(*arguments, timeout_s=600)
    return time.perf_counter() - began


def _saves(instance: Instance, folder: Path) -> None:
    """The time from a save of one file to the search that finds it, in a folder of 1,000 that the daemon follows."""
    for number in range(1_000):
        path = folder / f"{number % 10}" / f"{number}.md"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"note {number}\n")
    instance.vec("sync", str(folder), "-l", "live")
    instance.vec("sync", "add", str(folder), "-l", "live")
    path = folder / "saved.md"
    with instance.connect() as client:
        while instance.objects("sync", "show", "live")[0]["state"] != "running":
            time.sleep(0.05)

        def saves() -> Iterator[None]:
            for number in range(_SAVES + 3):
                time.sleep(3.0)  # as a person saves: the file was quiet
                began.append(time.perf_counter())
                path.write_text(f"saved zebra{number}\n")
                while not any(
                    f"zebra{number}\n" in f"{hit['text']}\n"
                    for hit in client.search(f"zebra{number}", library="live", mode="text", k=3)
                ):
                    time.sleep(0.002)
                yield

        began: list[float] = []
        each = saves()
        for _ in range(3):
            next(each)
        taken = []
        for _ in each:
            taken.append((time.perf_counter() - began[-1]) * 1e3)
    print(f"from a save to its hit: {told(sorted(taken))}, largest {max(taken):.0f} ms")


if __name__ == "__main__":
    main()
