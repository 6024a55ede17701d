"""HTML: what a browser shows of the text, with its headings as Markdown has them; without scripts and navigation."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from typing import Final

from ..entry import FileSkipped, SkipReason
from . import MARKDOWN, Extracted
from .decoding import text_of

_CHARSET: Final = re.compile(rb"<meta[^>]+charset=[\"']?([-\w]+)|<\?xml[^>]+encoding=[\"']([-\w]+)", re.IGNORECASE)

#: Elements that end a line before and after them.
_BLOCKS: Final = frozenset((
    "address", "article", "aside", "blockquote", "body", "br", "caption", "center", "dd", "details", "dialog", "div",
    "dl", "dt", "fieldset", "figcaption", "figure", "footer", "form", "h1", "h2", "h3", "h4", "h5", "h6", "header",
    "hr", "html", "li", "main", "menu", "ol", "option", "p", "pre", "section", "select", "summary", "table", "tbody",
    "tfoot", "thead", "title", "tr", "ul",
))  # fmt: skip
#: Blocks with an empty line around them.
_PARAGRAPHS: Final = frozenset((
    "blockquote", "dl", "figure", "h1", "h2", "h3", "h4", "h5", "h6", "ol", "p", "pre", "section", "table", "ul",
))  # fmt: skip
_CELLS: Final = frozenset(("td", "th"))
#: Elements without text for readers.
_HIDDEN: Final = frozenset((
    "audio", "canvas", "iframe", "math", "nav", "noscript", "object", "script", "style", "svg", "template", "video",
))  # fmt: skip
_HEADINGS: Final = {f"h{level}": "#" * level + " " for level in range(1, 7)}
_SPACE: Final = re.compile(r"\s+")


def extract(content: bytes, name: str) -> Extracted:
    declared = _CHARSET.search(content[:2_000])
    encoding = (declared[1] or declared[2]).decode("ascii") if declared else None
    reader = _Reader()
    reader.feed(text_of(content, encoding))
    reader.close()
    reader.end_line()
    if not reader.lines:
        raise FileSkipped(SkipReason.NO_TEXT, "the page has no text")
    return Extracted("\n".join(reader.lines), reader.title or None, MARKDOWN, reader.numbers)


class _Reader(HTMLParser):
    """Collects lines of text, and for each the line of the file where it begins."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.lines: list[str] = []
        self.numbers: list[int] = []
        self.title = ""
        self._line: list[str] = []  # the pieces of the present line
        self._number = 1  # where it begins
        self._prefix = ""  # of the next line: the marks of a heading or an item
        self._hidden: list[str] = []  # open elements that are not shown
        self._in_title = False
        self._pre = 0  # open elements that keep their white space

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if self._hidden:
            if tag == self._hidden[-1]:
                self._hidden.append(tag)
            return
        if tag in _HIDDEN:
            self._hidden.append(tag)
            return
        if tag in _BLOCKS:
            self.end_line(paragraph=tag in _PARAGRAPHS)
        elif tag in _CELLS and self._line:
            self._line.append(" | ")
        if tag == "title":
            self._in_title = True
        elif tag == "pre":
            self._pre += 1
        self._prefix = _HEADINGS.get(tag, "- " if tag == "li" else self._prefix)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in _BLOCKS and not self._hidden:
            self.end_line()

    def handle_endtag(self, tag: str) -> None:
        if self._hidden:
            if tag == self._hidden[-1]:
                self._hidden.pop()
            return
        if tag in _BLOCKS:
            self.end_line(paragraph=tag in _PARAGRAPHS)
            self._prefix = ""
        if tag == "title":
            self._in_title = False
        elif tag == "pre":
            self._pre = max(0, self._pre - 1)

    def handle_data(self, data: str) -> None:
        if self._hidden:
            return
        if self._in_title:
            self.title = _SPACE.sub(" ", self.title + data).strip()
            return
        number = self.getpos()[0]
        if self._pre:
            for place, line in enumerate(data.split("\n")):
                if place:
                    self.end_line()
                self._add(line, number + place)
            return
        before = len(data) - len(data.lstrip())
        self._add(_SPACE.sub(" ", data), number + data.count("\n", 0, before))

    def _add(self, text: str, number: int) -> None:
        if not self._line:
            text = text if self._pre else text.lstrip()
            if not text:
                return
            self._number = number
            self._line.append(self._prefix)
            self._prefix = ""
        self._line.append(text)

    def end_line(self, *, paragraph: bool = False) -> None:
        """Ends the line; with `paragraph`, an empty one follows."""
        text = "".join(self._line).rstrip().removesuffix("¶")  # a link to the heading itself
        self._line.clear()
        if text:
            self.lines.append(text if self._pre else _SPACE.sub(" ", text))
            self.numbers.append(self._number)
        if paragraph and self.lines and self.lines[-1]:
            self.lines.append("")
            self.numbers.append(self._number)
