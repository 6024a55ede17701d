"""Markdown: the text as it is; the title is that of the front matter, or the first heading."""

from __future__ import annotations

import re
from typing import Final

from . import MARKDOWN, Extracted
from .decoding import text_of

_FRONT: Final = re.compile(r"\A---[ \t]*\n(.*?)\n(?:---|\.\.\.)[ \t]*(?:\n|\Z)", re.DOTALL)
_FRONT_TITLE: Final = re.compile(r"^title:[ \t]*(['\"]?)(.+?)\1[ \t]*$", re.MULTILINE)
_FENCED: Final = re.compile(r"^(```+|~~~+).*?^\1", re.MULTILINE | re.DOTALL)
_HEADING: Final = re.compile(r"^#{1,2}[ \t]+(.+?)[ \t]*#*$|^(\S.*)\n(?:=+|-{2,})[ \t]*$", re.MULTILINE)
#: Marks of Markdown that do not belong into a title: emphasis, code, links, HTML.
_LINK: Final = re.compile(r"!?\[([^\]]*)\]\([^)]*\)|<[^>]*>")
_MARKS: Final = re.compile(r"[*`]|(?<!\w)_|_(?!\w)|\{#[^}]*\}")


def extract(content: bytes, name: str) -> Extracted:
    text = text_of(content)
    return Extracted(text, title_of(text), MARKDOWN)


def title_of(text: str) -> str | None:
    if (front := _FRONT.match(text)) is not None:
        if (title := _FRONT_TITLE.search(front[1])) is not None:
            return title[2]
        text = text[front.end() :]
    heading = _HEADING.search(_FENCED.sub("", text[:20_000]))
    if heading is None:
        return None
    return _MARKS.sub("", _LINK.sub(r"\1", heading[1] or heading[2])).strip() or None
