"""The definition of a connector: what somebody asked for, as it is stored and sent.

Relays and sources are the connectors of brokers; a sync is that of a folder (vecd/sync/).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Final, Literal

from .. import limits
from ..errors import Code, VecError

Direction = Literal["relay", "source", "sync"]

#: A relay's position is a consumer of this name and the relay's.
CONSUMER_PREFIX: Final = "relay."

_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]*")


@dataclass(frozen=True, slots=True, kw_only=True)
class Definition:
    """What relays and sources have in common."""

    name: str
    url: str  # without a password
    parameters: Mapping[str, Any] = field(default_factory=dict)  # checked; those that were given
    generation: int = 1  # grows with each change and reset: a runner of an earlier one can commit nothing
    paused: bool = False

    @property
    def direction(self) -> Direction:
        raise NotImplementedError

    @property
    def runs(self) -> bool:
        """Whether the daemon runs it, unless it is paused."""
        return True

    def to_wire(self) -> dict[str, Any]:
        return {"direction": self.direction, **asdict(self)}


@dataclass(frozen=True, slots=True, kw_only=True)
class RelayDefinition(Definition):
    """A relay: which events of the log go to the broker, and in which form."""

    format: str = "vec"  # vec or cloudevents
    libraries: tuple[str, ...] = ()  # empty: all
    types: tuple[str, ...] = ()  # types and globs of types; empty: all
    where: tuple[str, ...] = ()
    payload: bool = False
    vectors: bool = False

    @property
    def direction(self) -> Direction:
        return "relay"

    @property
    def consumer(self) -> str:
        """The consumer that keeps its position."""
        return CONSUMER_PREFIX + self.name


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceDefinition(Definition):
    """A source: where the broker's messages go, and how they become documents."""

    library: str
    group: str | None = None  # of consumers, at the broker; None: the transport's default
    mapping: Mapping[str, str] = field(default_factory=dict)  # document field -> place in the message
    libraries: tuple[str, ...] = ()  # of events of another daemon: only theirs; empty: all

    @property
    def direction(self) -> Direction:
        return "source"


@dataclass(frozen=True, slots=True, kw_only=True)
class SyncDefinition(Definition):
    """A sync: a folder, as a file URL, and the library that follows it. Its parameters say which files it takes."""

    library: str
    prefix: str = ""  # of the ids of its documents, before the path
    follow: bool = True  # the daemon runs it; otherwise it runs when somebody runs `vec sync`

    @property
    def direction(self) -> Direction:
        return "sync"

    @property
    def runs(self) -> bool:
        return self.follow


_KINDS: Final[Mapping[str, type[Definition]]] = {
    "relay": RelayDefinition,
    "source": SourceDefinition,
    "sync": SyncDefinition,
}


def from_wire(wire: Mapping[str, Any]) -> Definition:
    """The definition that `to_wire` made. Unknown keys are ignored: a newer daemon may send more."""
    kind = _KINDS[wire["direction"]]
    values: dict[str, Any] = {key: wire[key] for key in kind.__dataclass_fields__ if key in wire}
    values.update((key, tuple(value)) for key, value in values.items() if isinstance(value, list))
    return kind(**values)


def check_name(direction: Direction, name: str) -> None:
    """Raises VecError `invalid_request`."""
    longest = limits.CONSUMER_NAME_BYTES_MAX - len(CONSUMER_PREFIX)
    if not _NAME.fullmatch(name) or len(name) > longest:
        raise VecError(
            Code.INVALID_REQUEST,
            f"{name!r:.200} is not a valid name of a {direction}",
            f"use up to {longest} letters, digits, '.', '_', '@' and '-', beginning with a letter or digit",
            field="name",
        )
