"""An answer is of one moment: the state at one seq, however many transactions it takes and whatever is written then.

The writers always write documents in pairs: one request, two documents with the same version. An answer that holds
two versions of a pair, or half of it, is of two moments.
"""

from __future__ import annotations

import itertools
import json
import os
import signal
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Self

import apsw
import orjson
import pytest

from tests.support.instance import Instance
from tests.support.vectors import create, put
from tests.support.waiting import until
from vecd.client import Client

#: More than two pages of any answer, and the halves of a pair are far from each other.
_PAIRS = 400
_ROUNDS = 12
_VECTOR = b"\0\0\x80?" * 4


@pytest.fixture(scope="module")
def instance() -> Iterator[Instance]:
    with Instance({"VEC_EMBEDDER": "hash"}) as made:
        made.start()
        yield made


@pytest.fixture(scope="module")
def client(instance: Instance) -> Iterator[Client]:
    with instance.connect() as connected:
        yield connected


def pair(number: int, version: int) -> list[dict[str, Any]]:
    """By id one half of all pairs comes first, and then the other half."""
    metadata = {"pair": number, "version": version, "even": version % 2 == 0, "kept": True}
    about = {"vector": _VECTOR, "text": f"the pair {number} in version {version}", "metadata": metadata}
    return [{"id": f"{half}{number:04}", **about} for half in "az"]


class Pairs:
    """Pairs 0 to _PAIRS - 1 are always there, and are updated one after the other, both halves in one request. Further
    pairs come and go, also both halves in one request. Each writer has a connection of its own, until the block ends.
    """

    def __init__(self, instance: Instance, client: Client, library: str) -> None:
        self._instance, self.library = instance, create(client, library, dimension=4)
        self.version = 0
        self._stop = threading.Event()
        self._failures: list[BaseException] = []
        self._threads = [threading.Thread(target=self._run, args=(work,)) for work in (self._update, self._come_and_go)]
        put(client, self.library, (half for number in range(_PAIRS) for half in pair(number, 0)))

    def _run(self, work: Any) -> None:
        try:
            with self._instance.connect() as client:
                for turn in itertools.count(1):
                    work(client, turn)
                    if self._stop.is_set():
                        return
        except BaseException as failure:
            self._failures.append(failure)

    def _update(self, client: Client, turn: int) -> None:
        # Pairs are taken from the end: a reader that goes from the beginning to the end meets them all.
        numbers = range(_PAIRS - 1 - turn % 8, -1, -8)
        flying = []
        for number in numbers:
            # One half is written twice, at first with another version: that is nobody's to see.
            first, second = pair(number, turn)
            documents = [{**first, "metadata": {**first["metadata"], "version": -turn}}, first, second]
            flying.append(client.submit("ingest", library=self.library, documents=documents))
        for pending in flying:
            assert pending.result()["updated"] == 3
        self.version = turn

    def _come_and_go(self, client: Client, turn: int) -> None:
        number = _PAIRS + turn % 50
        documents = pair(number, turn)
        assert client.request("ingest", library=self.library, documents=documents)["added"] == 2
        assert client.delete([each["id"] for each in documents], self.library)["deleted"] == 2

    def check(self, documents: list[dict[str, Any]]) -> None:
        """Both halves of each pair with one version, once, by id; and every pair that is always there."""
        assert not self._failures, self._failures
        ids = [each["id"] for each in documents]
        assert ids == sorted(set(ids))
        halves = [{each["id"][1:]: each["metadata"] for each in documents if each["id"][0] == half} for half in "az"]
        assert halves[0] == halves[1]

    def check_all(self, documents: list[dict[str, Any]]) -> None:
        self.check(documents)
        there = {each["metadata"]["pair"] for each in documents}
        assert there.issuperset(range(_PAIRS)), f"missing: {sorted(set(range(_PAIRS)) - there)[:10]}"

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        until(lambda: self.version > 0 or self._failures, "the first updates")
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()
        if kind is None:
            assert not self._failures, self._failures


def exported(client: Client, library: str, path: Path, where: list[str] | None = None) -> list[dict[str, Any]]:
    params = {"path": str(path), "where": where} if where else {"path": str(path)}
    (job,) = client.wait_for_jobs([client.submit_job("export", params, library=library)["job_id"]])
    assert job["state"] == "completed", job["error"]
    found = [json.loads(line) for line in path.read_text().splitlines()]
    assert job["result"]["documents"] == len(found)
    return found


def hits_by_id(hits: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """As documents of a list; a document that is found twice is there twice."""
    return sorted(
        ({"id": hit["document_id"], "metadata": hit["metadata"]} for hit in hits), key=lambda each: each["id"]
    )


@pytest.mark.parametrize("where", [(), ("kept = true",)])
@pytest.mark.parametrize("mode", ["hybrid", "text", "vector"])
def test_a_search_never_finds_two_versions_of_a_document_and_never_half_a_pair(
    instance: Instance, client: Client, mode: str, where: tuple[str, ...]
) -> None:
    """Vectors and words are read as of one moment: all documents have the same vector and the same word, so each search
    finds all of them by both."""
    words, vector = "pair" if mode != "vector" else None, _VECTOR if mode != "text" else None
    with Pairs(instance, client, f"searched-{mode}-{len(where)}") as pairs:
        for _ in range(2 * _ROUNDS):
            hits = client.search(words, vector=vector, library=pairs.library, k=3 * _PAIRS, mode=mode, where=where)
            pairs.check_all(hits_by_id(hits))


def test_a_list_never_shows_half_a_pair(instance: Instance, client: Client) -> None:
    with Pairs(instance, client, "listed") as pairs:
        for _ in range(_ROUNDS):
            pairs.check_all(list(client.items("list", "documents", library=pairs.library)))


def test_a_filtered_list_shows_all_that_match_before_and_after_an_update(instance: Instance, client: Client) -> None:
    with Pairs(instance, client, "filtered") as pairs:
        for _ in range(_ROUNDS):
            pairs.check_all(list(client.items("list", "documents", library=pairs.library, where=["kept = true"])))
            pairs.check(list(client.items("list", "documents", library=pairs.library, where=["even = true"])))


def test_a_count_never_counts_half_a_pair(instance: Instance, client: Client) -> None:
    with Pairs(instance, client, "counted") as pairs:
        for _ in range(10 * _ROUNDS):
            for where in ([], ["kept = true"]):
                answer = client.count(pairs.library, where=where)
                assert answer["documents"] in (2 * _PAIRS, 2 * _PAIRS + 2)
            assert client.count(pairs.library, where=["even = true"])["documents"] % 2 == 0
            assert client.count(pairs.library, where=[f"pair < {_PAIRS}"])["documents"] == 2 * _PAIRS


def test_a_get_of_many_never_shows_two_versions_of_a_pair(instance: Instance, client: Client) -> None:
    ids = sorted(half["id"] for number in range(_PAIRS) for half in pair(number, 0))
    with Pairs(instance, client, "got") as pairs:
        for _ in range(_ROUNDS):
            found = client.get(ids, pairs.library)
            assert None not in found
            pairs.check_all([each for each in found if each is not None])


@pytest.mark.parametrize("where", [None, ["kept = true"]], ids=["all", "filtered"])
def test_an_export_is_of_one_moment(
    instance: Instance, client: Client, tmp_path: Path, where: list[str] | None
) -> None:
    with Pairs(instance, client, f"exported-{where is None}") as pairs:
        for turn in range(_ROUNDS):
            pairs.check_all(exported(client, pairs.library, tmp_path / f"{turn}.ndjson", where))


# --- while the log is trimmed ---------------------------------------------------------------------------------------


def rows(instance: Instance, library: str) -> int:
    """How many versions of the library's documents are in the store."""
    db = apsw.Connection(str(instance.settings.store), flags=apsw.SQLITE_OPEN_READONLY)
    try:
        sql = "SELECT count(*) FROM documents JOIN libraries USING (library_id) WHERE name = ?"
        return int(db.execute(sql, (library,)).get)
    finally:
        db.close()


@pytest.mark.parametrize("op", ["list", "filtered", "get"])
def test_a_trim_and_a_vacuum_leave_a_slow_answer_whole(instance: Instance, client: Client, op: str) -> None:
    """All is changed and removed, trimmed and vacuumed while the answer has hardly begun to be read."""
    library, count = create(client, f"slow-{op}", dimension=4), 600
    # Together far more than the buffers between us and the daemon hold.
    wide: dict[str, Any] = {"n": 0, "wide": "w" * 20_000}
    before: list[dict[str, Any]] = [
        {"id": f"d{n:03}", "vector": _VECTOR, "metadata": {**wide, "n": n}} for n in range(count)
    ]
    put(client, library, before)
    fields: dict[str, Any] = {
        "list": {},
        "filtered": {"where": ["n >= 0"]},
        "get": {"ids": [each["id"] for each in before]},
    }[op]
    with instance.connect() as slow:
        parts = slow.submit("get" if op == "get" else "list", library=library, **fields).parts()
        found = list(next(parts).body)
        assert 0 < len(found) < count / 2
        put(client, library, [{**each, "metadata": {"n": -1}} for each in before])
        client.delete([each["id"] for each in before[::2]], library)
        seq = client.status()["seq"]
        assert client.request("trim", keep_count=0, wait=True)["trimmed"] > count
        assert rows(instance, library) == 2 * count  # what the answer still needs, and what has replaced it
        for part in parts:
            if part.kind == "items":
                found += part.body
            else:
                assert part.kind == "end"
                assert part.body["seq"] < seq
    assert [(each["id"], each["metadata"]) for each in found] == [(each["id"], each["metadata"]) for each in before]
    until(lambda: rows(instance, library) == count / 2, "the vacuum, which goes on when the answer has ended")


def test_an_answer_that_is_left_holds_nothing_back(instance: Instance, client: Client) -> None:
    library, count = create(client, "left", dimension=4), 600
    before: list[dict[str, Any]] = [
        {"id": f"d{n:03}", "vector": _VECTOR, "metadata": {"wide": "w" * 20_000}} for n in range(count)
    ]
    put(client, library, before)
    with instance.connect() as slow:
        next(slow.submit("list", library=library).parts())
        client.delete([each["id"] for each in before], library)
        client.request("trim", keep_count=0, wait=True)
        assert rows(instance, library) == count
    until(lambda: rows(instance, library) == 0, "the vacuum, which goes on when the connection is gone")


@pytest.mark.parametrize(
    ("where", "trimmed"),
    [(None, False), (["kept = true"], False), (None, True)],
    ids=["all", "filtered", "trimmed"],
)
def test_an_export_that_was_killed_goes_on_at_its_moment_or_begins_again_at_another(
    tmp_path: Path, where: list[str] | None, trimmed: bool
) -> None:
    count, path = 1_200, tmp_path / "out.ndjson"
    params = {"path": str(path), "vectors": True, **({"where": where} if where else {})}
    with Instance({"VEC_EMBEDDER": "hash"}) as instance:
        daemon = instance.start()
        with instance.connect() as client:
            library = create(client, "killed", dimension=4_096)  # large, so that the export takes many long steps
            vector = b"\0\0\x80?" * 4_096

            def version(number: int, numbers: range) -> None:
                for start in range(0, len(numbers), 300):  # a frame holds no more of such vectors
                    halves = (half for each in numbers[start : start + 300] for half in pair(each, number))
                    put(client, library, ({**half, "vector": vector} for half in halves))

            version(0, range(count))
            job_id = client.submit_job("export", params, library=library)["job_id"]
            until(lambda: "seq" in (client.job(job_id)["checkpoint"] or {}), "a step")
            checkpoint = client.job(job_id)["checkpoint"]
            version(1, range(0, count, 40))
            client.delete([half["id"] for number in range(5, count, 40) for half in pair(number, 0)], library)
            if trimmed:
                client.request("trim", keep_count=0, wait=True)
            assert client.job(job_id)["state"] == "running", "it was too quick to be killed"
            os.kill(daemon.pid, signal.SIGKILL)
            daemon.wait()
        instance.start()
        with instance.connect() as client:
            version(2, range(1, count, 40))
            (job,) = client.wait_for_jobs([job_id])
            assert (job["state"], job["attempt"]) == ("completed", 2)
            assert (job["result"]["seq"] > checkpoint["seq"]) == trimmed
        found = [orjson.loads(line) for line in path.read_bytes().splitlines()]
        ids = [each["id"] for each in found]
        assert ids == sorted(set(ids))
        halves = [
            {each["id"][1:]: each["metadata"]["version"] for each in found if each["id"][0] == half} for half in "az"
        ]
        assert halves[0] == halves[1]
        if not trimmed:
            assert halves[0] == {f"{number:04}": 0 for number in range(count)}
