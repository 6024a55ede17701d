"""`vec worker` processes, in an instance that knows the embedder `slow` (slow_embedder.environment)."""

from __future__ import annotations

import json
import signal
import subprocess
import threading
from typing import Any, Self

from tests.support.instance import BIN, Instance
from tests.support.waiting import PATIENCE_S


class Worker:
    """One `vec worker`. A context manager: at its end it is killed."""

    def __init__(self, instance: Instance, *arguments: str, **environment: str) -> None:
        self._command = [str(BIN / "vec"), "worker", "--no-spawn", *arguments]
        self._environment = {**instance.environment, **environment}
        self.said: list[str] = []  # on stderr

    def __enter__(self) -> Self:
        self.process = subprocess.Popen(
            self._command, env=self._environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )  # fmt: skip
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert self.process.stderr is not None
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        if not line:
            self.end()
            raise AssertionError(f"vec worker did not start: {self.said}")
        self.name: str = json.loads(line)["worker"]
        return self

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.said.append(line.decode())

    def stop(self) -> dict[str, Any]:
        """Stops it with SIGTERM; returns what it has done."""
        self.process.send_signal(signal.SIGTERM)
        return self.done()

    def done(self) -> dict[str, Any]:
        """Waits until it has ended; returns what it has done."""
        assert self.process.stdout is not None
        assert self.process.wait(PATIENCE_S) == 0, self.said
        return dict(json.loads(self.process.stdout.read()))

    def end(self) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGCONT)
            self.process.kill()
        self.process.wait()
        self._reader.join()
        for pipe in (self.process.stdout, self.process.stderr):
            assert pipe is not None
            pipe.close()

    def __exit__(self, *_: object) -> None:
        self.end()
