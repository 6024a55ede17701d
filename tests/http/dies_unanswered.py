"""`vecd` that is killed when it has deleted the document `last`, before it answers: `python -m
tests.http.dies_unanswered`."""

from __future__ import annotations

import os
import signal
from typing import Any

from vecd.daemon import main
from vecd.engine import documents


async def _delete(*arguments: Any) -> dict[str, Any]:
    answer = await _delete_documents(*arguments)
    if "last" in arguments[2]:
        os.kill(os.getpid(), signal.SIGKILL)
    return answer


if __name__ == "__main__":
    _delete_documents = documents.delete
    setattr(documents, "delete", _delete)  # noqa: B010 (it has another type)
    main()
