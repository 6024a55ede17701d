"""Named consumers: cursors that the daemon stores. They hold the log: a trim stops at the hindmost."""

from __future__ import annotations

from typing import NamedTuple

import apsw

from ..errors import Code, VecError, nearest
from .transaction import Transaction


class Consumer(NamedTuple):
    """A named cursor. `seq` is the last event that it has done with; with `label`, it is in a snapshot as of `seq` and
    has done with the documents up to that label (inclusive)."""

    name: str
    seq: int
    label: int | None
    created_us: int
    acked_us: int | None  # None: it has never acknowledged anything


def find(db: apsw.Connection, name: str) -> Consumer | None:
    row = db.execute("SELECT name, seq, label, created_us, acked_us FROM consumers WHERE name = ?", (name,)).get
    return None if row is None else Consumer._make(row)


def everyone(db: apsw.Connection) -> list[Consumer]:
    """All of them, by name."""
    rows = db.execute("SELECT name, seq, label, created_us, acked_us FROM consumers ORDER BY name")
    return [Consumer._make(row) for row in rows]


def hindmost(db: apsw.Connection) -> Consumer | None:
    """The one that is furthest behind."""
    row = db.execute("SELECT name, seq, label, created_us, acked_us FROM consumers ORDER BY seq, name LIMIT 1").get
    return None if row is None else Consumer._make(row)


def create(tx: Transaction, name: str, seq: int, label: int | None) -> Consumer:
    """Makes it, if it is not there; returns it as it is."""
    sql = "INSERT INTO consumers (name, seq, label, created_us) VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING"
    tx.db.execute(sql, (name, seq, label, tx.time_us))
    made = find(tx.db, name)
    assert made is not None
    return made


def ack(tx: Transaction, name: str, seq: int, label: int | None) -> None:
    """Moves it on; backwards it is moved by `reset` only, so an ack that comes late changes nothing.

    Raises VecError `not_found`.
    """
    now = find(tx.db, name) or refuse(tx.db, name)
    # Within a snapshot the label grows, and its end (no label) is behind all of them.
    if (seq, label is None, label or 0) >= (now.seq, now.label is None, now.label or 0):
        sql = "UPDATE consumers SET seq = ?, label = ?, acked_us = ? WHERE name = ?"
        tx.db.execute(sql, (seq, label, tx.time_us, name))


def reset(tx: Transaction, name: str, seq: int, label: int | None) -> Consumer:
    """Moves it anywhere. Raises VecError `not_found`."""
    if find(tx.db, name) is None:
        refuse(tx.db, name)
    tx.db.execute("UPDATE consumers SET seq = ?, label = ? WHERE name = ?", (seq, label, name))
    moved = find(tx.db, name)
    assert moved is not None
    return moved


def delete(tx: Transaction, name: str) -> Consumer:
    """Forgets it; returns what it was. Raises VecError `not_found`."""
    gone = find(tx.db, name) or refuse(tx.db, name)
    tx.db.execute("DELETE FROM consumers WHERE name = ?", (name,))
    return gone


def refuse(db: apsw.Connection, name: str) -> Consumer:
    """Raises VecError `not_found` with the nearest name there is."""
    close = nearest(name, [each.name for each in everyone(db)])
    hint = f"did you mean {close!r}?" if close else "`vec consumers list` names those that are there"
    raise VecError(Code.NOT_FOUND, f"consumer {name!r} does not exist", hint, consumer=name)
