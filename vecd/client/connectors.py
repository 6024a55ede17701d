"""The client's methods for relays and sources, and for the process that runs them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from .. import limits
from .connection import Connection, Pending

if TYPE_CHECKING:
    from .watch import Watch


class ConnectorMethods(Connection):
    """A method for each op of connectors. `Client` inherits them."""

    # --- relays -----------------------------------------------------------------------------------------------------

    def add_relay(
        self,
        name: str,
        url: str,
        *,
        parameters: Mapping[str, Any] | None = None,
        format: str | None = None,
        libraries: Sequence[str] = (),
        types: Sequence[str] = (),
        where: Sequence[str] = (),
        payload: bool = False,
        vectors: bool = False,
        start: str | None = None,
        paused: bool = False,
    ) -> dict[str, Any]:
        """Adds a relay of the log to the broker at `url`, and returns it. `libraries`, `types`, `where`, `payload` and
        `vectors` are as in `watch`; `start` is where it begins (None: now); `format` is "vec" or "cloudevents".

        Raises VecError `exists`, `unsupported`, `invalid_request`, and what a position raises.
        """
        return self.request(
            "relay.add", name=name, url=url, parameters=dict(parameters or {}) or None, format=format,
            libraries=list(libraries) or None, types=list(types) or None, where=list(where) or None,
            payload=payload or None, vectors=vectors or None, paused=paused or None, **{"from": start},
        )  # fmt: skip

    def relays(self) -> list[dict[str, Any]]:
        """All relays, by name: their definitions, `state`, `lag` (in events), `rate`, `error`, `dead_letters` …"""
        return list(self.items("relay.list", "relays"))

    def relay(self, name: str) -> dict[str, Any]:
        """One relay. Raises VecError `not_found`."""
        return self.request("relay.show", name=name)

    def pause_relay(self, name: str) -> dict[str, Any]:
        """Stops a relay; it keeps its position. Returns it. Raises VecError `not_found`."""
        return self.request("relay.pause", name=name)

    def resume_relay(self, name: str) -> dict[str, Any]:
        """Undoes `pause_relay`. Returns the relay. Raises VecError `not_found`."""
        return self.request("relay.resume", name=name)

    def reset_relay(self, name: str, to: str) -> dict[str, Any]:
        """Moves a relay to a position as `watch` has it in `start`; returns it. Raises VecError `not_found`."""
        return self.request("relay.reset", name=name, to=to)

    def remove_relay(self, name: str) -> dict[str, Any]:
        """Removes a relay, its position and its dead letters; returns it as it was. Raises VecError `not_found`."""
        return self.request("relay.remove", name=name)

    # --- dead letters -----------------------------------------------------------------------------------------------

    def relay_dead_letters(
        self, name: str, *, bodies: bool = False, retrying: bool = False
    ) -> Iterator[dict[str, Any]]:
        """The dead letters of a relay, the oldest first; with `bodies`, each has its `body` as bytes; with `retrying`,
        only those that are to be tried again. Raises VecError `not_found`."""
        return self._dead_letters("relay.dead", name, bodies, retrying)

    def retry_relay_letters(self, name: str, letter_ids: Sequence[int] | None = None) -> int:
        """Asks for another attempt at dead letters (None: all); returns how many. Raises VecError `not_found`."""
        ids = None if letter_ids is None else list(letter_ids)
        return int(self.request("relay.retry", name=name, letter_ids=ids)["retrying"])

    def drop_relay_letters(self, name: str, letter_ids: Sequence[int] | None = None) -> int:
        """Deletes dead letters (None: all); returns how many. Raises VecError `not_found`."""
        ids = None if letter_ids is None else list(letter_ids)
        return int(self.request("relay.drop", name=name, letter_ids=ids)["dropped"])

    def _dead_letters(self, op: str, name: str, bodies: bool, retrying: bool) -> Iterator[dict[str, Any]]:
        after = 0
        while page := list(
            self.items(op, "dead_letters", name=name, after=after, bodies=bodies or None, retrying=retrying or None)
        ):
            yield from page
            after = page[-1]["letter_id"]

    # --- sources ----------------------------------------------------------------------------------------------------

    def add_source(
        self,
        name: str,
        url: str,
        *,
        library: str | None = None,
        group: str | None = None,
        mapping: Mapping[str, str] | None = None,
        libraries: Sequence[str] = (),
        parameters: Mapping[str, Any] | None = None,
        paused: bool = False,
    ) -> dict[str, Any]:
        """Adds a source, which writes the messages of the broker at `url` to `library` (None: default); returns it.
        `group` is that of consumers at the broker; `mapping` has the rules by which any JSON becomes documents (None:
        messages are documents, or events of a relay); of events only those of `libraries` are applied (none: all).

        Raises VecError `exists`, `unsupported`, `invalid_request`, `not_found`.
        """
        return self.request(
            "source.add", name=name, url=url, library=library, group=group, mapping=dict(mapping or {}) or None,
            libraries=list(libraries) or None, parameters=dict(parameters or {}) or None, paused=paused or None,
        )  # fmt: skip

    def sources(self) -> list[dict[str, Any]]:
        """All sources, by name: their definitions, `state`, `lag` (in messages), `rate`, `error`, `dead_letters` …"""
        return list(self.items("source.list", "sources"))

    def source(self, name: str) -> dict[str, Any]:
        """One source, with its `offsets` by partition. Raises VecError `not_found`."""
        return self.request("source.show", name=name)

    def pause_source(self, name: str) -> dict[str, Any]:
        """Stops a source; it keeps its offsets. Returns it. Raises VecError `not_found`."""
        return self.request("source.pause", name=name)

    def resume_source(self, name: str) -> dict[str, Any]:
        """Undoes `pause_source`. Returns the source. Raises VecError `not_found`."""
        return self.request("source.resume", name=name)

    def reset_source(
        self, name: str, *, start: str | None = None, offsets: Mapping[str, str] | None = None
    ) -> dict[str, Any]:
        """Forgets the stored offsets, except those given: partition -> the last message not to apply again. Without an
        offset it begins at `start`, "earliest" or "latest" (None: as its parameter says). Returns the source.

        Raises VecError `not_found`, or `invalid_request`.
        """
        return self.request("source.reset", name=name, start=start, offsets=dict(offsets or {}) or None)

    def remove_source(self, name: str) -> dict[str, Any]:
        """Removes a source, its offsets and its dead letters; returns it as it was. Raises VecError `not_found`."""
        return self.request("source.remove", name=name)

    def source_dead_letters(
        self, name: str, *, bodies: bool = False, retrying: bool = False
    ) -> Iterator[dict[str, Any]]:
        """The dead letters of a source, as `relay_dead_letters`. Raises VecError `not_found`."""
        return self._dead_letters("source.dead", name, bodies, retrying)

    def retry_source_letters(self, name: str, letter_ids: Sequence[int] | None = None) -> int:
        """Asks for another attempt at dead letters (None: all); returns how many. Raises VecError `not_found`."""
        ids = None if letter_ids is None else list(letter_ids)
        return int(self.request("source.retry", name=name, letter_ids=ids)["retrying"])

    def drop_source_letters(self, name: str, letter_ids: Sequence[int] | None = None) -> int:
        """Deletes dead letters (None: all); returns how many. Raises VecError `not_found`."""
        ids = None if letter_ids is None else list(letter_ids)
        return int(self.request("source.drop", name=name, letter_ids=ids)["dropped"])

    # --- for the process of the connectors --------------------------------------------------------------------------

    def watch_connectors(self, directions: Sequence[str] = ()) -> Pending:
        """A stream: all definitions of these directions (none: relay and source), and again after each change."""
        return self.submit("connectors.watch", directions=list(directions) or None)

    def report_connectors(self, reports: Sequence[Mapping[str, Any]]) -> None:
        """Says how connectors are: each report has `direction`, `name`, `generation`, `state`, `error`, `rate` …"""
        self.request("connectors.report", reports=list(reports))

    def watch_relay(self, name: str, generation: int) -> Watch:
        """The events of a relay, from its position on. Raises VecError `lease_lost`, or `consumer_held`."""
        from .watch import Watch

        return Watch(self, self.submit("relay.watch", name=name, generation=generation), None)

    def commit_relay(
        self,
        name: str,
        generation: int,
        *,
        cursor: str | None = None,
        dead_letters: Sequence[Mapping[str, Any]] = (),
        letter_ids: Sequence[int] = (),
    ) -> Pending:
        """All up to `cursor` (inclusive) is at the broker, or among `dead_letters`; those of `letter_ids` have been
        delivered after all. Does not wait for the answer, which is `lease_lost` for an earlier generation."""
        assert len(dead_letters) <= limits.DEAD_LETTERS_MAX
        return self.submit(
            "relay.commit", name=name, generation=generation, cursor=cursor,
            dead_letters=list(dead_letters) or None, letter_ids=list(letter_ids) or None,
        )  # fmt: skip

    def source_offsets(self, name: str, generation: int) -> dict[str, str]:
        """The stored offsets of a source, by partition. Raises VecError `lease_lost` for an earlier generation."""
        return dict(self.request("source.offsets", name=name, generation=generation)["offsets"])

    def commit_source(
        self,
        name: str,
        generation: int,
        *,
        offsets: Mapping[str, str],
        expected: Mapping[str, str | None],
        documents: Sequence[Mapping[str, Any]] = (),
        dead_letters: Sequence[Mapping[str, Any]] = (),
        letter_ids: Sequence[int] = (),
    ) -> Pending:
        """Writes documents, moves offsets from `expected` (None: there is none), adds dead letters and deletes those of
        `letter_ids`, in one transaction. Does not wait for the answer: the counts, and `refused`, a map with `index`
        for each document that cannot be written: then nothing was. It is `lease_lost` if other offsets are stored."""
        return self.submit(
            "source.commit", name=name, generation=generation, offsets=dict(offsets), expected=dict(expected),
            documents=list(documents), dead_letters=list(dead_letters) or None, letter_ids=list(letter_ids) or None,
        )  # fmt: skip
