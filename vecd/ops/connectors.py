"""Connectors in the daemon: the stored relays, sources and syncs, what their processes report, and which are to run.

A relay's position is the consumer `relay.<name>`, so a trim of the log stops there. Only the connector process moves
it, by `relay.commit`, which is refused to a runner of an earlier generation. Reports are kept in memory. Runs on the
event loop.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, TypeVar

import orjson

from .. import limits
from ..connectors import definition as definitions
from ..connectors import folder, table
from ..connectors.definition import Definition, Direction
from ..engine.engine import Engine
from ..errors import Code, VecError
from ..feed import positions
from ..feed.broadcast import Broadcast
from ..feed.positions import Position
from ..store import connectors as store
from ..store import consumers, events, sync_files
from ..store.connectors import Connector, Letter, NewLetter
from ..store.transaction import Transaction
from ..units import format_time

T = TypeVar("T")


class Connectors:
    """All connectors of one daemon."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._database = engine.database
        self._reports: dict[tuple[str, str], dict[str, Any]] = {}
        self._known: list[Connector] = []  # all that are stored
        self.changed = Broadcast()  # a connector was added, changed or removed, or has dead letters to retry
        #: Called with the directions of the connectors that the daemon runs, at each change.
        self.on_change: Callable[[set[str]], None] = lambda directions: None

    async def open(self) -> None:
        """Says at the daemon's start whether there are any connectors."""
        await self._tell()

    async def reload(self) -> None:
        """Definitions have been changed in the store by something else than this: a change of a library."""
        await self._tell()

    # --- definitions ------------------------------------------------------------------------------------------------

    async def add(self, definition: Definition, start: str | None) -> dict[str, Any]:
        """Stores a connector; `start` is where a relay begins. Returns it as `show` does.

        Raises VecError `exists`, `busy`, `too_large`, and what a position raises.
        """
        kept = self.stored(definition)
        position = None if start is None else await self._engine.read(self._resolve, start)

        def write(tx: Transaction) -> Connector:
            if definition.direction == "relay":
                _check_place(definition, [_wire(each) for each in store.list_all(tx.db, "relay")])
            made = store.add(tx, definition.direction, definition.name, kept, definition.paused)
            if position is not None:
                name = definitions.CONSUMER_PREFIX + definition.name
                if consumers.find(tx.db, name) is not None:
                    raise VecError(
                        Code.EXISTS,
                        f"a consumer {name!r} already exists",
                        "delete it (vec consumers delete), or choose another name",
                    )
                consumers.create(tx, name, *position)
            return made

        await self._write(write)
        await self._tell()
        return await self.show(definition.direction, definition.name)

    @staticmethod
    def stored(definition: Definition) -> dict[str, Any]:
        """The definition as it is stored. Raises VecError `invalid_request` if it is too large."""
        wire = definition.to_wire()
        kept = {key: value for key, value in wire.items() if key not in ("direction", "name", "generation", "paused")}
        if len(orjson.dumps(kept)) > limits.CONNECTOR_BYTES_MAX:
            raise VecError(
                Code.INVALID_REQUEST,
                f"the definition is larger than the limit of {limits.CONNECTOR_BYTES_MAX // limits.KIB} KiB",
            )
        return kept

    async def change(self, write: Callable[[Transaction], None]) -> None:
        """Changes stored definitions, and tells everybody who follows them."""
        await self._write(write)
        await self._tell()

    async def all(self, direction: Direction) -> list[dict[str, Any]]:
        """All of one direction, by name, as `show` returns them."""
        return await self._engine.read(self._read_shown, direction, None)

    async def show(self, direction: Direction, name: str) -> dict[str, Any]:
        """The definition, and `state`, `error`, `rate`, `lag`, `dead_letters` and more: see vec-protocol(7).

        Raises VecError `not_found`.
        """
        (shown,) = await self._engine.read(self._read_shown, direction, name)
        return shown

    def overview(self) -> dict[str, Any]:
        """How many relays, sources and syncs there are, and the names of those that are retrying or failing. Neither
        blocks nor waits."""
        found: dict[str, Any] = {f"{each}s": {"count": 0, "failing": []} for each in ("relay", "source", "sync")}
        for each in self._known:
            about = found[f"{each.direction}s"]
            about["count"] += 1
            if self._state(each, self._report_of(each)) in ("retrying", "failing"):
                about["failing"].append(each.name)
        return found

    async def pause(self, direction: Direction, name: str, paused: bool) -> dict[str, Any]:
        """Raises VecError `not_found`."""
        await self._write(lambda tx: store.pause(tx, direction, name, paused))
        await self._tell()
        return await self.show(direction, name)

    async def reset_relay(self, name: str, to: str) -> dict[str, Any]:
        """Moves a relay to another position of the log. Returns it as `show` does, with `warnings` if its broker drops
        the events that it sent before. Raises VecError `not_found`, and what a position raises."""
        position = await self._engine.read(self._resolve, to)

        def write(tx: Transaction) -> bool:
            store.renew(tx, "relay", name)
            before = consumers.find(tx.db, definitions.CONSUMER_PREFIX + name)
            consumers.reset(tx, definitions.CONSUMER_PREFIX + name, *position)
            return before is not None and position.seq < before.seq

        back = await self._write(write)
        self._reports.pop(("relay", name), None)
        await self._tell()
        shown = await self.show("relay", name)
        if back and (again := table.send_again(definitions.from_wire(shown))):
            warning = f"the broker drops the events that this relay sent before; to have them again, {again}"
            return {**shown, "warnings": [warning]}
        return shown

    async def reset_source(
        self, name: str, parameters: Mapping[str, Any], offsets: Mapping[str, str]
    ) -> dict[str, Any]:
        """Replaces the stored offsets of a source, and changes some of its parameters. Raises VecError `not_found`."""

        def write(tx: Transaction) -> None:
            found = store.find(tx.db, "source", name)
            changed = {**found.definition, "parameters": {**found.definition["parameters"], **parameters}}
            store.redefine(tx, "source", name, changed)
            store.clear_offsets(tx, name)
            store.set_offsets(tx, name, offsets)

        await self._write(write)
        self._reports.pop(("source", name), None)
        await self._tell()
        return await self.show("source", name)

    async def remove(self, direction: Direction, name: str) -> dict[str, Any]:
        """Removes a connector with its position and its dead letters; returns it as it was. Raises `not_found`."""
        before = {**await self.show(direction, name), "state": "removed", "rate": None}

        def write(tx: Transaction) -> None:
            store.remove(tx, direction, name)
            if direction == "relay":
                consumers.delete(tx, definitions.CONSUMER_PREFIX + name)

        await self._write(write)
        self._reports.pop((direction, name), None)
        await self._tell()
        return before

    def _resolve(self, start: str) -> Position:
        """The beginning is the oldest event that the log still has."""
        if start == "beginning":
            return Position(self._database.horizon)
        try:
            found = positions.resolve(self._database, start)
            with self._database.read_transaction() as db:
                horizon, _ = events.horizon(db)
            if found.seq < horizon:
                raise positions.compacted_error(self._database, f"the position {start}", horizon)
        except VecError as error:
            if error.code == Code.COMPACTED:
                hint = "use beginning, which is the oldest event that is left"
                raise VecError(error.code, error.message, hint, **error.details) from error
            raise
        return found

    # --- for the connector process ----------------------------------------------------------------------------------

    async def to_process(self, directions: Collection[str]) -> list[dict[str, Any]]:
        """The definitions of these directions as they are sent to their process: with `retrying`, how many dead letters
        are to be retried."""

        def read() -> list[dict[str, Any]]:
            with self._database.read_transaction() as db:
                counts = store.count_letters(db)
                return [
                    {**_wire(each), "retrying": counts.get((each.direction, each.name), (0, 0))[1]}
                    for each in store.list_all(db)
                    if each.direction in directions
                ]

        return await self._engine.read(read)

    def report(self, direction: str, name: str, generation: int, report: Mapping[str, Any]) -> None:
        """What the process says about a connector: `state`, `error`, `rate` and more."""
        self._reports[direction, name] = {**report, "generation": generation, "at": time.monotonic()}

    async def check_consumer(self, consumer: str | None) -> None:
        """Refuses the consumer of a relay to everybody else. Raises VecError `invalid_request`."""
        if consumer is None or not consumer.startswith(definitions.CONSUMER_PREFIX):
            return
        name = consumer.removeprefix(definitions.CONSUMER_PREFIX)

        def read() -> bool:
            with self._database.read_transaction() as db:
                return store.exists(db, "relay", name)

        if await self._engine.read(read):
            raise VecError(
                Code.INVALID_REQUEST,
                f"the consumer {consumer!r} is the position of the relay {name!r}",
                f"use `vec relay reset {name}` or `vec relay remove {name}`, or another consumer",
                consumer=consumer,
            )

    async def definition(self, direction: Direction, name: str, generation: int | None = None) -> Definition:
        """The definition of a connector; of that generation, if one is given. Raises VecError `not_found`, or
        `lease_lost` for an earlier generation."""

        def read() -> Connector:
            with self._database.read_transaction() as db:
                if generation is None:
                    return store.find(db, direction, name)
                return store.check_generation(db, direction, name, generation)

        return definitions.from_wire(_wire(await self._engine.read(read)))

    async def check_relay(self, name: str, generation: int) -> definitions.RelayDefinition:
        """The definition of a relay, for its runner. Raises VecError `not_found` or `lease_lost`."""
        found = await self.definition("relay", name, generation)
        assert isinstance(found, definitions.RelayDefinition)
        return found

    async def check_source(self, name: str, generation: int) -> definitions.SourceDefinition:
        """The definition of a source, for its runner. Raises VecError `not_found` or `lease_lost`."""
        found = await self.definition("source", name, generation)
        assert isinstance(found, definitions.SourceDefinition)
        return found

    async def source_offsets(self, name: str, generation: int) -> dict[str, str]:
        """The stored offsets of a source, for its runner. Raises VecError `not_found` or `lease_lost`."""

        def read() -> dict[str, str]:
            with self._database.read_transaction() as db:
                store.check_generation(db, "source", name, generation)
                return store.offsets(db, name)

        return await self._engine.read(read)

    async def commit_relay(
        self, name: str, generation: int, cursor: str | None, letters: Sequence[NewLetter], resolved: Sequence[int]
    ) -> None:
        """All up to `cursor` (inclusive) is at the broker, or among `letters`; the dead letters `resolved` have been
        delivered after all. One transaction.

        Raises VecError `lease_lost`, `not_found`, `busy` (too many dead letters), `invalid_cursor`, `foreign_cursor`.
        """
        position = None if cursor is None else positions.parse(self._database, cursor)

        def write(tx: Transaction) -> None:
            store.check_generation(tx.db, "relay", name, generation)
            if resolved:
                store.drop_letters(tx, "relay", name, resolved)
            if letters:
                store.add_letters(tx, "relay", name, letters)
            if position is not None:
                consumers.ack(tx, definitions.CONSUMER_PREFIX + name, *position)

        await self._write(write)
        if position is not None:
            self._engine.feed.consumers.acked.notify()

    # --- dead letters -----------------------------------------------------------------------------------------------

    async def letters(
        self, direction: Direction, name: str, *, after: int, bodies: bool, retrying: bool
    ) -> list[dict[str, Any]]:
        """A page of dead letters behind the id `after` (exclusive), with their bodies as bytes if `bodies`. Raises
        VecError `not_found`."""

        def read() -> list[Letter]:
            with self._database.read_transaction() as db:
                store.find(db, direction, name)
                return store.letters(
                    db, direction, name, after=after, retrying=retrying,
                    count_max=limits.DEAD_LETTERS_PAGE, bytes_max=limits.DEAD_LETTERS_PAGE_BYTES,
                )  # fmt: skip

        return [_shown_letter(each, bodies) for each in await self._engine.read(read)]

    async def retry(self, direction: Direction, name: str, ids: Sequence[int] | None) -> int:
        """Asks for another attempt at dead letters (None: all); returns how many. Raises VecError `not_found`, also
        for a dead letter."""

        def write(tx: Transaction) -> int:
            store.check_letters(tx.db, direction, name, ids or ())
            return store.retry_letters(tx, direction, name, ids)

        count = await self._write(write)
        await self._tell()
        return count

    async def drop(self, direction: Direction, name: str, ids: Sequence[int] | None) -> int:
        """Deletes dead letters (None: all); returns how many. Raises VecError `not_found`, also for a dead letter."""

        def write(tx: Transaction) -> int:
            store.check_letters(tx.db, direction, name, ids or ())
            return store.drop_letters(tx, direction, name, ids)

        count = await self._write(write)
        await self._tell()
        return count

    # --- below ------------------------------------------------------------------------------------------------------

    async def _write(self, run: Callable[[Transaction], T]) -> T:
        # `frees`: a relay's position lets the log be trimmed, and what is removed frees space.
        return await asyncio.wrap_future(self._database.submit(run, frees=True, sender=self))

    async def _tell(self) -> None:
        def read() -> list[Connector]:
            with self._database.read_transaction() as db:
                return store.list_all(db)

        self._known = await self._engine.read(read)
        self.changed.notify()
        self.on_change({each.direction for each in self._known if each.definition.get("follow", True)})

    def _read_shown(self, direction: Direction, name: str | None) -> list[dict[str, Any]]:
        with self._database.read_transaction() as db:
            counts = store.count_letters(db)
            found = store.list_all(db, direction) if name is None else [store.find(db, direction, name)]
            return [self._shown(db, each, counts.get((direction, each.name), (0, 0))) for each in found]

    def _report_of(self, connector: Connector) -> Mapping[str, Any]:
        """The last report of this generation; empty if there is none."""
        report = self._reports.get((connector.direction, connector.name), {})
        return report if report.get("generation") == connector.generation else {}

    @staticmethod
    def _state(connector: Connector, report: Mapping[str, Any]) -> str:
        if connector.paused:
            return "paused"
        if not connector.definition.get("follow", True):
            return "manual"
        return str(report.get("state", "starting")) if _is_fresh(report) else "starting"

    def _shown(self, db: Any, connector: Connector, letters: tuple[int, int]) -> dict[str, Any]:
        shown = _wire(connector)
        shown["created_at"] = format_time(connector.created_us)
        shown["dead_letters"], shown["retrying"] = letters
        report = self._report_of(connector)
        fresh = _is_fresh(report)
        shown["state"] = self._state(connector, report)
        for key in ("error", "error_at", "delivered"):
            shown[key] = report.get(key)
        shown["rate"] = report.get("rate") if fresh and not connector.paused else None
        if connector.direction == "relay":
            position = consumers.find(db, definitions.CONSUMER_PREFIX + connector.name)
            assert position is not None
            shown["cursor"] = positions.cursor(self._database, Position(position.seq, position.label))
            shown["lag"] = max(0, self._database.head - position.seq)
        elif connector.direction == "sync":
            shown["path"] = folder.shown_path(shown["url"])
            library = self._database.catalogue.by_name.get(shown["library"])
            shown["library_id"] = None if library is None else library.library_id
            counts = sync_files.count(db, connector.name, shown["library_id"] or 0)
            shown["files"] = counts.pop(None, 0)
            run = sync_files.run(db, connector.name)
            shown["skipped"] = _skipped(counts, run)
            shown["synced_at"] = None if run is None else format_time(run.ended_us)
            shown["lag"] = report.get("lag") if fresh else None
            shown["warning"] = report.get("warning") if fresh else None
        else:
            shown["offsets"] = store.offsets(db, connector.name)
            shown["lag"] = report.get("lag") if fresh else None
        return shown


def _check_place(definition: Definition, relays: Sequence[Mapping[str, Any]]) -> None:
    """Raises VecError `exists` if one of the relays writes to a place where only one can."""
    wanted = table.place_of(definition)
    if wanted is None:
        return
    for each in map(definitions.from_wire, relays):
        if each.name != definition.name and table.place_of(each) == wanted:
            raise VecError(
                Code.EXISTS,
                f"the relay {each.name!r} already writes to {definition.url:.200}, where only one relay can",
                "use another stream, or remove that relay first",
            )


def _is_fresh(report: Mapping[str, Any]) -> bool:
    return bool(report) and time.monotonic() - report["at"] < 10 * limits.CONNECTORS_REPORT_S


def _skipped(kept: Mapping[str | None, int], run: sync_files.SyncRun | None) -> dict[str, int]:
    """How many files of a sync have no documents, by reason: those that are kept, and what the last scan passed."""
    passed = None if run is None else run.summary.get("skipped")
    counts = Counter({str(reason): count for reason, count in kept.items()})
    if isinstance(passed, dict):  # a number, if an earlier version wrote it
        counts.update({str(reason): count for reason, count in passed.items() if isinstance(count, int)})
    return dict(sorted(counts.items()))


def _wire(connector: Connector) -> dict[str, Any]:
    return {
        "direction": connector.direction,
        "name": connector.name,
        **connector.definition,
        "generation": connector.generation,
        "paused": connector.paused,
    }


def _shown_letter(letter: Letter, bodies: bool) -> dict[str, Any]:
    shown = {
        "letter_id": letter.letter_id,
        "position": letter.position,
        "time": format_time(letter.time_us),
        "code": letter.code,
        "reason": letter.reason,
        "attempts": letter.attempts,
        "retrying": letter.retrying,
        "about": letter.about,
        "bytes": len(letter.body),
    }
    return {**shown, "body": letter.body} if bodies else shown
