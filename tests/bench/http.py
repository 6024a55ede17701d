"""The gateway beside the Unix socket, in the same run: a search, and the ingest of a stream. SECONDS as the argument:
about how long each side of an ingest takes (default 10).

Wanted: the median of a search over HTTP keep-alive at most 1.6 times the socket's, over a WebSocket at most 1.3 times;
ingest of ready vectors at no less than 0.7 times the rate of `vec ingest`, of texts at no less than 0.8 times; a
gateway that does not grow with the stream.

The searches take turns, one of each kind at a time, so that all see the same machine. An ingest is the whole command,
`vec ingest` or `curl -T -`, of the same file into a fresh library; the first pair decides the size and does not count.
"""

from __future__ import annotations

import http.client
import json
import statistics
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import orjson
from websockets.sync.client import connect as connect_websocket

from tests.bench.measure import clustered, sentences
from tests.support.gateway import Gateway
from tests.support.instance import BIN, Instance
from vecd.client import connect

_SEARCHES, _LIBRARY_DOCUMENTS = 1_500, 5_000
_FIRST_DOCUMENTS, _PAIRS = 4_000, 3


def main() -> None:
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 and sys.argv[0].endswith("http.py") else 10.0
    with Instance() as instance:
        instance.start()
        with Gateway(instance) as gateway:
            _searches(instance, gateway)
            for what, lines in (("ready vectors", _vectors), ("texts", _texts)):
                _ingest(instance, gateway, what, lines, seconds)


def _searches(instance: Instance, gateway: Gateway) -> None:
    queries = sentences(_SEARCHES)
    with instance.connect() as client:
        client.create_library("search")
        client.ingest(
            [{"id": str(row), "text": text} for row, text in enumerate(sentences(_LIBRARY_DOCUMENTS))], "search"
        )
    parts = urlsplit(gateway.url)
    keep_alive = http.client.HTTPConnection(parts.hostname or "", parts.port)
    path = f"{gateway.websocket_url}/v1/libraries/search/ws"
    with (
        instance.connect() as unix,
        connect(gateway.websocket_url) as binary,
        connect_websocket(path, compression=None) as websocket,
    ):

        def over_http(query: str) -> Any:
            body = orjson.dumps({"query": query, "k": 10})
            keep_alive.request("POST", "/v1/libraries/search/search", body, {"content-type": "application/json"})
            return orjson.loads(keep_alive.getresponse().read())["hits"]

        def over_websocket(query: str) -> Any:
            websocket.send(orjson.dumps({"action": "search", "query": query, "k": 10}), text=True)
            return orjson.loads(websocket.recv())["hits"]

        ways: dict[str, Callable[[str], Any]] = {
            "socket": lambda query: list(unix.search(query, library="search")),
            "HTTP keep-alive": over_http,
            "WebSocket, JSON": over_websocket,
            "WebSocket, vec.msgpack": lambda query: list(binary.search(query, library="search")),
        }
        times: dict[str, list[float]] = {name: [] for name in ways}
        for number, query in enumerate(queries):
            for name in list(ways)[number % 4 :] + list(ways)[: number % 4]:
                started = time.perf_counter()
                hits = ways[name](query)
                times[name].append(time.perf_counter() - started)
                assert len(hits) == 10
    keep_alive.close()
    base = statistics.median(times["socket"])
    for name, each in times.items():
        p99 = sorted(each)[-len(each) // 100]
        print(
            f"  search, {name}: median {statistics.median(each) * 1e3:.2f} ms, p99 {p99 * 1e3:.1f} ms,"
            f" {statistics.median(each) / base:.2f} times the socket's median",
            flush=True,
        )


def _vectors(count: int) -> Sequence[bytes]:
    texts = sentences(count)
    return [
        orjson.dumps({"id": f"doc-{row}", "text": texts[row], "vector": vector}, option=orjson.OPT_SERIALIZE_NUMPY)
        for row, vector in enumerate(clustered(count))
    ]


def _texts(count: int) -> Sequence[bytes]:
    return [
        orjson.dumps({"title": f"Document {row}", "texts": [f"{text} ({row})", f"chunk two of {row}, {text[:40]}"]})
        for row, text in enumerate(sentences(count))
    ]


def _ingest(
    instance: Instance, gateway: Gateway, what: str, lines: Callable[[int], Sequence[bytes]], seconds: float
) -> None:
    path, count = instance.home / "bench.ndjson", _FIRST_DOCUMENTS
    ratios = []
    for pair in range(_PAIRS + 1):
        path.write_bytes(b"\n".join(lines(count)) + b"\n")
        order = (_by_vec, _by_curl) if pair % 2 else (_by_curl, _by_vec)
        before = _resident_mib(gateway.process.pid)
        taken = {way: _timed(instance, gateway, way, path, count) for way in order}
        grown = _resident_mib(gateway.process.pid) - before
        ratio = taken[_by_vec] / taken[_by_curl]
        if pair:
            ratios.append(ratio)
            print(
                f"  ingest of {count:,} {what}: vec ingest {count / taken[_by_vec]:,.0f} documents/s, over HTTP"
                f" {count / taken[_by_curl]:,.0f}, {ratio:.2f} times; the gateway grew by {grown:.1f} MiB of"
                f" {path.stat().st_size / 2**20:.0f} MiB",
                flush=True,
            )
        else:
            count = int(count * max(1.0, seconds / max(taken.values())))
    print(f"  ingest of {what}: median {statistics.median(ratios):.2f} times, least {min(ratios):.2f}", flush=True)


Way = Callable[[Instance, Gateway, Path], None]


def _timed(instance: Instance, gateway: Gateway, way: Way, path: Path, count: int) -> float:
    with instance.connect() as client:
        client.create_library("ingest", dimension=256)
        started = time.perf_counter()
        way(instance, gateway, path)
        taken_s = time.perf_counter() - started
        assert client.count("ingest")["documents"] == count
        client.delete_library("ingest")
    return taken_s


def _by_vec(instance: Instance, gateway: Gateway, path: Path) -> None:
    with path.open("rb") as lines:
        subprocess.run(
            [BIN / "vec", "ingest", "--library", "ingest"],
            stdin=lines, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=instance.environment, check=True,
        )  # fmt: skip


def _by_curl(instance: Instance, gateway: Gateway, path: Path) -> None:
    with path.open("rb") as lines, subprocess.Popen(
        [
            "curl", "-sS", "-X", "POST", f"{gateway.url}/v1/libraries/ingest/documents/stream", "-T", "-",
            "-H", "Content-Type: application/x-ndjson",
        ],
        stdin=lines, stdout=subprocess.PIPE,
    ) as curl:  # fmt: skip
        assert curl.stdout is not None
        (last,) = deque(curl.stdout, 1)
    assert json.loads(last)["failed"] == 0


def _resident_mib(pid: int) -> float:
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * 4096 / 2**20


if __name__ == "__main__":
    main()
