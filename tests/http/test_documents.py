"""Documents over HTTP: batches, single documents, listings, and streams of any length."""

from __future__ import annotations

import gzip
import json
import socket
import subprocess
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.support.gateway import Gateway
from tests.support.instance import Instance, ndjson
from tests.support.running import fresh, numbered, peak_bytes
from tests.support.waiting import PATIENCE_S, until


def parsed(body: bytes | str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in body.splitlines()]


def counts(summary: dict[str, Any]) -> dict[str, int]:
    assert summary["status"] == "summary"
    return {key: summary[key] for key in ("added", "updated", "unchanged", "deleted", "failed") if summary[key]}


# --- one document, a batch --------------------------------------------------------------------------------------------


def test_a_document_is_written_read_and_deleted_under_its_own_address(http: httpx.Client, library: str) -> None:
    at = f"/v1/libraries/{library}/documents/notes%2Fone"  # an id may have a slash
    made = http.put(at, json={"title": "One", "text": "rotate the logs", "metadata": {"n": 1}})
    assert (made.status_code, made.json()["status"]) == (201, "added")
    assert http.put(at, json={"title": "One", "text": "rotate the logs", "metadata": {"n": 1}}).status_code == 200
    read = http.get(at, params={"vectors": "true"}).json()
    assert (read["id"], read["title"], read["metadata"]) == ("notes/one", "One", {"n": 1})
    assert [type(each) for each in read["chunks"][0]["vector"]] == [float] * 256
    assert http.delete(at).json()["deleted"] == 1
    assert (http.get(at).status_code, http.delete(at).status_code) == (404, 404)


def test_a_put_with_another_id_in_the_body_is_refused(http: httpx.Client, library: str) -> None:
    answer = http.put(f"/v1/libraries/{library}/documents/a", json={"id": "b", "text": "x"})
    assert (answer.status_code, answer.json()["field"]) == (400, "id")
    assert http.get(f"/v1/libraries/{library}/count").json()["documents"] == 0


def test_a_bad_document_of_a_batch_costs_no_other(http: httpx.Client, vectors: str) -> None:
    given = [{"id": "a", "vector": [1, 2, 3]}, {"id": "b", "vector": [1]}, 5, {"id": "c", "vector": [3, 2, 1]}]
    answer = http.post(f"/v1/libraries/{vectors}/documents", json={"documents": given}).json()
    assert (answer["added"], answer["failed"]) == (2, 2)
    assert [(each["index"], each["code"]) for each in answer["errors"]] == [
        (1, "dimension_mismatch"), (2, "invalid_document"),
    ]  # fmt: skip
    assert [(each["index"], each["id"]) for each in answer["documents"]] == [(0, "a"), (3, "c")]


def test_a_strict_batch_ends_before_the_first_bad_document(http: httpx.Client, vectors: str) -> None:
    given = [{"id": "a", "vector": [1, 2, 3]}, 5, {"id": "c", "vector": [3, 2, 1]}]
    answer = http.post(f"/v1/libraries/{vectors}/documents", json={"documents": given, "strict": True}).json()
    assert (answer["added"], [each["index"] for each in answer["errors"]]) == (1, [1])
    assert http.get(f"/v1/libraries/{vectors}/documents/c").status_code == 404


def test_a_value_that_json_parsers_change_costs_its_document_and_no_other(http: httpx.Client, library: str) -> None:
    body = b"""{"documents":[{"id":"a","text":"x"},{"id":"b","text":"x","metadata":{"n":99999999999999999999}},
        {"id":"c","text":"x","text":"y"},{"id":"d","text":"y"},99999999999999999999]}"""
    answer = http.post(f"/v1/libraries/{library}/documents", content=body).json()
    assert [(each["index"], each.get("id"), each["field"]) for each in answer["errors"][:2]] == [
        (1, "b", "metadata"), (2, "c", "text"),
    ]  # fmt: skip
    assert (answer["added"], answer["failed"], answer["errors"][0]["path"]) == (2, 3, "metadata.n")
    assert [each["id"] for each in answer["documents"]] == ["a", "d"]
    one = http.put(
        f"/v1/libraries/{library}/documents/b", content=b'{"text":"x","metadata":{"n":99999999999999999999}}'
    )
    assert (one.status_code, one.json()["path"]) == (422, "metadata.n")
    twice = http.post(f"/v1/libraries/{library}/documents", content=b'{"documents":[],"documents":[]}')
    assert (twice.status_code, twice.json()["field"]) == (422, "documents")


def test_documents_are_listed_got_and_deleted_by_filter(http: httpx.Client, library: str) -> None:
    documents = [{"id": f"d{n:03}", "text": f"text {n}", "metadata": {"n": n}} for n in range(250)]
    at = f"/v1/libraries/{library}/documents"
    assert http.post(at, json={"documents": documents}).json()["added"] == 250
    *listed, end = parsed(http.get(at, params={"where": "n >= 40"}).content)
    assert [each["id"] for each in listed] == [each["id"] for each in documents[40:]]
    assert (end["status"], end["documents"]) == ("summary", 210)
    last = {"sort": "n", "descending": "true", "limit": "2"}
    assert [each.get("id") for each in parsed(http.get(at, params=last).content)] == ["d249", "d248", None]
    got = http.post(f"{at}/get", json={"ids": ["d001", "none", "d002"]}).json()["documents"]
    assert [each and each["id"] for each in got] == ["d001", None, "d002"]
    assert http.post(f"{at}/delete", json={"where": ["n >= 40", "n < 50"]}).json()["deleted"] == 10
    assert http.post(f"{at}/delete", json={"ids": ["d000", "none"]}).json()["missing_ids"] == ["none"]
    assert http.get(f"/v1/libraries/{library}/count", params={"where": "n < 60"}).json()["documents"] == 49


def test_metadata_is_updated_by_id_and_by_filter(http: httpx.Client, library: str) -> None:
    at = f"/v1/libraries/{library}/documents"
    http.post(at, json={"documents": [{"id": f"d{n}", "text": "x", "metadata": {"n": n}} for n in range(3)]})
    body = {"ids": ["d0", "none"], "set": {"author.name": "Ada"}}
    assert http.post(f"{at}/update", json=body).json()["missing_ids"] == ["none"]
    assert http.post(f"{at}/update", json={"where": "n > 0", "unset": ["n"]}).json()["updated"] == 2
    found = [http.get(f"{at}/d{n}").json()["metadata"] for n in range(3)]
    assert found == [{"author": {"name": "Ada"}, "n": 0}, {}, {}]
    assert http.post(f"{at}/update", json={"ids": ["d0"], "sets": {}}).status_code == 400


def test_a_long_answer_comes_in_parts_and_is_whole(http: httpx.Client, vectors: str) -> None:
    text = "x" * 900_000
    documents = [{"id": f"d{n:02}", "text": text, "vector": [1, 2, n]} for n in range(20)]  # more than a frame
    at = f"/v1/libraries/{vectors}/documents"
    for document in documents:
        assert http.post(at, json={"documents": [document]}).status_code == 200
    got = http.post(f"{at}/get", json={"ids": [each["id"] for each in documents]})
    assert [each["chunks"][0]["text"] == text for each in got.json()["documents"]] == [True] * 20
    assert got.json()["seq"] > 0


# --- streams ----------------------------------------------------------------------------------------------------------


def test_the_curl_line_of_the_design_streams_ten_thousand_documents_and_all_are_found(
    gateway: Gateway, instance: Instance, http: httpx.Client, library: str
) -> None:
    lines = [
        {"title": f"Doc {n}", "texts": [f"first chunk of number{n}", "chunk2"], "metadata": {"n": n}}
        for n in range(10_000)
    ]
    path = instance.home / "documents.ndjson"
    path.write_text(ndjson(lines))
    command = (
        f"cat {path} | curl -sS -X POST {gateway.url}/v1/libraries/{library}/documents/stream"
        ' -H "Content-Type: application/x-ndjson" --data-binary @-'
    )
    done = subprocess.run(command, shell=True, capture_output=True, timeout=PATIENCE_S, check=True)
    *told, summary = parsed(done.stdout)
    assert counts(summary) == {"added": 10_000}
    assert [(each["status"], each["line"], each["title"], each["result"]) for each in told] == [
        ("completed", n + 1, f"Doc {n}", "added") for n in range(10_000)
    ]
    seqs = [each["seq"] for each in told]
    assert seqs == sorted(set(seqs))
    *listed, end = parsed(http.get(f"/v1/libraries/{library}/documents").content)
    assert {each["id"] for each in listed} == {each["id"] for each in told}
    assert end["documents"] == 10_000
    for n in range(0, 10_000, 997):
        wanted: dict[str, str | int] = {"query": f"number{n}", "k": 1, "mode": "text"}
        found = http.get(f"/v1/libraries/{library}/search", params=wanted)
        (hit,) = found.raise_for_status().json()["hits"]
        assert hit["metadata"] == {"n": n}


def test_bad_lines_cost_no_good_ones_and_are_named(http: httpx.Client, library: str) -> None:
    body = b'{"id":"a","text":"x"}\n\nnot json\n{"id":"b","txt":"x"}\r\n{"op":"delete","id":"a"}\n{"id":"c","text":"y"}'
    *told, summary = parsed(http.post(f"/v1/libraries/{library}/documents/stream", content=body).content)
    assert [(each["line"], each["status"], each.get("result")) for each in told] == [
        (1, "completed", "added"), (3, "failed", None), (4, "failed", None), (5, "completed", "deleted"),
        (6, "completed", "added"),
    ]  # fmt: skip
    assert (told[1]["error"]["code"], told[2]["id"], told[2]["error"]["hint"]) == (
        "invalid_document", "b", "did you mean 'text'?",
    )  # fmt: skip
    assert counts(summary) == {"added": 2, "deleted": 1, "failed": 2}


def test_a_client_that_wants_failures_only_gets_no_more(http: httpx.Client, library: str) -> None:
    body = ndjson(numbered(3_000)) + "bad\n"
    answer = http.post(f"/v1/libraries/{library}/documents/stream", params={"results": "failed"}, content=body.encode())
    failed, summary = parsed(answer.content)
    assert (failed["line"], counts(summary)) == (3_001, {"added": 3_000, "failed": 1})


def test_a_gzipped_body_is_read_and_a_damaged_one_is_reported(http: httpx.Client, library: str) -> None:
    whole = gzip.compress(ndjson(numbered(2_000)).encode())
    at = f"/v1/libraries/{library}/documents/stream"
    *_, summary = parsed(http.post(at, content=whole).content)
    assert counts(summary) == {"added": 2_000}
    *_, summary = parsed(http.post(at, content=whole[:-2_000]).content)
    assert summary["error"]["code"] == "invalid_document"
    assert "gzip" in summary["error"]["message"]


def test_a_stream_to_a_library_that_does_not_exist_is_refused_with_404(http: httpx.Client) -> None:
    answer = http.post("/v1/libraries/missing/documents/stream", content=b'{"id":"a","text":"x"}')
    assert (answer.status_code, answer.json()["code"]) == (404, "not_found")


def test_outcomes_come_while_the_body_goes_on(gateway: Gateway, library: str) -> None:
    address = httpx.URL(gateway.url)
    with socket.create_connection((address.host, address.port or 0), PATIENCE_S) as connection:
        connection.sendall(
            f"POST /v1/libraries/{library}/documents/stream?progress=true HTTP/1.1\r\nHost: {address.host}\r\n"
            "Transfer-Encoding: chunked\r\n\r\n".encode()
        )
        answer = connection.makefile("rb")

        def send(piece: bytes) -> None:
            connection.sendall(b"%x\r\n%s\r\n" % (len(piece), piece))

        def told() -> dict[str, Any]:
            while not (line := answer.readline()).startswith(b"{"):
                assert line, "the answer ended"
            return dict(json.loads(line))

        for n in range(3):
            send(b'{"id":"d%d","te' % n)  # a chunk may end anywhere
            send(b'xt":"x"}\n')
            assert [(each["status"], each["id"], each["line"]) for each in (told(), told())] == [
                ("processing", f"d{n}", n + 1), ("completed", f"d{n}", n + 1),
            ]  # fmt: skip
        send(b"")
        assert counts(told()) == {"added": 3}


def test_memory_stays_flat_however_long_the_body_is(gateway: Gateway, http: httpx.Client, library: str) -> None:
    line = ndjson([{"id": "same", "text": "the same text " * 20}]).encode()
    part = line * 200

    def body(parts: int) -> Iterator[bytes]:
        for _ in range(parts):
            yield part

    def stream(parts: int) -> int:
        answer = http.post(
            f"/v1/libraries/{library}/documents/stream?results=failed", content=body(parts), timeout=PATIENCE_S
        )
        (summary,) = parsed(answer.content)
        assert summary["unchanged"] + summary["added"] == 200 * parts
        return peak_bytes(gateway.process.pid)

    before = stream(40)
    assert stream(120) - before < 16 << 20


def test_a_line_of_many_megabytes_is_refused_and_the_next_is_not(http: httpx.Client, library: str) -> None:
    def body() -> Iterator[bytes]:
        yield b'{"id":"long","text":"'
        for _ in range(12):
            yield b"x" * (1 << 20)
        yield b'"}\n{"id":"short","text":"y"}\n'

    long, short, summary = parsed(http.post(f"/v1/libraries/{library}/documents/stream", content=body()).content)
    assert (long["line"], long["status"], short["id"]) == (1, "failed", "short")
    assert counts(summary) == {"added": 1, "failed": 1}


# --- as a job ---------------------------------------------------------------------------------------------------------


def test_the_batch_of_the_design_becomes_a_job_that_completes(
    gateway: Gateway, http: httpx.Client, library: str
) -> None:
    documents = [{"title": f"Doc {n}", "texts": [f"chunk {n}"]} for n in range(1_000)]
    options = ["-X", "POST", "-H", "Content-Type: application/json", "-d", "@-"]
    body = json.dumps({"documents": documents}).encode()
    made = json.loads(gateway.curl(*options, f"/v1/libraries/{library}/documents/batch-async", stdin=body))
    assert made["status"] == "submitted"
    assert made["status_url"] == f"/v1/jobs/{made['job_id']}"
    assert http.get(made["status_url"]).json()["params"]["files"] == ["batch"]  # and no path of the server
    ended = until(lambda: job if (job := http.get(made["status_url"]).json())["status"] == "completed" else None)
    assert (ended["result"]["added"], ended["result"]["failed"]) == (1_000, 0)
    assert http.get(f"/v1/libraries/{library}/count").json()["documents"] == 1_000


def test_a_batch_for_a_job_can_be_ndjson_of_any_length(http: httpx.Client, library: str) -> None:
    def body() -> Iterator[bytes]:
        for start in range(0, 4_000, 1_000):
            yield ndjson([{"id": f"d{n}", "text": "x" * 1_000} for n in range(start, start + 1_000)]).encode()

    made = http.post(
        f"/v1/libraries/{library}/documents/batch-async", content=body(),
        headers={"content-type": "application/x-ndjson"},
    )  # fmt: skip
    assert made.status_code == 202
    job = http.get(made.json()["status_url"], params={"wait_s": 50}).json()
    assert (job["status"], job["result"]["added"]) == ("completed", 4_000)


def test_a_batch_that_is_not_read_to_its_end_leaves_no_file_and_no_job(instance: Instance, http: httpx.Client) -> None:
    library = fresh(instance)

    def body() -> Iterator[bytes]:
        yield b'{"id":"a","text":"x"}\n' * 100_000
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        http.post(
            f"/v1/libraries/{library}/documents/batch-async", content=body(),
            headers={"content-type": "application/x-ndjson"},
        )  # fmt: skip
    spool = instance.settings.data / "spool"
    until(lambda: not list(spool.glob("*")), "the removal of the copy")
    assert http.get("/v1/jobs", params={"library": library}).json()["jobs"] == []
