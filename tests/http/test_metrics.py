"""Health and metrics, as a supervisor and Prometheus see them."""

from __future__ import annotations

import os
import signal

import httpx

from tests.http.exposition import Sample, parse, value_of
from tests.support.gateway import Gateway
from tests.support.instance import Instance, ndjson
from tests.support.waiting import PATIENCE_S, until
from vecd import limits
from vecd.http.metrics import Family, text

SEARCH = {"route": "/v1/libraries/{library}/search", "method": "GET"}


def scrape(http: httpx.Client) -> list[Sample]:
    answer = http.get("/metrics")
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    return parse(answer.text)


def test_requests_are_counted_by_route_method_and_status(http: httpx.Client, library: str) -> None:
    before = scrape(http)
    for _ in range(3):
        http.get(f"/v1/libraries/{library}/search", params={"query": "x"})
    http.get("/v1/libraries/missing-one/search", params={"query": "x"})
    after = scrape(http)

    def grown(name: str, **labels: str) -> float:
        there = [each for each in before if each.name == name and each.labels == labels]
        return value_of(after, name, **labels) - (there[0].value if there else 0)

    assert grown("vec_http_requests_total", **SEARCH, status="200") == 3
    assert grown("vec_http_requests_total", **SEARCH, status="404") == 1
    assert grown("vec_http_request_duration_seconds_count", **SEARCH) == 4
    assert grown("vec_http_body_bytes_total", direction="sent") > 0


def test_paths_and_methods_that_do_not_exist_add_no_time_series(http: httpx.Client) -> None:
    for number in range(20):
        assert http.get(f"/nothing/{number}").status_code == 404
    for method in ("PROPFIND", "MKCOL", "TRACE", "REPORT"):
        assert http.request(method, "/healthz").status_code == 405
    samples = scrape(http)
    assert not [each for each in samples if "/nothing" in str(each.labels) or "MKCOL" in str(each.labels)]
    assert value_of(samples, "vec_http_requests_total", route="(none)", method="GET", status="404") >= 20
    assert value_of(samples, "vec_http_requests_total", route="/healthz", method="other", status="405") >= 4


def test_the_daemons_figures_are_those_of_its_status(http: httpx.Client, instance: Instance, library: str) -> None:
    texts = [{"id": str(number), "text": f"text {number}"} for number in range(5)]
    instance.vec("ingest", "--library", library, stdin=ndjson(texts))

    def shown() -> list[Sample] | None:  # the figures may be a second old
        samples = scrape(http)
        there = [each.value for each in samples if each.name == "vec_library_documents" and library in str(each.labels)]
        return samples if there == [5] else None

    samples = until(shown, "new figures")
    with instance.connect() as client:
        status = client.status()
    assert value_of(samples, "vec_daemon_up") == 1
    assert value_of(samples, "vec_log_head_seq") == status["seq"]
    assert value_of(samples, "vec_log_trimmed_seq") == 0
    assert value_of(samples, "vec_library_index_ready", library=library) == 1
    assert value_of(samples, "vec_jobs", state="pending") == 0
    assert value_of(samples, "vec_store_bytes") >= os.stat(instance.settings.store).st_size
    assert value_of(samples, "vec_disk_free_bytes") > 0


def test_any_text_can_be_a_label() -> None:
    label = 'a "quoted" \\ text\nof two lines'
    assert parse(text([Family("name", "gauge", "About.").add(1.5, label=label)])) == [
        Sample("name", {"label": label}, 1.5)
    ]


def test_a_consumers_lag_is_shown(http: httpx.Client, instance: Instance) -> None:
    name = "lagging"
    with instance.connect() as client:
        client.watch("beginning", consumer=name, follow=False).close()
        (consumer,) = [each for each in client.consumers() if each["name"] == name]

    wanted = Sample("vec_consumer_lag_events", {"consumer": name}, consumer["lag"])
    until(lambda: wanted in scrape(http), "the consumer")


def test_only_the_largest_libraries_have_time_series_of_their_own(http: httpx.Client, instance: Instance) -> None:
    with instance.connect() as client:
        for number in range(limits.METRICS_LABELS_MAX + 5):
            client.create_library(f"many-{number}", embedder="none", dimension=2)
        client.ingest([{"id": "a", "vector": [1, 2]}], "many-104")

        count = len(client.libraries())

    def shown() -> list[Sample] | None:
        samples = scrape(http)
        return samples if sum(each.value for each in samples if each.name == "vec_libraries") == count else None

    samples = until(shown, "all libraries")
    named = {each.labels["library"] for each in samples if each.name == "vec_library_chunks"}
    assert len(named) == limits.METRICS_LABELS_MAX
    assert "many-104" in named


def test_a_suspended_daemon_is_not_ready_and_the_gateway_still_lives() -> None:
    with Instance({"VEC_EMBEDDER": "hash"}) as instance:
        daemon = instance.start()
        with Gateway(instance) as gateway, httpx.Client(base_url=gateway.url, timeout=PATIENCE_S) as http:
            assert http.get("/readyz").json() == {"status": "ok"}
            daemon.send_signal(signal.SIGSTOP)
            try:
                answer = http.get("/readyz")
                assert (answer.status_code, answer.headers["content-type"]) == (503, "application/problem+json")
                assert answer.headers["retry-after"]
                assert http.get("/healthz").json() == {"status": "ok"}
                assert value_of(scrape(http), "vec_daemon_up") == 0
            finally:
                daemon.send_signal(signal.SIGCONT)

            until(lambda: http.get("/readyz").status_code == 200, "the daemon's answer")
            until(lambda: Sample("vec_daemon_up", {}, 1) in scrape(http), "the daemon's figures")


def test_monitoring_does_not_start_a_daemon_that_was_stopped_on_purpose() -> None:
    with Instance({"VEC_EMBEDDER": "hash"}) as instance:
        daemon = instance.start()
        with Gateway(instance) as gateway, httpx.Client(base_url=gateway.url, timeout=PATIENCE_S) as http:
            assert http.get("/readyz").status_code == 200
            instance.vec("daemon", "stop")
            daemon.wait(PATIENCE_S)
            answer = http.get("/readyz")
            assert (answer.status_code, answer.json()["code"]) == (503, "no_daemon")
            until(lambda: Sample("vec_daemon_up", {}, 0) in scrape(http), "figures without a daemon")
            assert instance.pid() is None

            http.get("/v1/libraries").raise_for_status()  # a request of a user starts it
            until(lambda: http.get("/readyz").status_code == 200, "the daemon's answer")
