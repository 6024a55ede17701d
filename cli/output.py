"""stdout: tables for people, NDJSON for pipes.

On a terminal people get tables and lines to read; in a pipe, or with --json, every object is one line of JSON.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console


class Output:
    """Where a command prints its data."""

    def __init__(self, json: bool) -> None:
        self.json = json or not sys.stdout.isatty()

    def objects(self, objects: Iterable[Any], *, flush: bool = False) -> None:
        """One line of JSON each."""
        orjson = load_orjson()
        write = sys.stdout.buffer.write
        harmless = terminal_json if sys.stdout.isatty() else bytes
        sys.stdout.flush()
        for each in objects:
            write(harmless(orjson.dumps(each, option=orjson.OPT_APPEND_NEWLINE)))
        if flush:
            sys.stdout.buffer.flush()

    def one(self, body: dict[str, Any], people: str) -> None:
        """An object for pipes, a sentence for people. (Without orjson: quick commands should start quickly.)"""
        if self.json:
            import json

            people = json.dumps(body, ensure_ascii=False, separators=(",", ":"))
            if sys.stdout.isatty():
                people = terminal_json(people.encode()).decode()
        else:
            people = printable(people)
        print(people, flush=True)

    def table(self, columns: Sequence[str], rows: Iterable[Sequence[Any]], title: str | None = None) -> None:
        """A table on a terminal; numbers are set right."""
        from rich.box import SIMPLE_HEAD
        from rich.table import Table
        from rich.text import Text

        held = [list(row) for row in rows]
        table = Table(box=SIMPLE_HEAD, title=title, title_justify="left", pad_edge=False, padding=(0, 1, 0, 0))
        for place, column in enumerate(columns):
            numbers = bool(held) and all(isinstance(row[place], (int, float)) for row in held)
            table.add_column(column, justify="right" if numbers else "left", overflow="fold")
        for row in held:
            table.add_row(*(Text(_cell(value)) for value in row))
        console().print(table)


def load_orjson() -> Any:
    """The module orjson. Ctrl-C waits until it is imported: interrupted in the middle of that, orjson crashes."""
    import signal

    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        import orjson
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    return orjson


def console() -> Console:
    """Rich's console on stdout. With NO_COLOR it writes no escape codes at all; rich alone would leave bold and dim."""
    from rich.console import Console

    return Console(highlight=False, color_system=None if os.environ.get("NO_COLOR") else "auto")


#: DEL, and the control characters from U+0080 to U+009F, in UTF-8. Some terminals obey these as they obey ESC.
_CONTROLS = re.compile(rb"\x7f|\xc2[\x80-\x9f]")


def terminal_json(line: bytes) -> bytes:
    """JSON as it may be written to a terminal: control characters that JSON permits as they are become escapes, which
    mean the same."""
    return _CONTROLS.sub(lambda found: b"\\u%04x" % ord(found[0].decode()), line)


def as_json(value: Any) -> str:
    """A value for people, as JSON writes it."""
    return str(load_orjson().dumps(value).decode())


def _cell(value: Any) -> str:
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:,}" if isinstance(value, int) else one_line(str(value))


def printable(text: str) -> str:
    """A text from outside as it may be shown on a terminal: control characters, which could command it, are shown, and
    so are bytes that are not UTF-8, which Python has as surrogates (PEP 383)."""
    return "".join(c if c.isprintable() or c in "\n\t" else _shown(ord(c)) for c in text)


def _shown(number: int) -> str:
    return f"\\x{number - 0xDC00 if 0xDC80 <= number <= 0xDCFF else number:02x}"


def one_line(text: str) -> str:
    """As `printable`, for what must not begin a line of its own: titles and ids."""
    return printable(text).replace("\n", "\\n").replace("\t", "\\t")


def size(count: int) -> str:
    """So many bytes, for people."""
    amount, unit = float(count), "B"
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if amount < 1024 or unit == "TiB":
            break
        amount /= 1024
    return f"{amount:.0f} {unit}" if unit == "B" or amount >= 100 else f"{amount:.1f} {unit}"


def plural(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'' if count == 1 else 's'}"
