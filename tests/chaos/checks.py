"""What must hold of the messages that a relay has sent, when everything has calmed down."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Literal

Event = Mapping[str, Any]

#: How often each event is to be at the broker.
Promise = Literal["exactly once", "at least once"]


class Broken(AssertionError):
    """A promise is broken."""


def check(logged: Sequence[Event], received: Sequence[Event], promise: Promise) -> None:
    """`logged` are the events in the log that the relay was to send, `received` those of the messages, in the order in
    which the broker gives them to a consumer (those of one document, at least). Raises Broken.

    With repetitions, a consumer sees each document's events in order if it skips what it has seen already.
    """
    wanted = {event["seq"]: event for event in logged}
    counts = Counter(event["seq"] for event in received)
    if lacking := sorted(wanted.keys() - counts.keys()):
        raise Broken(f"{len(lacking)} of {len(wanted)} events are missing: the seqs {lacking[:20]}")
    if foreign := sorted(counts.keys() - wanted.keys()):
        raise Broken(f"{len(foreign)} events are not in the log: the seqs {foreign[:20]}")
    for event in received:
        if event != wanted[event["seq"]]:
            raise Broken(f"the log has {wanted[event['seq']]}, and the broker {event}")
    repeated = [seq for seq, count in counts.items() if count > 1]
    if repeated and promise == "exactly once":
        raise Broken(f"{len(repeated)} events are there more than once: the seqs {repeated[:20]}")
    last: dict[Any, int] = {}
    seen: set[int] = set()
    for event in received:
        seq, document = event["seq"], event["data"].get("id")
        if seq in seen:
            continue
        seen.add(seq)
        if seq < last.get(document, 0):
            raise Broken(f"of the document {document!r}, the event {seq} came after {last[document]}")
        last[document] = seq
