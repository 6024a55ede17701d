"""A stop under load: the daemon ends in time, and reports no failure."""

from __future__ import annotations

import contextlib
import signal

import numpy as np

from tests.support import history
from tests.support.instance import Instance
from vecd.client import Client, Pending
from vecd.errors import VecError


def test_a_stop_that_cuts_writes_off_ends_cleanly_and_keeps_what_was_acked() -> None:
    acknowledged: set[str] = set()
    with Instance({"VEC_DRAIN_S": "0.02"}) as instance:
        for turn in range(4):
            daemon = instance.start()
            clients = [instance.connect() for _ in range(4)]
            flying = []
            for number, client in enumerate(clients):
                for batch in range(8):
                    ids = [f"{turn}-{number}-{batch}-{row}" for row in range(256)]
                    documents = [{"id": each, "text": f"some text for {each} to be embedded"} for each in ids]
                    flying.append((ids, client.submit("ingest", documents=documents)))
            daemon.send_signal(signal.SIGTERM)
            for ids, pending in flying:
                try:
                    pending.result()
                    acknowledged.update(ids)
                except VecError as error:
                    assert error.code in ("shutting_down", "connection_lost"), error
            assert daemon.wait(30) == 0
            for client in clients:
                client.close()
        assert "level=critical" not in instance.log()
        assert "Traceback" not in instance.log()
        instance.start()
        with instance.connect() as client:
            assert acknowledged <= history.check(client).get("default", {}).keys()


def test_a_stop_that_cuts_off_the_loading_of_an_index_is_no_failure_of_it() -> None:
    with Instance({"VEC_DRAIN_S": "0.02"}) as instance:
        daemon = instance.start()
        _many_vectors(instance, "large")
        for _ in range(4):
            daemon.send_signal(signal.SIGTERM)
            assert daemon.wait(30) == 0
            daemon = instance.start()
            with instance.connect() as client:
                cut_off = _being_loaded(client, "large")
                daemon.send_signal(signal.SIGTERM)
                with contextlib.suppress(VecError):
                    cut_off.result()
        assert daemon.wait(30) == 0
        assert "level=error" not in instance.log()


def test_a_library_that_is_deleted_while_it_is_loaded_is_no_failure_of_its_index() -> None:
    with Instance() as instance:
        for turn in range(2):
            daemon = instance.start()
            _many_vectors(instance, f"large-{turn}")
            daemon.send_signal(signal.SIGTERM)
            assert daemon.wait(30) == 0
            daemon = instance.start()
            with instance.connect() as client:
                loading = _being_loaded(client, f"large-{turn}")
                client.request("library.delete", library=f"large-{turn}")
                try:
                    loading.result()
                except VecError as error:
                    assert error.code == "not_found", error
            daemon.send_signal(signal.SIGTERM)
            assert daemon.wait(30) == 0
        assert "level=error" not in instance.log()


def _many_vectors(instance: Instance, library: str) -> None:
    """A library that takes a while to load."""
    packed = np.ones(256, "<f4").tobytes()
    with instance.connect() as client:
        client.request("library.create", library=library, embedder="none", dimension=256, index="flat")
        for start in range(0, 12_000, 4_000):
            client.ingest([{"id": f"d{n}", "vector": packed} for n in range(start, start + 4_000)], library)


def _being_loaded(client: Client, library: str) -> Pending:
    """A search that waits for its index, which is being loaded."""
    search = client.submit("search", library=library, vector=np.ones(256, "<f4").tobytes())
    while not search.done:
        (found,) = client.status()["libraries"]
        if found["memory"]["state"] == "loading":
            return search
    raise AssertionError("it was loaded at once")
