"""Workers of Celery, RQ and Dramatiq as processes, started by the commands of man/vec-workers.7."""

from __future__ import annotations

import contextlib
import itertools
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Self

from tests.support.instance import BIN

from .slow_embedder import environment

_numbers = itertools.count(1)


class Worker:
    """One worker, with one thing at a time. A context manager: at its end it is killed, with its children."""

    def __init__(self, framework: str, url: str, text_s: float = 0.01, folder: Path | None = None, **more: str) -> None:
        commands = {
            "celery": ["celery", "-A", "vecd.workers.celery", "worker", "-c", "1", "-n", f"vec{next(_numbers)}@%h"],
            "rq": ["rq", "worker", "vecd"],
            "dramatiq": ["dramatiq", "vecd.workers.dramatiq", "-p", "1", "-t", "1"],
        }
        self._command = [str(BIN / commands[framework][0]), *commands[framework][1:]]
        broker = {"RQ_REDIS_URL": url} if framework == "rq" else {"VEC_JOBS_EXECUTOR_URL": url}
        # A worker's machine has no store: what would make one is where it must not be found.
        nowhere = {"VEC_HOME": "/nonexistent/vec", "PYTHONWARNINGS": "ignore"}
        kept = {key: value for key, value in os.environ.items() if not key.startswith(("VEC_", "XDG_"))}
        self._environment = {**kept, **environment(text_s), **broker, **nowhere, **more}
        self._log = (folder or Path(os.devnull).parent) / ("null" if folder is None else f"{framework}{next(_numbers)}")
        self.process: subprocess.Popen[bytes]

    def __enter__(self) -> Self:
        with open(self._log, "ab") as log:
            self.process = subprocess.Popen(
                self._command,
                env=self._environment,
                cwd="/",
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    def kill(self) -> None:
        """With all its processes, as when its machine loses power."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def log(self) -> str:
        return self._log.read_text("utf-8", "replace")[-4_000:]


@contextlib.contextmanager
def workers(count: int, framework: str, url: str, text_s: float = 0.01, folder: Path | None = None) -> Iterator[None]:
    with contextlib.ExitStack() as stack:
        for _ in range(count):
            stack.enter_context(Worker(framework, url, text_s, folder))
        yield
