"""Streams of documents, and requests, while the daemon is killed or the gateway stops."""

from __future__ import annotations

import json
import os
import signal
import socket
import threading
from typing import Any

import httpx

from tests.support.gateway import Gateway
from tests.support.instance import Instance, ndjson
from tests.support.running import numbered
from tests.support.waiting import PATIENCE_S, until


def test_a_killed_daemon_in_the_middle_of_a_stream_costs_no_document() -> None:
    total, part = 6_000, 200
    with Instance({"VEC_EMBEDDER": "hash"}) as own:
        own.vec("status")
        with Gateway(own) as gateway, httpx.Client(base_url=gateway.url, timeout=PATIENCE_S) as http:
            http.post("/v1/libraries", json={"name": "kept", "embedder": "hash"})
            address = httpx.URL(gateway.url)
            told: list[dict[str, Any]] = []
            with socket.create_connection((address.host, address.port or 0), PATIENCE_S) as connection:

                def read() -> None:
                    for line in connection.makefile("rb"):
                        if line.startswith(b"{"):
                            told.append(json.loads(line))
                            if told[-1]["status"] == "summary":
                                return

                reading = threading.Thread(target=read)
                reading.start()
                connection.sendall(
                    b"POST /v1/libraries/kept/documents/stream HTTP/1.1\r\nHost: 127.0.0.1\r\n"
                    b"Transfer-Encoding: chunked\r\n\r\n"
                )
                for start in range(0, total, part):
                    piece = ndjson(numbered(part, start)).encode()
                    connection.sendall(b"%x\r\n%s\r\n" % (len(piece), piece))
                    if start == total // 2:
                        until(lambda: told, "the first outcomes")
                        pid = own.pid()
                        assert pid is not None
                        os.kill(pid, signal.SIGKILL)
                connection.sendall(b"0\r\n\r\n")
                reading.join(PATIENCE_S)
            *outcomes, summary = told
            assert "error" not in summary
            assert [(each["line"], each["status"]) for each in outcomes] == [
                (line, "completed") for line in range(1, total + 1)
            ]
            assert summary["added"] + summary["unchanged"] == total  # what was sent again is not written twice
            assert http.get("/v1/libraries/kept/count").json()["documents"] == total
            assert own.pid() != pid


def _waiting_job(http: httpx.Client, name: str) -> str:
    http.post("/v1/libraries", json={"name": name, "embedder": "hash"})
    answer = http.post("/v1/jobs", json={"kind": "rebuild", "library": name, "delay_s": 3600})
    return f"{answer.json()['status_url']}?wait_s=30"


def _open_requests(http: httpx.Client) -> int:
    lines = http.get("/metrics").text.splitlines()
    (line,) = [each for each in lines if each.startswith('vec_http_open{kind="request"}')]
    return int(float(line.rpartition(" ")[2]))


def test_a_stop_answers_a_request_in_flight(instance: Instance) -> None:
    with Gateway(instance) as gateway, httpx.Client(base_url=gateway.url, timeout=PATIENCE_S) as http:
        path = _waiting_job(http, "in-flight")
        got: list[httpx.Response] = []
        asking = threading.Thread(target=lambda: got.append(httpx.get(gateway.url + path, timeout=PATIENCE_S)))
        asking.start()
        until(lambda: _open_requests(http) == 2, "the request")  # that one, and the one for the metrics
        assert gateway.stop() == 0
        asking.join(PATIENCE_S)
    assert [(each.status_code, each.json()["library"]) for each in got] == [(200, "in-flight")]


def test_a_second_signal_ends_a_gateway_that_waits_for_a_stream(instance: Instance) -> None:
    """A client that never reads its answer holds the first stop up."""
    with Gateway(instance) as gateway, httpx.Client(base_url=gateway.url, timeout=PATIENCE_S) as http:
        http.post("/v1/libraries", json={"name": "held", "embedder": "none", "dimension": 256})
        many = [{"id": str(n), "text": "x" * 2_000, "vector": [0.5] * 256} for n in range(4_000)]
        for start in range(0, len(many), 500):
            http.post("/v1/libraries/held/documents", json={"documents": many[start : start + 500]})
        address = httpx.URL(gateway.url)
        with socket.create_connection((address.host, address.port or 0), PATIENCE_S) as stuck:
            stuck.sendall(b"GET /v1/libraries/held/documents HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
            until(lambda: stuck.recv(100, socket.MSG_PEEK), "the answer's beginning")
            gateway.process.send_signal(signal.SIGTERM)

            def refused() -> bool:
                try:
                    socket.create_connection((address.host, address.port or 0), 1).close()
                except OSError:
                    return True
                return False

            until(refused, "the beginning of the stop")
            assert gateway.process.poll() is None
            gateway.process.send_signal(signal.SIGTERM)
            gateway.process.wait(PATIENCE_S / 2)


def test_a_delete_whose_answer_was_lost_is_sent_again_and_says_no_document_was_missing() -> None:
    with Instance({"VEC_EMBEDDER": "hash"}) as own:
        own.start(module="tests.http.dies_unanswered")
        with Gateway(own) as gateway, httpx.Client(base_url=gateway.url, timeout=PATIENCE_S) as http:
            http.post("/v1/libraries", json={"name": "notes", "embedder": "hash"})
            http.post("/v1/libraries/notes/documents", json={"documents": [{"id": "last", "text": "a"}]})
            pid = own.pid()
            assert http.delete("/v1/libraries/notes/documents/last").status_code == 200
            assert own.pid() != pid
            assert http.get("/v1/libraries/notes/count").json()["documents"] == 0
            assert http.delete("/v1/libraries/notes/documents/last").status_code == 404
