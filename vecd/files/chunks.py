"""Splits a text at its structure: headings, functions, paragraphs (with semantic-text-splitter); knows each chunk's
line."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from functools import lru_cache
from importlib import import_module
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

if TYPE_CHECKING:
    from .options import FileOptions

#: Characters that a splitter gets at a time: the time of a splitter is quadratic in the length of a text without
#: structure.
_SPAN_CHARS: Final = 20_000

#: Language -> the module of its grammar, and the function in it.
_GRAMMARS: Final = {
    "bash": ("tree_sitter_bash", "language"),
    "c": ("tree_sitter_c", "language"),
    "c++": ("tree_sitter_cpp", "language"),
    "go": ("tree_sitter_go", "language"),
    "java": ("tree_sitter_java", "language"),
    "javascript": ("tree_sitter_javascript", "language"),
    "python": ("tree_sitter_python", "language"),
    "ruby": ("tree_sitter_ruby", "language"),
    "rust": ("tree_sitter_rust", "language"),
    "tsx": ("tree_sitter_typescript", "language_tsx"),
    "typescript": ("tree_sitter_typescript", "language_typescript"),
}

#: The structure of a text whose headings are those of Markdown; others are languages, or "" for paragraphs.
MARKDOWN: Final = "markdown"


class Chunk(NamedTuple):
    text: str
    line: int  # of the file, where the chunk begins, from 1


class _Splitter(Protocol):
    def chunk_indices(self, text: str) -> list[tuple[int, str]]: ...


def split(text: str, structure: str, lines: Sequence[int] | None, options: FileOptions) -> list[Chunk]:
    """The chunks of a text, without those of white space only.

    `lines` has the line of the file for each line of the text; None if the text is the file's.
    """
    return [
        Chunk(chunk.strip("\n"), number if lines is None else lines[min(number, len(lines)) - 1])
        for number, chunk in _numbered(text, _splitter(structure, options.chunk_chars, options.chunk_overlap))
    ]


def _numbered(text: str, splitter: _Splitter) -> Iterator[tuple[int, str]]:
    """The chunks, each with the line of the text, from 1, where its first character that is no line break stands."""
    starts = [0]
    at = text.find("\n")
    while at >= 0:
        starts.append(at + 1)
        at = text.find("\n", at + 1)
    base = 0
    for span in _spans(text):
        for offset, chunk in splitter.chunk_indices(span):
            if chunk and not chunk.isspace():
                first = base + offset + len(chunk) - len(chunk.lstrip("\n"))
                yield bisect_right(starts, first), chunk
        base += len(span)


def _spans(text: str) -> Iterator[str]:
    """The text in spans of a bounded length, which end with a paragraph or a line where there is one."""
    start = 0
    while len(text) - start > _SPAN_CHARS:
        stop = start + _SPAN_CHARS
        for mark in ("\n\n", "\n", " "):
            at = text.rfind(mark, start + _SPAN_CHARS // 2, stop)
            if at >= 0:
                stop = at + len(mark)
                break
        yield text[start:stop]
        start = stop
    yield text[start:]


@lru_cache(maxsize=32)
def _splitter(structure: str, chars: int, overlap: int) -> _Splitter:
    from semantic_text_splitter import CodeSplitter, MarkdownSplitter, TextSplitter

    overlap = min(overlap, chars // 2)
    if structure == MARKDOWN:
        return MarkdownSplitter(chars, overlap=overlap)
    if structure in _GRAMMARS:
        module, function = _GRAMMARS[structure]
        try:
            grammar = import_module(module)
        except ImportError:
            return TextSplitter(chars, overlap=overlap)  # at empty lines, which stand between functions
        return CodeSplitter(getattr(grammar, function)(), chars, overlap=overlap)
    return TextSplitter(chars, overlap=overlap)
