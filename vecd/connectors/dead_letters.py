"""Dead letters of a relay: messages as they are stored, and messages made of what was stored."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .. import limits
from ..errors import Code
from . import messages
from .messages import OutMessage


def of_message(message: OutMessage, reason: str, attempts: int) -> dict[str, Any]:
    """The dead letter of a message, as `relay.commit` takes it. Of a very long body only the length is kept."""
    body = message.body
    about: dict[str, Any] = {
        "seq": message.seq, "type": message.type, "library": message.library, "document_id": message.document_id,
        "content_type": message.content_type,
    }  # fmt: skip
    if len(body) > limits.DEAD_LETTER_BYTES_MAX:
        about["omitted"], body = len(body), b""
    return {
        "position": message.cursor, "code": Code.REFUSED, "reason": reason, "attempts": attempts, "about": about,
        "body": body,
    }  # fmt: skip


def message_of(letter: Mapping[str, Any], log_id: str) -> OutMessage | None:
    """The message of a dead letter; None if its body was too long to keep."""
    about = letter["about"]
    if about.get("omitted"):
        return None
    return messages.message(
        about["seq"], letter["position"], about["type"], about["library"], about["document_id"], log_id,
        letter["body"], about["content_type"],
    )  # fmt: skip
