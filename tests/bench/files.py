"""vec ingest of files: a folder of source code beside the same documents as NDJSON, and again with one changed line in
each file, whose other chunks keep their vectors.

The files are those of Python's standard library, of at least 5,000 bytes; each way takes turns with a library of its
own. `python -m tests.bench files`, or `python -m tests.bench.files FILES`.
"""

from __future__ import annotations

import json
import shutil
import statistics
import sysconfig
import tempfile
import time
from pathlib import Path
from typing import Final

from tests.bench.measure import sizes
from tests.support.instance import Instance
from vecd.files.documents import documents_of
from vecd.files.walk import walk

_ROUNDS: Final = 3
_BYTES: Final = range(5_000, 200_000)


def main() -> None:
    (count,) = sizes(300)
    with tempfile.TemporaryDirectory(prefix="vec-bench-") as name, Instance() as instance:
        folder, lines = Path(name) / "code", Path(name) / "code.ndjson"
        files, size = _copied(folder, count)
        began = time.perf_counter()
        documents = [document for entry in walk(str(folder), prefix="code") for document in documents_of(entry)]
        extracting_s = time.perf_counter() - began
        chunks = sum(len(each["texts"]) for each in documents)
        print(
            f"{files:,} files to {chunks:,} chunks: {files / extracting_s:,.0f} files/s,"
            f" {size / extracting_s / 1e6:.1f} MB/s, without a daemon",
            flush=True,
        )
        lines.write_text("".join(json.dumps(each) + "\n" for each in documents))
        instance.start()
        instance.vec("ingest", str(lines), "-l", "warm-up")
        shares, again = [], []
        for number in range(_ROUNDS):
            as_lines_s = _seconds(instance, str(lines), "-l", f"lines-{number}")
            as_files_s = _seconds(instance, str(folder), "-l", "files")
            for path in folder.iterdir():
                path.write_text(path.read_text() + f"# changed {number}\n")
            changed_s = _seconds(instance, str(folder), "-l", "files")
            instance.vec("library", "delete", "files")
            shares.append(as_lines_s / as_files_s)
            again.append(as_files_s / changed_s)
            print(
                f"files {chunks / as_files_s:,.0f} chunks/s, NDJSON {chunks / as_lines_s:,.0f}: {shares[-1]:.2f} of it;"
                f" one line changed in each: {again[-1]:.1f} times as fast as the first time",
                flush=True,
            )
        print(f"median: {statistics.median(shares):.2f} of the same as NDJSON; changed {statistics.median(again):.1f}x")


def _copied(folder: Path, count: int) -> tuple[int, int]:
    """The files of the folder: their number, and their bytes."""
    folder.mkdir()
    found = [
        each for each in sorted(Path(sysconfig.get_paths()["stdlib"]).rglob("*.py")) if each.stat().st_size in _BYTES
    ]
    for number, path in enumerate(found[:count]):
        shutil.copy(path, folder / f"{number:04}.py")
    copies = list(folder.iterdir())
    return len(copies), sum(each.stat().st_size for each in copies)


def _seconds(instance: Instance, *arguments: str) -> float:
    began = time.perf_counter()
    instance.vec("ingest", *arguments, timeout_s=600)
    return time.perf_counter() - began


if __name__ == "__main__":
    main()
