"""An HTTP server that accepts webhooks, as a process of its own: for benchmarks. It stands beside the brokers."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path

from .broker import Broker


class HttpServer(Broker):
    """tests/support/http_receiver.py as a program."""

    name = "http"

    @property
    def url(self) -> str:
        return f"http://{self.address}"

    @property
    def arrived(self) -> Path:
        """The file with the cursors of the events that were posted to a URL with `?tell`, one a line."""
        return self.folder / "arrived"

    def command(self) -> list[str]:
        return [sys.executable, "-m", "tests.support.http_receiver", str(self.port), str(self.arrived)]

    def environment(self) -> Mapping[str, str]:
        return {"PYTHONPATH": str(Path(__file__).parents[3])}
