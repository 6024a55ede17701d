"""A real instance in a temporary folder: `vecd` and `vec` as processes, a Unix socket."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

from tests.support import fork_server
from vecd.client import Client
from vecd.client.discovery import connect_socket
from vecd.settings import Settings, locate

BIN = fork_server.BIN
ROOT = Path(__file__).resolve().parents[2]


class Instance:
    """One VEC_HOME and its processes. A context manager: at its end it kills the daemon and deletes the folder."""

    def __init__(self, environment: Mapping[str, str] | None = None) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="vec-test-")
        self._children: list[subprocess.Popen[bytes]] = []
        self.home = Path(self._folder.name)
        # Without the settings of the test run's environment; and, as for a user, with bytecode caching.
        foreign = ("VEC_", "XDG_", "PYTHONDONTWRITEBYTECODE", "PYTHONUNBUFFERED")
        inherited = {key: value for key, value in os.environ.items() if not key.startswith(foreign)}
        own = {"VEC_HOME": str(self.home), "TZ": _zone_without_upkeep()}
        self.environment = {**inherited, **own, **(environment or {})}

    @property
    def settings(self) -> Settings:
        return locate(self.environment)

    def connect(self, timeout_s: float | None = 60.0) -> Client:
        """A connection to the running daemon."""
        sock = connect_socket(self.settings)
        assert sock is not None, f"no daemon: {self.log()}"
        return Client(sock, timeout_s=timeout_s)

    def vec(
        self, *arguments: str, stdin: str | bytes | None = None, status: int | None = 0, timeout_s: float = 120
    ) -> subprocess.CompletedProcess[str]:
        """Runs `vec` to its end; asserts its exit status, unless `status` is None."""
        data = stdin.encode() if isinstance(stdin, str) else stdin
        done = fork_server.run(arguments, data, self.environment, timeout_s)
        out, err = done.stdout.decode(), done.stderr.decode()
        assert status is None or done.returncode == status, f"exit {done.returncode}\n{out[-2000:]}\n{err[-2000:]}"
        return subprocess.CompletedProcess(done.args, done.returncode, out, err)

    def objects(self, *arguments: str, stdin: str | bytes | None = None, status: int | None = 0) -> list[Any]:
        """Runs `vec`; returns its output, one object per line."""
        return [json.loads(line) for line in self.vec(*arguments, stdin=stdin, status=status).stdout.splitlines()]

    def spawn(self, *arguments: str, **options: Any) -> subprocess.Popen[bytes]:
        """Starts `vec` with pipes."""
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        process: subprocess.Popen[bytes] = subprocess.Popen(
            [BIN / "vec", *arguments], **{**pipes, "env": self.environment, **options}
        )
        self._children.append(process)
        return process

    def start(self, *arguments: str, prefix: Sequence[str] = (), module: str = "vecd") -> subprocess.Popen[bytes]:
        """Starts `vecd` as a child process that logs to a file, and waits until it is ready. `prefix` precedes the
        command; `module` is the module to run."""
        read_end, write_end = os.pipe()
        command = [*prefix, sys.executable, "-m", module, "--log-file", str(self.settings.log)]
        process = subprocess.Popen(
            [*command, "--ready-fd", str(write_end), *arguments],
            env=self.environment,
            pass_fds=(write_end,),
            stdin=subprocess.DEVNULL,
            cwd=ROOT,
        )
        self._children.append(process)
        os.close(write_end)
        with os.fdopen(read_end, "rb") as pipe:
            said = pipe.read()
        if said != b"ready":
            raise AssertionError(f"vecd did not start ({process.wait()}): {self.log()}")
        return process

    def pid(self) -> int | None:
        """The pid of the daemon that holds the data folder, from its lock file; None if it does not run."""
        try:
            pid = int(self.settings.lock.read_text().split()[0])
            os.kill(pid, 0)
        except (FileNotFoundError, IndexError, ProcessLookupError):
            return None
        return pid

    def log(self) -> str:
        try:
            return self.settings.log.read_text("utf-8", "replace")[-4000:]
        except FileNotFoundError:
            return "(no log)"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for child in self._children:
            if child.poll() is None:
                child.kill()
            child.wait()
            for pipe in (child.stdin, child.stdout, child.stderr):
                if pipe is not None:
                    with contextlib.suppress(BrokenPipeError):
                        pipe.close()
        if (pid := self.pid()) is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self._folder.cleanup()


def _zone_without_upkeep() -> str:
    """A time zone, as a POSIX rule, in which it is 12:20 now, so the daemon's own schedules (upkeep.*) are at least 57
    minutes away. Otherwise a test that counts jobs or events fails if it runs at, for example, 17 minutes past."""
    now = time.gmtime()
    west = now.tm_hour * 60 + now.tm_min - (12 * 60 + 20)
    return f"NOON{'-' if west < 0 else ''}{abs(west) // 60}:{abs(west) % 60:02}"


def ndjson(documents: Sequence[Mapping[str, Any]]) -> str:
    return "".join(json.dumps(document) + "\n" for document in documents)
