"""Plain text and source code: the text as it is."""

from __future__ import annotations

import re
from typing import Final

from . import Extracted, kind_of
from .decoding import text_of

#: An encoding as source code of Python, Ruby or Emacs names it, in one of the first two lines.
_DECLARED: Final = re.compile(rb"\A(?:[^\n]*\n)?[^\n]*coding[:=][ \t]*([-\w.]+)")


def extract(content: bytes, name: str) -> Extracted:
    declared = _DECLARED.search(content[:1_000])
    kind = kind_of(name)
    text = text_of(content, declared[1].decode("ascii", "replace") if declared else None)
    return Extracted(text, structure=kind.language or "" if kind is not None else "")
