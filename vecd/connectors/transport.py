"""Transport: the interface of a broker: its declaration, its sink for relays, and its reader for sources.

A sink or a reader is opened in its connector's own thread, used by that thread only, and closed after any error; the
next attempt opens a new one. No call waits without a bound: each call to a broker has a time-out (parameter
`timeout_s`), and a reader's `read` waits for `wait_s` at most.

Errors of a sink (vecd.delivery) and of a reader:

- AttemptFailed(unreachable=True): the broker is away, or did not answer in time. Tried again for ever, with back-off.
- Refused: the broker refuses these messages for good (too large, no queue); all others of the batch are confirmed.
- VecError: the configuration is wrong (password, no such topic). Shown as the last error, and tried again slowly.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple, Protocol

from ..delivery import DeliveryBatch, Stop
from ..parameters import Parameter
from .definition import Definition, Direction
from .messages import InMessage, OutMessage
from .parameters import TIMEOUT
from .url import Url


@dataclass(frozen=True, slots=True)
class Opening:
    """What a transport gets to open a sink or a reader."""

    definition: Definition
    url: Url
    parameters: Mapping[str, Any]  # with the declared defaults; null where there is none
    log_id: str  # of this daemon's log
    stop: Stop  # set when the connector is to stop: long waits end then

    @property
    def timeout_s(self) -> float:
        """The parameter of that name."""
        return float(self.parameters.get("timeout_s") or TIMEOUT["timeout_s"].default)


#: An offset that is a number, as a regular expression.
NUMBER: Final = r"[0-9]{1,18}"


class MessageSink(Protocol):
    """An open connection to a broker that takes messages. One batch is in flight at a time."""

    def deliver(self, batch: DeliveryBatch[OutMessage]) -> None:
        """Returns when the broker has confirmed all messages, in the order of the batch where the broker can keep it.

        Raises AttemptFailed, Refused, or VecError; see above.
        """

    def close(self) -> None:
        """Frees everything. Within `timeout_s`; raises nothing."""


class SourceReader(Protocol):
    """An open connection to a broker that gives messages, each at least once.

    It is opened with the stored offsets: partition -> the offset of the last applied message (inclusive). It begins
    behind them; a partition without one begins where the transport's parameters say.
    """

    def read(self, count_max: int, wait_s: float) -> Sequence[InMessage]:
        """The next messages, in order within a partition; empty if none came within `wait_s` seconds."""

    def committed(self, offsets: Mapping[str, str]) -> None:
        """All messages up to these offsets (inclusive) are applied and durable: the broker may show it, or delete
        them."""

    def lag(self) -> int | None:
        """How many messages the broker holds behind what was read, about; None if it does not say."""

    def pause(self) -> None:
        """Nothing will be read for a while: the broker keeps the messages. The next `read` ends it."""

    def close(self) -> None:
        """Frees everything. Within `timeout_s`; raises nothing."""


OpenSink = Callable[[Opening], MessageSink]
OpenSource = Callable[[Opening, Mapping[str, str]], SourceReader]


def _no_further_rules(direction: Direction, url: Url, parameters: Mapping[str, Any]) -> None:
    """The check of a transport whose URL and parameters have no further rules."""


class Offsets(NamedTuple):
    """The form of a source's offsets, as `source.reset` takes them: two regular expressions."""

    partition: str
    offset: str
    form: str  # for messages


def _numbered(url: Url, parameters: Mapping[str, Any]) -> Offsets | None:
    """The URL's path is the only partition, and its messages are numbered."""
    return Offsets(re.escape(url.path), NUMBER, f"{url.path}=NUMBER")


@dataclass(frozen=True, slots=True)
class Transport:
    """One transport, as the table declares it. Its file is imported only by the process that opens it."""

    name: str
    schemes: tuple[str, ...]
    what: str
    url: str  # the form of its URL, for messages and the manual
    sink: str | None = None  # `module:function`, an OpenSink; None: no relays
    source: str | None = None  # `module:function`, an OpenSource; None: no sources
    extra: str | None = None  # `pip install 'vecd[extra]'` installs …
    requires: str | None = None  # … this module; None: the standard library is enough
    parameters: Mapping[str, Parameter] = field(default_factory=dict)
    #: The names of those that only a relay, or only a source, has.
    of_relay: frozenset[str] = frozenset()
    of_source: frozenset[str] = frozenset()
    #: Checks what the declarations cannot: given the parsed URL and the parameters, raises VecError `invalid_request`.
    check: Callable[[Direction, Url, Mapping[str, Any]], None] = _no_further_rules
    #: The form of a source's offsets, by its URL and its parameters; none if the broker has no offsets.
    offsets: Callable[[Url, Mapping[str, Any]], Offsets | None] = _numbered
    #: What identifies the place that a relay writes to, if only one relay can write there.
    place: Callable[[Url, Mapping[str, Any]], Hashable] | None = None
    #: What to do so that events that were sent before are sent again, if the broker drops those: `{path}` is the URL's.
    send_again: str | None = None
