"""RabbitMQ for tests: Debian's rabbitmq-server in a folder.

A start takes 7 s and 5 s of CPU, so tests share one server, and give their exchanges and queues names of their own.
Erlang's name server, epmd, listens on a port of its own. The server starts it and leaves it behind; the keeper ends it.
"""

from __future__ import annotations

import os
import shutil
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar, Final

from .broker import HOST, Broker

#: The program itself: beside root, Debian's wrapper in /usr/sbin wants a login.
PROGRAM: Final = Path("/usr/lib/rabbitmq/bin/rabbitmq-server")

_CONFIGURATION: Final = """\
listeners.tcp.local = {host}:{port}
log.console = true
log.console.level = warning
vm_memory_high_watermark.absolute = 1GB
disk_free_limit.absolute = 10MB
max_message_size = {message_bytes_max}
"""


class RabbitMQ(Broker):
    """The user `guest` has the password `guest`."""

    name = "rabbitmq"
    ports_count = 3
    start_s = 120.0

    user: ClassVar[str] = "guest"
    password: ClassVar[str] = "guest"
    #: The largest message that it takes.
    message_bytes_max: ClassVar[int] = 4 << 20

    @classmethod
    def missing(cls) -> str | None:
        if PROGRAM.exists() and shutil.which("epmd"):
            return None
        return "rabbitmq-server (Debian's package, with epmd)"

    @property
    def url(self) -> str:
        """With the password, as client libraries take it."""
        return f"amqp://{self.user}:{self.password}@{self.address}/"

    def command(self) -> list[str]:
        text = _CONFIGURATION.format(host=HOST, port=self.port, message_bytes_max=self.message_bytes_max)
        (self.folder / "rabbitmq.conf").write_text(text)
        (self.folder / "enabled_plugins").write_text("[].\n")
        return [str(PROGRAM)]

    def environment(self) -> Mapping[str, str]:
        _, epmd_port, distribution_port = self.ports
        folder = self.folder
        return {
            "LANG": "C.UTF-8",
            "HOME": str(folder),  # of Erlang's cookie
            "ERL_EPMD_PORT": str(epmd_port),
            "ERL_EPMD_ADDRESS": HOST,
            "RABBITMQ_NODENAME": f"test-{self.port}@localhost",
            "RABBITMQ_DIST_PORT": str(distribution_port),
            "RABBITMQ_MNESIA_BASE": str(folder / "data"),
            "RABBITMQ_LOG_BASE": str(folder / "logs"),
            "RABBITMQ_CONF_ENV_FILE": os.devnull,
            "RABBITMQ_CONFIG_FILE": str(folder / "rabbitmq.conf"),
            "RABBITMQ_ADVANCED_CONFIG_FILE": str(folder / "advanced.config"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(folder / "enabled_plugins"),
            "RABBITMQ_GENERATED_CONFIG_DIR": str(folder / "generated"),
            # The script becomes the server, instead of waiting for it: a signal reaches the server.
            "RUNNING_UNDER_SYSTEMD": "true",
            # Threads that wait do not spin: the tests need the cores.
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "+sbwt none +sbwtdcpu none +sbwtdio none",
        }

    def ready(self) -> bool:
        """Whether it speaks AMQP: it listens before it does."""
        with socket.create_connection((HOST, self.port), timeout=5.0) as connection:
            connection.sendall(b"AMQP\x00\x00\x09\x01")
            return connection.recv(1) == b"\x01"
