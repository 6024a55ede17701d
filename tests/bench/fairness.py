"""Small requests beside bulk loads: a one-line ingest, a delete of one id and a search, all in a small library, while
another connection or a job works on a large one. Wanted: each is answered within 100 ms at p99, beside every load.

The loads run in processes of their own (`vec`), the small requests one after the other on one connection. `idle` is the
same without a load. Arguments choose loads: `python -m tests.bench.fairness long backup`.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from tests.bench.measure import sentences
from tests.support.instance import Instance
from vecd.client import Client

_LONG, _LONG_WORDS = 600, 6_000
_SHORT = 100_000
_CHUNKS = 5_000
_WORDS_A_CHUNK = 60
#: Small requests of each kind beside one load; a load that lasts longer is given up.
_ROUNDS = 400
_IDS_A_REQUEST = 10_000

Times = dict[str, list[float]]


class _World:
    """A daemon with a small library, a large one, and the files that are loaded."""

    def __init__(self, instance: Instance, folder: Path) -> None:
        self.instance, self.folder = instance, folder
        self.long = self._file("long", _LONG, _LONG_WORDS)
        self.short = self._file("short", _SHORT, 14)

    def _file(self, name: str, documents: int, words: int) -> Path:
        path = self.folder / f"{name}.ndjson"
        with open(path, "w", encoding="utf-8") as file:
            for number, text in enumerate(sentences(documents, words)):
                file.write(json.dumps({"id": f"{name}-{number}", "text": text, "metadata": {"n": number}}) + "\n")
        return path

    def fill(self, client: Client) -> None:
        """Puts the short documents back into the large library, and waits until its index is at rest."""
        if client.count("large")["documents"] < _SHORT:
            self.instance.vec("ingest", "--library", "large", str(self.short), timeout_s=600)
        list(client.search("log index", library="large", k=1))
        while any(each["memory"].get("maintenance") for each in client.status()["libraries"]):
            time.sleep(0.2)

    def process(self, *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
        process = self.instance.spawn(*arguments, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        yield process
        process.kill()
        process.wait()
        assert process.stderr is not None
        process.stderr.close()


def _ingest(path: Callable[[_World], Path]) -> Callable[[_World], Any]:
    return lambda world: world.process("ingest", "--library", "bulk", str(path(world)))


def _job(*arguments: str) -> Callable[[_World], Any]:
    return lambda world: world.process("jobs", "submit", "--wait", "--library", "large", *arguments)


def _script(code: str) -> Callable[[_World], Iterator[subprocess.Popen[bytes]]]:
    """A load that no command makes: requests from a process of its own; `client` is connected."""

    def run(world: _World) -> Iterator[subprocess.Popen[bytes]]:
        program = (
            "import sys\nfrom pathlib import Path\nfrom vecd.client import Client\n"
            "from vecd.client.discovery import connect_socket\n"
            "from vecd.settings import load\nfrom tests.bench.measure import sentences\n"
            f"client = Client(connect_socket(load()), timeout_s=None)\n{code}\n"
        )
        process = subprocess.Popen([sys.executable, "-c", program], env=world.instance.environment)
        yield process
        process.kill()
        process.wait()

    return run


_ONE_LARGE = f"""
for turn in range(20):
    texts = sentences({_CHUNKS}, {_WORDS_A_CHUNK}, seed=turn)
    client.ingest([{{"id": "one", "texts": texts}}], "bulk")
"""
_DELETE_IDS = f"""
for start in range(0, {_SHORT}, {_IDS_A_REQUEST}):
    client.delete([f"short-{{n}}" for n in range(start, start + {_IDS_A_REQUEST})], "large")
"""

LOADS: dict[str, Callable[[_World], Any]] = {
    "idle": lambda world: iter([None]),
    "long": _ingest(lambda world: world.long),
    "short": _ingest(lambda world: world.short),
    "one-large": _script(_ONE_LARGE),
    "reembed": _job("reembed", "--param", "embedder=hash"),
    "rebuild": lambda world: world.process("library", "rebuild", "large"),
    "backup": lambda world: world.process("backup", str(world.folder / "backup.db")),
    "export": lambda world: _job("export", "--param", f"path={world.folder / 'export.ndjson'}")(world),
    "verify": lambda world: world.process("verify"),
    "delete-where": lambda world: world.process("delete", "--library", "large", "--where", "n >= 0"),
    "delete-ids": _script(_DELETE_IDS),
}


def main() -> None:
    wanted = [each for each in sys.argv[1:] if each in LOADS] or list(LOADS)
    with TemporaryDirectory() as folder, Instance() as instance:
        instance.start()
        world = _World(instance, Path(folder))
        with instance.connect() as client:
            for library in ("small", "large", "bulk"):
                client.request("library.create", library=library)
            client.ingest([{"id": f"kept-{n}", "text": text} for n, text in enumerate(sentences(2_000))], "small")
            print(f"  {'beside':<14}{'for':>8}   {'ingest':^24} {'delete':^24} {'search':^24}")
            print(f"  {'':<14}{'':>8}   " + f"{'p50':>7} {'p99':>7} {'max':>7}  " * 3 + "ms")
            for name in wanted:
                if name not in ("idle", "long", "short", "one-large"):
                    world.fill(client)
                _beside(name, world, client)
                client.request("library.delete", library="bulk")
                client.request("library.create", library="bulk")


def _beside(name: str, world: _World, client: Client) -> None:
    load = LOADS[name](world)
    process = next(load)
    began = time.monotonic()
    times: Times = defaultdict(list)
    for turn in range(_ROUNDS):
        _round(client, f"{name}-{turn}", times)
        if process is not None and process.poll() is not None:
            break
    taken_s = time.monotonic() - began
    failed = process is not None and process.poll() not in (None, 0)
    with contextlib.suppress(StopIteration):
        next(load)
    columns = "  ".join(
        " ".join(f"{_at(sorted(times[what]), share):7.1f}" for share in (0.5, 0.99, 1)) for what in times
    )
    print(f"  {name:<14}{taken_s:6.1f} s   {columns}   n={len(times['ingest'])}{' FAILED' * failed}", flush=True)


def _round(client: Client, its_id: str, times: Times) -> None:
    for what, ask in (
        ("ingest", lambda: client.ingest([{"id": its_id, "text": f"a line beside a load {its_id}"}], "small")),
        ("delete", lambda: client.delete([its_id], "small")),
        ("search", lambda: list(client.search("log index vector", library="small", k=10))),
    ):
        started = time.perf_counter()
        ask()
        times[what].append((time.perf_counter() - started) * 1e3)


def _at(ascending: list[float], share: float) -> float:
    return ascending[min(len(ascending) - 1, int(share * len(ascending)))]


if __name__ == "__main__":
    main()
