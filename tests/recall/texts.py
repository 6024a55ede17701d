"""Real texts of this machine, with their titles and topics, and the queries that people would type.

Sources: Debian's package descriptions (apt's lists, or else those of installed packages), man pages, docstrings of
Python's library, and the judged collection in `../shared/data/vaswani` or the folder VEC_BENCH_COLLECTION. Each source
may be absent. The order is random
and the same in every run.
"""

from __future__ import annotations

import ast
import gzip
import json
import os
import random
import re
import shutil
import subprocess
import sysconfig
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np

from tests.support.instance import ROOT
from vecd.index.rows import Floats
from vecd.text import embedders

_TEXT_MIN, _TEXT_MAX = 20, 600
_STATUS: Final = Path("/var/lib/dpkg/status")
_PAGES: Final = Path("/usr/share/man")
_JUDGED: Final = Path(os.environ.get("VEC_BENCH_COLLECTION") or ROOT.parent / "shared" / "data" / "vaswani")


class Text(NamedTuple):
    """One document. `topic` is what a filter would select: a section, a page's first letters, a module."""

    title: str
    text: str
    topic: str


#: Typed by hand: short questions and tasks as people put them, about no collection in particular.
QUESTIONS: Final = (
    "how do I rotate logs", "undo last commit", "what is my ip address", "how can I find large files",
    "convert a video to gif", "why is my disk full", "list open ports", "how to parse json in a shell script",
    "where are passwords stored", "resize a picture", "which process uses most memory", "how do I sort by date",
    "compare two folders", "can I read pdf files", "how to run a command every hour", "kill a process by name",
    "what does this error mean", "how do I join two lists", "encrypt a file with a password", "split a string",
    "measure how long a program runs", "how to write a regular expression", "download a web page",
    "is there a chess game", "play music from the terminal", "how does a transistor amplify",
    "read a csv file line by line", "change the owner of a file", "mount a usb stick", "copy files to another machine",
    "how to round a number", "remove duplicate lines", "show the calendar", "why does my program crash",
    "how do threads share data", "watch a folder for changes", "draw a plot", "edit photos", "count words in a text",
    "how do I install a printer",
)  # fmt: skip


def source(name: str, count: int, seed: int = 7) -> list[Text]:
    """Up to `count` documents of one source, no text twice; none if the source is not on this machine."""
    found = list(_all(name))
    random.Random(seed).shuffle(found)
    return found[:count]


@cache
def _all(name: str) -> tuple[Text, ...]:
    unique = {each.text: each for each in SOURCES[name]() if len(each.text) >= _TEXT_MIN}
    return tuple(unique[text] for text in sorted(unique))


@cache
def _embedder() -> embedders.Embedder:
    made = embedders.make("wordllama")
    assert made is not None
    return made


def embedded(texts: list[str]) -> Floats:
    """Shape (len(texts), 256): the default embedder's vectors."""
    return _embedder().embed(texts)


def queries(documents: list[Text], other: list[Text], count: int, seed: int) -> dict[str, list[str]]:
    """By kind, up to `count` query texts each: made from the documents, and `foreign` ones from another source."""
    drawn = random.Random(seed)

    def some(of: list[Text]) -> list[Text]:
        return drawn.sample(of, min(count, len(of)))

    def sentence(text: str) -> str:
        sentences = [each for each in re.split(r"(?<=[.;:!?])\s+", text) if len(each) > 10] or [text]
        return drawn.choice(sentences)

    def keywords(text: str) -> str:
        words = list(dict.fromkeys(re.findall(r"[a-zA-Z]{4,}", text))) or [text]
        return " ".join(drawn.sample(words, min(len(words), drawn.choice((1, 2)))))

    templates = ("how do I use {}", "what is {}", "how to {}", "why does {} fail", "is there a tool for {}")
    questions = [drawn.choice(templates).format(keywords(each.text)) for each in some(documents)]
    questions[::2] = [drawn.choice(QUESTIONS) for _ in questions[::2]]
    made = {
        "sentences": [sentence(each.text) for each in some(documents)],
        "titles": [each.title for each in some(documents)],
        "keywords": [keywords(each.text) for each in some(documents)],
        "questions": questions,
        "foreign": [sentence(each.text) for each in some(other)],
    }
    return {kind: texts for kind, texts in made.items() if texts}


def _cut(text: str) -> str:
    return " ".join(text.split())[:_TEXT_MAX]


def _debian() -> Iterator[Text]:
    told = ""
    if shutil.which("apt-cache"):
        told = subprocess.run(["apt-cache", "dumpavail"], capture_output=True, text=True, check=False).stdout
    if not told and _STATUS.exists():
        told = _STATUS.read_text("utf-8", "replace")
    for block in told.split("\n\n"):
        name = re.search(r"^Package: (.*)", block, re.MULTILINE)
        about = re.search(r"^Description(?:-en)?: (.*(?:\n .*)*)", block, re.MULTILINE)
        section = re.search(r"^Section: (.*)", block, re.MULTILINE)
        if name and about:
            yield Text(name[1], _cut(about[1].replace("\n .\n", "\n")), section[1] if section else "")


def _man() -> Iterator[Text]:
    """Paragraphs of man pages; the topic is the page's section and first letters."""
    for path in sorted(_PAGES.glob("man[1-8]/*.gz")):
        try:
            raw = gzip.decompress(path.read_bytes()).decode("utf-8", "replace")
        except (OSError, EOFError):
            continue
        page = path.name.removesuffix(".gz")
        for part in re.split(r"\n\.(?:PP|P|LP|TP|IP|SH|SS|Pp)\b[^\n]*\n|\n\n", raw[:40_000])[:12]:
            lines = [line for line in part.split("\n") if not line.startswith((".", "'"))]
            text = re.sub(r"\\f[A-Z]|\\f\(..|\\[&|^/,]", "", " ".join(lines)).replace("\\-", "-")
            yield Text(page.rsplit(".", 1)[0], _cut(text), f"{page.rsplit('.', 1)[-1]} {page[:2]}")


def _python() -> Iterator[Text]:
    """Docstrings of Python's library and of what is installed beside it; the topic is the package."""
    paths = sysconfig.get_paths()
    for folder in sorted({paths["stdlib"], paths["purelib"]}):
        for path in sorted(Path(folder).rglob("*.py")):
            parts = path.relative_to(folder).with_suffix("").parts
            if {"test", "tests", "site-packages", "__pycache__"} & set(parts):
                continue
            yield from _docstrings(parts, path)


def _docstrings(parts: tuple[str, ...], path: Path) -> Iterator[Text]:
    content = path.read_text("utf-8", "replace")
    if '"""' not in content:
        return
    for match in re.finditer(r'(?:def|class) (\w+)[^"\']{0,200}?:\s+[rR]?("""(?:.*?)""")', content, re.DOTALL):
        literal = match[2]
        try:
            text = ast.literal_eval(literal) if "\\" in literal else literal[3:-3]
        except (SyntaxError, ValueError):
            continue
        yield Text(f"{'.'.join(parts)}.{match[1]}", _cut(str(text)), parts[0])


def _vaswani() -> Iterator[Text]:
    """Abstracts; the topic is the first letter, for want of a better one."""
    if (file := _JUDGED / "docs.ndjson").exists():
        for line in file.read_text("utf-8").splitlines():
            document = json.loads(line)
            yield Text(document["text"][:60], _cut(document["text"]), document["text"][:1])


def judged_queries() -> list[str]:
    """The judged collection's queries; none if it is not there."""
    file = _JUDGED / "queries.ndjson"
    return [json.loads(line)["query"] for line in file.read_text("utf-8").splitlines()] if file.exists() else []


#: Name -> all documents of the source, in any order.
SOURCES: Final[dict[str, Callable[[], Iterator[Text]]]] = {
    "debian": _debian,
    "man": _man,
    "python": _python,
    "vaswani": _vaswani,
}


def topics(documents: list[Text]) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """Each document's topic as a number, shape (n,)."""
    names = {name: number for number, name in enumerate(sorted({each.topic for each in documents}))}
    return np.array([names[each.topic] for each in documents], np.int64)
