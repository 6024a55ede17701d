"""Progress display of an ingest on stderr, if that is a terminal."""

from __future__ import annotations

import os
import sys
import time
from collections import Counter
from typing import Any

from .output import printable


class Progress:
    """Shows documents, rate and rejected lines, and a bar if the size of the input is known."""

    def __init__(self, paths: list[str]) -> None:
        self._shown = sys.stderr.isatty()
        self._paths = paths
        self._rich: Any = None
        self._started = time.monotonic()

    def __enter__(self) -> Progress:
        if self._shown:
            from rich.console import Console
            from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn

            known = self._paths and all(os.path.isfile(p) and not _is_compressed(p) for p in self._paths)
            total = sum(os.path.getsize(p) for p in self._paths) if known else None
            columns = [SpinnerColumn(), TextColumn("{task.description}"), *([BarColumn()] if total else [])]
            self._rich = Progress(*columns, console=Console(stderr=True), transient=True)
            self._task = self._rich.add_task("0 documents", total=total)
            self._rich.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._rich is not None:
            self._rich.stop()

    def say(self, line: str) -> None:
        """Prints a message on stderr, above the bar if there is one. It can quote untrusted text."""
        line = printable(line)
        if self._rich is not None:
            self._rich.console.print(line, markup=False, highlight=False, soft_wrap=True)
        else:
            print(line, file=sys.stderr, flush=True)

    def advance(self, counts: Counter[str], size: int) -> None:
        if self._rich is None:
            return
        done = counts.total() - counts["failed"]
        rate = done / max(time.monotonic() - self._started, 1e-9)
        rejected = f"  {counts['failed']:,} rejected" if counts["failed"] else ""
        self._rich.update(self._task, advance=size, description=f"{done:,} documents  {rate:,.0f}/s{rejected}")


def _is_compressed(path: str) -> bool:
    from vecd.wire.decompress import is_compressed

    try:
        with open(path, "rb") as file:
            return is_compressed(file.read(16))
    except OSError:
        return False  # the reader of the file reports the error
