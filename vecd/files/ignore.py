"""Ignore rules: .gitignore and .vecignore, with the meaning that git gives to them (pathspec does the matching).

A folder's .vecignore stands behind its .gitignore, and the rules of a deeper folder behind those around it: the last
rule that matches decides. Above the root, ignore files count up to the top of the git repository that the root is in.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

from pathspec import GitIgnoreSpec

#: What nobody wants to find. An ignore file can take it back: `!node_modules/`.
_DEFAULT: Final = ("__pycache__/", "node_modules/", "*.pyc", "*~", "*.swp", "#*#", "*.part", "*.crdownload")

IGNORE_FILES: Final = (".gitignore", ".vecignore")

#: An ignore file that is larger is no ignore file.
_BYTES_MAX: Final = 1 << 20


def _spec(lines: Iterable[str]) -> GitIgnoreSpec:
    """Raises ValueError for a pattern that is none."""
    # The other backends, which pathspec takes if they are installed, refuse names that are not UTF-8.
    return GitIgnoreSpec.from_lines(lines, backend="simple")


class _Rules(NamedTuple):
    base: str  # the folder that the patterns are relative to, with a final slash; "" is the root
    spec: GitIgnoreSpec


class IgnoreRules:
    """The rules that hold in one folder. Immutable; `within` gives those of a folder inside it.

    Paths are relative to the root of the walk, with `/` between names and a final one for a folder.
    """

    def __init__(self, rules: Sequence[_Rules] = (), above: str = "") -> None:
        """`above` is the path of the root below the folder that the first rules are relative to."""
        self._rules = tuple(rules)
        self._above = above

    @classmethod
    def of_root(cls, root: str, exclude: Iterable[str], files: bool) -> IgnoreRules:
        """The rules for a walk from this folder, without those of its own ignore files. Raises ValueError for a pattern
        that is none."""
        rules = [_Rules("", _spec(_DEFAULT))]
        above = ""
        if files and (top := _repository(root)) is not None:
            inner = os.path.relpath(os.path.realpath(root), top)
            above = "" if inner == "." else inner + "/"
            excluded = _read(os.path.join(top, ".git", "info", "exclude"))
            if excluded is not None:
                rules.append(_Rules("", excluded))
            names = above.split("/")[:-1]
            for depth in range(len(names)):
                folder = "".join(f"{name}/" for name in names[:depth])
                rules += _of_folder(os.path.join(top, folder), folder, IGNORE_FILES)
        if exclude := tuple(exclude):
            rules.append(_Rules(above, _spec(exclude)))
        return cls(rules, above)

    def within(self, folder: str, relative: str, names: Iterable[str]) -> IgnoreRules:
        """The rules in a folder. `relative` is its path (with a final slash; "" is the root), `names` the ignore files
        that it has."""
        more = _of_folder(folder, self._above + relative, names)
        return IgnoreRules((*self._rules, *more), self._above) if more else self

    def decide(self, relative: str) -> bool | None:
        """Whether a path is ignored; None if no rule matches it."""
        path = self._above + relative
        for base, spec in reversed(self._rules):
            if path.startswith(base) and (found := spec.check_file(path[len(base) :]).include) is not None:
                return found
        return None


def _of_folder(folder: str, base: str, names: Iterable[str]) -> list[_Rules]:
    return [_Rules(base, spec) for name in sorted(names) if (spec := _read(os.path.join(folder, name))) is not None]


def _read(path: str) -> GitIgnoreSpec | None:
    """The rules of an ignore file; None if there is none that can be read. Lines that are no patterns are left out."""
    try:
        with open(path, "rb") as file:
            content = file.read(_BYTES_MAX + 1)
    except OSError:
        return None
    if len(content) > _BYTES_MAX:
        return None
    lines = content.removeprefix(b"\xef\xbb\xbf").decode("utf-8", "surrogateescape").splitlines()
    try:
        return _spec(lines)
    except ValueError:
        return _spec([line for line in lines if _is_pattern(line)])


def _is_pattern(line: str) -> bool:
    try:
        _spec([line])
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
