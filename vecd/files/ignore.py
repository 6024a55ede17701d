"""Ignore rules: .gitignore and .vecignore, with the meaning that git gives to them (pathspec does the matching).

A folder's .vecignore stands behind its .gitignore, and the rules of a deeper folder behind those around it: the last
rule that matches decides. Above the root, ignore files count up to the top of the git repository that the root is in.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

from pathspec import GitIgnoreSpec, RegexPattern

#: What nobody wants to find. An ignore file can take it back: `!node_modules/`.
_DEFAULT: Final = ("__pycache__/", "node_modules/", "*.pyc", "*~", "*.swp", "#*#", "*.part", "*.crdownload")

IGNORE_FILES: Final = (".gitignore", ".vecignore")

#: An ignore file that is larger is no ignore file.
_BYTES_MAX: Final = 1 << 20


class _Rule(NamedTuple):
    ignores: bool  # false: takes back what an earlier rule ignores
    regex: re.Pattern[str]  # matches what is below a folder too; then `ps_d` is the slash behind the folder


class _Rules(NamedTuple):
    base: str  # the folder that the patterns are relative to, with a final slash; "" is the root
    rules: Sequence[_Rule]  # the last one first
    any: re.Pattern[str]  # matches what any of them matches

    @classmethod
    def of(cls, base: str, rules: Sequence[_Rule]) -> _Rules:
        any_of = "|".join(f"(?:{rule.regex.pattern})" for rule in rules).replace("(?P<ps_d>", "(?:")
        return cls(base, rules, re.compile(any_of or r"\Z\A."))

    def decide(self, path: str) -> bool | None:
        """Whether a rule ignores a path, or takes it back; None if none matches the path itself. A folder that is
        ignored is not walked, and one that is taken back may have files that are not."""
        if self.any.match(path) is None:
            return None
        for ignores, regex in self.rules:
            if (match := regex.match(path)) is not None and match.start("ps_d") in (-1, len(path) - 1):
                return ignores
        return None


class IgnoreRules:
    """The rules that hold in one folder. Immutable; `within` gives those of a folder inside it.

    Paths are relative to the root of the walk, with `/` between names and a final one for a folder.
    """

    def __init__(self, rules: Sequence[_Rules] = (), above: str = "", excluded: _Rules | None = None) -> None:
        """`above` is the path of the root below the folder that the first rules are relative to. `excluded` holds
        whatever the others say; its paths are relative to the root."""
        self._rules = tuple(rules)
        self._above = above
        self._excluded = excluded

    @classmethod
    def of_root(cls, root: str, exclude: Iterable[str], files: bool) -> IgnoreRules:
        """The rules for a walk from this folder, without those of its own ignore files. Raises ValueError for a pattern
        that is none."""
        rules = [_Rules.of("", _parsed(_DEFAULT))]
        above = ""
        if files and (top := _repository(root)) is not None:
            inner = os.path.relpath(os.path.realpath(root), top)
            above = "" if inner == "." else inner + "/"
            rules.append(_Rules.of("", _read(os.path.join(top, ".git", "info", "exclude"))))
            names = above.split("/")[:-1]
            for depth in range(len(names)):
                folder = "".join(f"{name}/" for name in names[:depth])
                rules += _of_folder(os.path.join(top, folder), folder, IGNORE_FILES)
        return cls(rules, above, _Rules.of("", _parsed(exclude)) if (exclude := tuple(exclude)) else None)

    def within(self, folder: str, relative: str, names: Iterable[str]) -> IgnoreRules:
        """The rules in a folder. `relative` is its path (with a final slash; "" is the root), `names` the ignore files
        that it has."""
        more = _of_folder(folder, self._above + relative, names)
        return IgnoreRules((*self._rules, *more), self._above, self._excluded) if more else self

    def decide(self, relative: str) -> bool | None:
        """Whether a path is ignored; None if no rule matches it."""
        if self._excluded is not None and self._excluded.decide(relative):
            return True
        path = self._above + relative
        for rules in reversed(self._rules):
            if path.startswith(rules.base) and (found := rules.decide(path[len(rules.base) :])) is not None:
                return found
        return None


def _of_folder(folder: str, base: str, names: Iterable[str]) -> list[_Rules]:
    return [_Rules.of(base, rules) for name in sorted(names) if (rules := _read(os.path.join(folder, name)))]


def _parsed(lines: Iterable[str]) -> list[_Rule]:
    """Raises ValueError for a pattern that is none."""
    # The other backends do not tell how a pattern matches, and refuse names that are not UTF-8.
    patterns = GitIgnoreSpec.from_lines(lines, backend="simple").patterns
    return [
        _Rule(each.include, each.regex)
        for each in reversed([each for each in patterns if isinstance(each, RegexPattern)])
        if each.include is not None and each.regex is not None and "ps_d" in each.regex.groupindex
    ]


def _read(path: str) -> list[_Rule]:
    """The rules of an ignore file, if it can be read. Lines that are no patterns are left out."""
    try:
        with open(path, "rb") as file:
            content = file.read(_BYTES_MAX + 1)
    except OSError:
        return []
    if len(content) > _BYTES_MAX:
        return []
    lines = content.removeprefix(b"\xef\xbb\xbf").decode("utf-8", "surrogateescape").splitlines()
    try:
        return _parsed(lines)
    except ValueError:
        return _parsed(line for line in lines if _is_pattern(line))


def _is_pattern(line: str) -> bool:
    try:
        _parsed([line])
    except ValueError:
        return False
    return True


def _repository(root: str) -> str | None:
    """The top of the git repository that a folder is in."""
    folder = os.path.realpath(root)
    while True:
        if os.path.exists(os.path.join(folder, ".git")):
            return folder
        above = os.path.dirname(folder)
        if above == folder:
            return None
        folder = above
