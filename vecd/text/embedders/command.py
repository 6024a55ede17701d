"""The `command` embedder: a program that reads NDJSON and writes vectors.

It reads a line {"text": …, "query": true or false} for each text, and writes a line for each, in the same order: a list
of numbers, {"vector": […]}, or {"error": "why"} for a text that it cannot embed. By default it is started for each
batch, and its input ends with the batch; with `keep` it is kept, and must write each batch's lines without waiting for
more. It must end when its input does. What it writes to stderr goes to the daemon's log. It runs without a shell.

A wrong answer, or a program that ends early, may be the fault of one text: the batch is refused (`invalid_document`),
and workers/local_pool.py divides it. A program that cannot be started, or is too slow, is `embedder_failed`.
"""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import shutil
import signal
import subprocess
import threading
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import orjson

from ... import limits
from ...errors import Code, VecError
from ...parameters import Parameter
from .answers import SHARED, UnusableVector, check_shared, matrix, normalized, refused
from .embedder import EmbedderKind

#: Bytes of a line: a number is written with 24 characters at most.
_LINE_BYTES_MAX: Final = 32 * limits.DIMENSION_MAX + 1_000
#: How long a program may take to end after its input has.
_END_S: Final = 10.0
_QUOTED_CHARS_MAX: Final = 200

Floats = npt.NDArray[np.float32]


class Command:
    """Runs the program; one batch at a time."""

    def __init__(
        self,
        *,
        command: str,
        dimension: int | None,
        normalize: bool,
        query_prompt: str,
        text_prompt: str,
        keep: bool,
        timeout_s: float,
    ) -> None:
        self._arguments = shlex.split(command)
        self._normalize, self._query_prompt, self._text_prompt = normalize, query_prompt, text_prompt
        self._keep, self._timeout_s = keep, timeout_s
        self._lock = threading.Lock()  # guards what follows
        self._process: subprocess.Popen[bytes] | None = None  # that is kept
        self.dimension = dimension  # learnt from the first answer, if it was not given

    def embed(self, texts: Sequence[str]) -> Floats:
        return self._embedded([self._text_prompt + text for text in texts], query=False)

    def embed_queries(self, texts: Sequence[str]) -> Floats:
        return self._embedded([self._query_prompt + text for text in texts], query=True)

    def close(self) -> None:
        """Ends the program that is kept for the next call."""
        with self._lock:
            process, self._process = self._process, None
        if process is not None:
            _close(process)

    def _embedded(self, texts: list[str], query: bool) -> Floats:
        if not texts:
            return np.zeros((0, self.dimension or 0), np.float32)
        with self._lock:
            try:
                vectors = matrix(self._answers(texts, query), self.dimension, f"the program {self._arguments[0]}")
            except UnusableVector as error:
                raise refused(str(error)) from error
            self.dimension = vectors.shape[1]
        return normalized(vectors) if self._normalize else vectors

    def _answers(self, texts: list[str], query: bool) -> list[Any]:
        """The vectors, in the order of the texts. Raises VecError."""
        lines = [orjson.dumps({"text": _encodable(text), "query": query}) for text in texts]
        process, self._process = self._process, None  # until it has done well
        if process is not None and process.poll() is not None:
            _close(process)
            process = None
        process = process or self._started()
        expired = threading.Event()

        def expire() -> None:
            expired.set()
            _kill(process)

        timer = threading.Timer(self._timeout_s, expire)
        timer.daemon = True
        timer.start()
        # Its output may be full before it has read all: the input is written meanwhile.
        writer = threading.Thread(target=self._write, args=(process, lines), daemon=True)
        writer.start()
        try:
            vectors = self._read(process, len(texts), expired)
            if not self._keep:
                self._end(process, expired)
        except BaseException:
            _kill(process)
            writer.join()
            _close(process)
            raise
        finally:
            timer.cancel()
        writer.join()
        if self._keep:
            self._process = process
        else:
            _close(process)
        return vectors

    def _started(self) -> subprocess.Popen[bytes]:
        try:
            return subprocess.Popen(self._arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, process_group=0)
        except OSError as error:
            raise VecError(
                Code.EMBEDDER_FAILED, f"the program {self._arguments[0]!r} cannot be started: {error.strerror}"
            ) from error

    def _write(self, process: subprocess.Popen[bytes], lines: list[bytes]) -> None:
        assert process.stdin is not None
        with contextlib.suppress(BrokenPipeError, ValueError):  # it has ended, which its output shows
            process.stdin.write(b"\n".join(lines) + b"\n")
            process.stdin.flush()
            if not self._keep:
                process.stdin.close()

    def _read(self, process: subprocess.Popen[bytes], count: int, expired: threading.Event) -> list[Any]:
        assert process.stdout is not None
        vectors: list[Any] = []
        while len(vectors) < count:
            line = process.stdout.readline(_LINE_BYTES_MAX)
            if not line:
                raise self._failed(process, expired, f"it answered {count} texts with {len(vectors)} vectors")
            if line.isspace():
                continue
            try:
                value = orjson.loads(line)
            except orjson.JSONDecodeError:
                try:
                    value = json.loads(line)  # reads NaN, too, which has an error of its own
                except (ValueError, RecursionError):
                    raise self._wrong(f"it wrote a line that is not JSON: {line[:100]!r}") from None
            if isinstance(value, dict) and value.get("error"):
                raise refused(f"{value['error']!s:.{_QUOTED_CHARS_MAX}}")
            vectors.append(value.get("vector") if isinstance(value, dict) else value)
        return vectors

    def _end(self, process: subprocess.Popen[bytes], expired: threading.Event) -> None:
        assert process.stdout is not None
        if process.stdout.read(1).strip():
            raise self._wrong("it wrote more lines than it was given texts")
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_END_S)
        if process.returncode:
            raise self._failed(process, expired, "it failed")

    def _failed(self, process: subprocess.Popen[bytes], expired: threading.Event, why: str) -> VecError:
        if expired.is_set():
            return VecError(
                Code.EMBEDDER_FAILED,
                f"the program {self._arguments[0]!r}: it has not answered within {self._timeout_s:g} s",
                "see the daemon's log for its messages; the parameter timeout_s gives it more time",
            )
        try:
            status = process.wait(_END_S)
        except subprocess.TimeoutExpired:
            return self._wrong(why)
        ended = f"signal {-status}" if status < 0 else f"status {status}"
        return self._wrong(f"{why}, and ended with {ended}")

    def _wrong(self, why: str) -> VecError:
        return refused(f"the program {self._arguments[0]!r}: {why} (the daemon's log has its messages)")


def _encodable(text: str) -> str:
    """Lone surrogates are no UTF-8."""
    return text.encode("utf-8", "replace").decode()


def _kill(process: subprocess.Popen[bytes]) -> None:
    """Kills it and what it has started: a child of it may hold the pipes."""
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)


def _close(process: subprocess.Popen[bytes]) -> None:
    """Reaps a process that has ended, or is to end."""
    for pipe in (process.stdin, process.stdout):
        with contextlib.suppress(BrokenPipeError, OSError):
            if pipe is not None:
                pipe.close()
    try:
        process.wait(_END_S)
    except subprocess.TimeoutExpired:
        _kill(process)
        process.wait()


def _check(parameters: Mapping[str, Any]) -> None:
    check_shared(parameters)
    try:
        arguments = shlex.split(parameters["command"])
    except ValueError as error:
        raise VecError(
            Code.INVALID_REQUEST, f"the command cannot be split into words: {error}", field="command"
        ) from error
    if not arguments or "\0" in parameters["command"]:
        raise VecError(Code.INVALID_REQUEST, "the command is empty or has a NUL character", field="command")
    program = arguments[0]
    if "/" in program and not os.path.isabs(program):
        raise VecError(
            Code.INVALID_REQUEST, f"the program has the relative path {program!r:.200}",
            "use an absolute path: the daemon has another working folder", field="command",
        )  # fmt: skip
    if shutil.which(program) is None:
        raise VecError(
            Code.INVALID_REQUEST, f"the program {program!r:.200} is not there, or is not executable",
            "use an absolute path to an executable file", field="command",
        )  # fmt: skip


EMBEDDER: Final = EmbedderKind(
    "a program of yours: NDJSON in, vectors out",
    Command,
    None,
    slow=True,
    here=True,
    parameters={
        "command": Parameter("the program and its arguments, in the syntax of a shell", str, required=True),
        **SHARED,
        "keep": Parameter("whether the program is kept running for the next batch", bool, default=False),
        "timeout_s": Parameter("how long it may take for a batch", float, low=0.1, high=500.0, default=120.0),
    },
    check=_check,
)
