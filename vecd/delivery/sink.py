"""The sink of a delivery, as a protocol: a command, a broker, a webhook."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol, TypeVar

from .batches import DeliveryBatch

T = TypeVar("T")


class AttemptFailed(Exception):
    """An attempt to deliver a batch failed.

    `reason` is a clause such as "the command failed with status 1"; `details` describe the attempt in a dead letter.
    With `final`, another attempt cannot succeed: the batch becomes a dead letter at once. With `unreachable`, the
    attempt says nothing about the batch, because nothing was there to take it: it is tried again without a limit.
    With `retry_after_s`, the receiver asked not to be tried again before that many seconds have passed. The first
    `delivered` items are delivered nevertheless, except those that are `refused` (as of Refused); the next attempt is
    without them.
    """

    def __init__(
        self,
        reason: str,
        *,
        final: bool = False,
        unreachable: bool = False,
        retry_after_s: float = 0.0,
        delivered: int = 0,
        refused: Mapping[int, str] | None = None,
        **details: Any,
    ) -> None:
        super().__init__(reason)
        assert not (final and unreachable)
        self.reason = reason
        self.final = final
        self.unreachable = unreachable
        self.retry_after_s = retry_after_s
        self.delivered = delivered
        self.refused = dict(refused or {})
        self.details = details


class Refused(Exception):
    """The receiver refuses some items of a batch for good; all other items of the batch are delivered.

    `reasons`: for each refused item, by its index in the batch, a clause such as "no queue is bound for it".
    """

    def __init__(self, reasons: Mapping[int, str]) -> None:
        super().__init__(f"{len(reasons):,} refused: {next(iter(reasons.values()))}")
        self.reasons = dict(reasons)


class Sink(Protocol[T]):
    """Something that may fail."""

    def deliver(self, batch: DeliveryBatch[T]) -> None:
        """Returns when the batch is delivered: it is never delivered again after that, unless the process dies.

        Raises AttemptFailed if this attempt failed; a VecError that is `retryable` means the same. Raises Refused, once
        all other items are delivered, for items that the receiver will never take. Any other error says that the sink
        itself cannot work: it ends the delivery, with the position before the batch.
        """
