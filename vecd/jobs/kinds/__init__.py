"""The table of job kinds. Adding a kind is one file and one entry here."""

from __future__ import annotations

from typing import Final

from ...errors import Code, VecError, nearest
from .backup import Backup
from .copy import Copy
from .delete import Delete
from .export import Export
from .ingest import Ingest
from .kind import JobKind
from .noop import Noop
from .prune import Prune
from .rebuild import Rebuild
from .reembed import Reembed
from .snapshot import Snapshot
from .trim import Trim
from .vacuum import Vacuum
from .verify import Verify

KINDS: Final[dict[str, JobKind]] = {
    "ingest": Ingest(),
    "delete": Delete(),
    "export": Export(),
    "rebuild": Rebuild(),
    "reembed": Reembed(),
    "copy": Copy(),
    "snapshot": Snapshot(),
    "backup": Backup(),
    "verify": Verify(),
    "trim": Trim(),
    "vacuum": Vacuum(),
    "prune": Prune(),
    "noop": Noop(),
}

assert all(name == kind.name for name, kind in KINDS.items())


def find(name: str) -> JobKind:
    """Raises VecError `unsupported`, with the nearest known kind."""
    if name not in KINDS:
        close = nearest(name, list(KINDS))
        hint = f"did you mean {close!r}?" if close else f"kinds: {', '.join(KINDS)}"
        raise VecError(Code.UNSUPPORTED, f"unknown kind of job {name!r:.60}", hint, field="kind")
    return KINDS[name]
