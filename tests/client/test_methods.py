"""Every op of the daemon has a method of the client, and the methods work."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.instance import Instance
from vecd.client import Client, Pending
from vecd.client.connection import Connection
from vecd.client.connectors import ConnectorMethods
from vecd.client.syncs import SyncMethods
from vecd.errors import RETRYABLE, Code, VecError
from vecd.ops.table import OPS

#: Op -> the client's method. Those of a connection are there for streams.
METHODS: dict[str, Callable[..., Any]] = {
    "ping": Client.ping,
    "status": Client.status,
    "shutdown": Client.shutdown,
    "cancel": Client.abandon,
    "library.create": Client.create_library,
    "library.list": Client.libraries,
    "library.show": Client.library,
    "library.settings": Client.library_settings,
    "library.set": Client.set_library,
    "library.rebuild": Client.rebuild_library,
    "library.rename": Client.rename_library,
    "library.delete": Client.delete_library,
    "ingest": Client.ingest,
    "delete": Client.delete,
    "update": Client.update,
    "get": Client.get,
    "list": Client.documents,
    "count": Client.count,
    "search": Client.search,
    "watch": Client.watch,
    "ack": Client.ack,
    "flush": Client.flush,
    "trim": Client.trim,
    "consumers.list": Client.consumers,
    "consumers.reset": Client.reset_consumer,
    "consumers.delete": Client.delete_consumer,
    "jobs.spool": Client.spool,
    "jobs.submit": Client.submit_job,
    "jobs.status": Client.jobs_status,
    "jobs.kinds": Client.job_kinds,
    "jobs.list": Client.jobs,
    "jobs.show": Client.job,
    "jobs.logs": Client.job_logs,
    "jobs.wait": Client.wait_for_jobs,
    "jobs.cancel": Client.cancel_jobs,
    "jobs.retry": Client.retry_jobs,
    "jobs.drop": Client.drop_jobs,
    "jobs.pause": Client.pause_jobs,
    "jobs.resume": Client.resume_jobs,
    "jobs.claim": Client.claim_job,
    "jobs.heartbeat": Client.heartbeat_job,
    "jobs.checkpoint": Client.checkpoint_job,
    "jobs.finish": Client.finish_job,
    "jobs.workers": Client.workers,
    "tasks.heartbeat": Client.heartbeat_task,
    "tasks.finish": Client.finish_task,
    "schedule.add": Client.add_schedule,
    "schedule.list": Client.schedules,
    "schedule.run": Client.run_schedule,
    "schedule.remove": Client.remove_schedule,
    "relay.add": Client.add_relay,
    "relay.list": Client.relays,
    "relay.show": Client.relay,
    "relay.pause": Client.pause_relay,
    "relay.resume": Client.resume_relay,
    "relay.reset": Client.reset_relay,
    "relay.remove": Client.remove_relay,
    "relay.dead": Client.relay_dead_letters,
    "relay.retry": Client.retry_relay_letters,
    "relay.drop": Client.drop_relay_letters,
    "relay.watch": Client.watch_relay,
    "relay.commit": Client.commit_relay,
    "source.add": Client.add_source,
    "source.list": Client.sources,
    "source.show": Client.source,
    "source.pause": Client.pause_source,
    "source.resume": Client.resume_source,
    "source.reset": Client.reset_source,
    "source.remove": Client.remove_source,
    "source.dead": Client.source_dead_letters,
    "source.retry": Client.retry_source_letters,
    "source.drop": Client.drop_source_letters,
    "source.offsets": Client.source_offsets,
    "source.commit": Client.commit_source,
    "sync.add": Client.add_sync,
    "sync.list": Client.syncs,
    "sync.show": Client.sync,
    "sync.pause": Client.pause_sync,
    "sync.resume": Client.resume_sync,
    "sync.remove": Client.remove_sync,
    "sync.hold": Client.hold_sync,
    "sync.files": Client.sync_files,
    "sync.commit": Client.commit_sync,
    "connectors.watch": Client.watch_connectors,
    "connectors.report": Client.report_connectors,
}


@pytest.fixture(scope="module")
def instance() -> Iterator[Instance]:
    with Instance({"VEC_EMBEDDER": "hash"}) as made:
        made.vec("status")
        yield made


@pytest.fixture
def client(instance: Instance) -> Iterator[Client]:
    with instance.connect() as connected:
        yield connected


def test_every_op_has_a_method_and_every_method_an_op() -> None:
    assert METHODS.keys() == OPS.keys()
    named = {method.__name__ for method in METHODS.values()}
    members = {**vars(ConnectorMethods), **vars(SyncMethods), **vars(Client)}
    own = {name for name, method in members.items() if inspect.isfunction(method) and not name.startswith("_")}
    assert own <= named
    assert named - own <= vars(Connection).keys()


def test_every_method_sends_its_op(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[str] = []

    class Sent(Exception):
        """The request would go out now."""

    def frame(op: str, **fields: Any) -> bytes:
        sent.append(op)
        raise Sent

    monkeypatch.setattr(client, "_frame", frame)
    given: dict[str, Any] = {"pending": client._pending.setdefault(99, Pending(client, 99)), "documents": []}
    given |= {"offsets": {}, "expected": {}}
    for op, method in METHODS.items():
        wanted = {
            name: given.get(name, "x" if "str" in str(parameter.annotation) else [])
            for name, parameter in inspect.signature(method).parameters.items()
            if name != "self" and parameter.default is parameter.empty
        }
        with pytest.raises(Sent):
            list(method(client, **wanted))
        assert sent.pop() == op
    client._pending.clear()


# --- those that no command of `vec` uses as they are ----------------------------------------------------------------


def test_a_library_is_created_shown_rebuilt_and_deleted(client: Client) -> None:
    made = client.create_library("own", dimension=8, metric="dot", index="flat", embedder="none")
    assert (made["name"], made["dimension"], made["metric"], made["index"]) == ("own", 8, "dot", "flat")
    client.ingest([{"id": "a", "vector": [1.0] * 8}], "own")
    assert "own" in {each["name"] for each in client.libraries()}
    built = client.rebuild_library("own", index="hnsw", parameters={"m": 8})
    assert (built["index"], built["vectors"]) == ("hnsw", 1)
    assert client.library("own")["index"] == "hnsw"
    assert client.delete_library("own")["documents"] == 1
    with pytest.raises(VecError) as caught:
        client.library("own")
    assert caught.value.code == Code.NOT_FOUND


def test_documents_lists_all_or_what_matches(client: Client) -> None:
    client.create_library("listed")
    client.ingest([{"id": f"d{number}", "text": f"text {number}"} for number in range(3)], "listed")
    assert [each["id"] for each in client.documents("listed")] == ["d0", "d1", "d2"]
    assert [each["id"] for each in client.documents("listed", where="document_id != d1")] == ["d0", "d2"]


def test_documents_are_sorted_by_a_field_then_by_id_and_cut(client: Client) -> None:
    values = {"a": 2, "b": 1.5, "c": 10, "d": "x", "e": "X", "f": True, "g": None, "h": [2, 0], "i": 2**63}
    client.create_library("sorted", embedder="none", dimension=1)
    given = [{"id": each, "vector": [1], "metadata": {"n": {"v": value}}} for each, value in values.items()]
    client.ingest([*given, {"id": "0", "vector": [1]}], "sorted")

    def ids(**options: Any) -> str:
        return "".join(each["id"] for each in client.documents("sorted", **options))

    assert ids(sort="n.v") == "bahcied" + "f0g"
    assert ids(sort="n.v", descending=True) == "fdeicahb" + "0g"
    assert ids(sort="n.v", limit=3) == "bah"
    assert ids(sort="n.v", limit=2, where="n.v > 1.7") == "ah"
    assert ids(sort="document_id", descending=True, limit=2) == "ih"
    assert ids(limit=1) == "0"
    client.ingest([{"id": "j", "vector": [1], "metadata": {"n": {"v": 0}}}, {"op": "delete", "id": "b"}], "sorted")
    assert ids(sort="n.v", limit=2) == "ja"


@pytest.mark.parametrize("wrong", [{"id": "b", "text": 7}, {"id": "b", "vector": ["x"]}])
def test_of_a_strict_batch_nothing_from_the_first_refused_document_on_is_written(
    client: Client, wrong: dict[str, Any]
) -> None:
    """Whether the daemon or the client refuses it."""
    library = f"strict-{len(client.libraries())}"
    client.create_library(library)
    batch = [{"id": "a", "text": "a text"}, wrong, {"id": "c", "text": "a text"}]
    answer = client.ingest(batch, library, strict=True)
    assert (answer["added"], [error["index"] for error in answer["errors"]]) == (1, [1])
    assert [each["id"] for each in client.documents(library)] == ["a"]
    answer = client.ingest(batch, library)
    assert (answer["added"], [error["index"] for error in answer["errors"]]) == (1, [1])
    assert [each["id"] for each in client.documents(library)] == ["a", "c"]


def test_an_ack_moves_a_consumer_that_is_not_watched(client: Client) -> None:
    client.ingest([{"id": "a", "text": "a text"}])
    with client.watch("beginning", consumer="idle", follow=False):
        pass
    head = f"{client.log}:{client.status()['seq']}"
    client.ack("idle", head)
    assert {each["name"]: each["cursor"] for each in client.consumers()}["idle"] == head


def test_a_job_has_a_log_and_kinds_of_jobs_are_paused_and_resumed(client: Client, tmp_path: Path) -> None:
    client.pause_jobs(["noop"])
    job = client.submit_job("noop", unique="one")
    again = client.submit_job("noop", unique="one")
    assert (again["job_id"], job["existing"], again["existing"]) == (job["job_id"], False, True)
    assert client.jobs_status()["paused"] == ["noop"]
    client.resume_jobs(["noop"])
    (done,) = client.wait_for_jobs([job["job_id"]], timeout_s=60)
    assert done["state"] == "completed"
    assert isinstance(client.job_logs(job["job_id"]), list)


def test_a_schedule_is_added_run_and_removed(client: Client) -> None:
    made = client.add_schedule("nightly", "0 3 * * *", "noop", zone="UTC")
    assert (made["name"], made["kind"]) == ("nightly", "noop")
    with pytest.raises(VecError) as caught:
        client.add_schedule("nightly", "0 4 * * *", "noop")
    assert caught.value.code == Code.EXISTS
    assert client.add_schedule("nightly", "0 4 * * *", "noop", replace=True)["cron"] == "0 4 * * *"
    assert "nightly" in {each["name"] for each in client.schedules()}
    assert client.run_schedule("nightly")["kind"] == "noop"
    client.remove_schedule("nightly")
    assert "nightly" not in {each["name"] for each in client.schedules()}


def test_a_shutdown_ends_the_daemon_after_its_answer() -> None:
    with Instance({"VEC_EMBEDDER": "hash"}) as own:
        own.vec("status")
        with own.connect() as client:
            client.shutdown()
            with pytest.raises(VecError) as caught:
                client.wait_for(lambda: False)
        assert caught.value.disconnected


# --- errors ---------------------------------------------------------------------------------------------------------


def test_an_error_says_whether_the_same_request_may_succeed_later() -> None:
    for code in (value for name, value in vars(Code).items() if name.isupper()):
        assert VecError(code, "it failed").retryable == (code in RETRYABLE)
        assert VecError.from_wire(VecError(code, "it failed").to_wire()).retryable == (code in RETRYABLE)
    assert not VecError("a_code_of_a_later_version", "it failed").retryable
    assert all(VecError(code, "it failed").retryable for code in (Code.BUSY, Code.CONNECTION_LOST, Code.DISK_FULL))
    assert not any(VecError(code, "it failed").retryable for code in (Code.INVALID_REQUEST, Code.INTERNAL, Code.EXISTS))
