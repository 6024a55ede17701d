"""The text of each kind of file: one file and one entry in KINDS for each kind.

A module of this package has `extract(content, name)`: the bytes of a file, decompressed, and its name, to an Extracted.
It raises FileSkipped for what has no text.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any, Final, NamedTuple

from ..chunks import MARKDOWN
from ..entry import FileSkipped, SkipReason

#: Suffixes of compressed files, which say nothing about the kind.
_COMPRESSED: Final = (".gz", ".bz2", ".xz", ".zst")


@dataclass(slots=True)
class Extracted:
    """The text of a file."""

    text: str
    title: str | None = None  # None: the name of the file
    structure: str = ""  # how to split it: "markdown", a programming language, or "" for paragraphs
    lines: Sequence[int] | None = None  # the file's line for each line of the text; None: the same
    has_lines: bool = True  # false for a format whose files have no lines
    metadata: dict[str, Any] = field(default_factory=dict)
    part: str | None = None  # the name of this document in a file of several; None: its number


class FileKind(NamedTuple):
    """A kind of file. Its name is the document's metadata `type`."""

    name: str
    module: str  # in this package
    suffixes: tuple[str, ...]
    names: tuple[str, ...] = ()  # whole names
    language: str | None = None  # the programming language
    binary: bool = False  # its files are no text

    def extract(self, content: bytes, name: str) -> Sequence[Extracted]:
        """The text of a file; several if it holds several documents. Raises FileSkipped."""
        module = import_module(f".{self.module}", __package__)
        try:
            found = module.extract(content, name)
        except (ValueError, LookupError, RecursionError, AssertionError) as error:  # parsers meet anything
            raise FileSkipped(SkipReason.DAMAGED, f"it cannot be read as {self.name} ({error})") from error
        return found if isinstance(found, list) else [found]


def _code(language: str, *suffixes: str, names: tuple[str, ...] = ()) -> FileKind:
    return FileKind("code", "text", suffixes, names, language)


TEXT: Final = FileKind(
    "text", "text", (".txt", ".text", ".log", ".adoc", ".asciidoc", ".org", ".tex", ".bib", ".textile", ".srt", ".vtt"),
    ("readme", "license", "licence", "copying", "copyright", "authors", "changelog", "changes", "news", "notice",
     "todo", "install", "contributing", "thanks", "history"),
)  # fmt: skip
MAN: Final = FileKind("man", "man", (".man", ".mdoc"))

KINDS: Final[tuple[FileKind, ...]] = (
    FileKind("markdown", "markdown", (".md", ".markdown", ".mdown", ".mkd", ".mkdn", ".mdx", ".qmd", ".rmd")),
    FileKind("rst", "rst", (".rst", ".rest")),
    FileKind("html", "html", (".html", ".htm", ".xhtml", ".shtml")),
    *(
        FileKind(name, "office", (f".{name}",), binary=True)
        for name in ("doc", "docx", "epub", "odp", "ods", "odt", "pdf", "ppt", "pptx", "rtf", "xls", "xlsx")
    ),
    FileKind("email", "mail", (".eml", ".mbox")),
    TEXT,
    MAN,
    _code("bash", ".sh", ".bash", ".zsh", ".ksh", ".bats", names=(".bashrc", ".profile", ".zshrc")),
    _code("c", ".c", ".h"),
    _code("c#", ".cs"),
    _code("c++", ".cc", ".cpp", ".cxx", ".c++", ".hh", ".hpp", ".hxx", ".ipp", ".cu"),
    _code("clojure", ".clj", ".cljs", ".edn"),
    _code("cmake", ".cmake", names=("cmakelists.txt",)),
    _code("css", ".css", ".scss", ".sass", ".less"),
    _code("dart", ".dart"),
    _code("dockerfile", ".dockerfile", names=("dockerfile", "containerfile")),
    _code("elixir", ".ex", ".exs"),
    _code("erlang", ".erl", ".hrl"),
    _code("fish", ".fish"),
    _code("fortran", ".f", ".f90", ".f95", ".f03", ".for"),
    _code("go", ".go"),
    _code("graphql", ".graphql", ".gql"),
    _code("haskell", ".hs"),
    _code("ini", ".ini", ".cfg", ".conf", ".desktop", ".service", ".socket", ".timer", ".properties", ".editorconfig"),
    _code("java", ".java"),
    _code("javascript", ".js", ".mjs", ".cjs", ".jsx"),
    _code("json", ".json", ".json5", ".jsonc", ".webmanifest"),
    _code("julia", ".jl"),
    _code("kotlin", ".kt", ".kts"),
    _code("lisp", ".lisp", ".el", ".scm", ".rkt"),
    _code("lua", ".lua"),
    _code("make", ".mk", ".mak", names=("makefile", "gnumakefile")),
    _code("nix", ".nix"),
    _code("objective-c", ".m", ".mm"),
    _code("ocaml", ".ml", ".mli"),
    _code("perl", ".pl", ".pm", ".t", ".pod"),
    _code("php", ".php"),
    _code("powershell", ".ps1", ".psm1"),
    _code("protobuf", ".proto"),
    _code("python", ".py", ".pyi", ".pyx"),
    _code("r", ".r"),
    _code("ruby", ".rb", ".rake", ".gemspec", names=("rakefile", "gemfile")),
    _code("rust", ".rs"),
    _code("scala", ".scala", ".sc", ".sbt"),
    _code("sql", ".sql"),
    _code("svelte", ".svelte"),
    _code("swift", ".swift"),
    _code("terraform", ".tf", ".hcl", ".tfvars"),
    _code("toml", ".toml"),
    _code("tsx", ".tsx"),
    _code("typescript", ".ts", ".mts", ".cts"),
    _code("verilog", ".v", ".sv"),
    _code("vim", ".vim"),
    _code("vue", ".vue"),
    _code("xml", ".xml", ".xsd", ".xsl", ".svg", ".plist"),
    _code("yaml", ".yaml", ".yml"),
    _code("zig", ".zig"),
)

#: The suffix of a page of a manual: a section, perhaps with a group (`.3pm`).
_SECTION: Final = re.compile(r"\.[1-9][a-z]{0,8}")

_BY_SUFFIX: Final = {suffix: kind for kind in KINDS for suffix in kind.suffixes}
_BY_NAME: Final = {name: kind for kind in KINDS for name in kind.names}


def kind_of(name: str) -> FileKind | None:
    """The kind of a file, by its name; None if that says nothing."""
    if (kind := _BY_NAME.get(_decompressed(name))) is not None:
        return kind
    suffix = suffix_of(name)
    if (kind := _BY_SUFFIX.get(suffix)) is not None:
        return kind
    return MAN if _SECTION.fullmatch(suffix) else None


def suffix_of(name: str) -> str:
    """The suffix of a file, in lower case with its dot, but for that of a compression; "" if it has none."""
    name = _decompressed(name)
    dot = name.rfind(".")
    return name[dot:] if dot > 0 else ""


def _decompressed(name: str) -> str:
    name = name.lower()
    for suffix in _COMPRESSED:
        name = name.removesuffix(suffix)
    return name


__all__ = ["KINDS", "MARKDOWN", "TEXT", "Extracted", "FileKind", "kind_of", "suffix_of"]
