"""Consumers: named cursors that the daemon stores. A trim of the log stops at the slowest consumer."""

from __future__ import annotations

from typing import NamedTuple

import apsw

from ..errors import Code, VecError, nearest
from .transaction import Transaction


class Consumer(NamedTuple):
    """A named cursor. `seq` is the last acknowledged event. With `label`, the consumer is in a snapshot as of `seq`,
    and has acknowledged the documents up to that label (inclusive)."""

    name: str
    seq: int
    label: int | None
    created_us: int
    acked_us: int | None  # time of the last acknowledgement; None: never


def find(db: apsw.Connection, name: str) -> Consumer | None:
    row = db.execute("SELECT name, seq, label, created_us, acked_us FROM consumers WHERE name = ?", (name,)).get
    return None if row is None else Consumer._make(row)


def list_all(db: apsw.Connection) -> list[Consumer]:
    """All consumers, by name."""
    rows = db.execute("SELECT name, seq, label, created_us, acked_us FROM consumers ORDER BY name")
    return [Consumer._make(row) for row in rows]


def slowest(db: apsw.Connection) -> Consumer | None:
    """The consumer with the lowest position."""
    row = db.execute("SELECT name, seq, label, created_us, acked_us FROM consumers ORDER BY seq, name LIMIT 1").get
    return None if row is None else Consumer._make(row)


def create(tx: Transaction, name: str, seq: int, label: int | None) -> Consumer:
    """Creates the consumer unless it exists; returns it as it is now."""
    sql = "INSERT INTO consumers (name, seq, label, created_us) VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING"
    tx.db.execute(sql, (name, seq, label, tx.time_us))
    made = find(tx.db, name)
    assert made is not None
    return made


def ack(tx: Transaction, name: str, seq: int, label: int | None) -> None:
    """Moves the cursor forward. A late ack changes nothing: only `reset` moves a cursor back.

    Raises VecError `not_found`.
    """
    now = find(tx.db, name) or refuse(tx.db, name)
    # Within a snapshot the label grows; the end of a snapshot has no label, and comes after all labels.
    if (seq, label is None, label or 0) >= (now.seq, now.label is None, now.label or 0):
        sql = "UPDATE consumers SET seq = ?, label = ?, acked_us = ? WHERE name = ?"
        tx.db.execute(sql, (seq, label, tx.time_us, name))


def reset(tx: Transaction, name: str, seq: int, label: int | None) -> Consumer:
    """Moves the cursor to any position. Raises VecError `not_found`."""
    if find(tx.db, name) is None:
        refuse(tx.db, name)
    tx.db.execute("UPDATE consumers SET seq = ?, label = ? WHERE name = ?", (seq, label, name))
    moved = find(tx.db, name)
    assert moved is not None
    return moved


def delete(tx: Transaction, name: str) -> Consumer:
    """Deletes the consumer; returns it. Raises VecError `not_found`."""
    gone = find(tx.db, name) or refuse(tx.db, name)
    tx.db.execute("DELETE FROM consumers WHERE name = ?", (name,))
    return gone


def refuse(db: apsw.Connection, name: str) -> Consumer:
    """Raises VecError `not_found`, which suggests the most similar name."""
    close = nearest(name, [each.name for each in list_all(db)])
    hint = f"did you mean {close!r}?" if close else "`vec consumers list` names those that are there"
    raise VecError(Code.NOT_FOUND, f"consumer {name!r} does not exist", hint, consumer=name)
