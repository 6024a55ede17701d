"""Structured logging (logfmt): `time=… level=… logger=… event="…" key=value …`, to stderr or to a file.

SIGHUP reopens the file, so that logrotate can move it.
"""

from __future__ import annotations

import datetime
import json
import logging
import sys
from pathlib import Path

_OWN = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
_PLAIN = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-+:/@#,")


class Logfmt(logging.Formatter):
    """Formats a record as one line; `extra` fields become key=value, a traceback becomes one quoted value."""

    def format(self, record: logging.LogRecord) -> str:
        at = datetime.datetime.fromtimestamp(record.created, datetime.UTC)
        fields = {
            "time": f"{at:%Y-%m-%dT%H:%M:%S}.{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "event": record.getMessage(),
            **{key: value for key, value in vars(record).items() if key not in _OWN},
        }
        if record.exc_info:
            fields["traceback"] = self.formatException(record.exc_info)
        return " ".join(f"{key}={_quoted(value)}" for key, value in fields.items())


class ReopeningHandler(logging.FileHandler):
    """Writes to a log file that another program may move."""

    def reopen(self) -> None:
        self.acquire()
        try:
            self.close()
            self.stream = self._open()
        finally:
            self.release()


def set_up(level: str, file: Path | None) -> ReopeningHandler | None:
    """Logs to the file, or to stderr; returns the handler that SIGHUP reopens, if there is a file."""
    handler: logging.Handler = logging.StreamHandler(sys.stderr)
    reopening = None
    if file is not None:
        handler = reopening = ReopeningHandler(file, encoding="utf-8", delay=False)
    handler.setFormatter(Logfmt())
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    for name in ("faiss", "uvicorn"):  # at lower levels they log what we log ourselves, or nobody asks for
        logging.getLogger(name).setLevel(logging.WARNING)
    return reopening


def _quoted(value: object) -> str:
    text = str(value)
    return text if text and _PLAIN.issuperset(text) else json.dumps(text, ensure_ascii=False)
