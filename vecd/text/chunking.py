"""Splits a text into chunks at the best boundaries: paragraphs, sentences, words (with semantic-text-splitter)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from semantic_text_splitter import TextSplitter

#: Characters that the splitter gets at a time. Its time is quadratic in the length of a text without sentences or line
#: breaks: 26 s for 650 KB of words at 50 characters per chunk.
_SPAN_CHARS = 20_000


def chunks_of(text: str, chunk_chars: int, overlap: int = 0) -> list[str]:
    """Splits the text into chunks of at most `chunk_chars` characters, without leading and trailing white space. A
    chunk begins with whole sentences or words from the end of the one before it, up to `overlap` characters.

    A text that is short enough is one chunk, unchanged.
    """
    return [chunk for span in chunks_by_span(text, chunk_chars, overlap) for chunk in span]


def chunks_by_span(text: str, chunk_chars: int, overlap: int = 0) -> Iterator[list[str]]:
    """Like `chunks_of`, but yields the chunks of one span of the text at a time; each takes about ten milliseconds."""
    if len(text) <= chunk_chars:
        yield [text]
        return
    splitter = _splitter(chunk_chars, min(overlap, chunk_chars // 2))
    for span in _spans(text, max(_SPAN_CHARS, 2 * chunk_chars)):
        yield [chunk for chunk in splitter.chunks(span) if chunk and not chunk.isspace()]


def _spans(text: str, size: int) -> Iterator[str]:
    """Splits the text into spans of at most `size` characters, after the last paragraph, line or word that ends in the
    second half of the span; if there is none, in the middle of a word."""
    start = 0
    while len(text) - start > size:
        stop = start + size
        for mark in ("\n\n", "\n", " "):
            at = text.rfind(mark, start + size // 2, stop)
            if at >= 0:
                stop = at + len(mark)
                break
        yield text[start:stop]
        start = stop
    yield text[start:]


def rejoined(chunks: Sequence[str], overlap: int, between: str) -> list[str]:
    """The parts of a text that was split into these chunks: each without what it repeats from the chunk before, which
    is at most `overlap` characters. Where nothing is repeated, `between` stands for what was there."""
    parts: list[str] = []
    before = ""
    for chunk in chunks:
        repeated = min(overlap, len(chunk), len(before)) if before else 0
        while repeated and not before.endswith(chunk[:repeated]):
            repeated -= 1
        parts.append(chunk[repeated:] if repeated or not parts else between + chunk)
        before = chunk
    return parts


@lru_cache(maxsize=8)
def _splitter(chunk_chars: int, overlap: int) -> TextSplitter:
    from semantic_text_splitter import TextSplitter

    return TextSplitter(chunk_chars, overlap=overlap)
