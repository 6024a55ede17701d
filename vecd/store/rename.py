"""Renames a library: its name in the table of libraries, and in everything stored that names it.

Relays, sources, schedules and jobs name a library by its name, so a rename changes them in the same transaction: what
was set up for the library goes on with it. Events refer to it by its id, and show the present name.
"""

from __future__ import annotations

from dataclasses import replace

import orjson

from ..errors import Code, VecError
from . import connectors, events
from .catalogue import Library
from .jobs import COLUMNS, PENDING, job_of
from .transaction import JobChange, Transaction


def rename(tx: Transaction, old: str, new: str) -> tuple[Library, int]:
    """Renames the library; returns it and the seq of its event.

    Raises VecError `not_found`, `exists`, or `busy` while a job works on it.
    """
    library = tx.catalogue.find(old, to="manage")
    if new in tx.catalogue.by_name:
        raise VecError(Code.EXISTS, f"library {new!r} already exists", library=new)
    running: int | None = tx.db.execute(
        "SELECT min(job_id) FROM jobs WHERE state = 'running' AND library = ?", (old,)
    ).get
    if running is not None:
        raise VecError(
            Code.BUSY,
            f"job {running} works on library {old!r}",
            f"wait for it (vec jobs wait {running}), or cancel it, and try again",
            job_id=running,
        )
    former = (library.former_names | {old}) - {new}
    forget_former_name(tx, new)
    library = replace(library, name=new, former_names=former)
    tx.db.execute(
        "UPDATE libraries SET name = ?, former_names = ? WHERE library_id = ?",
        (new, orjson.dumps(sorted(former)).decode(), library.library_id),
    )
    tx.catalogue = tx.catalogue.replaced(library)
    _rename_in_jobs(tx, old, new)
    _rename_in_connectors(tx, old, new)
    tx.db.execute(
        "UPDATE schedules SET job = json_set(job, '$.library', ?2) WHERE job ->> '$.library' = ?1", (old, new)
    )
    data = {"name": new, "former": old}
    return library, events.append(tx, events.LIBRARY_RENAMED, library.library_id, orjson.dumps(data).decode())


def forget_former_name(tx: Transaction, name: str) -> None:
    """A library of that name is about to exist: the name does not lead to a renamed one any more."""
    for each in tx.catalogue.by_name.values():
        if name in each.former_names:
            kept = each.former_names - {name}
            tx.db.execute(
                "UPDATE libraries SET former_names = ? WHERE library_id = ?",
                (orjson.dumps(sorted(kept)).decode(), each.library_id),
            )
            tx.catalogue = tx.catalogue.replaced(replace(each, former_names=kept))


def _rename_in_jobs(tx: Transaction, old: str, new: str) -> None:
    rows = tx.db.execute(f"UPDATE jobs SET library = ?2 WHERE library = ?1 RETURNING {COLUMNS}", (old, new))
    for row in rows.fetchall():
        job = job_of(row)
        if job.state == PENDING:
            tx.jobs.append(JobChange(job.job_id, PENDING, job))


def _rename_in_connectors(tx: Transaction, old: str, new: str) -> None:
    for each in connectors.list_all(tx.db):
        definition = dict(each.definition)
        if definition.get("library") == old:  # where a source writes
            definition["library"] = new
        if each.direction == "relay":  # a source's `libraries` are those of another daemon
            definition["libraries"] = [new if name == old else name for name in definition.get("libraries") or ()]
        if definition != each.definition:
            connectors.redefine(tx, each.direction, each.name, definition)
