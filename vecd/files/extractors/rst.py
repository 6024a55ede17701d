"""reStructuredText: the text as it is; the title is the first line that is underlined."""

from __future__ import annotations

import re
from typing import Final

from . import MARKDOWN, Extracted
from .decoding import text_of

_UNDERLINED: Final = re.compile(r"^(\S[^\n]*)\n([=\-~^\"'`#*+:.<>_])\2{2,}[ \t]*$", re.MULTILINE)
#: Roles and other marks, `:doc:`this`` and ``that``.
_MARKS: Final = re.compile(r":[\w.-]+:(?=`)|[`*|]")


def extract(content: bytes, name: str) -> Extracted:
    text = text_of(content)
    heading = _UNDERLINED.search(text[:20_000])
    title = _MARKS.sub("", heading[1]).strip() if heading is not None else None
    # Markdown knows two of the ways to underline a heading, which are the common ones; paragraphs are the same.
    return Extracted(text, title or None, MARKDOWN)
