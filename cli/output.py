"""Formatting of stdout: tables and text on a terminal, NDJSON in a pipe or with --json."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console


class Output:
    """Prints the data of a command: as NDJSON if `json`, otherwise for a terminal."""

    def __init__(self, json: bool) -> None:
        self.json = json or not sys.stdout.isatty()

    def objects(self, objects: Iterable[Any], *, flush: bool = False) -> None:
        """Prints each object as one line of JSON."""
        orjson = load_orjson()
        write = sys.stdout.buffer.write
        escaped = terminal_json if sys.stdout.isatty() else bytes
        sys.stdout.flush()
        for each in objects:
            write(escaped(orjson.dumps(each, option=orjson.OPT_APPEND_NEWLINE)))
        if flush:
            sys.stdout.buffer.flush()

    def one(self, body: dict[str, Any], text: str) -> None:
        """Prints an object as JSON, or `text` on a terminal. Uses the standard json module, which imports faster than
        orjson."""
        if self.json:
            import json

            text = json.dumps(body, ensure_ascii=False, separators=(",", ":"))
            if sys.stdout.isatty():
                text = terminal_json(text.encode()).decode()
        else:
            text = printable(text)
        print(text, flush=True)

    def table(self, columns: Sequence[str], rows: Iterable[Sequence[Any]], title: str | None = None) -> None:
        """Prints a table; columns of numbers are right-aligned."""
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
    """Imports orjson with SIGINT blocked: an interrupt during the import crashes orjson."""
    import signal

    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        import orjson
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    return orjson


def colours() -> bool:
    """Whether stdout is a terminal that takes escape codes, and NO_COLOR is not set."""
    dumb = os.environ.get("TERM", "").lower() in ("", "dumb", "unknown")
    return sys.stdout.isatty() and not os.environ.get("NO_COLOR") and not dumb


def columns() -> int:
    """The width of the terminal: COLUMNS if it is set, or as the terminal says; 80 if neither is known."""
    given = os.environ.get("COLUMNS", "")
    if given.isdecimal() and 0 < len(given) < 6 and int(given):
        return int(given)
    try:
        return os.get_terminal_size(sys.stdout.fileno()).columns or 80
    except (OSError, ValueError):
        return 80


def console() -> Console:
    """Returns Rich's console on stdout. With NO_COLOR it writes no escape codes; Rich alone would keep bold and dim."""
    from rich.console import Console

    return Console(highlight=False, color_system=None if os.environ.get("NO_COLOR") else "auto")


#: DEL, and the control characters from U+0080 to U+009F, in UTF-8. Some terminals interpret these like ESC.
_CONTROLS = re.compile(rb"\x7f|\xc2[\x80-\x9f]")


def terminal_json(line: bytes) -> bytes:
    """Escapes the control characters that JSON allows unescaped, so that the line is safe on a terminal. The JSON value
    does not change."""
    return _CONTROLS.sub(lambda found: b"\\u%04x" % ord(found[0].decode()), line)


def as_json(value: Any) -> str:
    """A value formatted as JSON, for output on a terminal."""
    return str(load_orjson().dumps(value).decode())


def _cell(value: Any) -> str:
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:,}" if isinstance(value, int) else one_line(str(value))


#: Not printable for Python, and shown as they are: line breaks, tabs, and what joins or separates the characters of
#: emoji and of Indic and Arabic scripts.
_HARMLESS = "\n\t\u200c\u200d"


def printable(text: str) -> str:
    """Untrusted text, made safe for a terminal: escapes control characters, and bytes that are not UTF-8, which Python
    represents as surrogates (PEP 383)."""
    return "".join(c if c.isprintable() or c in _HARMLESS else _escaped(ord(c)) for c in text)


def _escaped(number: int) -> str:
    return f"\\x{number - 0xDC00 if 0xDC80 <= number <= 0xDCFF else number:02x}"


def one_line(text: str) -> str:
    """Like `printable`, but also escapes newlines and tabs: for titles and ids."""
    return printable(text).replace("\n", "\\n").replace("\t", "\\t")


def size(count: int) -> str:
    """A number of bytes with a binary unit, as "1.5 MiB"."""
    from vecd.units import size_text

    return size_text(count)


def plural(count: int, noun: str) -> str:
    """A count with its noun, as "1 document" or "2 documents"."""
    several = f"{noun[:-1]}ies" if noun.endswith("y") else f"{noun}s"
    return f"{count:,} {noun if count == 1 else several}"
