"""Events on a terminal: a line for each change, in local time, and with `verbose` what changed."""

from __future__ import annotations

import difflib
import time
from collections.abc import Iterator
from typing import Any

from . import recall
from .layout import Piece, Styled, cut, paint, styled_width, wrap
from .output import as_json, one_line, plural, printable

#: What happened -> style.
_STYLES = {
    "added": "green", "updated": "yellow", "deleted": "red", "created": "green", "completed": "green", "failed": "red",
    "cancelled": "yellow",
}  # fmt: skip
#: The type of an event is padded to this many cells: most are shorter.
_TYPE_CELLS = 8
_INDENT = 4
#: Lines of a text, and changed lines of one, that `verbose` shows of an event.
_TEXT_LINES = 3
_CHANGED_LINES = 8
#: Characters of a line that are kept before the first difference.
_CONTEXT_CHARS = 30
#: Longer texts are not compared line by line, which takes quadratic time.
_COMPARED_LINES = 2_000


class EventView:
    """Formats events for a terminal."""

    def __init__(self, *, columns: int, colours: bool, verbose: bool, library: bool, chunks: bool) -> None:
        """`library`: name the library of each event. `chunks`: show the events of chunks; they are part of the change
        of their document, which has its own."""
        self._columns = max(40, columns)
        self._colours = colours
        self._verbose = verbose
        self._library = library
        self._chunks = chunks

    def lines(self, event: dict[str, Any]) -> list[str]:
        """The lines of an event; none for one of a chunk that is shown with its document."""
        if event["type"].startswith("chunk.") and not self._chunks:
            return []
        lines = [self._line(event)]
        if self._verbose:
            lines += ([Piece(" " * _INDENT), *line] for line in self._details(event["data"]))
        return [paint(line, self._colours) for line in lines]

    def _line(self, event: dict[str, Any]) -> Styled:
        group, _, what = event["type"].partition(".")
        name = what if group == "document" else event["type"]
        data = event["data"]
        subject, details = _about(event["type"], data)
        head: Styled = [
            Piece(local_time(event["time"]), "dim"),
            Piece(f"  {name:<{_TYPE_CELLS}}", _STYLES.get(what, "")),
        ]
        if self._library and event["library"] and subject != event["library"]:
            head.append(Piece(f"  {event['library']}", "cyan"))
        if subject:
            head.append(Piece(f"  {one_line(subject)}", "bold"))
        tail: Styled = [Piece(f"  {details}", "dim")] if details else []
        if self._verbose and event["seq"]:
            tail.append(Piece(f"  seq {event['seq']}", "dim"))
        room = self._columns - styled_width(head) - styled_width(tail) - 2
        title = data.get("title") if group in ("document", "snapshot") else None
        if title and room >= 4:
            head += [Piece("  "), *cut([Piece(one_line(title))], room)]
        return [*head, *tail]

    def _details(self, data: dict[str, Any]) -> Iterator[Styled]:
        """What an event changed, or the text that it is about."""
        after, before = data.get("document"), data.get("replaced")
        if after is not None and before is not None:
            yield from self._changes(before, after)
        elif (document := after or before) is not None:
            text = " ".join(" ".join(_text_of(document)).split())
            yield from wrap([Piece(one_line(text), "" if after else "dim")], self._columns - _INDENT, _TEXT_LINES)
        elif data.get("omitted"):
            yield [Piece("the document is too large to be shown, or damaged", "dim")]

    def _changes(self, before: dict[str, Any], after: dict[str, Any]) -> Iterator[Styled]:
        if before["title"] != after["title"]:
            yield self._pair("title", before["title"], after["title"])
        old, new = before["metadata"] or {}, after["metadata"] or {}
        for key in [*new, *(key for key in old if key not in new)]:
            if key not in old or key not in new or old[key] != new[key]:
                yield self._pair(key, old.get(key), new.get(key))
        lines = list(_changed_lines(_text_of(before), _text_of(after)))
        for sign, line in lines[:_CHANGED_LINES]:
            style = "red" if sign == "-" else "green"
            yield cut([Piece(f"{sign} {one_line(line)}", style)], self._columns - _INDENT)
        if len(lines) > _CHANGED_LINES:
            yield [Piece(f"… {plural(len(lines) - _CHANGED_LINES, 'more changed line')}", "dim")]

    def _pair(self, name: str, old: Any, new: Any) -> Styled:
        shown = [Piece(f"{one_line(name)}: "), Piece(_value(old), "red"), Piece(" → "), Piece(_value(new), "green")]
        return cut(shown, self._columns - _INDENT)


def local_time(utc: str | None) -> str:
    """An RFC 3339 time in UTC as one of the machine's time zone, to the second."""
    import calendar

    if not utc:
        return " " * 15
    seconds = calendar.timegm(time.strptime(utc[:19], "%Y-%m-%dT%H:%M:%S"))
    return time.strftime("%b %d %H:%M:%S", time.localtime(seconds))


def _about(event_type: str, data: dict[str, Any]) -> tuple[str, str]:
    """What an event is about, and what else there is to say."""
    group = event_type.partition(".")[0]
    if group == "document":
        chunks, before = data.get("chunks", 0), data.get("chunks_replaced")
        details = [plural(chunks, "chunk")] if chunks != 1 or before not in (None, 1) else []
        details += [f"{before:,} before"] if before is not None and before != chunks else []
        details += ["no longer matches the filter"] if data.get("left") else []
        return str(data["id"]), ", ".join(details)
    if group == "job":
        why = f": {one_line(data['error']['message'])}" if data.get("error") else ""
        return f"job {data['job_id']}", f"{data['kind']}{why}"
    if event_type == "library.embedded":
        return "", f"{plural(data['chunks'], 'chunk')} by {data['embedder']}"
    if event_type == "index.rebuilt":
        return "", f"{data['kind']}, {plural(data['vectors'], 'vector')}, {data['seconds']:.1f} s, {data['reason']}"
    if event_type == "index.recall":
        return "", recall.report(data)
    subject = data.get("chunk_id") or data.get("id") or data.get("name") or ", ".join(data.get("libraries", ()))
    return str(subject or ""), ""


def _text_of(document: dict[str, Any]) -> list[str]:
    return [chunk.get("text") or "" for chunk in document.get("chunks", ())]


def _value(value: Any) -> str:
    if value is None:
        return "–"
    return one_line(value) if isinstance(value, str) else one_line(as_json(value))


def _changed_lines(before: list[str], after: list[str]) -> Iterator[tuple[str, str]]:
    """The lines of a text that were removed and added: a sign and the line, from shortly before the difference."""
    old, new = printable("\n".join(before)).splitlines(), printable("\n".join(after)).splitlines()
    if max(len(old), len(new)) > _COMPARED_LINES:
        same = next((at for at, (a, b) in enumerate(zip(old, new, strict=False)) if a != b), min(len(old), len(new)))
        old, new = old[same : same + _COMPARED_LINES], new[same : same + _COMPARED_LINES]
    for tag, i, j, k, m in difflib.SequenceMatcher(None, old, new, autojunk=False).get_opcodes():
        if tag == "equal":
            continue
        removed, added = old[i:j], new[k:m]
        if len(removed) == len(added):
            for one, other in zip(removed, added, strict=True):
                at = _difference(one, other)
                yield "-", _from(one, at)
                yield "+", _from(other, at)
        else:
            yield from (("-", line) for line in removed)
            yield from (("+", line) for line in added)


def _difference(one: str, other: str) -> int:
    return next((at for at, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))


def _from(line: str, at: int) -> str:
    start = at - _CONTEXT_CHARS
    return line if start <= 1 else f"…{line[start:]}"
