"""Dead letters: batches whose attempts have all failed, kept in a file for a person to look at."""

from __future__ import annotations

import datetime
import errno
import json
import os
import stat
from pathlib import Path
from typing import Protocol, TypeVar

from ..durable_files import append, printable_path
from ..errors import Code, VecError
from .batches import DeliveryBatch
from .sink import AttemptFailed

T = TypeVar("T")


class DeadLetters(Protocol[T]):
    """Where batches go that are given up."""

    def add(self, batch: DeliveryBatch[T], failure: AttemptFailed) -> None:
        """Keeps a batch, whose `attempt` is the last one. Durable when it returns, or at the latest when the source
        has committed the position behind it. Raises VecError."""


class DeadLetterFile:
    """A file with one JSON object a line: `time`, the details of the failure, `attempts`, `cursor`, `events`.

    Only a regular file, or a symlink to one. Several processes may share it.
    """

    def __init__(self, path: Path) -> None:
        """Raises VecError `invalid_request` for a path that is something else."""
        self.path = path
        try:
            if not stat.S_ISREG(os.stat(path).st_mode):
                raise OSError(errno.EINVAL, "it is not a regular file")
        except FileNotFoundError:
            pass  # the first dead letter makes it
        except OSError as error:
            raise self._failed(error) from error

    def add(self, batch: DeliveryBatch[bytes], failure: AttemptFailed) -> None:
        now = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        about = {"time": now, **failure.details, "attempts": batch.attempt, "cursor": batch.cursor}
        head = json.dumps(about, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "backslashreplace")
        events = b",".join(line.rstrip(b"\n") for line in batch.items)
        try:
            append(self.path, head[:-1] + b',"events":[' + events + b"]}\n")
        except OSError as error:
            raise self._failed(error) from error

    def _failed(self, error: OSError) -> VecError:
        return VecError(
            Code.INVALID_REQUEST,
            f"cannot write the dead letters to {printable_path(self.path)} ({error.strerror})",
            "the cursor stays before the batch; correct that, or name another file",
        )
