"""A broker for tests: a server process on a free port of 127.0.0.1, which can be stopped, killed, paused and restarted.

A test that kills or restarts a broker has one of its own: `with RedisServer(folder) as broker`. All others share one,
over all tests and all processes of pytest-xdist: `with shared(RedisServer, root) as broker` (fixtures.py). They use
streams, topics and queues with names of their own (`fresh_name`).

No broker outlives its users, however they end (keeper.py).
"""

from __future__ import annotations

import contextlib
import fcntl
import itertools
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any, ClassVar, Self, TypeVar

HOST = "127.0.0.1"
_KEEPER = Path(__file__).with_name("keeper.py")
#: How often a start is tried, each time on another port: somebody else may have taken the first one meanwhile.
_STARTS_MAX = 3


class Broker:
    """One server and its data folder. A context manager, which starts it and ends it.

    A subclass says how to run it: `name`, `command`, and where needed `missing`, `environment`, `ports_count`, `ready`.
    """

    #: Of the server, as people say it; also of its folder when it is shared.
    name: ClassVar[str]
    #: How many free ports it needs.
    ports_count: ClassVar[int] = 1
    #: Seconds that it may take until `ready`.
    start_s: ClassVar[float] = 30.0

    def __init__(self, folder: Path, **options: Any) -> None:
        """`folder` holds the data and the log; it is made if it does not exist. `options` are attributes that the
        subclass declares."""
        for option, value in options.items():
            assert hasattr(type(self), option), f"{type(self).__name__} has no option {option}"
            setattr(self, option, value)
        self.folder = folder
        self.ports: list[int] = []
        self.pid: int | None = None  # of the server; also of its process group
        self._keeper: subprocess.Popen[bytes] | None = None
        self._lock: IO[bytes] | None = None

    # --- what a subclass says ------------------------------------------------------------------------------------

    @classmethod
    def missing(cls) -> str | None:
        """What has to be installed to run it, or None."""
        return None

    def command(self) -> list[str]:
        """The command line. It runs in the foreground, and listens on `self.ports`."""
        raise NotImplementedError

    def environment(self) -> Mapping[str, str]:
        """Variables beside those of the test run."""
        return {}

    def ready(self) -> bool:
        """Whether it serves requests. OSError means no."""
        with socket.create_connection((HOST, self.port), timeout=1.0):
            return True

    # --- use -------------------------------------------------------------------------------------------------------

    @property
    def port(self) -> int:
        return self.ports[0]

    @property
    def address(self) -> str:
        return f"{HOST}:{self.port}"

    @property
    def running(self) -> bool:
        return self._keeper is not None and self._keeper.poll() is None

    def start(self) -> None:
        """Returns when it is ready. Again after `stop` or `kill`: on the same ports and data."""
        assert not self.running, f"{self.name} runs already"
        self.folder.mkdir(parents=True, exist_ok=True)
        if self.ports:
            assert self._start(), self._failed()
            return
        for _ in range(_STARTS_MAX):
            self.ports = free_ports(self.ports_count)
            if self._start():
                return
        raise AssertionError(self._failed())

    def stop(self) -> None:
        """As an administrator does it: SIGTERM. Returns when it has ended."""
        self._end()

    def kill(self) -> None:
        """SIGKILL to all its processes. Returns when it has ended."""
        self._end(kill=True)

    def restart(self, *, killed: bool = False) -> None:
        """Stops or kills it, and starts it again on the same ports and data."""
        self._end(kill=killed)
        self.start()

    def pause(self) -> None:
        """Stops all its processes with SIGSTOP: connections stay open, and nothing answers. `resume` ends that."""
        assert self.pid is not None
        os.killpg(self.pid, signal.SIGSTOP)

    def resume(self) -> None:
        assert self.pid is not None
        os.killpg(self.pid, signal.SIGCONT)

    def log(self) -> str:
        """What the server has written."""
        path = self.folder / "log"
        return path.read_text(errors="replace") if path.exists() else ""

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.running:
            self._end()

    # --- the process -------------------------------------------------------------------------------------------------

    def _start(self) -> bool:
        """False if the server ended before it was ready."""
        self._launch(self.folder / "users")
        deadline = time.monotonic() + self.start_s
        while self.running:
            with contextlib.suppress(OSError):
                if self.ready():
                    return True
            if time.monotonic() > deadline:
                self._end(kill=True)
                raise AssertionError(f"{self.name} is not ready after {self.start_s:g} s: {self._failed()}")
            time.sleep(0.02)
        self._forget()
        return False

    def _launch(self, lock: Path) -> None:
        self._lock = lock.open("ab")
        fcntl.flock(self._lock, fcntl.LOCK_SH)
        with (self.folder / "log").open("ab") as log:
            self._keeper = subprocess.Popen(
                [sys.executable, "-S", "-E", str(_KEEPER), str(lock), *self.command()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
                env={**os.environ, **self.environment()},
                cwd=self.folder,
                start_new_session=True,  # a Ctrl-C at the terminal is for pytest
            )
        assert self._keeper.stdout is not None
        line = self._keeper.stdout.readline()
        self.pid = int(line) if line else None

    def _end(self, *, kill: bool = False) -> None:
        assert self._keeper is not None, f"{self.name} does not run"
        if kill and self.pid is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.pid, signal.SIGKILL)
        self._release()  # the keeper stops it
        self._keeper.wait(60)
        self._forget()

    def _release(self) -> None:
        """The lock: the keeper ends what does not end by itself."""
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def _forget(self) -> None:
        self._release()
        if self._keeper is not None:
            assert self._keeper.stdout is not None
            self._keeper.stdout.close()
            self._keeper.wait()
        self._keeper = self.pid = None

    def _detach(self) -> None:
        """Leaves it to its other users."""
        self._release()
        if self._keeper is not None:
            assert self._keeper.stdout is not None
            self._keeper.stdout.close()
            self._keeper.returncode = 0  # it is not waited for

    def _failed(self) -> str:
        return f"{self.name} does not start: {' '.join(self.command())}\n{self.log()[-4000:]}"


B = TypeVar("B", bound=Broker)


@contextlib.contextmanager
def shared(kind: type[B], root: Path) -> Iterator[B]:
    """The broker that all users of the folder `root` share: the first one starts it, and it ends after the last one.

    A user must not stop, kill or pause it.
    """
    folder = root / f"broker-{kind.name}"
    folder.mkdir(parents=True, exist_ok=True)
    broker = kind(folder)
    with (folder / "users").open("a+") as users:
        with (folder / "turn").open("wb") as turn:
            fcntl.flock(turn, fcntl.LOCK_EX)
            fcntl.flock(users, fcntl.LOCK_SH)  # waits for the keeper that ends an earlier one
            users.seek(0)
            if known := users.read():
                broker.pid, *broker.ports = map(int, known.split())
            else:
                broker.start()
                users.write(" ".join(map(str, [broker.pid, *broker.ports])))
                users.flush()
        broker._detach()
        yield broker


def free_ports(count: int) -> list[int]:
    """Different ports of 127.0.0.1 that nobody listens on now."""
    with contextlib.ExitStack() as held:
        sockets = [held.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind((HOST, 0))
        return [each.getsockname()[1] for each in sockets]


_numbers = itertools.count()


def fresh_name(prefix: str = "test") -> str:
    """A name for a stream, topic or queue that no other test uses."""
    return f"{prefix}-{os.getpid()}-{next(_numbers)}"
