"""Connectors: the stored definitions of relays, sources and syncs, a source's offsets, and dead letters."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, NamedTuple

import apsw
import orjson

from .. import limits
from ..errors import Code, VecError, nearest
from . import sync_files
from .transaction import Transaction

#: Names in a hint.
_SUGGESTED_MAX: Final = 5


class Connector(NamedTuple):
    """A connector's row."""

    direction: str  # relay, source or sync
    name: str
    definition: dict[str, Any]
    paused: bool
    generation: int
    created_us: int


class NewLetter(NamedTuple):
    """A message that was refused. `position` identifies it: the same one again replaces its dead letter."""

    position: str
    code: str
    reason: str
    attempts: int
    about: dict[str, Any]  # JSON: what the message has beside its body
    body: bytes


class Letter(NamedTuple):
    """A dead letter."""

    letter_id: int
    position: str
    time_us: int
    code: str
    reason: str
    attempts: int
    retrying: bool
    about: dict[str, Any]
    body: bytes


_COLUMNS = "direction, name, definition, paused, generation, created_us"
_LETTER = "letter_id, position, time_us, code, reason, attempts, retrying, about, body"


def list_all(db: apsw.Connection, direction: str | None = None) -> list[Connector]:
    """All connectors, or those of one direction, by direction and name."""
    rows = db.execute(
        f"SELECT {_COLUMNS} FROM connectors WHERE direction = ifnull(?, direction) ORDER BY direction, name",
        (direction,),
    )
    return [_connector(row) for row in rows]


def find(db: apsw.Connection, direction: str, name: str) -> Connector:
    """Raises VecError `not_found`, which suggests those of the library of that name, or the most similar name."""
    row = db.execute(
        f"SELECT {_COLUMNS} FROM connectors WHERE direction = ? AND name = ?", (direction, name)
    ).fetchone()
    if row is None:
        known = list_all(db, direction)
        if same := [repr(each.name) for each in known if each.definition.get("library") == name]:
            more = ", …" if len(same) > _SUGGESTED_MAX else ""
            hint = f"library {name!r:.200} has the {direction}{'s' * (len(same) > 1)} "
            hint += f"{', '.join(same[:_SUGGESTED_MAX])}{more}: use a {direction}'s name"
        elif close := nearest(name, [each.name for each in known]):
            hint = f"did you mean {close!r}?"
        else:
            hint = f"`vec {direction} list` names those that are there"
        raise VecError(Code.NOT_FOUND, f"{direction} {name!r:.200} does not exist", hint, **{direction: name})
    return _connector(row)


def exists(db: apsw.Connection, direction: str, name: str) -> bool:
    return bool(db.execute("SELECT 1 FROM connectors WHERE direction = ? AND name = ?", (direction, name)).fetchone())


def add(tx: Transaction, direction: str, name: str, definition: Mapping[str, Any], paused: bool = False) -> Connector:
    """Its generation is none that a removed connector of that name had. Raises VecError `exists`, or `busy` if there
    are too many."""
    if exists(tx.db, direction, name):
        raise VecError(
            Code.EXISTS,
            f"{direction} {name!r} already exists",
            f"remove it first (vec {direction} remove), or choose another name",
        )
    count = tx.db.execute("SELECT count(*) FROM connectors WHERE direction = ?", (direction,)).get
    if count >= limits.CONNECTORS_MAX:
        raise VecError(
            Code.BUSY, f"there are {count} {direction}s; the limit is {limits.CONNECTORS_MAX}", "remove some"
        )
    tx.db.execute(
        f"INSERT INTO connectors ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?)",
        (direction, name, orjson.dumps(definition).decode(), paused, tx.time_us, tx.time_us),
    )
    return find(tx.db, direction, name)


def pause(tx: Transaction, direction: str, name: str, paused: bool) -> Connector:
    """Raises VecError `not_found`."""
    find(tx.db, direction, name)
    tx.db.execute("UPDATE connectors SET paused = ? WHERE direction = ? AND name = ?", (paused, direction, name))
    return find(tx.db, direction, name)


def renew(tx: Transaction, direction: str, name: str) -> Connector:
    """Begins the next generation: the runner of an earlier one can commit nothing more. Raises VecError `not_found`."""
    find(tx.db, direction, name)
    tx.db.execute(
        "UPDATE connectors SET generation = generation + 1 WHERE direction = ? AND name = ?", (direction, name)
    )
    return find(tx.db, direction, name)


def renew_sources(tx: Transaction, library: str) -> None:
    """Begins the next generation of the sources that write to a library by its mapping."""
    for each in list_all(tx.db, "source"):
        if each.definition["library"] == library and follows_library(each.definition):
            renew(tx, "source", each.name)


def follows_library(definition: Mapping[str, Any]) -> bool:
    """Whether a source's messages become documents by the mapping of its library: it has none of its own, and is not of
    events."""
    return not definition.get("mapping") and not definition.get("libraries")


def redefine(tx: Transaction, direction: str, name: str, definition: Mapping[str, Any]) -> Connector:
    """Replaces the definition, in the next generation. Raises VecError `not_found`."""
    renew(tx, direction, name)
    tx.db.execute(
        "UPDATE connectors SET definition = ? WHERE direction = ? AND name = ?",
        (orjson.dumps(definition).decode(), direction, name),
    )
    return find(tx.db, direction, name)


def remove(tx: Transaction, direction: str, name: str) -> Connector:
    """Deletes a connector with its offsets and its dead letters; returns it. Raises VecError `not_found`."""
    gone = find(tx.db, direction, name)
    tx.db.execute("DELETE FROM connectors WHERE direction = ? AND name = ?", (direction, name))
    tx.db.execute("DELETE FROM dead_letters WHERE direction = ? AND name = ?", (direction, name))
    if direction == "source":
        tx.db.execute("DELETE FROM connector_offsets WHERE name = ?", (name,))
    elif direction == "sync":
        sync_files.clear(tx, name)
    return gone


def check_generation(db: apsw.Connection, direction: str, name: str, generation: int) -> Connector:
    """The connector, if it is still of that generation. Raises VecError `not_found` or `lease_lost`."""
    found = find(db, direction, name)
    if found.generation != generation:
        raise VecError(
            Code.LEASE_LOST,
            f"{direction} {name!r} has been changed: generation {generation} is no longer the current one",
            "its new definition is in connectors.watch",
        )
    return found


# --- offsets --------------------------------------------------------------------------------------------------------


def offsets(db: apsw.Connection, name: str) -> dict[str, str]:
    """A source's offsets, by partition: each the last message (inclusive) that was applied."""
    return dict(
        db.execute("SELECT partition, offset FROM connector_offsets WHERE name = ? ORDER BY partition", (name,))
    )


def set_offsets(tx: Transaction, name: str, moved: Mapping[str, str]) -> None:
    tx.db.executemany(
        "INSERT OR REPLACE INTO connector_offsets (name, partition, offset) VALUES (?, ?, ?)",
        [(name, partition, offset) for partition, offset in moved.items()],
    )


def clear_offsets(tx: Transaction, name: str) -> None:
    tx.db.execute("DELETE FROM connector_offsets WHERE name = ?", (name,))


# --- dead letters ---------------------------------------------------------------------------------------------------


def add_letters(tx: Transaction, direction: str, name: str, letters: Sequence[NewLetter]) -> None:
    """Adds dead letters. Raises VecError `busy` if the connector has too many then."""
    tx.db.executemany(
        "INSERT INTO dead_letters (direction, name, position, time_us, code, reason, attempts, about, body)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (direction, name, position) DO UPDATE SET"
        " time_us = excluded.time_us, code = excluded.code, reason = excluded.reason, retrying = 0,"
        " attempts = attempts + excluded.attempts, about = excluded.about, body = excluded.body",
        [
            (
                direction, name, each.position, tx.time_us, each.code, each.reason, each.attempts,
                orjson.dumps(each.about).decode(), each.body,
            )
            for each in letters
        ],
    )  # fmt: skip
    count, size = tx.db.execute(
        "SELECT count(*), ifnull(sum(length(body)), 0) FROM dead_letters WHERE direction = ? AND name = ?",
        (direction, name),
    ).fetchone()  # type: ignore[misc]
    if count > limits.DEAD_LETTERS_MAX or size > limits.DEAD_LETTERS_BYTES_MAX:
        raise VecError(
            Code.BUSY,
            f"{direction} {name!r} has stopped: it has as many dead letters as it may,"
            f" {limits.DEAD_LETTERS_MAX:,}, or {limits.DEAD_LETTERS_BYTES_MAX // limits.MIB} MiB of them",
            f"retry or drop them: vec {direction} dead {name}",
        )


def letters(
    db: apsw.Connection,
    direction: str,
    name: str,
    *,
    after: int = 0,
    count_max: int,
    bytes_max: int,
    retrying: bool = False,
) -> list[Letter]:
    """A page of dead letters by id, behind the id `after` (exclusive); with `retrying`, those that are to be tried
    again. At least one, if there is one."""
    found: list[Letter] = []
    size = 0
    rows = db.execute(
        f"SELECT {_LETTER} FROM dead_letters WHERE direction = ? AND name = ? AND letter_id > ? AND retrying >= ?"
        " ORDER BY letter_id LIMIT ?",
        (direction, name, after, retrying, count_max),
    )
    for letter_id, position, time_us, code, reason, attempts, again, about, body in rows:
        size += len(body)
        if found and size > bytes_max:
            break
        found.append(
            Letter(letter_id, position, time_us, code, reason, attempts, bool(again), orjson.loads(about), body)
        )
    return found


def count_letters(db: apsw.Connection) -> dict[tuple[str, str], tuple[int, int]]:
    """By direction and name: how many dead letters there are, and how many of them are to be tried again."""
    rows = db.execute("SELECT direction, name, count(*), sum(retrying) FROM dead_letters GROUP BY direction, name")
    return {(direction, name): (count, again) for direction, name, count, again in rows}


def check_letters(db: apsw.Connection, direction: str, name: str, letter_ids: Iterable[int]) -> None:
    """Raises VecError `not_found` for a dead letter that is not there."""
    find(db, direction, name)
    for each in letter_ids:
        row = "SELECT 1 FROM dead_letters WHERE direction = ? AND name = ? AND letter_id = ?"
        if not db.execute(row, (direction, name, each)).fetchone():
            raise VecError(
                Code.NOT_FOUND,
                f"{direction} {name!r:.200} has no dead letter {each}",
                f"`vec {direction} dead {name}` lists those that are there",
                letter_id=each,
            )


def retry_letters(tx: Transaction, direction: str, name: str, letter_ids: Iterable[int] | None) -> int:
    """Marks dead letters (None: all) for another attempt; returns how many were not marked before."""
    find(tx.db, direction, name)
    return _each(tx, "UPDATE dead_letters SET retrying = 1 WHERE retrying = 0 AND", direction, name, letter_ids)


def drop_letters(tx: Transaction, direction: str, name: str, letter_ids: Iterable[int] | None) -> int:
    """Deletes dead letters (None: all); returns how many there were."""
    find(tx.db, direction, name)
    return _each(tx, "DELETE FROM dead_letters WHERE", direction, name, letter_ids)


def _each(tx: Transaction, sql: str, direction: str, name: str, letter_ids: Iterable[int] | None) -> int:
    sql += " direction = ? AND name = ?"
    before = tx.db.total_changes()
    if letter_ids is None:
        tx.db.execute(sql, (direction, name))
    else:
        tx.db.executemany(f"{sql} AND letter_id = ?", [(direction, name, each) for each in letter_ids])
    return tx.db.total_changes() - before


def _connector(row: Any) -> Connector:
    direction, name, definition, paused, generation, created_us = row
    return Connector(direction, name, orjson.loads(definition), bool(paused), generation, created_us)
