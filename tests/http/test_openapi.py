"""The OpenAPI document is true: what it lists is there, and every answer is as it says."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import jsonschema_rs
import pytest

from tests.support.gateway import Gateway
from tests.support.instance import Instance
from vecd.http import openapi
from vecd.http.table import ENDPOINTS
from vecd.ops.table import OPS

ROOT = Path(__file__).parents[2]

#: How long schemathesis sends requests. For longer: SCHEMATHESIS_S=600.
SECONDS = int(os.environ.get("SCHEMATHESIS_S", "12"))


@pytest.fixture(scope="module")
def document(http: httpx.Client) -> dict[str, Any]:
    answer = http.get("/openapi.json")
    assert answer.status_code == 200
    found: dict[str, Any] = answer.json()
    return found


def operations(document: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            yield method.upper(), path, operation


def test_the_document_lists_every_endpoint(document: dict[str, Any]) -> None:
    assert document["openapi"].startswith("3.1")
    listed = {(method, path) for method, path, _ in operations(document)}
    assert listed == {(each.method, each.path) for each in ENDPOINTS if each.tag != openapi.PAGES}
    names = [operation["operationId"] for _, _, operation in operations(document)]
    assert len(set(names)) == len(names)
    tags = {tag["name"] for tag in document["tags"]}
    assert all(set(operation["tags"]) <= tags for _, _, operation in operations(document))


def test_every_schema_is_one_and_every_reference_has_its_component(document: dict[str, Any]) -> None:
    for name, schema in document["components"]["schemas"].items():
        jsonschema_rs.meta.validate(schema)
        assert name in str(document).replace(f"'{name}':", ""), f"nothing refers to {name}"
    whole = {"components": document["components"], "$ref": "#/components/schemas/"}
    for reference in references(document):
        jsonschema_rs.validator_for({**whole, "$ref": reference})  # raises if it leads nowhere


def references(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        if isinstance(value.get("$ref"), str):
            yield value["$ref"]
        for each in value.values():
            yield from references(each)
    elif isinstance(value, list):
        for each in value:
            yield from references(each)


def test_every_op_of_an_endpoint_is_one_of_the_daemons() -> None:
    assert {each.op for each in ENDPOINTS} - {None} <= set(OPS)
    assert set(openapi.OP_ERRORS) <= set(OPS)


def test_schemathesis_finds_no_answer_that_is_not_documented() -> None:
    """No 500; every answer has a documented status, media type and schema; what violates a schema is refused."""
    with Instance({"VEC_EMBEDDER": "hash"}) as instance, Gateway(instance) as gateway:
        instance.vec("ingest", stdin='{"id": "logs", "text": "rotate the logs"}\n{"id": "cats", "text": "a cat"}')
        with tempfile.TemporaryDirectory() as folder:
            done = subprocess.run(
                [
                    Path(sys.executable).parent / "schemathesis", "run", f"{gateway.url}/openapi.json",
                    "--checks", "all",
                    # A filter, a cursor or a vector can fit its schema and be wrong.
                    "--exclude-checks", "positive_data_acceptance",
                    "--exclude-path", "/v1/events/stream",  # which does not end
                    "--max-time", str(SECONDS), "--request-timeout", "30", "--no-color",
                    "--suppress-health-check", "all",
                ],
                cwd=folder,
                env={**os.environ, "PYTHONPATH": str(ROOT), "SCHEMATHESIS_HOOKS": "tests.http.schemathesis_hooks"},
                capture_output=True,
                text=True,
                timeout=SECONDS + 120,
                check=False,
            )  # fmt: skip
        assert done.returncode == 0, "\n".join(line[:500] for line in done.stdout.splitlines())
        assert "generated" in done.stdout


class Exact:
    """Checks answers against the document's schemas, with no other keys than those."""

    def __init__(self, document: dict[str, Any]) -> None:
        self._document = document
        self._components = closed(document["components"])

    def check(self, method: str, template: str, answer: httpx.Response) -> Any:
        """Checks one answer; returns its body."""
        documented = self._document["paths"][template][method.lower()]["responses"][str(answer.status_code)]
        ((media_type, content),) = documented["content"].items()
        assert answer.headers["content-type"].partition(";")[0] == media_type
        schema = {"components": self._components, **closed(content["schema"])}
        jsonschema_rs.validate(schema, answer.json())
        return answer.json()


def closed(schema: Any) -> Any:
    """The schema; an object with listed keys may have no others."""
    if isinstance(schema, list):
        return [closed(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    made = {key: closed(value) for key, value in schema.items()}
    if "additionalProperties" in made:  # says so itself
        return made
    if "allOf" in made:  # closed as a whole
        made["allOf"] = [opened(each) for each in schema["allOf"]]
        made["unevaluatedProperties"] = False
    elif isinstance(made.get("properties"), dict) and "type" in made:
        made.setdefault("unevaluatedProperties", False)
    return made


def opened(schema: Any) -> Any:
    return schema if "$ref" not in schema else {"$ref": schema["$ref"].replace("schemas/", "open/")}


@pytest.fixture(scope="module")
def exact(document: dict[str, Any]) -> Exact:
    made = Exact(document)
    made._components["open"] = document["components"]["schemas"]
    return made


def test_answers_have_the_documented_keys_and_no_others(http: httpx.Client, exact: Exact) -> None:
    library = "/v1/libraries/{library}"
    seen: set[tuple[str, str]] = set()

    def call(method: str, template: str, suffix: str = "", status: int = 200, **options: Any) -> Any:
        names = {"library": "exact", "document": "a", "schedule": "nightly", "consumer": "c", "relay": "out"}
        path = template.format(job_id=job, source="in", **names)
        answer = http.request(method, path + suffix, **options)
        assert answer.status_code == status, answer.text
        seen.add((method, template))
        return exact.check(method, template, answer)

    job = 0
    call("POST", "/v1/libraries", status=201, json={"name": "exact"})
    batch = {"documents": [{"id": "a", "text": "rotate the logs", "metadata": {"n": 1}}, {"id": "b", "text": 7}]}
    assert call("POST", f"{library}/documents", json=batch)["failed"] == 1
    call("PUT", library + "/documents/{document}", json={"text": "rotate the logs every night"})
    call("GET", library + "/documents/{document}", "?vectors=true")
    call("POST", f"{library}/documents/get", json={"ids": ["a", "missing"]})
    call("POST", f"{library}/documents/update", json={"ids": ["a", "missing"], "set": {"k": 1}})
    call("GET", f"{library}/count", "?where=nothing = 1")
    (hit,) = call("GET", f"{library}/search", "?query=logs&explain=true&k=1&mode=text&min_score=0")["hits"]
    assert hit["document_id"] == "a"
    call("POST", f"{library}/search", json={"query": "logs", "mode": "vector"})
    call("POST", "/v1/search", json={"query": "logs", "passage_chars": 40, "explain": True, "libraries": ["*"]})
    call("POST", "/v1/search", json={"like": "a", "since": "-1h", "offset": 1})
    call("POST", f"{library}/settings", json={"mapping": {}})
    call("POST", f"{library}/rebuild", json={"index": "flat"})
    call("POST", f"{library}/rename", json={"to": "other"})
    other = http.post("/v1/libraries/other/rename", json={"to": "exact"})
    assert (other.status_code, other.headers["location"]) == (200, "/v1/libraries/exact")
    call("GET", library)
    call("GET", "/v1/libraries")
    call("DELETE", library + "/documents/{document}")
    call("POST", f"{library}/documents/delete", json={"ids": ["missing"]})
    job = call("POST", "/v1/jobs", status=202, json={"kind": "verify"})["job_id"]
    assert call("GET", "/v1/jobs/{job_id}", "?wait_s=50")["status"] == "completed"
    call("GET", "/v1/jobs/{job_id}/logs")
    call("GET", "/v1/jobs")
    call("GET", "/v1/jobs/status")
    call("GET", "/v1/jobs/kinds")
    call("POST", "/v1/schedules", status=201, json={"name": "nightly", "cron": "0 3 * * *", "kind": "verify"})
    call("GET", "/v1/schedules")
    call("POST", "/v1/schedules/{schedule}/run", status=202)
    call("DELETE", "/v1/schedules/{schedule}")
    call("DELETE", "/v1/jobs/{job_id}")
    relay = "/v1/relays/{relay}"
    call("POST", "/v1/relays", status=201, json={"name": "out", "url": "file:///nowhere/out", "paused": True})
    call("GET", "/v1/relays")
    call("GET", relay)
    call("POST", f"{relay}/reset", json={"to": "beginning"})
    call("POST", f"{relay}/resume")
    call("POST", f"{relay}/pause")
    call("GET", f"{relay}/dead-letters", "?bodies=true&after=0")
    call("POST", f"{relay}/dead-letters/retry", json={})
    call("POST", f"{relay}/dead-letters/drop", json={})
    call("DELETE", relay)
    source = "/v1/sources/{source}"
    new = {"name": "in", "url": "file:///nowhere/in", "mapping": {"id": "a", "text": "b"}, "paused": True}
    call("POST", "/v1/sources", status=201, json=new)
    call("GET", "/v1/sources")
    call("GET", source)
    call("POST", f"{source}/reset", json={"start": "latest", "offsets": {"": "0"}})
    call("POST", f"{source}/resume")
    call("POST", f"{source}/pause")
    call("GET", f"{source}/dead-letters", "?bodies=true&after=0")
    call("POST", f"{source}/dead-letters/retry", json={})
    call("POST", f"{source}/dead-letters/drop", json={})
    call("DELETE", source)
    call("GET", "/v1/status")
    call("POST", "/v1/trim", json={"keep_count": 1_000_000})
    call("DELETE", "/v1/consumers/{consumer}", status=404)
    call("GET", "/v1/consumers")
    call("DELETE", library)
    call("GET", "/healthz")
    call("GET", "/readyz")
    elsewhere = {  # streams and files, which other tests read
        ("GET", f"{library}/documents"), ("POST", f"{library}/documents/stream"),
        ("POST", f"{library}/documents/batch-async"), ("POST", f"{library}/search/stream"),
        ("GET", "/v1/events/stream"), ("POST", "/v1/consumers/{consumer}/ack"),
        ("POST", "/v1/consumers/{consumer}/reset"), ("POST", "/v1/jobs/{job_id}/cancel"),
        ("POST", "/v1/jobs/{job_id}/retry"), ("POST", "/v1/backup"), ("POST", "/v1/tickets"), ("GET", "/metrics"),
        ("GET", "/openapi.json"),
    }  # fmt: skip
    assert {(each.method, each.path) for each in ENDPOINTS if each.tag != openapi.PAGES} <= seen | elsewhere
