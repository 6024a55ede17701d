"""A gateway of an instance: `vec serve` as a process, on a port that the kernel chooses."""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
from collections.abc import Mapping
from typing import Any, Self

from .instance import Instance
from .waiting import PATIENCE_S


class Gateway:
    """`vec serve`, once it listens. A context manager: at its end the process is stopped, or killed."""

    def __init__(self, instance: Instance, *arguments: str, environment: Mapping[str, str] | None = None) -> None:
        self.instance = instance
        self._arguments = arguments if "--listen" in arguments else ("--listen", "127.0.0.1:0", *arguments)
        self._environment = {**instance.environment, **(environment or {})}

    def __enter__(self) -> Self:
        self.process = self.instance.spawn("serve", *self._arguments, env=self._environment)
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            _, said = self.process.communicate()
            raise AssertionError(f"vec serve did not start: {said.decode()}")
        #: Of the first listener: http://127.0.0.1:PORT, or unix:PATH.
        self.url: str = json.loads(line)["url"]
        return self

    @property
    def websocket_url(self) -> str:
        return self.url.replace("http", "ws", 1)

    def stop(self) -> int:
        """Stops it with SIGTERM; returns its exit status."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(PATIENCE_S)

    def stderr(self) -> str:
        """What it wrote to stderr, after it has ended."""
        assert self.process.stderr is not None
        return self.process.stderr.read().decode()

    def curl(self, *arguments: str, stdin: bytes | None = None, timeout_s: float = PATIENCE_S) -> Any:
        """Runs `curl`, with a path of this gateway as the last argument; returns what it printed."""
        command = ["curl", "--silent", "--show-error", *arguments[:-1], self.url + arguments[-1]]
        done = subprocess.run(command, input=stdin, capture_output=True, timeout=timeout_s, check=False)
        assert done.returncode == 0, done.stderr.decode()
        return done.stdout

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(15)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
