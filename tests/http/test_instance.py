"""Jobs, schedules, the log, backup and streamed searches over HTTP."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

import httpx

from tests.http.test_documents import parsed


def submitted(http: httpx.Client, **job: Any) -> str:
    """Submits a job; its address."""
    answer = http.post("/v1/jobs", json=job)
    assert (answer.status_code, answer.json()["status"]) == (202, "submitted")
    assert answer.headers["location"] == answer.json()["status_url"]
    return str(answer.headers["location"])


def test_a_job_is_waited_for_listed_and_deleted_and_its_log_is_read(http: httpx.Client, library: str) -> None:
    at = submitted(http, kind="rebuild", library=library)
    job = http.get(at, params={"wait_s": 30}).json()
    assert (job["status"], job["kind"], job["library"]) == ("completed", "rebuild", library)
    listed = http.get("/v1/jobs", params={"library": library, "status": ["completed", "failed"]}).json()["jobs"]
    assert [each["job_id"] for each in listed] == [job["job_id"]]
    assert http.get(f"{at}/logs").json() == {"lines": []}  # a rebuild says nothing
    assert http.delete(at).json()["job_id"] == job["job_id"]
    assert http.get(at).status_code == 404


def test_a_job_that_waits_is_cancelled_and_retried(http: httpx.Client, library: str) -> None:
    at = submitted(http, kind="rebuild", library=library, delay_s=3600)
    assert http.get(at, params={"wait_s": 0.05}).json()["status"] not in ("completed", "failed", "cancelled")
    assert http.delete(at).status_code >= 400  # it has not ended
    assert http.post(f"{at}/cancel").json()["status"] == "cancelled"
    assert http.post(f"{at}/retry").json()["status"] == "pending"
    assert http.post(f"{at}/cancel").json()["status"] == "cancelled"


def test_a_schedule_is_added_listed_run_and_removed(http: httpx.Client, library: str) -> None:
    wanted = {"name": f"nightly-{library}", "cron": "0 3 * * *", "kind": "rebuild", "library": library}
    assert http.post("/v1/schedules", json=wanted).status_code == 201
    assert http.post("/v1/schedules", json=wanted).status_code == 409
    (listed,) = [each for each in http.get("/v1/schedules").json()["schedules"] if each["name"] == wanted["name"]]
    assert {key: listed[key] for key in wanted} == wanted
    ran = http.post(f"/v1/schedules/{wanted['name']}/run")
    assert ran.status_code == 202
    assert http.get(ran.headers["location"], params={"wait_s": 30}).json()["status"] == "completed"
    assert http.delete(f"/v1/schedules/{wanted['name']}").json()["name"] == wanted["name"]
    assert http.post(f"/v1/schedules/{wanted['name']}/run").status_code == 404


def test_the_log_is_trimmed_to_the_newest_events(http: httpx.Client, library: str) -> None:
    documents = [{"id": str(n), "text": f"text {n}"} for n in range(20)]
    http.post(f"/v1/libraries/{library}/documents", json={"documents": documents})
    assert http.post("/v1/trim", json={}).status_code in (400, 422)
    answer = http.post("/v1/trim", json={"keep_count": 5, "wait": True}).json()
    assert answer["trimmed"] > 0
    assert http.get(f"/v1/libraries/{library}/count").json()["documents"] == 20


def test_a_backup_is_a_whole_store(http: httpx.Client, library: str, tmp_path: Path) -> None:
    http.post(f"/v1/libraries/{library}/documents", json={"documents": [{"id": "kept", "text": "x"}]})
    path = tmp_path / "backup.db"
    answer = http.post("/v1/backup", json={"path": str(path)})
    assert answer.status_code == 202
    assert http.get(answer.headers["location"], params={"wait_s": 30}).json()["status"] == "completed"
    with sqlite3.connect(path) as db:
        assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        assert db.execute("SELECT count(*) FROM documents WHERE id = 'kept'").fetchone()[0] >= 1


def test_a_streamed_search_has_the_hits_of_a_search_and_a_summary(http: httpx.Client, library: str) -> None:
    documents = [{"id": str(n), "text": f"rotate the log {n}"} for n in range(30)]
    http.post(f"/v1/libraries/{library}/documents", json={"documents": documents})
    wanted = {"query": "rotate the log 7", "k": 20}
    hits = http.post(f"/v1/libraries/{library}/search", json=wanted).json()["hits"]
    at = f"/v1/libraries/{library}/search/stream"
    for answer in (http.post(at, json=wanted), http.post(at, params={"query": "rotate the log 7", "k": 20})):
        *streamed, summary = parsed(answer.content)
        assert streamed == hits
        assert (summary["status"], summary["hits"]) == ("summary", 20)


def test_a_consumer_is_acknowledged_listed_reset_and_deleted(http: httpx.Client, library: str) -> None:
    name = f"reader-{library}"
    at = f"/v1/consumers/{name}"
    begun = http.get("/v1/events/stream", params={"consumer": name, "from": "beginning", "follow": "false"})
    assert begun.status_code == 200

    def kept() -> list[tuple[str, int]]:
        consumers = http.get("/v1/consumers").json()["consumers"]
        return [(each["cursor"], each["lag"]) for each in consumers if each["name"] == name]

    status = http.get("/v1/status").json()
    cursor = f"{status['log']}:{status['seq']}"
    assert http.post(f"{at}/ack", json={"cursor": cursor}).status_code == 200
    assert kept() == [(cursor, 0)]
    assert http.post(f"{at}/reset", json={"to": "beginning"}).status_code == 200
    assert kept() == [(f"{status['log']}:0", status["seq"])]
    assert http.delete(at).status_code == 200
    assert kept() == []
    assert http.delete(at).status_code == 404
