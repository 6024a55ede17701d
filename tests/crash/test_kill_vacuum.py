"""kill -9, a stop, or a full disk between a trim and the end of its vacuum."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import threading
from pathlib import Path
from typing import Any

import apsw
import pytest

from tests.support import history
from tests.support.instance import Instance
from tests.support.waiting import until
from vecd.client import Client
from vecd.errors import VecError

from .test_storage import failing, library  # noqa: F401  (fixtures)

_ROUNDS, _DOCUMENTS = 12, 3_000


def _change_all(client: Client, turn: int) -> None:
    for start in range(0, _DOCUMENTS, 1_000):
        rows = range(start, start + 1_000)
        client.ingest(
            [{"id": f"d{n}", "texts": [f"turn {turn}", f"of {n}"], "vectors": [[1.0, n], [-1.0, turn]]} for n in rows],
            "many",
        )


def _kept(client: Client) -> list[dict[str, Any]]:
    """What is left of the log, with payloads, all of which must be there."""
    events = [
        event
        for reply in client.pages("watch", follow=False, on_gap="oldest", payload=True, **{"from": "beginning"})
        if reply.kind == "items"
        for event in reply.body
    ]
    turns: dict[str, str] = {}
    for event in events:
        data = event["data"]
        if event["type"] == "document.updated":
            now, before = (data[key]["chunks"][0]["text"] for key in ("document", "replaced"))
            assert int(now.split()[1]) == int(before.split()[1]) + 1
            assert turns.get(data["id"], before) == before
            turns[data["id"]] = now
    return events


def _assert_whole(client: Client, turn: int) -> None:
    assert history.tables(client)["many"] == {f"d{n}": 2 for n in range(_DOCUMENTS)}
    some = client.get([f"d{n}" for n in range(0, _DOCUMENTS, 100)], "many")
    assert {document["chunks"][0]["text"] for document in some if document is not None} == {f"turn {turn}"}
    (hit,) = client.search(vector=[1.0, 7.0], k=1, library="many", exact=True)
    assert hit["document_id"] == "d7"


def test_kills_between_a_trim_and_the_end_of_its_vacuum_lose_nothing_that_the_log_refers_to() -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    chance = random.Random(seed)
    with Instance() as instance:
        daemon = instance.start()
        with instance.connect() as client:
            client.request("library.create", library="many", embedder="none", dimension=2, metric="l2")
        for turn in range(_ROUNDS):
            with instance.connect() as client:
                _change_all(client, turn)
                how = signal.SIGTERM if turn % 4 == 3 else signal.SIGKILL
                end = threading.Timer(chance.uniform(0, 0.1), os.kill, (daemon.pid, how))
                end.start()
                with contextlib.suppress(VecError):
                    client.request("trim", keep_count=chance.randrange(10_000), wait=True)
                end.join()
            daemon.wait()
            daemon = instance.start()
            with instance.connect() as client:
                _kept(client)
                _assert_whole(client, turn)
        with instance.connect() as client:
            client.request("trim", keep_count=0, wait=True)
            assert _kept(client) == []
            _assert_whole(client, _ROUNDS - 1)
        daemon.send_signal(signal.SIGTERM)
        assert daemon.wait() == 0
        db = apsw.Connection(str(instance.settings.store), flags=apsw.SQLITE_OPEN_READONLY)
        assert db.execute("SELECT count(*) FROM documents").get == _DOCUMENTS
        assert db.execute("SELECT count(*) FROM chunks").get == 2 * _DOCUMENTS
        assert db.execute("SELECT count(*) FROM events").get == 0
        db.close()


def _is_vacuumed(instance: Instance) -> bool:
    """All but what the last events refer to."""
    with contextlib.closing(apsw.Connection(str(instance.settings.store), flags=apsw.SQLITE_OPEN_READONLY)) as db:
        return bool(db.execute("SELECT count(*) <= ? FROM documents", (_DOCUMENTS + 2,)).get)


def test_a_vacuum_that_meets_a_full_disk_goes_on_when_there_is_space(
    failing: tuple[Instance, Path],  # noqa: F811
) -> None:
    instance, fault = failing
    instance.start()
    with instance.connect() as client:
        client.request("library.create", library="many", embedder="none", dimension=2, metric="l2")
        for turn in range(3):
            _change_all(client, turn)
        size = client.request("trim", keep_count=1_000_000)["bytes"]
        fault.write_text("full")
        with pytest.raises(VecError) as refusal:
            client.request("trim", keep_count=5)
        assert refusal.value.code == "disk_full"
        turn = 2
        while "vacuum given up" not in instance.log():
            fault.unlink()
            turn += 1
            _change_all(client, turn)
            client.request("trim", keep_count=5)
            fault.write_text("full")
            until(lambda: "vacuum given up" in instance.log() or _is_vacuumed(instance), "the vacuum's end")
        _assert_whole(client, turn)
        fault.unlink()
        answer = client.request("trim", keep_count=5, wait=True)
        assert answer["bytes"] < size
        assert len(_kept(client)) == 5
        _assert_whole(client, turn)
