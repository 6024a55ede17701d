"""The part of roff that text needs: requests, conditions, strings, and escapes; what a terminal would show."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

#: Special characters by name; those that are missing show their name.
_CHARACTERS: Final = {
    "aq": "'", "bu": "•", "bv": "|", "co": "©", "cq": "’", "da": "↓", "de": "°", "dq": '"', "em": "—", "en": "–",
    "eq": "=", "ga": "`", "ge": "≥", "ha": "^", "hy": "-", "la": "<", "ra": ">", "le": "≤", "lq": "“", "rq": "”",
    "mi": "-", "mu": "×", "oq": "‘", "or": "|", "pl": "+", "rg": "®", "rs": "\\", "sc": "§", "sq": "□", "ti": "~",
    "tm": "™", "ua": "↑", "->": "→", "<-": "←", "<=": "≤", ">=": "≥", "!=": "≠", "+-": "±", "'e": "é", "`e": "è",
    ":a": "ä", ":o": "ö", ":u": "ü", ":A": "Ä", ":O": "Ö", ":U": "Ü", "ss": "ß", "oa": "å", "oA": "Å", "/o": "ø",
    "'a": "á", "'i": "í", "'o": "ó", "'u": "ú", ",c": "ç", "~n": "ñ", "Fo": "«", "Fc": "»", "dg": "†", "ul": "_",
    "sl": "/", "at": "@", "sh": "#", "Do": "$", "lB": "[", "rB": "]", "lC": "{", "rC": "}", "ba": "|", "br": "|",
    "\\-": "-", "ad": "¨", "a^": "^", "a~": "~", "fm": "′", "no": "¬", "12": "½", "14": "¼", "34": "¾", "Eu": "€",
    "Po": "£", "Ye": "¥", "mc": "µ", "*a": "α", "*b": "β", "*l": "λ", "*p": "π", "if": "∞", "**": "*",
}  # fmt: skip

#: Strings that pages use without defining them.
_STRINGS: Final = {"Aq": "'", "R": "®", "Tm": "™", "lq": "“", "rq": "”", "--": "—", "PI": "π", "C`": "", "C'": ""}

_ESCAPE: Final = re.compile(
    r"""\\(?:
      (?P<simple>[-e \\~0&/,|^:%{}'`.adeuprt)!"#E_])
      | [fmMFgks](?:\((?:..)|\[[^]]*\]|'[^']*'|[-+]?.)
      | n[-+]?(?:\(..|\[[^]]*\]|.)
      | \*(?:\((?P<s2>..)|\[(?P<s>[^]]*)\]|(?P<s1>.))
      | \((?P<c2>..)
      | \[(?P<c>[^]]*)\]
      | C'(?P<cc>[^']*)'
      | N'(?P<code>\d+)'
      | [hvwlLbDoSHxXRABZ]'[^']*'
      | (?P<other>c$|.|$)
    )""",
    re.VERBOSE,
)
_SIMPLE: Final = {"-": "-", "e": "\\", "E": "\\", "\\": "\\", " ": " ", "~": " ", "0": " ", "'": "´", "`": "`",
                  ".": ".", "t": "\t", "_": "_"}  # fmt: skip

_COMMENT: Final = re.compile(r"(?<!\\)((?:\\\\)*)\\[\"#].*")
_CONDITION: Final = re.compile(r"(!?)\s*(?:([a-zA-Z])(?=\s|\\|\.|$)|('[^']*'[^']*')|([^\s\\]*(?:\\[^{][^\s\\]*)*))\s*")
#: A table of tbl: options and formats, up to the line that ends in a dot.
_CELL: Final = re.compile(r"^T\{\s*|^T\}\s*")


class Roff:
    """A page: its lines without comments, definitions and conditions, with strings and escapes replaced."""

    def __init__(self, text: str) -> None:
        self._raw = text.split("\n")
        self._strings = dict(_STRINGS)

    def lines(self) -> Iterator[tuple[int, str]]:
        """Yields (number of the line, from 1; line). `\\c` stays at the end of a line."""
        raw = self._raw
        at, otherwise = 0, False
        skipped = 0  # depth of the block whose condition does not hold
        while at < len(raw):
            number, line = at + 1, raw[at]
            at += 1
            while line.endswith("\\") and not line.endswith("\\\\") and at < len(raw):
                line = line[:-1] + raw[at]
                at += 1
            if skipped:
                skipped += line.count("\\{") - line.count("\\}")
                skipped = max(0, skipped)
                continue
            line = _COMMENT.sub(r"\1", line)
            if line.startswith((".", "'")):
                request, *rest = line[1:].lstrip().split(None, 1) or [""]
                argument = rest[0] if rest else ""
                while request in ("if", "ie", "el"):
                    holds = otherwise
                    if request != "el":
                        holds, argument = self._condition(argument)
                        otherwise = not holds
                    if not holds:
                        skipped = max(0, argument.count("\\{") - argument.count("\\}"))
                        line = ""
                        break
                    line = argument.lstrip().removeprefix("\\{").lstrip()
                    request, *rest = line[1:].lstrip().split(None, 1) if line[:1] in (".", "'") else [""]
                    request, argument = (request or ""), rest[0] if rest else ""
                else:
                    if request in ("de", "de1", "am", "am1", "ig"):
                        end = [*argument.split(), ".", "."][1 if request != "ig" else 0]
                        at = self._after(at, f".{end}" if end != "." else "..")
                        continue
                    if request in ("ds", "ds1"):
                        name, *value = argument.split(None, 1) or [""]
                        self._strings[name] = value[0].removeprefix('"') if value else ""
                        continue
                    if request == "TS":
                        at = self._after_formats(at)
                        continue
                if not line:
                    continue
            line = line.replace("\\}", "")
            if line.strip() in (".", "'"):
                continue
            if "\t" in line or line.startswith(("T{", "T}")):
                line = _CELL.sub("", line).replace("\tT{", "\t").replace("\t", "  ")
                if not line.strip():
                    continue
            yield number, self.text(line) if "\\" in line else line

    def _condition(self, text: str) -> tuple[bool, str]:
        """Whether a condition holds on a terminal, and what follows it."""
        found = _CONDITION.match(text)
        if found is None:
            return False, text
        return (found[2] == "n") != (found[1] == "!"), text[found.end() :]

    def _after(self, at: int, end: str) -> int:
        while at < len(self._raw) and not re.match(
            re.escape(end[0]) + r"\s*" + re.escape(end[1:]) + r"\s*$", self._raw[at]
        ):
            at += 1
        return at + 1

    def _after_formats(self, at: int) -> int:
        start = at
        while at < len(self._raw) and not self._raw[at].startswith(".TE"):
            at += 1
            if self._raw[at - 1].rstrip().endswith("."):
                return at
        return start

    def text(self, line: str, depth: int = 0) -> str:
        """The line with its escapes replaced."""

        def replaced(match: re.Match[str]) -> str:
            groups = match.groupdict()
            if (simple := groups["simple"]) is not None:
                return _SIMPLE.get(simple, "")
            for name in ("s", "s1", "s2"):
                if groups[name] is not None:
                    value = self._strings.get(groups[name], "")
                    return self.text(value, depth + 1) if depth < 8 else value
            for name in ("c", "c2", "cc"):
                if (special := groups[name]) is not None:
                    return _character(special)
            if groups["code"] is not None and int(groups["code"]) < 0x110000:
                return chr(int(groups["code"]))
            return "\\c" if groups["other"] == "c" else ""

        return _ESCAPE.sub(replaced, line)


def _character(name: str) -> str:
    if (known := _CHARACTERS.get(name)) is not None:
        return known
    if (code := re.fullmatch(r"u([0-9A-Fa-f]{4,6})(?:_.*)?", name)) is not None and int(code[1], 16) < 0x110000:
        point = int(code[1], 16)
        return "" if 0xD800 <= point < 0xE000 else chr(point)
    return ""


def arguments(text: str) -> list[str]:
    """The arguments of a macro: words, or text in quotes, in which two quotes are one."""
    found = re.findall(r'"((?:[^"]|"")*)"?|(\S+)', text)
    return [word or quoted.replace('""', '"') for quoted, word in found]
