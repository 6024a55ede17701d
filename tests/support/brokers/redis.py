"""A Redis server for tests."""

from __future__ import annotations

import shutil
import socket
import subprocess
from typing import ClassVar

from .broker import HOST, Broker


class RedisServer(Broker):
    """Debian's redis-server. Its client on the command line is `cli`."""

    name: ClassVar[str] = "redis"
    #: Whether each write is on the disk before its reply, so that a killed server has it after a restart.
    durable: bool = True
    #: Of the default user; None: no password.
    password: str | None = None
    #: Further options of its command line.
    more: tuple[str, ...] = ()

    @classmethod
    def missing(cls) -> str | None:
        return (
            None
            if shutil.which("redis-server") and shutil.which("redis-cli")
            else "redis-server (Debian: redis-server)"
        )

    def command(self) -> list[str]:
        command = ["redis-server", "--port", str(self.port), "--bind", HOST, "--dir", str(self.folder), "--save", ""]
        command += ["--appendonly", "yes", "--appendfsync", "always"] if self.durable else ["--appendonly", "no"]
        command += ["--requirepass", self.password] if self.password else []
        return [*command, *self.more]

    def ready(self) -> bool:
        with socket.create_connection((HOST, self.port), timeout=1.0) as connection:
            connection.sendall(b"PING\r\n")
            return connection.recv(64).startswith((b"+PONG", b"-NOAUTH"))

    @property
    def url(self) -> str:
        return f"redis://{self.address}"

    def cli(self, *arguments: str) -> str:
        """Runs redis-cli; returns what it printed, without the last newline."""
        login = ["-a", self.password, "--no-auth-warning"] if self.password else []
        command = ["redis-cli", "-h", HOST, "-p", str(self.port), *login, *arguments]
        return subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout.removesuffix("\n")
