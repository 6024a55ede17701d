"""Files and folders as the input of an ingest: each file is a document (vecd/files)."""

from __future__ import annotations

import os
import stat
from collections import Counter
from collections.abc import Callable, Iterator

from vecd.durable_files import printable_path
from vecd.errors import Code, VecError
from vecd.files.documents import documents_of
from vecd.files.entry import FileEntry, FileSkipped, SkipReason, id_of
from vecd.files.extractors import kind_of
from vecd.files.options import FileOptions
from vecd.files.walk import walk
from vecd.wire.ndjson import Line
from vecd.wire.records import has_format

#: Names of skipped files that are told for each reason; the others are counted.
_TOLD_MAX = 3
#: Reasons that nobody needs to hear about, one by one.
_USUAL = frozenset(
    (
        SkipReason.BINARY, SkipReason.EMPTY, SkipReason.HIDDEN, SkipReason.IGNORED, SkipReason.LINK, SkipReason.NO_TEXT,
        SkipReason.RECORDS, SkipReason.SPECIAL,
    )
)  # fmt: skip


def is_files(path: str) -> bool:
    """Whether an input is a folder, or a file that is a document as a whole, by its name. Others hold records."""
    try:
        mode = os.stat(path).st_mode
    except OSError:
        return False
    if stat.S_ISDIR(mode):
        return True
    name = os.path.basename(path)
    return stat.S_ISREG(mode) and not has_format(name) and kind_of(name) is not None


class FileLines:
    """Reads files; tells what it skips at the end."""

    def __init__(self, options: Callable[[], FileOptions], say: Callable[[str], None]) -> None:
        """`options` is called when the first file is read, `say` prints a message."""
        self._options_of = options
        self._options: FileOptions | None = None
        self._say = say
        self.skipped: Counter[str] = Counter()  # in folders, by reason

    def lines(self, path: str, check: Callable[[], None]) -> Iterator[Line]:
        """Yields the documents of a file, or of the files in a folder. A file that was named and cannot be read is a
        rejected line; one in a folder is skipped, and counted. Calls `check()` before each file."""
        if self._options is None:
            self._options = self._options_of()
        folder = os.path.isdir(path)
        prefix = os.path.normpath(path)
        for entry in walk(path, self._options, "" if folder and prefix == "." else prefix):
            check()
            name = printable_path(entry.path)
            try:
                for number, document in enumerate(documents_of(entry, self._options), 1):
                    weight = sum(map(len, document["texts"]))
                    yield Line(name, number, value=document, own=True, weight=weight)
            except FileSkipped as skipped:
                if folder:
                    self._skip(entry, skipped)
                else:
                    error = VecError(Code.INVALID_DOCUMENT, skipped.message, skipped.hint, id=id_of(prefix))
                    yield Line(name, 1, error=error)

    def _skip(self, entry: FileEntry, skipped: FileSkipped) -> None:
        self.skipped[skipped.reason] += 1
        if skipped.reason in _USUAL or (count := self.skipped[skipped.reason]) > _TOLD_MAX + 1:
            return
        if count > _TOLD_MAX:
            self._say(f"vec: more files are skipped: {skipped.reason}")
            return
        hint = f"; {skipped.hint}" if skipped.hint else ""
        self._say(f"vec: {printable_path(entry.path)} is skipped: {skipped.message}{hint}")

    def summary(self) -> str | None:
        """What was skipped, in words."""
        if not self.skipped:
            return None
        return "skipped: " + ", ".join(f"{count:,} {reason}" for reason, count in self.skipped.most_common())
