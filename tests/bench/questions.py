"""Questions that a user of the shell asks, and the manual pages that answer them; any of several is right.

Two sets of twenty. `SYSTEM` is about the pages that Linux systems have. `OWN` is about the pages of this project, which
are always there.
"""

from __future__ import annotations

from typing import Final, NamedTuple


class Question(NamedTuple):
    """A question, and the names of the pages of which one must be found."""

    text: str
    pages: tuple[str, ...]


def _set(*pairs: tuple[str, str]) -> tuple[Question, ...]:
    return tuple(Question(text, tuple(pages.split())) for text, pages in pairs)


SYSTEM: Final = _set(
    ("list block devices", "lsblk"),
    ("change file owner", "chown"),
    ("how much space is left on my disks", "df"),
    ("which folders take up the most space", "du"),
    ("look for a word in all files below a folder", "grep rgrep"),
    ("unpack a tar.gz file", "tar"),
    ("stop a program by its name", "pkill killall"),
    ("which programs are running now", "ps top pgrep htop"),
    ("set a new password for a user", "passwd chpasswd"),
    ("make a shortcut that points to another file", "ln"),
    ("show the differences between two files", "diff cmp sdiff diff3"),
    ("attach a file system to a folder", "mount"),
    ("put lines in alphabetical order", "sort"),
    ("throw out repeated lines", "uniq"),
    ("count the words of a text", "wc"),
    ("follow a log file as it grows", "tail"),
    ("make a script executable", "chmod"),
    ("find files by name", "find locate"),
    ("run a command again every two seconds", "watch"),
    ("limit how long a command may run", "timeout"),
)

OWN: Final = _set(
    ("add documents from a file", "vec-ingest"),
    ("see every change as it happens", "vec-watch"),
    ("remove documents that match a filter", "vec-delete"),
    ("use another embedding model for new documents", "vec-library"),
    ("forget old events to save space", "vec-trim"),
    ("send changes to Kafka", "vec-relay vec-connectors"),
    ("read documents from a message broker", "vec-source vec-connectors"),
    ("restore a backup", "vec-restore"),
    ("save a copy of everything while the daemon runs", "vec-backup"),
    ("run a task every night", "vec-jobs"),
    ("cancel a background job", "vec-jobs"),
    ("embed texts on another machine", "vec-worker vec-workers"),
    ("offer the data over HTTP", "vec-serve vec-http"),
    ("give somebody read access with a key", "vec-keys"),
    ("check the stored data for damage", "vec-verify"),
    ("how many documents are there", "vec-count"),
    ("print a document with its vectors", "vec-get"),
    ("where does a watcher continue after a restart", "vec-consumers vec-watch vec-events"),
    ("frames and messages on the socket", "vec-protocol"),
    ("which settings does the daemon have", "vecd"),
)
