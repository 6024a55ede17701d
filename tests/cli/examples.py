"""Runs the examples of a text: what stands behind its prompts, in a shell, on an instance of its own.

A block of examples is one script. What shell and network would need of other machines is replaced, visibly, by
REPLACED; what nobody can run here is NOT_RUN, with its reason. All else runs as printed.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from tests.support.instance import BIN, Instance

#: A part of a command -> why it does not run here.
NOT_RUN = {
    "systemctl": "needs a session of systemd",
    "ssh ": "needs another machine",
    "vec.example.org": "needs another machine",
    "celery -A": "needs a broker; tests/workers runs it",
    "executor = ": "needs a broker; tests/workers runs it",
    "vec demo": "has a test of its own, and takes long",
    "redis-cli": "needs a broker; tests/connectors runs it",
    "vec relay reset live": "continues the example with redis-cli",
    "embedder openai": "needs a server of embeddings; tests/text runs it",
    "http://server": "needs another machine",
    "localhost:11434": "needs a server of embeddings; tests/text runs it",
}

#: A command -> its exit status, where that is not 0.
EXIT_STATUS = {"vec watch -n 1 --type document.added --timeout 10": 124}  # no document is added meanwhile

#: What is printed -> what runs.
REPLACED = {
    "/backup/": "{folder}/backup/",
    "/tmp/look": "{folder}/look",
    "/etc/vec/": "{folder}/etc/",
    "/run/user/1000/vec/": "{folder}/",
    "http://localhost:8000": "{url}",
    "0.0.0.0:8000": "127.0.0.1:0",
}

#: Commands that go on until they are stopped: it is enough that they do not fail at once.
_ENDLESS = re.compile(
    r"^(?:VEC_\w+=\S+ )?(?:vec watch(?!.*(?:--no-follow|--timeout|--flush| -n \d))|vec serve|vec worker|vecd|curl -N)"
)
#: How long such a command runs.
_ENDLESS_S = 2.0
#: The longest that any other block may take.
_BLOCK_S = 120.0

_HEREDOC = re.compile(r"<< *(\w+)$")


class Block(NamedTuple):
    """The commands of a block of examples."""

    commands: tuple[str, ...]

    @property
    def script(self) -> str:
        return "\n".join(self.commands)


def block_of(text: str) -> Block:
    """The commands of a block: each begins behind a prompt, and goes on while a line is not complete."""
    commands: list[str] = []
    lines = iter(text.splitlines())
    for line in lines:
        match = re.match(r"\s*(?:\w+)?\$ (.*)", line) or re.match(r"\s*((?:vec|cat docs\.ndjson) .*)", line)
        if not match:
            continue  # output
        command = match[1]
        if heredoc := _HEREDOC.search(command):
            for more in lines:
                command += f"\n{more.strip()}"
                if more.strip() == heredoc[1]:
                    break
        while command.endswith(("\\", "|")) or _is_open(command):
            command += f"\n{next(lines)}"
        commands.append(command)
    return Block(tuple(commands))


def _is_open(command: str) -> bool:
    """Whether a quote is not closed yet."""
    return subprocess.run(["bash", "-n", "-c", command], capture_output=True, check=False).returncode != 0


class World:
    """An instance with a few documents, files and programs that examples name, and a gateway if they need one."""

    def __init__(self, instance: Instance, folder: Path, examples: str) -> None:
        """`examples` are all commands that are to run."""
        self.instance, self.folder = instance, folder
        path = f"{folder}/bin{os.pathsep}{BIN}{os.pathsep}{os.environ['PATH']}"
        self.environment = {**instance.environment, "HOME": str(folder), "PATH": path}
        self._prepare(examples)
        self.url = self._served() if "localhost:8000" in examples else ""

    def _served(self) -> str:
        """Runs `vec serve` as printed, on a port that is free; its URL."""
        self.instance.environment["VEC_HTTP_LISTEN"] = "127.0.0.1:0"
        process = self.instance.spawn("serve", text=True)
        assert process.stdout is not None
        return str(json.loads(process.stdout.readline())["url"])

    def _prepare(self, examples: str) -> None:
        for name in ("backup", "etc", "try", "notes", "wiki", "src", ".config/vec"):
            (self.folder / name).mkdir(parents=True)
        for name in ("etc/webhook-secret", "etc/kafka-password", ".vec-password"):
            (self.folder / name).write_text("secret\n")
            (self.folder / name).chmod(0o600)
        for name, text in FILES.items():
            (self.folder / name).write_text(text)
        subprocess.run(["gzip", "-k", "books.csv", "big.ndjson", "archive.mbox"], cwd=self.folder, check=True)
        (self.folder / "notify").chmod(0o755)
        if "papers.parquet" in examples:
            import pyarrow
            from pyarrow import parquet

            rows = [{"id": "p", "abstract": "on logs", "embedding": [0.0, 1.0]}]
            parquet.write_table(pyarrow.Table.from_pylist(rows), self.folder / "papers.parquet")
        self.instance.vec("status")
        with self.instance.connect() as client:
            for number in range(6):  # so that the next job is number 7, as in vec-jobs(1)
                client.submit_job("noop", unique=str(number))
            client.ingest(DOCUMENTS, create=True)
            for library, documents in LIBRARIES.items():
                if f"library create {library}" not in examples:
                    client.ingest(documents, library, create=True)
            with client.watch("beginning", consumer="mirror", follow=False):
                pass
        if "backup /backup" not in examples:
            self.instance.vec("backup", str(self.folder / "backup/vec.db"))

    def run(self, block: Block) -> None:
        """Runs a block. Raises AssertionError if a command fails."""
        commands = [self._replaced(each) for each in block.commands if each != "vec serve"]
        endless = [each for each in commands if _ENDLESS.match(each)]
        with contextlib.ExitStack() as running:
            if not endless:
                running.enter_context(self._script("\n".join(commands), endless=False))
                return
            for command in commands:  # one that goes on does so while those behind it run
                running.enter_context(self._script(command, endless=command in endless))

    def _replaced(self, command: str) -> str:
        for printed, runs in REPLACED.items():
            command = command.replace(printed, runs.format(folder=self.folder, url=self.url))
        return command

    @contextlib.contextmanager
    def _script(self, script: str, *, endless: bool) -> Iterator[None]:
        """A script that has ended well, or goes on as it should; its processes end with the context."""
        with tempfile.TemporaryFile("w+") as out:
            process = subprocess.Popen(
                ["bash", "-c", f"set -emo pipefail\n{script}"],
                cwd=self.folder, env=self.environment, stdin=subprocess.DEVNULL, stdout=out, stderr=out,
                start_new_session=True,
            )  # fmt: skip
            try:
                status = self._status(process, out.fileno(), script, endless)
                if status is None and endless:
                    yield
                    return
                out.seek(0)
                told = f"{script}\nexit status {status}: {out.read()}"
                assert status == EXIT_STATUS.get(script, 0), told
                yield
            finally:
                for child in _session(process.pid):
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(child, signal.SIGTERM)
                process.wait(60)

    def _status(self, process: subprocess.Popen[bytes], out: int, script: str, endless: bool) -> int | None:
        """The exit status; None if it goes on for too long, or, if it may go on, has begun to write."""
        short = endless and not script.startswith("vec serve")  # which writes when it is ready
        deadline = time.monotonic() + (_ENDLESS_S if short else _BLOCK_S)
        while time.monotonic() < deadline:
            with contextlib.suppress(subprocess.TimeoutExpired):
                return process.wait(0.05)
            if endless and os.fstat(out).st_size:
                return None
        return None

    def close(self) -> None:
        """Stops the daemons of other homes that examples have started."""
        for home in ("look", "try"):
            environment = {**self.environment, "VEC_HOME": str(self.folder / home)}
            subprocess.run([BIN / "vec", "daemon", "stop"], env=environment, capture_output=True, check=False)


def _session(session: int) -> Iterator[int]:
    """The processes of a session: with `set -m` each pipeline is a process group of its own."""
    for name in os.listdir("/proc"):
        if name.isdecimal():
            try:
                if os.getsid(int(name)) == session:
                    yield int(name)
            except OSError:
                continue


DOCUMENTS: list[dict[str, Any]] = [
    {"id": "logs", "text": "rotate the logs every night", "metadata": {"topic": "ops", "year": 2019, "tags": ["new"]}},
    {"id": "mail", "text": "forward the mail of the office", "metadata": {"topic": "office", "year": 2024}},
]

#: Libraries that examples name, unless they create them.
LIBRARIES: dict[str, list[dict[str, Any]]] = {
    "notes": DOCUMENTS[:1],
    "a": DOCUMENTS[:1],
    "b": DOCUMENTS[:1],
    "points": [{"id": "p", "vector": [0.0, 0.0, 1.0]}],
}

#: Files that examples name.
FILES: Mapping[str, str] = {
    "docs.ndjson": '{"id": "one", "text": "a text"}\n{"id": "two", "text": "another text"}\n',
    "documents.ndjson": '{"id": "one", "text": "a text"}\n',
    "notes.txt": "rotate the logs\n\nforward the mail\n",
    "pages.json": '[{"url": "/a", "subject": "A page", "body": "its text"}]\n',
    "books.csv": "isbn,title,blurb\n1,A book,about logs\n",
    "dead-letters.ndjson": '{"events": [{"seq": 1}]}\n',
    "notes/tides.md": "# Tides\n\nHigh tide is at noon.\n",
    "notes/log.md": "# Logs\n\nRotate the logs every night.\n",
    "wiki/start.md": "# Start\n\nThis is a wiki.\n",
    "README.md": "# A project\n\nIt rotates logs.\n",
    "src/main.py": 'def main():\n    """Rotates the logs."""\n',
    "archive.mbox": "From me Mon Jan  1 00:00:00 2024\nMessage-ID: <1@example.org>\nSubject: Logs\n\nRotate them.\n\n",
    "big.ndjson": '{"id": "big", "text": "a text"}\n',
    "notify": "#!/bin/sh\ncat > /dev/null\n",
    "try/config.toml": 'embedder = "hash"\n',
    "try/vecd.log": "",
}
