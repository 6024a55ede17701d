"""Cutting a text into chunks at the best boundary there is: paragraphs, sentences, words (semantic-text-splitter)."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from semantic_text_splitter import TextSplitter


def chunks_of(text: str, chunk_chars: int) -> list[str]:
    """The text in pieces of at most `chunk_chars` characters, in order; white space at their edges is dropped.

    A text that is short enough is its own only chunk, as it is.
    """
    if len(text) <= chunk_chars:
        return [text]
    return [piece for piece in _splitter(chunk_chars).chunks(text) if piece and not piece.isspace()]


@lru_cache(maxsize=8)
def _splitter(chunk_chars: int) -> TextSplitter:
    from semantic_text_splitter import TextSplitter

    return TextSplitter(chunk_chars)
