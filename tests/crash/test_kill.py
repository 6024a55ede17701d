"""kill -9 of the daemon in the middle of an ingest, again and again."""

from __future__ import annotations

import os
import random
import signal
import threading

import pytest

from tests import history
from tests.instance import Instance
from vecd.client import Client, Pending
from vecd.errors import VecError

_KILLS = 50
_BATCH, _IDS = 64, 5_000


def test_after_fifty_kills_every_acked_document_is_there_and_the_log_is_whole() -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    chance = random.Random(seed)
    certain: dict[str, str | None] = {}  # id -> text as acknowledged; None: deleted
    with Instance() as instance:
        for round_ in range(_KILLS):
            daemon = instance.start()
            with instance.connect() as client:
                if round_ == 0:
                    client.request("library.create", library="default", embedder="hash")
                _assert_recovered(client, certain)
                if round_ % 10 == 9:
                    history.check(client)
                unsure = _write_until_killed(client, daemon.pid, chance, certain, round_)
            daemon.wait()
            for document_id in unsure:
                certain.pop(document_id, None)  # the outcome is unknown: either is right
        daemon = instance.start()
        with instance.connect() as client:
            _assert_recovered(client, certain)
            documents = history.check(client)["default"]
            assert documents, "nothing survived, so nothing was tested"
            assert len(certain) > 100
        daemon.send_signal(signal.SIGTERM)
        assert daemon.wait() == 0


def _write_until_killed(
    client: Client, pid: int, chance: random.Random, certain: dict[str, str | None], round_: int
) -> set[str]:
    """Pipelines batches until the daemon dies; notes what was acknowledged; returns the ids that were not."""
    killer = threading.Timer(chance.uniform(0.0, 0.3), os.kill, (pid, signal.SIGKILL))
    flying: list[tuple[dict[str, str | None], Pending]] = []
    unsure: set[str] = set()
    batch = 0
    killer.start()
    try:
        while True:
            changes: dict[str, str | None] = {}
            for number in chance.sample(range(_IDS), _BATCH):
                text = f"round {round_} batch {batch} document {number}"
                changes[f"doc-{number}"] = None if chance.random() < 0.2 else text
            documents = [
                {"op": "delete", "id": key} if text is None else {"id": key, "text": text}
                for key, text in changes.items()
            ]
            unsure = set(changes)  # until it is in flight: it may have been sent when the connection breaks
            flying.append((changes, client.submit("ingest", documents=documents)))
            unsure = set()
            batch += 1
            if len(flying) >= 4:
                flying[0][1].result()
                certain.update(flying.pop(0)[0])
    except VecError as error:
        if error.code != "connection_lost":
            raise
    finally:
        killer.join()
    while flying and flying[0][1].done:  # answers that had arrived and were not looked at
        flying[0][1].result()
        certain.update(flying.pop(0)[0])
    return unsure | {key for changes, _ in flying for key in changes}


def _assert_recovered(client: Client, certain: dict[str, str | None]) -> None:
    """Everything is as it was acknowledged."""
    ids = list(certain)
    for start in range(0, len(ids), 1_000):
        page = ids[start : start + 1_000]
        for document_id, document in zip(page, client.get(page), strict=True):
            text = document["chunks"][0]["text"] if document is not None else None
            assert text == certain[document_id], document_id


@pytest.mark.parametrize("round_", range(3))
def test_what_was_acked_is_searchable_after_a_kill(round_: int) -> None:
    with Instance() as instance:
        daemon = instance.start()
        with instance.connect() as client:
            client.ingest([{"id": f"a{n}", "text": f"the {n} zebra eats grass"} for n in range(100)])
        daemon.kill()
        daemon.wait()
        instance.start()
        with instance.connect() as client:
            for mode in ("vector", "text", "hybrid"):
                hits = list(client.search("zebra 42", k=100, mode=mode))
                assert len({hit["document_id"] for hit in hits}) == 100
            history.check(client)
