"""The crash loop: load, `kill -9`, restart, check; repeated.

A round is one run of the daemon. It is killed at a named point (points.py), or at a random time. After each start the
loop checks the log, the tables, the writers' documents, the consumer and the searches; at the end of an epoch, when the
jobs have ended, everything. Each epoch has its own store, so that its log can be replayed from the beginning: a
consumer records all of it, and prevents trims of what it has not recorded.
"""

from __future__ import annotations

import contextlib
import gzip
import json
import random
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, cast

import apsw

from tests.support import history, recorder
from tests.support.instance import Instance
from tests.support.waiting import until
from tests.support.watch_history import Log, Watcher
from tests.support.watch_history import check as check_feed
from vecd.client import Client

from . import checker, points
from .checker import Content, Event, Replay, State, content
from .load import LOG, WORKER, Load, create_libraries, vector_of
from .ranking import Ranked

MODULE: Final = "tests.crash.vecd"
#: The name of a kill without a point.
RANDOM: Final = "random"
#: How long to wait until a point is reached; then the daemon is killed anyway.
_ROUND_S = 2.0
#: Timeout of the jobs of an epoch; far more than they need.
_SETTLE_S = 180.0
#: Shares of rounds that kill the daemon at a random time, and that arm the point before the daemon starts.
_RANDOM_SHARE, _EARLY_SHARE = 0.15, 0.1


@dataclass
class Tally:
    """Statistics of a loop."""

    kills: Counter[str] = field(default_factory=Counter)  # by point
    missed: Counter[str] = field(default_factory=Counter)  # points that were not reached in time
    events: int = 0
    acked: int = 0  # writes
    jobs: int = 0
    trimmed_over: int = 0  # subscriptions whose position was trimmed

    @property
    def total(self) -> int:
        return self.kills.total()


@dataclass(frozen=True)
class _Recorder:
    """A watcher in a separate process."""

    name: str
    fields: dict[str, Any]
    wants: Callable[[Event, Event], Event | None]
    hold: str | None = None


def _bare(event: Event) -> Event:
    data = {key: value for key, value in event["data"].items() if key not in ("document", "replaced")}
    return {**event, "data": data}


_RECORDERS: Final = (
    _Recorder("log", {"payload": True}, lambda event, _: event, LOG),
    _Recorder(
        "texts", {"libraries": ["texts"]}, lambda event, _: _bare(event) if event["library"] == "texts" else None
    ),
    _Recorder("jobs", {"types": ["job.*"]}, lambda event, _: event if event["type"].startswith("job.") else None),
)


class Epoch:
    """One store, from its creation to its last check. A context manager."""

    def __init__(
        self, chance: random.Random, library: Path, folder: Path, tally: Tally, only: Sequence[str] | None = None
    ) -> None:
        self._chance = chance
        self._tally = tally
        self._only = only
        self._folder = folder  # of jobs' output and recordings
        self._control = points.Control(folder / "control")
        files = folder / "files"
        files.mkdir()
        self._files = files
        self._instance = Instance(
            {"VEC_EMBEDDER": "hash", "LD_PRELOAD": str(library), "VEC_CRASH": str(self._control.path)}
        )
        self._load = Load(chance, files)
        self._replay = Replay()
        self._events: list[Event] = []  # recorded, but not replayed yet
        self._recorded = 0  # bytes of the recorder's file that have been read
        self._processes: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> Epoch:
        self._daemon = self._instance.start(module=MODULE)
        with self._instance.connect() as client:
            next(client.pages("watch", consumer=LOG, **{"from": "beginning"}))
            create_libraries(client)
        foreign = ("LD_PRELOAD", "VEC_CRASH")
        environment = {key: value for key, value in self._instance.environment.items() if key not in foreign}
        for each in _RECORDERS:
            command = [sys.executable, "-m", "tests.support.recorder", str(self._folder / each.name)]
            command += [json.dumps(each.fields), *([each.hold] if each.hold else [])]
            self._processes.append(subprocess.Popen(command, env=environment))
        return self

    def __exit__(self, *_: object) -> None:
        for process in self._processes:
            process.kill()
            process.wait()
        self._instance.__exit__()
        self._control.close()

    # --- rounds -----------------------------------------------------------------------------------------------------

    def round(self) -> None:
        """One round: load, kill, start, check."""
        chance = self._chance
        by_chance = not self._only and chance.random() < _RANDOM_SHARE
        point = RANDOM if by_chance else chance.choice(self._only or list(points.POINTS))
        early = point != RANDOM and (point == "job.recover" or chance.random() < _EARLY_SHARE)
        lifetime = chance.uniform(0.02, 0.6) if point == RANDOM or early else _ROUND_S
        if point != RANDOM and not early:
            self._control.arm(point, points.kill_count(point, chance))
        self._load.submitter.point = point
        self._load.run(self._instance)
        if not _ends(self._daemon, lifetime):
            self._tally.missed.update([point] if point != RANDOM and not early else [])
            point = point if early else RANDOM
            self._daemon.kill()
        self._reap()
        self._load.join()
        self._tally.kills[RANDOM if early else point] += 1
        self._control.disarm()
        if early:
            self._control.arm(point, chance.randint(1, max(1, points.POINTS[point] // 10)))
            self._start_and_die(point)
        self._start()
        self.check()

    def _reap(self) -> None:
        status = self._daemon.wait(60)
        assert status == -signal.SIGKILL, f"the daemon ended with {status}: {self._instance.log()}"

    def _start(self) -> None:
        self._daemon = self._instance.start(module=MODULE)

    def _start_and_die(self, point: str) -> None:
        """Starts the daemon with an armed point: it may die before it is ready, soon after, or not at all."""
        try:
            self._start()
        except AssertionError as failure:
            if f"({-signal.SIGKILL})" not in str(failure):
                raise  # it could not start
        else:
            if not _ends(self._daemon, self._chance.uniform(0, 0.3)):
                self._daemon.kill()
            self._reap()
        if self._control.armed:
            self._tally.missed[point] += 1
            point = RANDOM
        self._tally.kills[point] += 1
        self._control.disarm()

    # --- after each start -------------------------------------------------------------------------------------------

    def check(self) -> None:
        """Checks everything that can be checked while jobs run."""
        with self._instance.connect() as client:
            seq, there = _tables(client)
            self._replay_to(seq)
            checker.check_tables(self._replay.state, there, "the snapshot")
            for writer in self._load.writers:
                own = f"w{writer.number}-"
                writer.check(
                    {
                        (library, document_id): document
                        for library in ("texts", "vectors")
                        for document_id, document in there[library].items()
                        if document_id.startswith(own)
                    }
                )
            checker.check_jobs(self._replay, self._load.submitter.wanted)
            consumer = self._load.consumer
            there_at = {each["name"]: each["seq"] for each in client.consumers()}.get(WORKER, 0)
            checker.check_consumer(WORKER, consumer.acked, consumer.sent, there_at)
            consumer.acked = consumer.sent = there_at
            oldest = recorder.seq_of(client.status()["oldest"])
            if oldest < self._load.submitter.horizon:
                raise checker.Broken("acked", f"a trim up to {self._load.submitter.horizon} is undone: {oldest}")
            self._check_searches(client, "vectors")
            if dead := [job["job_id"] for job in client.jobs(states=["dead"]) if job["error"]["code"] == "crashed"]:
                client.retry_jobs(dead)

    def _replay_to(self, seq: int) -> None:
        """Replays the recorded events up to `seq`."""
        path = self._folder / "log"
        until(lambda: recorder.reached(path) >= seq, "the recorder to come to the head")
        with open(path, "rb") as file:
            file.seek(self._recorded)
            data = file.read()
        data = data[: data.rfind(b"\n") + 1]
        self._recorded += len(data)
        for line in data.splitlines():
            self._events += json.loads(line).get("events", ())
        place = 0
        while place < len(self._events) and self._events[place]["seq"] <= seq:
            self._replay.take(self._events[place])
            place += 1
        del self._events[:place]
        assert self._replay.seq == seq

    def _check_searches(self, client: Client, library: str) -> None:
        """Compares searches in all modes, exact and approximate, with brute force. No other client may write to the
        library."""
        listed = [document["id"] for document in client.items("list", "documents", library=library)]
        documents = [each for each in client.get(listed, library, vectors=True) if each is not None]
        assert len(documents) == len(listed)
        ranked = Ranked(documents)
        count = len(ranked.vectors)
        for _ in range(2):
            query = " ".join(self._chance.sample(("apple", "river", "stone", "cloud", "ember", "still"), 2))
            vector = vector_of(self._chance.randrange(1_000)) if library == "vectors" else ranked.embedded(query)
            near = checker.cosines(vector, ranked.vectors)
            worded = ranked.worded(query)

            def hits(mode: str, k: int, **fields: Any) -> list[dict[str, Any]]:
                own: dict[str, Any] = {"vector": vector} if library == "vectors" and mode != "text" else {}  # noqa: B023
                asked = None if own and mode == "vector" else query  # noqa: B023
                found = client.search(asked, k=k, library=library, mode=mode, group_by="chunk", **own, **fields)
                return list(found)

            def pairs(found: list[dict[str, Any]]) -> list[tuple[str, float]]:
                return [(hit["chunk_id"], hit["score"]) for hit in found]

            for k in (10, count + 10):
                checker.check_hits(f"{library}: vector, exact, {k}", pairs(hits("vector", k, exact=True)), near, k)
            checker.check_hits(f"{library}: vector", pairs(hits("vector", 10)), near, 10, exact=False)
            for k in (10, count + 10):
                checker.check_hits(f"{library}: text, {k}: {query}", pairs(hits("text", k)), worded, k)
            ranked.check_hybrid(query, hits("hybrid", 50, exact=True, explain=True), near, worded, 50)

    # --- at the end -------------------------------------------------------------------------------------------------

    def finish(self) -> None:
        """Waits until all jobs have ended, and checks everything."""
        with self._instance.connect() as client:
            client.request("schedule.remove", name="minutely")
            _settle(client)
            client.wait_for_jobs([client.submit_job("verify")["job_id"]], timeout_s=_SETTLE_S)
            seq, there = _tables(client)
            self._replay_to(seq)
            checker.check_tables(self._replay.state, there, "the snapshot")
            listed = {}
            for name in there:
                ids = [document["id"] for document in client.items("list", "documents", library=name)]
                listed[name] = {each["id"]: content(each) for each in client.get(ids, name) if each is not None}
                assert client.count(name)["documents"] == len(ids)
            checker.check_tables(self._replay.state, listed, "get")
            chunks = history.tables(client)
            for name in ("vectors", "texts"):
                self._check_searches(client, name)
            jobs = [client.job(job["job_id"]) for job in client.jobs()]
            fields = {"from": "beginning", "payload": True, "follow": False, "on_gap": "oldest"}
            pages = [page.body for page in client.pages("watch", **fields) if page.kind == "items"]
            left = [event for page in pages for event in page]
            # Searches measure recall, and an index may be built: both may be logged while the daemon is idle.
            until(lambda: recorder.reached(self._folder / "log") >= (left[-1]["seq"] if left else seq), "the recorder")
            library_ids = self._library_ids()
        checker.check_jobs(self._replay, self._load.submitter.wanted)
        checker.check_jobs_table(self._replay, jobs)
        self._check_steps(jobs)
        events = self._check_feed()
        checker.check_log(events, seq, left)
        assert history.replayed(map(_bare, events)) == chunks
        self._check_files(events, jobs, library_ids)
        self._check_log_file()
        self._tally.events += seq
        self._tally.jobs += len(jobs)
        self._tally.acked += sum(writer.answered for writer in self._load.writers)

    def _library_ids(self) -> set[int]:
        with contextlib.closing(self._read_only(self._instance.settings.store)) as db:
            return {each for (each,) in db.execute("SELECT library_id FROM libraries WHERE deleted_seq IS NULL")}

    @staticmethod
    def _read_only(path: Path) -> apsw.Connection:
        return apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READONLY)

    def _check_steps(self, jobs: list[dict[str, Any]]) -> None:
        for job in jobs:
            if job["kind"] == "ledger":
                ids = [f"{job['job_id']}-{n}" for n in range(1, job["params"]["steps"] + 1)]
                checker.check_steps(self._replay, "ledger", str(job["job_id"]), ids, job["state"] == "completed")
            elif job["kind"] == "ingest":
                key = Path(job["params"]["files"][0]).stem
                ids = self._load.submitter.files[key]
                checker.check_steps(self._replay, "files", key, ids, job["state"] == "completed")

    def _check_feed(self) -> list[Event]:
        """Checks the six guarantees for each recorder; returns the whole log."""
        subscriptions = {each.name: recorder.read(self._folder / each.name) for each in _RECORDERS}
        log = Log([event for each in subscriptions["log"] for frame in each.frames for event in frame.events])
        for each in _RECORDERS:
            check_feed(log, Watcher(each.name, each.wants, subscriptions[each.name]))
            self._tally.trimmed_over += sum(one.compacted is not None for one in subscriptions[each.name])
        return log.events

    def _check_files(self, events: list[Event], jobs: list[dict[str, Any]], library_ids: set[int]) -> None:
        home = self._instance.home
        there = [str(path.relative_to(home)) for path in home.rglob("*") if path.is_file() or path.is_socket()]
        made = {path.name for path in self._files.iterdir()}
        inputs = {f"{key}.ndjson" for key in self._load.submitter.files}
        paths = {job["job_id"]: Path(job["params"]["path"]).name for job in jobs if "path" in job["params"]}
        failed = {job["job_id"] for job in jobs if job["state"] in ("failed", "dead")}
        unfinished = {f".{name}.job-{job_id}" for job_id, name in paths.items() if job_id in failed}
        checker.check_files(there, library_ids, made - inputs, {*paths.values(), *unfinished})
        copies = [job for job in jobs if job["kind"] in ("export", "backup") and job["state"] == "completed"]
        for job, state in _states(events, copies):
            path = Path(job["params"]["path"])
            what = f"{path.name} of job {job['job_id']}"
            if job["kind"] == "export":
                checker.check_copy(what, _exported(path), state[job["library"]])
                continue
            with contextlib.closing(self._read_only(path)) as db:
                copy = _stored(db)
            if copy.keys() != state.keys():
                raise checker.Broken("files", f"{what}: it has the libraries {sorted(copy)}, not {sorted(state)}")
            for name in state:
                checker.check_copy(f"{what}, {name}", copy[name], state[name])

    def _check_log_file(self) -> None:
        text = self._instance.settings.log.read_text("utf-8", "replace")
        for pattern in ("Traceback", "level=critical", "level=error", "damaged"):
            found = re.search(rf"^.*{pattern}.*$", text, re.MULTILINE)
            if found and "job failed" not in found[0] and "level=warning" not in found[0]:
                raise checker.Broken("log", f"the daemon's log says {text[found.start() : found.end() + 1500]}")


def _ends(daemon: subprocess.Popen[bytes], within_s: float) -> bool:
    try:
        daemon.wait(within_s)
    except subprocess.TimeoutExpired:
        return False
    return True


def _settle(client: Client) -> None:
    """Waits until all jobs have ended; retries those that kills have ended."""
    deadline = time.monotonic() + _SETTLE_S
    while True:
        if dead := [job["job_id"] for job in client.jobs(states=["dead"]) if job["error"]["code"] == "crashed"]:
            client.retry_jobs(dead)
        active = [job["job_id"] for job in client.jobs(states=["pending", "running"])]
        if not active and not dead:
            return
        assert time.monotonic() < deadline, f"the jobs {active} do not end"
        client.wait_for_jobs(active[:1_000], timeout_s=_SETTLE_S)


def _tables(client: Client) -> tuple[int, State]:
    """The stored state as of one seq."""
    state: State = {}
    with contextlib.closing(client.watch("now", snapshot=True, payload=True, follow=False)) as events:
        for event in events:
            kind, name, data = event["type"], event["library"], event["data"]
            if kind == "snapshot.library":
                state[name] = {}
            elif kind == "snapshot.document":
                state[name][data["id"]] = content(data["document"])
            else:
                assert kind == "snapshot.end"
                return int(event["seq"]), state
    raise AssertionError("a snapshot without an end")


def _states(events: list[Event], jobs: list[dict[str, Any]]) -> Iterator[tuple[dict[str, Any], State]]:
    """Each job, with the replayed state at the seq of its result."""
    replay, place = Replay(), 0
    for job in sorted(jobs, key=lambda each: int(each["result"]["seq"])):
        while place < len(events) and events[place]["seq"] <= job["result"]["seq"]:
            replay.take(events[place])
            place += 1
        yield job, replay.state


def _exported(path: Path) -> dict[str, Content]:
    data = path.read_bytes()
    lines = gzip.decompress(data) if path.suffix == ".gz" else data
    documents = [json.loads(line) for line in lines.splitlines()]
    return {document["id"]: content(document) for document in documents}


def _stored(db: apsw.Connection) -> State:
    """The documents in a store's file."""
    if db.execute("PRAGMA integrity_check").get != "ok":
        raise checker.Broken("files", f"{db.filename} is damaged")
    alive = db.execute("SELECT library_id, name FROM libraries WHERE deleted_seq IS NULL")
    names = {cast(int, library_id): cast(str, name) for library_id, name in alive}
    state: State = {name: {} for name in names.values()}
    rows: list[Any] = db.execute(
        "SELECT label, library_id, id, title, metadata, chunks FROM documents WHERE removed_seq IS NULL"
    ).fetchall()
    for label, library_id, document_id, title, metadata, chunks in rows:
        its = (label, label + chunks - 1)
        texts = db.execute("SELECT text FROM chunks WHERE label BETWEEN ? AND ? ORDER BY label", its)
        if library_id in names:
            document = {"title": title, "texts": [text for (text,) in texts], "metadata": json.loads(metadata)}
            state[names[library_id]][document_id] = content(document)
    return state


def run(
    kills: int,
    seed: int,
    library: Path,
    folder: Path,
    epoch_kills: int,
    on_round: Callable[[Tally], None],
    tally: Tally,
    only: Sequence[str] | None = None,
) -> None:
    """Kills the daemon `kills` times, `epoch_kills` per epoch, at any point or at the `only` ones; calls
    `on_round` after each round. Raises AssertionError."""
    chance = random.Random(seed)
    number = 0
    while tally.total < kills:
        own = folder / str(number)
        own.mkdir()
        with Epoch(random.Random(chance.getrandbits(64)), library, own, tally, only) as epoch:
            end = min(kills, tally.total + epoch_kills)
            while tally.total < end:
                epoch.round()
                on_round(tally)
            epoch.finish()
        number += 1
