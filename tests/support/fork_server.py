"""Runs `vec` as processes that are forked from one that has imported it, instead of starting an interpreter each time.

A command is a process of its own, with its own pid, arguments, environment, standard streams and exit status. What it
does not have is the start of the interpreter, which costs ten times as much as most commands. Whatever depends on that
start runs as `vec` itself: a locale, variables of Python or of the dynamic linker, a stdin that stays open.

Each test process has one server, which it starts when it needs it. The server is this file as a script. It has one
thread, so a fork copies no lock that is held.
"""

from __future__ import annotations

import atexit
import contextlib
import gc
import importlib
import json
import os
import selectors
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO

BIN = Path(sys.executable).parent
#: Variables that take effect at the start of an interpreter.
_START_UP = ("PYTHON", "LC_", "LANG", "LD_", "DYLD_", "MALLOC_")


def run(
    arguments: Sequence[str], stdin: bytes | None, environment: Mapping[str, str], timeout_s: float
) -> subprocess.CompletedProcess[bytes]:
    """Runs `vec` to its end, as `subprocess.run` does with captured output. `stdin` None: /dev/null."""
    command = [str(BIN / "vec"), *arguments]
    if not _can_fork(environment):
        return subprocess.run(
            command,
            input=stdin,
            stdin=subprocess.DEVNULL if stdin is None else None,
            capture_output=True,
            env=environment,
            timeout=timeout_s,
            check=False,
        )
    return _the_server(environment).run(command, stdin, environment, timeout_s)


def _start_up_variables(environment: Mapping[str, str]) -> dict[str, str]:
    return {key: value for key, value in environment.items() if key.startswith(_START_UP)}


def _can_fork(environment: Mapping[str, str]) -> bool:
    usual = {key: value for key, value in os.environ.items() if not key.startswith(("PYTHONDONT", "PYTHONUNBUF"))}
    return _start_up_variables(environment) == _start_up_variables(usual) and hasattr(os, "fork")


class _Server:
    def __init__(self, environment: Mapping[str, str]) -> None:
        self._control, theirs = socket.socketpair()
        self._lock = threading.Lock()
        # Pipes, as commands have: Python asks at its start whether its streams are terminals and can be sought.
        self._process = subprocess.Popen(
            [sys.executable, __file__, str(theirs.fileno())],
            pass_fds=[theirs.fileno()],
            env={key: value for key, value in environment.items() if not key.startswith("VEC_")},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=BIN,
        )
        theirs.close()

    def run(
        self, command: list[str], stdin: bytes | None, environment: Mapping[str, str], timeout_s: float
    ) -> subprocess.CompletedProcess[bytes]:
        request = {"command": command, "environment": dict(environment), "folder": os.getcwd()}
        ours, theirs = socket.socketpair()
        with contextlib.ExitStack() as opened:
            opened.enter_context(ours)
            if stdin is None:
                read_end = os.open(os.devnull, os.O_RDONLY)
            else:
                read_end, write_end = os.pipe()
                write_to = opened.enter_context(os.fdopen(write_end, "wb", buffering=0))
            (out, out_end), (err, err_end) = os.pipe(), os.pipe()
            with self._lock:
                socket.send_fds(self._control, [b"r"], [theirs.fileno(), read_end, out_end, err_end])
            theirs.close()
            for each in (read_end, out_end, err_end):
                os.close(each)
            ours.sendall(json.dumps(request).encode() + b"\n")
            replies = opened.enter_context(ours.makefile("rb"))
            if not (first := replies.readline()):
                raise AssertionError(f"the fork server ended: {self._process.communicate()}")
            pid = int(first)
            bound = threading.Timer(timeout_s, _kill, (pid,))
            bound.start()
            captured: dict[int, bytes] = {}
            threads = [
                threading.Thread(target=_read, args=(opened.enter_context(os.fdopen(fd, "rb")), fd, captured))
                for fd in (out, err)
            ]
            for thread in threads:
                thread.start()
            if stdin is not None:
                with contextlib.suppress(BrokenPipeError):
                    _write(write_to, stdin)
                write_to.close()
            for thread in threads:
                thread.join()
            status = int(replies.readline())
            is_late = not bound.is_alive()
            bound.cancel()
            bound.join()
        if is_late:
            raise subprocess.TimeoutExpired(command, timeout_s, captured[out], captured[err])
        return subprocess.CompletedProcess(command, status, captured[out], captured[err])

    def close(self) -> None:
        self._control.close()
        self._process.communicate()


def _read(pipe: IO[bytes], key: int, captured: dict[int, bytes]) -> None:
    captured[key] = pipe.read()


def _write(pipe: IO[bytes], data: bytes) -> None:
    rest = memoryview(data)
    while rest:
        rest = rest[pipe.write(rest) :]


def _kill(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


_server: _Server | None = None
_server_lock = threading.Lock()


def _the_server(environment: Mapping[str, str]) -> _Server:
    global _server
    with _server_lock:
        if _server is None:
            _server = _Server(environment)
            atexit.register(close)
        return _server


def close() -> None:
    """Ends the server of this process, if there is one."""
    global _server
    with _server_lock:
        if _server is not None:
            _server.close()
            _server = None


# --- the server -----------------------------------------------------------------------------------------------------


def _serve(control: socket.socket) -> None:
    """Forks a process for each request. Returns in each of them, ready to be that command; ends at the end of
    `control`."""
    wakeup, woken = socket.socketpair()
    wakeup.setblocking(False)
    woken.setblocking(False)
    signal.set_wakeup_fd(woken.fileno())
    signal.signal(signal.SIGCHLD, lambda *_: None)
    selector = selectors.DefaultSelector()
    selector.register(control, selectors.EVENT_READ)
    selector.register(wakeup, selectors.EVENT_READ)
    commands: dict[int, socket.socket] = {}
    while True:
        for key, _ in selector.select():
            if key.fileobj is wakeup:
                with contextlib.suppress(BlockingIOError):
                    wakeup.recv(4096)
                _report_ended(commands)
                continue
            data, streams, _, _ = socket.recv_fds(control, 1, 4)
            if not data:
                sys.exit()
            pid = os.fork()
            if pid == 0:
                signal.set_wakeup_fd(-1)
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                selector.close()
                _become(*streams)
                return
            commands[pid] = socket.socket(fileno=streams[0])
            commands[pid].sendall(b"%d\n" % pid)
            for each in streams[1:]:
                os.close(each)


def _report_ended(commands: dict[int, socket.socket]) -> None:
    for pid in list(commands):
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            with contextlib.suppress(BrokenPipeError), commands.pop(pid) as reply:
                reply.sendall(b"%d\n" % os.waitstatus_to_exitcode(status))


def _become(request: int, *streams: int) -> None:
    """Takes a request's arguments, environment, folder and streams, and closes everything else."""
    with os.fdopen(os.dup(request), "rb") as file:
        wanted = json.loads(file.readline())
    for number, each in enumerate(streams):
        os.dup2(each, number)
    os.closerange(3, 1024)
    os.environ.clear()
    os.environ.update(wanted["environment"])
    os.chdir(wanted["folder"])
    time.tzset()
    sys.argv[:] = wanted["command"]


if __name__ == "__main__":
    sys.path[0] = str(BIN)  # as in the script `vec`
    main = importlib.import_module("vec_cli.main")
    for module in main.COMMANDS.values():
        importlib.import_module(f"vec_cli.commands.{module}")
    gc.collect()
    gc.freeze()
    try:
        _serve(socket.socket(fileno=int(sys.argv[1])))
    except KeyboardInterrupt:  # of the whole test run
        sys.exit(1)
    sys.exit(main.main())
