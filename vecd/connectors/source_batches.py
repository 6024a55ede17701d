"""Batches of a source: messages decoded into documents and dead letters, cut to a size that one transaction takes.

Pure: no broker, no daemon.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from .. import limits
from ..errors import VecError
from .decoding import Decoder
from .messages import InMessage


@dataclass(slots=True)
class SourceBatch:
    """Messages that one `source.commit` applies. Each is a document, a dead letter, or means nothing."""

    offsets: dict[str, str] = field(default_factory=dict)  # by partition: of the last message (inclusive)
    documents: list[dict[str, Any]] = field(default_factory=list)
    sources: list[InMessage] = field(default_factory=list)  # of the documents
    letters: list[dict[str, Any]] = field(default_factory=list)
    messages: int = 0
    size: int = 0  # bytes of the bodies
    letters_size: int = 0
    resolved: list[int] = field(default_factory=list)  # ids of dead letters that this is another attempt at

    def has_room(self, message: InMessage) -> bool:
        return not self.messages or (
            self.messages < limits.SOURCE_BATCH_MESSAGES
            and self.size + len(message.body) <= limits.SOURCE_BATCH_BYTES
            and len(self.letters) < limits.DEAD_LETTERS_PAGE
            and self.letters_size < limits.DEAD_LETTERS_PAGE_BYTES
        )

    def add(self, message: InMessage, decoder: Decoder) -> None:
        self.messages += 1
        self.size += len(message.body)
        self.offsets[message.partition] = message.offset
        try:
            document = decoder.decode(message.body, message.key, message.headers)
        except VecError as error:
            self._bury(message, error)
        else:
            if document is not None:
                self.documents.append(document)
                self.sources.append(message)

    def refuse(self, refused: Sequence[tuple[int, VecError]]) -> None:
        """Moves documents to the dead letters, by their indexes."""
        for index, error in refused:
            self._bury(self.sources[index], error)
        gone = {index for index, _ in refused}
        self.documents = [each for index, each in enumerate(self.documents) if index not in gone]
        self.sources = [each for index, each in enumerate(self.sources) if index not in gone]

    def _bury(self, message: InMessage, error: VecError) -> None:
        letter = letter_of(message, error)
        self.letters.append(letter)
        self.letters_size += len(letter["body"])


def batches(messages: Iterable[InMessage], decoder: Decoder) -> Iterator[SourceBatch]:
    """All messages, in their order."""
    batch = SourceBatch()
    for message in messages:
        if not batch.has_room(message):
            yield batch
            batch = SourceBatch()
        batch.add(message, decoder)
    if batch.messages:
        yield batch


def letter_of(message: InMessage, error: VecError) -> dict[str, Any]:
    """The dead letter of a message, as `source.commit` takes it."""
    key = None if message.key is None else message.key.decode("utf-8", "replace")
    about: dict[str, Any] = {
        "partition": message.partition,
        "offset": message.offset,
        "key": key,
        "headers": dict(message.headers),
    }
    body = message.body
    if len(body) > limits.DEAD_LETTER_BYTES_MAX:
        about["omitted"] = len(body)
        body = b""
    hint = f"; {error.hint}" if error.hint else ""
    return {
        "position": f"{message.partition}@{message.offset}" if message.partition else message.offset,
        "code": error.code,
        "reason": error.message + hint,
        "attempts": 1,
        "about": about,
        "body": body,
    }


def message_of(letter: Mapping[str, Any]) -> InMessage:
    """The message of a dead letter, as `source.dead` returns it with its body."""
    about = letter["about"]
    key = about.get("key")
    return InMessage(
        partition=about["partition"],
        offset=about["offset"],
        body=letter["body"],
        key=None if key is None else key.encode(),
        headers=about.get("headers") or {},
        redelivered=True,
    )
