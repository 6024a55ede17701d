"""Pages of the manual, in roff with the macros `man` or `mdoc`: sections as headings, paragraphs filled.

This reads what pages are written in and no more of roff: fonts, sizes and registers are dropped, conditions hold for
a terminal. A page that only includes another one (`.so`) has no text of its own.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final

from ..entry import FileSkipped, SkipReason
from . import MARKDOWN, Extracted
from .decoding import text_of
from .roff import Roff, arguments

#: The first line of a page that is not a comment: a request, or a macro.
_ROFF: Final = re.compile(r"\A(?:(?:[.']\s*\\\".*|'\\\".*|\.\s*|\s*)\n)*[.']\s*[A-Za-z]")

_PARAGRAPHS: Final = frozenset(("HP", "LP", "P", "PP", "Pp", "sp", "Sp"))
#: Macros of `man` whose arguments are text in alternating fonts, without space between them.
_ALTERNATING: Final = frozenset(("BI", "BR", "IB", "IR", "RB", "RI"))
_FONTS: Final = frozenset(("B", "I", "R", "SB", "SM"))
_BREAKS: Final = frozenset(("Bl", "El", "RE", "RS", "SY", "YS", "br", "ce", "fi", "in", "ti"))
#: Displays whose lines stay as they are.
_DISPLAYS: Final = {"nf": True, "EX": True, "Vb": True, "fi": False, "EE": False, "Ve": False}

#: Macros of `mdoc` that enclose their arguments.
_ENCLOSING: Final = {
    "Aq": "<>", "Bq": "[]", "Brq": "{}", "Dq": "“”", "Op": "[]", "Pq": "()", "Ql": "‘’", "Qq": '""', "Sq": "‘’",
}  # fmt: skip
_OPENING: Final = {"Ao": "<", "Bo": "[", "Bro": "{", "Do": "“", "Oo": "[", "Po": "(", "Qo": '"', "So": "‘"}
_CLOSING: Final = {"Ac": ">", "Bc": "]", "Brc": "}", "Dc": "”", "Oc": "]", "Pc": ")", "Qc": '"', "Sc": "’"}
#: Other macros of `mdoc` that stand within a line.
_INLINE: Final = frozenset((
    "Ad", "An", "Ap", "Ar", "Cd", "Cm", "Dv", "Em", "Er", "Ev", "Fa", "Fl", "Fn", "Fr", "Ft", "Ic", "In", "Li", "Lk",
    "Ms", "Mt", "Nd", "Nm", "No", "Ns", "Pa", "Pf", "St", "Sx", "Sy", "Tn", "Ux", "Va", "Vt", "Xr", "Bx", "Fx", "Nx",
    "Ox", "At", "Bsx",
))  # fmt: skip
_PUNCTUATION: Final = frozenset(".,:;)]?!")
_DASH: Final = re.compile(r"\s+(?:-{1,2}|–|—|−)\s+")


def extract(content: bytes, name: str) -> Extracted:
    text = text_of(content)
    if _ROFF.match(text) is None:
        return Extracted(text)  # its suffix means something else: libfoo.so.1, notes.2
    page = _Page()
    for number, line in Roff(text).lines():
        page.add(number, line)
    page.end_line()
    if not any(line and not line.startswith("#") for line in page.lines):
        raise FileSkipped(SkipReason.NO_TEXT, "the page only refers to another one")
    return Extracted("\n".join(page.lines), page.title(), MARKDOWN, page.numbers)


class _Page:
    """Collects lines of text, and for each the line of the file where it begins."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.numbers: list[int] = []
        self._line: list[str] = []  # the pieces of the present line
        self._number = 1  # where it begins
        self._at = 1  # the line of the macro that is being read
        self._kept = False  # in a display: lines are not joined
        self._heading = ""  # the marks of a heading whose text is the next line
        self._tag = False  # the next line is a term, and what follows explains it
        self._glue = False  # no space before the next piece
        self._name = self._section = self._about = ""
        self._macros: dict[str, Callable[[list[str]], None]] = {
            "TH": self._title, "Dt": self._title, "SH": self._head_1, "Sh": self._head_1, "SS": self._head_2,
            "Ss": self._head_2, "TP": self._tagged, "IP": self._item, "It": self._item, "Bd": self._display,
            "Ed": self._end_display, "TQ": self._next_tag,
        }  # fmt: skip

    def title(self) -> str | None:
        """The names of the page, its section, and what it is about: "ls(1) - list directory contents"."""
        named = next((place for place, line in enumerate(self.lines) if re.match(r"# (?i:name)\b", line)), None)
        following = self.lines[named + 1 :] if named is not None else []
        line = next((line for line in following if line), "")
        names, *about = _DASH.split(line, maxsplit=1)
        if not about and self._about:
            names, about = self._name, [self._about]
        section = f"({self._section})" if self._section else ""
        if about:
            return f"{names}{section} - {about[0]}"
        return f"{self._name.lower()}{section}" if self._name else None

    def add(self, number: int, line: str) -> None:
        """Takes a line of the page, without comments and conditions."""
        if not line.startswith((".", "'")):
            self._text(number, line)
            return
        name, *rest = line[1:].lstrip().split(None, 1) or [""]
        given = arguments(rest[0] if rest else "")
        if (macro := self._macros.get(name)) is not None:
            self._at = number
            macro(given)
        elif name in _PARAGRAPHS:
            self.end_line(paragraph=True)
        elif name in _DISPLAYS:
            self.end_line()
            self._kept = _DISPLAYS[name]
        elif name in _BREAKS:
            self.end_line()
        elif name in _ALTERNATING:
            self._text(number, "".join(given))
        elif name in _FONTS:
            self._text(number, " ".join(given))
        elif name in ("UR", "MT", "OP"):
            self._text(number, " ".join(given) if name != "OP" else f"[{' '.join(given)}]")
        elif name in _INLINE or name in _ENCLOSING or name in _OPENING or name in _CLOSING:
            self._inline(number, [name, *given])

    def _begin(self, number: int) -> None:
        if not self._line:
            self._number = number

    def _text(self, number: int, text: str) -> None:
        if not text.strip():
            self.end_line(paragraph=True)
            return
        if self._kept or text[0] == " ":
            self.end_line()
        self._begin(number)
        if self._heading:
            self._line.append(self._heading)
        elif self._line and not self._glue:
            self._line.append(" ")
        self._glue = text.endswith("\\c")
        self._line.append(text.removesuffix("\\c"))
        if self._kept or self._heading or self._tag:
            self._heading, self._tag = "", False
            self.end_line()

    def end_line(self, *, paragraph: bool = False) -> None:
        """Ends the line; with `paragraph`, an empty one follows."""
        text = "".join(self._line).rstrip()
        self._line.clear()
        self._glue = False
        if text:
            self.lines.append(text)
            self.numbers.append(self._number)
        if paragraph and self.lines and self.lines[-1]:
            self.lines.append("")
            self.numbers.append(self._number)

    # --- macros -----------------------------------------------------------------------------------------------------

    def _title(self, given: list[str]) -> None:
        self._name, self._section = (given[0] if given else ""), (given[1] if len(given) > 1 else "")

    def _head_1(self, given: list[str], marks: str = "# ") -> None:
        self.end_line(paragraph=True)
        self._kept = self._tag = False
        self._heading = marks
        if given:
            self._text(self._at, " ".join(given))

    def _head_2(self, given: list[str]) -> None:
        self._head_1(given, "## ")

    def _tagged(self, given: list[str]) -> None:
        self.end_line(paragraph=True)
        self._tag = True

    def _next_tag(self, given: list[str]) -> None:
        self.end_line()
        self._tag = True

    def _item(self, given: list[str]) -> None:
        self.end_line(paragraph=True)
        if given and given[0]:
            words = given if given[0] in _INLINE or given[0] in _ENCLOSING else given[:1]
            self._inline(self._at, words)
            if len("".join(self._line)) > 2:  # not a bullet
                self.end_line()

    def _display(self, given: list[str]) -> None:
        self.end_line(paragraph=True)
        self._kept = "-literal" in given or "-unfilled" in given

    def _end_display(self, given: list[str]) -> None:
        self.end_line()
        self._kept = False

    def _inline(self, number: int, words: list[str]) -> None:
        """A line of macros of `mdoc`, which call each other."""
        pieces: list[str] = []
        closers: list[str] = []
        glue, flag, called = True, False, ""
        for word in words:
            if word in ("Ns", "Ap", "Pf"):
                glue = True
                if word == "Ap":
                    pieces.append("'")
            elif word in _ENCLOSING or word in _OPENING:
                pieces.append(("" if glue else " ") + (_ENCLOSING.get(word) or _OPENING[word])[0])
                closers += [_ENCLOSING[word][1]] if word in _ENCLOSING else []
                glue = True
            elif word in _CLOSING:
                pieces.append(_CLOSING[word])
                glue = False
            elif word in _INLINE:
                called, flag = word, word == "Fl"
            elif word in _PUNCTUATION:
                pieces.append(word)
                glue = False
            else:
                if called == "Nd":
                    self._about, called = " ".join(words[1:]), ""
                    pieces.append(" - ")
                    glue = True
                elif called == "Nm" and not self._about:
                    self._name = word
                section = called == "Xr" and re.fullmatch(r"\d\w*", word) is not None
                pieces.append(f"({word})" if section else ("" if glue else " ") + ("-" if flag else "") + word)
                glue = False
        if words == ["Nm"] or (words[0] == "Nm" and not pieces):
            pieces.append(self._name)
        self._text(number, "".join(pieces) + "".join(reversed(closers)))
