"""A relay to a file: each message's body is a line, on disk when the batch is confirmed.

A batch that was interrupted is written again: its lines may be there twice, the first time in part.
"""

from __future__ import annotations

from pathlib import Path

from ..delivery import DeliveryBatch
from ..durable_files import append
from ..errors import Code, VecError
from .messages import OutMessage
from .transport import MessageSink, Opening


class _FileSink:
    def __init__(self, path: Path) -> None:
        self._path = path

    def deliver(self, batch: DeliveryBatch[OutMessage]) -> None:
        try:
            append(self._path, b"".join(message.body + b"\n" for message in batch.items))
        except OSError as error:
            raise VecError(
                Code.INVALID_REQUEST,
                f"cannot append to {self._path} ({error.strerror})",
                "correct that, or remove the relay",
            ) from error

    def close(self) -> None:
        """A file is open only while it is written."""


def open_sink(opening: Opening) -> MessageSink:
    return _FileSink(Path("/" + opening.url.path))
