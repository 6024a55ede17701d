"""The plan of a run: the files that there are against what is known of them. Pure."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

from ..client.syncs import SyncFile
from ..files.entry import FileEntry, SkipReason
from .stamps import same_times, stamp_of

#: Nothing is known of these, so what was known stays.
_UNKNOWN: Final = frozenset((SkipReason.UNREADABLE,))


@dataclass(slots=True)
class Plan:
    """What a run has to do."""

    new: list[FileEntry] = field(default_factory=list)
    changed: list[FileEntry] = field(default_factory=list)
    doubtful: list[FileEntry] = field(default_factory=list)  # the content has to be compared
    gone: list[SyncFile] = field(default_factory=list)
    #: Unchanged files that needed a package which was not installed, by suffix: if the first can be read by now, so can
    #: the others.
    lacking: dict[str, list[FileEntry]] = field(default_factory=dict)
    unchanged: int = 0
    skipped: Counter[str] = field(default_factory=Counter)  # by reason
    unreadable: list[FileEntry] = field(default_factory=list)
    found: int = 0  # names of any kind that the folder has

    @property
    def empty(self) -> bool:
        return not (self.new or self.changed or self.doubtful or self.gone)


def plan(
    known: Mapping[bytes, SyncFile],
    entries: Iterable[FileEntry],
    *,
    again: bool = False,
    below: Collection[bytes] | None = None,
) -> Plan:
    """The plan for these entries. With `again`, files that have not changed are read once more. With `below`, the
    entries are those of some paths of the folder, and what is known of others stays."""
    made = Plan()
    kept: list[bytes] = []  # folders of which nothing is known
    seen: set[bytes] = set()
    for entry in entries:
        made.found += 1
        path = os.fsencode(entry.relative)
        if entry.skipped is not None:
            made.skipped[entry.skipped.value] += 1
            if entry.skipped in _UNKNOWN:
                made.unreadable.append(entry)
                seen.add(path)
                if entry.directory:
                    kept.append(path + b"/")
            continue
        seen.add(path)
        file = known.get(path)
        if file is None:
            made.new.append(entry)
            continue
        stamp = stamp_of(entry)
        if again:
            made.changed.append(entry)
        elif file.stamp == stamp:
            if file.reason is None:
                made.unchanged += 1
            elif file.reason == SkipReason.EXTRA:
                made.lacking.setdefault(os.path.splitext(entry.path)[1], []).append(entry)
            else:
                made.skipped[file.reason] += 1
        elif not file.stamp or same_times(file.stamp, stamp):
            made.doubtful.append(entry)
        else:
            made.changed.append(entry)
    prefixes = tuple(kept)  # no path starts with one of none
    for path in known.keys() - seen if below is None else _at(known, below, seen):
        if not path.startswith(prefixes):
            made.gone.append(known[path])
    made.gone.sort()
    return made


def _at(known: Mapping[bytes, SyncFile], below: Collection[bytes], seen: set[bytes]) -> Iterator[bytes]:
    """The known paths that are one of these, or below one, and have not been seen."""
    folders = tuple(path + b"/" for path in below if path not in known)
    yield from (path for path in dict.fromkeys(below) if path in known and path not in seen)
    if folders:
        yield from (path for path in known if path.startswith(folders) and path not in seen)
