"""The sink of a delivery, as a protocol: a command, a broker, a webhook."""

from __future__ import annotations

from typing import Any, Protocol

from .batches import DeliveryBatch


class AttemptFailed(Exception):
    """An attempt to deliver a batch failed.

    `reason` is a clause such as "the command failed with status 1"; `details` describe the attempt in a dead letter.
    With `final`, another attempt cannot succeed: the batch becomes a dead letter at once.
    """

    def __init__(self, reason: str, *, final: bool = False, **details: Any) -> None:
        super().__init__(reason)
        self.reason = reason
        self.final = final
        self.details = details


class Sink(Protocol):
    """Something that may fail."""

    def deliver(self, batch: DeliveryBatch) -> None:
        """Returns when the batch is delivered: it is never delivered again after that, unless the process dies.

        Raises AttemptFailed if this attempt failed; a VecError that is `retryable` means the same. Any other error says
        that the sink itself cannot work: it ends the delivery, with the position before the batch.
        """
