"""Injects storage faults, one at a time, into a fixed scenario: `python -m tests.crash.faults --help`.

Two attacks, both on the real vecd with faults.c preloaded:

- `fail`: the Nth fsync, write or allocation fails, for every N. Afterwards the store is opened and compared with the
  answers to the client.
- `power`: the scenario is recorded, call by call. Power is lost at any of the calls: data that is not synced is
  dropped, kept or torn. The resulting store is opened and compared with the answers to the client until then.

What must hold: acknowledged writes are stored, others are stored completely or not at all, the log agrees with the
tables, a daemon that continues works, and one that ends exits with status 74. A violation raises AssertionError.
"""

from __future__ import annotations

import argparse
import collections
import os
import random
import shutil
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import apsw

from tests.support.instance import Instance
from vecd.client import Client
from vecd.errors import VecError
from vecd.store import integrity
from vecd.store.database import Database

#: Document id -> text.
State = dict[str, str]

#: Error codes that a storage fault may cause.
_CODES: Final = frozenset(("storage_failed", "disk_full", "connection_lost", "shutting_down", "busy"))
#: The kinds of faults (faults.c), and the calls that are counted for each.
KINDS: Final = {"sync": "S", "io": "W", "torn": "W", "short": "W", "full": "WA", "fullon": "WA"}
_SECTOR: Final = 512
#: In memory if possible: data need not survive a crash of the machine here.
_FOLDERS: Final = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
_HEAD: Final = struct.Struct("<cHQQ")


def built(folder: Path) -> Path:
    """Compiles the library to preload; returns its path."""
    library = folder / "faults.so"
    source = Path(__file__).with_name("faults.c")
    subprocess.run(["cc", "-shared", "-fPIC", "-O1", "-o", library, source, "-ldl", "-lpthread"], check=True)
    return library


# --- the scenario -----------------------------------------------------------------------------------------------------


def _documents(first: int, count: int, version: int) -> State:
    # Long enough that a commit takes several pages, and the file grows.
    return {f"d{number}": f"document {number}, version {version} " * 20 for number in range(first, first + count)}


def _ingest(client: Client, documents: State) -> None:
    client.ingest([{"id": each, "text": text, "vector": b"\0\0\x80?" * 4} for each, text in documents.items()], "w")


def _job(client: Client, kind: str, params: Mapping[str, Any], timeout_s: float) -> None:
    job_id = client.submit_job(kind, dict(params))["job_id"]
    (job,) = client.wait_for_jobs([job_id], timeout_s=timeout_s)
    if job["state"] != "completed":
        raise VecError(job["error"]["code"], job["error"]["message"])


@dataclass(frozen=True)
class Step:
    """One request. `change` applies it to the documents."""

    name: str
    run: Callable[[Client], object]
    change: Callable[[State], State] = lambda state: state


def steps(backup: Path, job_s: float) -> list[Step]:
    """All kinds of writes. Waits for a job for up to `job_s` seconds."""
    first, update, last = _documents(0, 60, 1), _documents(10, 20, 2), _documents(100, 20, 1)
    gone = [f"d{number}" for number in range(5, 15)]

    def create(client: Client) -> None:
        client.request("library.create", library="w", embedder="none", dimension=4, index="flat")

    def search(client: Client) -> None:
        list(client.search("version", library="w", mode="text", k=3))

    return [
        Step("create", create),
        Step("ingest", lambda client: _ingest(client, first), lambda state: {**state, **first}),
        Step("update", lambda client: _ingest(client, update), lambda state: {**state, **update}),
        Step(
            "delete",
            lambda client: client.delete(gone, "w"),
            lambda state: {each: text for each, text in state.items() if each not in gone},
        ),
        Step("job", lambda client: _job(client, "noop", {"steps": 2}, job_s)),
        Step("trim", lambda client: client.request("trim", keep_count=5, wait=True)),
        Step("search", search),
        Step("snapshot", lambda client: _job(client, "snapshot", {}, job_s)),
        Step("backup", lambda client: _job(client, "backup", {"path": str(backup)}, job_s)),
        Step("ingest more", lambda client: _ingest(client, last), lambda state: {**state, **last}),
    ]


def contents(store: Path) -> State:
    """Opens a store like the daemon, checks its consistency, and returns the documents of the library `w`."""
    failures: list[VecError] = []
    database = Database(store, lambda _: None, failures.append)
    database.open()
    try:
        with database.read_transaction() as db:
            problems = [each for table in integrity.tables(db) for each in integrity.integrity(db, table)]
            replayed = integrity.Replayed()
            while replayed.seq < database.head:
                problems += integrity.replay(db, replayed, database.head, 1_000)
            problems += integrity.log_against_tables(db, replayed)
            problems += integrity.documents(db, database.catalogue, -1, 10_000).problems
            assert not problems, problems
            rows = db.execute(
                "SELECT id, text FROM documents JOIN chunks USING (label) JOIN libraries USING (library_id)"
                " WHERE removed_seq IS NULL AND deleted_seq IS NULL AND name = 'w'"
            ).fetchall()
    finally:
        database.close()
    assert not failures, failures
    return {str(each): str(text) for each, text in rows}


# --- one fault at a time ----------------------------------------------------------------------------------------------


@dataclass
class Outcome:
    """The outcome of one fault."""

    fault: str  # "sync 12"
    hit: str = "not reached"  # the file that it hit
    refused: list[str] = field(default_factory=list)  # "step: code"
    end: str = "went on"  # or: exit 74, no start


class Attack:
    """A run of the scenario, with a daemon in a new folder."""

    def __init__(self, library: Path, plan: str | None = None, trace: Path | None = None) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="vec-faults-", dir=_FOLDERS))
        self._plan = self.folder / "plan"
        home = self.folder / "home"
        home.mkdir(mode=0o700)
        environment = {"LD_PRELOAD": str(library), "VEC_FAULT_PLAN": str(self._plan), "VEC_HOME": str(home)}
        if trace is not None:
            environment["VEC_FAULT_TRACE"] = str(trace)
        if plan is not None:
            self._plan.write_text(plan)
        self._trace = trace
        self.instance = Instance(environment)
        self.backup = home / "backups" / "backup.db"  # below VEC_HOME, so that its calls are counted
        self.backup.parent.mkdir()
        self.outcome = Outcome(plan or "none")
        self.states: list[State] = [{}]  # the states that the store may have now
        self.acknowledged: list[tuple[int, State]] = []  # length of the trace, and the state from then on

    def __enter__(self) -> Attack:
        self.instance.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self.instance.__exit__()
        shutil.rmtree(self.folder)

    def run(self) -> Outcome:
        """Runs the scenario. Raises AssertionError for a violation."""
        outcome = self.outcome
        try:
            daemon = self.instance.start()
        except AssertionError:
            daemon = self.instance._children[-1]
            assert daemon.wait(30) == 74, self.instance.log()
            outcome.end = "no start"
        else:
            self._requests()
            if daemon.poll() is None and not any("connection_lost" in each for each in outcome.refused):
                self._goes_on()
                self.instance.vec("daemon", "stop", status=None)
            status = daemon.wait(60)
            assert status in (0, 74), f"exit {status}: {self.instance.log()}"
            outcome.end = "went on" if status == 0 else "exit 74"
        hit = Path(f"{self._plan}.hit")
        if hit.exists():
            outcome.hit = Path(hit.read_text().splitlines()[0]).name
        self._plan.unlink(missing_ok=True)
        return outcome

    def check(self, restart: bool) -> None:
        """Checks that the store agrees with the answers; with `restart`, that a daemon works with it."""
        if restart:
            self.instance.start()
            with self.instance.connect() as client:
                client.request("library.create", library="afterwards", embedder="none")
                job_id = client.submit_job("verify")["job_id"]
                (job,) = client.wait_for_jobs([job_id], timeout_s=60)
                assert job["state"] == "completed", job
            self.instance.vec("daemon", "stop")
        found = contents(self.instance.settings.store)
        assert found in self.states, f"{len(found)} documents, expected {[len(each) for each in self.states]}"

    def _requests(self) -> None:
        try:
            client = self.instance.connect()
        except (VecError, AssertionError):
            self.outcome.refused.append("connect: connection_lost")
            return
        with client:
            full = self.outcome.fault.startswith("fullon")  # then a job begins when there is room, which is never
            for step in steps(self.backup, 2.0 if full else 40.0):
                try:
                    step.run(client)
                except VecError as error:
                    # A library that was not created is not found afterwards.
                    unmade = error.code == "not_found" and "create: disk_full" in self.outcome.refused
                    waits = error.code == "timeout" and full
                    assert error.code in _CODES or unmade or waits, f"{step.name}: {error.code}: {error}"
                    self.outcome.refused.append(f"{step.name}: {error.code}")
                    if error.code in ("disk_full", "timeout"):  # refused, and known to be
                        continue
                    self.states += [step.change(state) for state in self.states]
                    if error.code == "connection_lost":
                        return
                else:
                    self.states = [step.change(state) for state in self.states]
                    self._note()
                    if step.name == "backup":
                        self._check_backup()

    def _note(self) -> None:
        if self._trace is not None:
            self.acknowledged.append((self._trace.stat().st_size, self.states[0]))

    def _check_backup(self) -> None:
        """Checks that a backup that was reported as complete is complete."""
        copy = apsw.Connection(str(self.backup), flags=apsw.SQLITE_OPEN_READONLY)
        try:
            assert copy.execute("PRAGMA integrity_check").get == "ok"
            assert copy.execute("SELECT count(*) FROM documents WHERE removed_seq IS NULL").get in map(len, self.states)
        finally:
            copy.close()

    def _goes_on(self) -> None:
        """Checks that a daemon that has not ended works after the fault."""
        self._plan.unlink(missing_ok=True)
        try:
            client = self.instance.connect()
        except (VecError, AssertionError):  # it ends, and its status is looked at
            return
        with client, suppress(VecError):
            last = {"after": "this was written when the fault was over"}
            try:
                client.request("library.create", library="w", embedder="none", dimension=4, index="flat")
            except VecError as error:
                assert error.code in ("exists", "storage_failed", "connection_lost"), error
            try:
                _ingest(client, last)
            except VecError as error:
                # Only a daemon that ends may refuse: it has met the fault and could not say so yet.
                assert error.code in ("storage_failed", "connection_lost"), error
                self.states += [{**state, **last} for state in self.states]
            else:
                self.states = [{**state, **last} for state in self.states]
                self._note()


def counts(library: Path) -> dict[str, int]:
    """The number of calls in the scenario at which each kind of fault can occur."""
    with tempfile.TemporaryDirectory() as folder, Attack(library, trace=Path(folder) / "trace") as attack:
        outcome = attack.run()
        assert not outcome.refused, outcome
        attack.check(restart=False)
        found = collections.Counter(each.kind for each in traced(Path(folder) / "trace"))
    return {kind: sum(found[each] for each in calls) for kind, calls in KINDS.items()}


def fail(library: Path, fault: str, *, restart: bool) -> Outcome:
    """Runs the scenario with one fault, "kind number"."""
    with Attack(library, plan=fault) as attack:
        try:
            outcome = attack.run()
            attack.check(restart)
        except (AssertionError, VecError, subprocess.TimeoutExpired) as error:
            raise AssertionError(f"fault {fault}: {error!r}, {attack.outcome}, log: {attack.instance.log()}") from error
    return outcome


# --- power loss -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Call:
    """One recorded call. `end` is the length of the trace after it."""

    kind: str  # Write, Allocate, Truncate, Sync, Unlink
    path: str
    offset: int
    count: int
    data: bytes
    end: int


def traced(path: Path) -> Iterator[Call]:
    data = path.read_bytes()
    place = 0
    while place < len(data):
        kind, length, offset, count = _HEAD.unpack_from(data, place)
        place += _HEAD.size
        name = data[place : place + length].decode()
        place += length
        its = data[place : place + count] if kind == b"W" else b""
        place += len(its)
        yield Call(kind.decode(), name, offset, count, its, place)


class Disk:
    """A model of the disk: the store's files as synced, and the calls since then."""

    def __init__(self) -> None:
        self._synced: dict[str, bytearray | None] = {}
        self._waiting: dict[str, list[Call]] = {}

    def apply(self, call: Call) -> None:
        if call.kind == "S":
            for each in self._waiting.pop(call.path, []):
                self._write(self._synced, each)
        else:
            self._waiting.setdefault(call.path, []).append(call)

    def after_power_loss(self, how: str, chance: random.Random) -> dict[str, bytes]:
        """The files after power loss, by name. `how`: data that is not synced is "dropped", "kept", or "torn": each
        sector of each write is kept or dropped at random."""
        files = {path: None if data is None else bytearray(data) for path, data in self._synced.items()}
        for calls in self._waiting.values():
            for call in calls if how != "dropped" else ():
                if how == "kept" or (call.kind != "W" and chance.random() < 0.5):
                    self._write(files, call)
                elif call.kind == "W":
                    for start in range(0, len(call.data), _SECTOR):
                        if chance.random() < 0.5:
                            part = call.data[start : start + _SECTOR]
                            self._write(files, Call("W", call.path, call.offset + start, len(part), part, 0))
        return {Path(path).name: bytes(data) for path, data in files.items() if data is not None}

    @staticmethod
    def _write(files: dict[str, bytearray | None], call: Call) -> None:
        data = files.get(call.path)
        if call.kind == "U":
            files[call.path] = None
            return
        if data is None:
            data = files[call.path] = bytearray()
        end = call.offset + (0 if call.kind == "T" else call.count)
        data.extend(bytes(max(0, end - len(data))))
        if call.kind == "W":
            data[call.offset : end] = call.data
        elif call.kind == "T":
            del data[end:]


class Recorded:
    """A recorded run of the scenario without faults: its calls, and when each state was acknowledged."""

    def __init__(self, library: Path) -> None:
        with tempfile.TemporaryDirectory() as folder, Attack(library, trace=Path(folder) / "trace") as attack:
            outcome = attack.run()
            assert not outcome.refused, outcome
            store = str(attack.instance.settings.store)
            self.calls = [each for each in traced(Path(folder) / "trace") if each.path in (store, f"{store}-wal")]
            self.acknowledged = attack.acknowledged

    def power_loss(self, after: int, how: str, seed: int) -> str:
        """Simulates power loss after `after` calls, opens the resulting store, and returns the outcome."""
        disk = Disk()
        for call in self.calls[:after]:
            disk.apply(call)
        at = self.calls[after - 1].end if after else 0
        following = self.calls[after].end if after < len(self.calls) else None
        acknowledged = [state for size, state in self.acknowledged if size <= at]
        # The one that was under way may be there, or those that end before the store's next call.
        flying = [state for size, state in self.acknowledged if size > at and (following is None or size <= following)]
        later = [state for size, state in self.acknowledged if following is not None and size > following][:1]
        allowed = [acknowledged[-1] if acknowledged else {}, *flying, *later]
        with tempfile.TemporaryDirectory(prefix="vec-power-", dir=_FOLDERS) as folder:
            files = disk.after_power_loss(how, random.Random(seed))
            for name, data in files.items():
                (Path(folder) / name).write_bytes(data)
            try:
                found = contents(Path(folder) / "vec.db")
            except (AssertionError, VecError) as error:
                raise AssertionError(f"power loss after call {after}, {how}, seed {seed}: {error!r}") from error
            assert found in allowed, (
                f"power loss after call {after}, {how}, seed {seed}: {len(found)} documents,"
                f" allowed {[len(each) for each in allowed]}"
            )
        return "all that was answered" if found == allowed[0] else "and what was under way"


# --- the command ------------------------------------------------------------------------------------------------------


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.crash.faults", description=__doc__.splitlines()[0])
    parser.add_argument(
        "--kinds", default=",".join([*KINDS, "power"]), help="sync, io, torn, short, full, fullon, power"
    )
    parser.add_argument("--points", type=int, help="so many of each kind, by chance, and not all")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--fault", help="this one alone, as 'sync 12'")
    parser.add_argument("--no-restart", action="store_true", help="open the store, and do not start a daemon on it")
    arguments = parser.parse_args()
    chance, started = random.Random(arguments.seed), time.monotonic()
    breaches: list[str] = []
    with tempfile.TemporaryDirectory() as folder:
        library = built(Path(folder))
        if arguments.fault:
            print(fail(library, arguments.fault, restart=not arguments.no_restart))
            return
        total = counts(library)
        print("points:", ", ".join(f"{kind} {count}" for kind, count in total.items()), flush=True)
        for kind in arguments.kinds.split(","):
            table: collections.Counter[tuple[str, str, str]] = collections.Counter()
            if kind == "power":
                _power(library, arguments.points, chance, table, breaches)
            else:
                numbers = list(range(1, total[kind] + 1))
                if arguments.points is not None and arguments.points < len(numbers):
                    numbers = sorted(chance.sample(numbers, arguments.points))
                for number in numbers:
                    try:
                        outcome = fail(library, f"{kind} {number}", restart=not arguments.no_restart)
                    except AssertionError as error:
                        breaches.append(str(error))
                        print(f"BREACH {error}", file=sys.stderr, flush=True)
                        continue
                    refused = ", ".join(sorted({each.split(": ")[1] for each in outcome.refused})) or "nothing refused"
                    table[outcome.hit, refused, outcome.end] += 1
            print(f"\n{kind}: {sum(table.values())} points", flush=True)
            for (hit, refused, end), count in sorted(table.items()):
                print(f"  {count:5}  {hit:24} {refused:36} {end}", flush=True)
    print(f"\nbreaches: {len(breaches)}; {time.monotonic() - started:.0f} s, seed {arguments.seed}")
    sys.exit(bool(breaches))


def _power(
    library: Path,
    points: int | None,
    chance: random.Random,
    table: collections.Counter[tuple[str, str, str]],
    breaches: list[str],
) -> None:
    recorded = Recorded(library)
    cuts = [(after, how) for after in range(len(recorded.calls) + 1) for how in ("dropped", "kept", "torn")]
    for after, how in cuts if points is None else chance.sample(cuts, min(points, len(cuts))):
        try:
            table[f"what was not synced {how}", "", recorded.power_loss(after, how, chance.randrange(2**32))] += 1
        except AssertionError as error:
            breaches.append(str(error))
            print(f"BREACH {error}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
