"""The files of a folder, in the order of their names. Opens no file: a scan of 10,000 costs a tenth of a second."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from typing import Final

from .. import limits
from ..durable_files import printable_path
from ..errors import Code, VecError
from .entry import FileEntry, SkipReason, id_of
from .extractors import suffix_of
from .ignore import IGNORE_FILES, IgnoreRules
from .options import FileOptions

#: Folders of version control; never read.
_VERSION_CONTROL: Final = frozenset((".git", ".hg", ".svn", ".jj", "CVS"))

#: Suffixes of files that hold records; JSON is more often the data of a program.
_RECORDS: Final = frozenset((".ndjson", ".jsonl", ".csv", ".tsv", ".parquet", ".arrow", ".feather"))

#: A folder with one of these names in it is a cache (bford.info/cachedir) or a Python environment: no user's own files.
_NOT_OWN: Final = frozenset(("CACHEDIR.TAG", "pyvenv.cfg"))


_DEFAULTS: Final = FileOptions()


def walk(
    root: str, options: FileOptions = _DEFAULTS, prefix: str = "", under: str | None = None
) -> Iterator[FileEntry]:
    """Yields the files of a folder, also those that are skipped, with the reason (a skipped folder is one entry); or
    the root itself if it is a file, which no rule ignores. With `under`, a path relative to the root, yields only that
    file, or the files below that folder, as a walk of all would; nothing if it does not exist.

    The ids of documents are paths relative to the root, behind `prefix`, which is the path of a folder or empty; for a
    root that is a file, `prefix` is the whole id, if it is given. Raises VecError `not_found` if the root does not
    exist, `system_refused` if it cannot be read, and `invalid_request` for patterns that are none.
    """
    try:
        about = os.stat(root)
        if stat.S_ISDIR(about.st_mode):
            os.scandir(root).close()
    except FileNotFoundError as error:
        raise _no_root(root) from error
    except OSError as error:
        name = printable_path(root)
        raise VecError(Code.REFUSED, f"cannot read {name} ({error.strerror})", file=name) from error
    if not stat.S_ISDIR(about.st_mode):
        name = os.path.basename(root)
        yield _file(root, name, id_of(prefix or name), about, options)
        return
    try:
        rules = IgnoreRules.of_root(root, options.exclude, options.ignore_files)
    except ValueError as error:
        raise VecError(Code.INVALID_REQUEST, f"not a pattern of files: {error}", field="exclude") from error
    found = _Walk(root, options, prefix)
    inside = ((about.st_dev, about.st_ino),)
    yield from found.folder("", rules, inside) if under is None else found.under(under, rules, inside)


#: A folder that is to be walked: its relative path with a final slash, its rules, and the folders that it is in.
_Folder = tuple[str, IgnoreRules, tuple[tuple[int, int], ...]]


class _Walk:
    """One walk. `inside` are the folders that a folder is in, by device and inode: a link to one of them is a loop."""

    def __init__(self, root: str, options: FileOptions, prefix: str) -> None:
        self._root = root
        self._options = options
        self._prefix = f"{prefix}/" if prefix and not prefix.endswith("/") else prefix

    def folder(self, relative: str, rules: IgnoreRules, inside: tuple[tuple[int, int], ...]) -> Iterator[FileEntry]:
        """The files of a folder, which is not ignored; `relative` ends with a slash, or is empty for the root."""
        # A stack of iterators instead of recursion: a tree may be deeper than Python's stack.
        stack = [iter([(relative, rules, inside)])]
        while stack:
            below = next(stack[-1], None)
            if below is None:
                stack.pop()
                continue
            folders: list[_Folder] = []
            yield from self._one(*below, folders)
            stack.append(iter(folders))

    def under(self, wanted: str, rules: IgnoreRules, inside: tuple[tuple[int, int], ...]) -> Iterator[FileEntry]:
        """What a walk yields of one path: the folders on the way are listed by name only."""
        relative = ""
        names = wanted.split("/")
        for depth, name in enumerate(names):
            path = os.path.join(self._root, relative)
            there = [each for each in (*IGNORE_FILES, *_NOT_OWN) if os.path.exists(os.path.join(path, each))]
            if relative and not _NOT_OWN.isdisjoint(there):
                yield self._skipped(path, relative, SkipReason.IGNORED, directory=True)
                return
            if self._options.ignore_files:
                rules = rules.within(path, relative, [each for each in there if each in IGNORE_FILES])
            folders: list[_Folder] = []
            found = list(self._entry(_Named(path, name), relative, rules, inside, folders))
            if depth == len(names) - 1 or found:
                yield from found
                for folder in folders:
                    yield from self.folder(*folder)
                return
            if not folders:
                return  # it does not exist
            relative, rules, inside = folders[0]

    def _one(
        self,
        relative: str,
        rules: IgnoreRules,
        inside: tuple[tuple[int, int], ...],
        folders: list[_Folder],
    ) -> Iterator[FileEntry]:
        """The files of one folder; adds the folders in it that are to be walked."""
        path = os.path.join(self._root, relative)
        try:
            with os.scandir(path) as listing:
                entries = sorted(listing, key=lambda entry: entry.name)
        except FileNotFoundError as error:
            if not relative:
                raise _no_root(self._root) from error
            return  # deleted meanwhile, with all that was in it
        except OSError as error:
            yield self._skipped(path, relative, SkipReason.UNREADABLE, directory=True, error=error)
            return
        names = {entry.name for entry in entries}
        if relative and names & _NOT_OWN:
            yield self._skipped(path, relative, SkipReason.IGNORED, directory=True)
            return
        if self._options.ignore_files and not names.isdisjoint(IGNORE_FILES):
            rules = rules.within(path, relative, names.intersection(IGNORE_FILES))
        for entry in entries:
            yield from self._entry(entry, relative, rules, inside, folders)

    def _entry(
        self,
        entry: os.DirEntry[str] | _Named,
        relative: str,
        rules: IgnoreRules,
        inside: tuple[tuple[int, int], ...],
        folders: list[_Folder],
    ) -> Iterator[FileEntry]:
        """One entry of the folder `relative`; a folder that is to be walked is added to `folders`."""
        below = relative + entry.name
        try:
            link = entry.is_symlink()
            if link and not self._options.links:
                yield self._skipped(entry.path, below, SkipReason.LINK)
                return
            directory = entry.is_dir()
            if (reason := self._excluded(entry.name, below, directory, rules)) is not None:
                yield self._skipped(entry.path, below, reason, directory=directory)
            elif not directory:
                yield _file(entry.path, below, id_of(self._prefix + below), entry.stat(), self._options)
            elif not self._options.links:
                folders.append((f"{below}/", rules, inside))
            elif (key := _key(entry)) in inside:
                yield self._skipped(entry.path, below, SkipReason.LOOP)
            else:
                folders.append((f"{below}/", rules, (*inside, key)))
        except FileNotFoundError:
            if entry.is_symlink():
                yield self._skipped(entry.path, below, SkipReason.LINK)  # to nothing
        except OSError as error:
            reason = SkipReason.LOOP if error.errno == errno.ELOOP else SkipReason.UNREADABLE
            yield self._skipped(entry.path, below, reason, error=error)

    def _excluded(self, name: str, relative: str, directory: bool, rules: IgnoreRules) -> SkipReason | None:
        ignored = rules.decide(f"{relative}/" if directory else relative)
        if ignored:
            return SkipReason.IGNORED
        if name in _VERSION_CONTROL:
            return SkipReason.HIDDEN
        if name.startswith(".") and not self._options.hidden and ignored is None:
            return SkipReason.HIDDEN
        if not directory and ignored is None and suffix_of(name) in _RECORDS:
            return SkipReason.RECORDS
        return None

    def _skipped(
        self, path: str, relative: str, reason: SkipReason, *, directory: bool = False, error: OSError | None = None
    ) -> FileEntry:
        relative, number = relative.removesuffix("/"), error.errno or 0 if error is not None else 0
        return FileEntry(
            path, relative, id_of(self._prefix + relative), directory=directory, skipped=reason, errno=number
        )  # fmt: skip


class _Named:
    """An entry of a folder that was not listed, with the methods of os.DirEntry that a walk uses."""

    def __init__(self, folder: str, name: str) -> None:
        self.name = name
        self.path = os.path.join(folder, name)

    def is_symlink(self) -> bool:
        return os.path.islink(self.path)

    def is_dir(self) -> bool:
        return os.path.isdir(self.path)

    def stat(self) -> os.stat_result:
        return os.stat(self.path)


def _no_root(root: str) -> VecError:
    name = printable_path(root)
    return VecError(Code.NOT_FOUND, f"{name} does not exist", "check the path; nothing was changed", file=name)


def _key(entry: os.DirEntry[str] | _Named) -> tuple[int, int]:
    about = entry.stat()
    return about.st_dev, about.st_ino


def _file(path: str, relative: str, document_id: str, about: os.stat_result, options: FileOptions) -> FileEntry:
    reason = None
    if not stat.S_ISREG(about.st_mode):
        reason = SkipReason.SPECIAL
    elif about.st_size == 0:
        reason = SkipReason.EMPTY
    elif about.st_size > options.bytes_max:
        reason = SkipReason.TOO_LARGE
    elif len(document_id) > limits.ID_BYTES_MAX // 4 and len(document_id.encode()) > limits.ID_BYTES_MAX:
        reason = SkipReason.BAD_NAME
    return FileEntry(
        path, relative, document_id, about.st_size, about.st_mtime_ns, about.st_ctime_ns, about.st_ino, about.st_dev,
        skipped=reason,
    )  # fmt: skip
