"""Requests and errors of the gateway, through a real client."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from tests.support.gateway import Gateway


def test_a_library_is_created_shown_counted_and_deleted(http: httpx.Client) -> None:
    made = http.post("/v1/libraries", json={"name": "made", "embedder": "none", "dimension": 3})
    assert made.status_code == 201
    assert made.headers["location"] == "/v1/libraries/made"
    assert http.get("/v1/libraries/made").json()["dimension"] == 3
    assert "made" in [each["name"] for each in http.get("/v1/libraries").json()["libraries"]]
    assert http.get("/v1/libraries/made/count").json()["documents"] == 0
    assert http.delete("/v1/libraries/made").json()["library"] == "made"
    gone = http.get("/v1/libraries/made")
    assert gone.status_code == 404


def test_an_error_is_a_problem_with_the_stable_code(http: httpx.Client) -> None:
    answer = http.get("/v1/libraries/missing/count")
    assert (answer.status_code, answer.headers["content-type"]) == (404, "application/problem+json")
    problem = answer.json()
    assert (problem["type"], problem["code"], problem["status"]) == ("urn:vec:error:not_found", "not_found", 404)
    assert "missing" in problem["detail"]


def test_a_parameter_or_key_that_does_not_exist_is_refused(http: httpx.Client, library: str) -> None:
    answer = http.get(f"/v1/libraries/{library}/search", params={"query": "x", "kk": "3"})
    assert (answer.status_code, answer.json()["hint"]) == (400, "did you mean 'k'?")
    answer = http.post(f"/v1/libraries/{library}/search", json={"query": "x", "moed": "text"})
    assert (answer.status_code, answer.json()["hint"]) == (400, "did you mean 'mode'?")


def test_curl_gets_an_answer(gateway: Gateway) -> None:
    assert gateway.curl("/healthz") == b'{"status":"ok"}'


def test_a_search_in_a_url_takes_what_a_search_in_a_body_takes(http: httpx.Client, library: str) -> None:
    documents = [{"id": name, "text": f"rotate the logs {name}"} for name in "abc"]
    assert http.post(f"/v1/libraries/{library}/documents", json={"documents": documents}).json()["added"] == 3
    wanted: dict[str, Any] = {
        "query": "logs",
        "k": 2,
        "mode": "hybrid",
        "group_by": "document",
        "min_score": 0,
        "explain": True,
    }
    of_body = http.post(f"/v1/libraries/{library}/search", json=wanted)
    of_url = http.get(f"/v1/libraries/{library}/search", params={**wanted, "explain": "true"})
    assert (of_url.status_code, len(of_url.json()["hits"])) == (200, 2)
    assert of_url.json()["hits"] == of_body.json()["hits"]


def test_every_parameter_of_a_query_has_one_type(http: httpx.Client) -> None:
    paths = http.get("/openapi.json").json()["paths"]
    parameters = [
        each
        for path in paths.values()
        for operation in path.values()
        if isinstance(operation, dict)
        for each in operation.get("parameters", ())
    ]
    assert len(parameters) > 30
    assert [each["name"] for each in parameters if not isinstance(each["schema"].get("type"), str)] == []


@pytest.mark.parametrize("piece", [b"[],", b"{},", b'{"":[]},'])
def test_json_that_takes_far_more_memory_than_bytes_is_refused(http: httpx.Client, library: str, piece: bytes) -> None:
    body = b'{"query":"x","where":[' + piece * 2_000_000 + b"[]]}"
    answer = http.post(f"/v1/libraries/{library}/search", content=body, headers={"content-type": "application/json"})
    assert (answer.status_code, answer.json()["code"]) == (413, "too_large")
