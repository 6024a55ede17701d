"""The gateway beside the socket: streaming ingest by curl against `vec ingest`, the gateway's memory on that body, and
searches over keep-alive against searches through the socket. Both sides alternate in one run: the ratios count.

Wanted: ready vectors at 0.7 of the rate of `vec ingest` or more, texts at 0.8; memory flat; a median search at most 1.6
times the socket's.
`python -m tests.bench.http [VECTORS [TEXTS]]` shortens it.
"""

from __future__ import annotations

import http.client
import json
import statistics
import subprocess
import tempfile
import threading
import time
from pathlib import Path
from typing import Final

from tests.bench.measure import clustered, resident_bytes, sentences, sizes, told
from tests.support.gateway import Gateway
from tests.support.instance import Instance

_VECTORS, _TEXTS, _PAIRS, _DIMENSION = 200_000, 200_000, 3, 256
_MIB: Final = 1 << 20


def main() -> None:
    given = sizes(_VECTORS, _TEXTS)
    vectors, texts = given[0], given[-1]
    with tempfile.TemporaryDirectory() as folder:
        for kind, count in (("vectors", vectors), ("texts", texts)):
            path = Path(folder) / f"{kind}.ndjson"
            _write(path, kind, count)
            _ingest(path, kind, count)
    _search(min(10_000, vectors))


def _write(path: Path, kind: str, count: int) -> None:
    """A body of `count` documents, with ready vectors or with texts to embed."""
    texts = sentences(count)
    with path.open("w", encoding="ascii") as file:
        for start in range(0, count, 10_000):
            some = texts[start : start + 10_000]
            rows = clustered(len(some), _DIMENSION, start).tolist() if kind == "vectors" else [None] * len(some)
            for place, (text, row) in enumerate(zip(some, rows, strict=True)):
                vector = "" if row is None else f', "vector": [{", ".join(f"{x:.6f}" for x in row)}]'
                file.write(f'{{"id": "doc-{start + place}", "text": {json.dumps(text)}{vector}}}\n')


def _ingest(path: Path, kind: str, count: int) -> None:
    print(f"  ingest of {count:,} {kind}, {path.stat().st_size / _MIB:,.0f} MiB of NDJSON")
    ratios = []
    for turn in range(_PAIRS):
        rates: dict[str, float] = {}
        for side in ("curl", "vec") if turn % 2 else ("vec", "curl"):
            with Instance() as instance:
                instance.start()
                embedder = {"embedder": "none", "dimension": _DIMENSION} if kind == "vectors" else {"embedder": "hash"}
                with instance.connect() as client:
                    client.request("library.create", library="bench", **embedder)
                    took_s, memory = _by_curl(instance, path) if side == "curl" else (_by_vec(instance, path), "")
                    assert client.count("bench")["documents"] == count
            rates[side] = count / took_s
            print(f"    {side}: {rates[side]:,.0f} documents/s in {took_s:.1f} s{memory}", flush=True)
        ratios.append(rates["curl"] / rates["vec"])
    print(f"    over HTTP: {statistics.median(ratios):.2f} of the rate of vec ingest ({_listed(ratios)})", flush=True)


def _by_vec(instance: Instance, path: Path) -> float:
    """Seconds."""
    started = time.perf_counter()
    with path.open("rb") as body:
        process = instance.spawn("ingest", "-", "--library", "bench", stdin=body, stdout=subprocess.DEVNULL)
        assert process.wait() == 0
    return time.perf_counter() - started


def _by_curl(instance: Instance, path: Path) -> tuple[float, str]:
    """Seconds, and what the gateway's memory did."""
    with Gateway(instance) as gateway:
        url = f"{gateway.url}/v1/libraries/bench/documents/stream"
        idle = peak = resident_bytes(gateway.process.pid)
        ended = threading.Event()

        def watch() -> None:
            nonlocal peak
            while not ended.wait(0.1):
                peak = max(peak, resident_bytes(gateway.process.pid))

        watching = threading.Thread(target=watch)
        watching.start()
        started = time.perf_counter()
        command = ["curl", "--silent", "--show-error", "--no-buffer", "-X", "POST", "--upload-file", str(path), url]
        done = subprocess.run(command, stdout=subprocess.PIPE, check=True)
        took_s = time.perf_counter() - started
        ended.set()
        watching.join()
    summary = json.loads(done.stdout.splitlines()[-1])
    assert summary["status"] == "summary", summary
    assert not summary["failed"], summary
    return took_s, f"; the gateway {idle / _MIB:.0f} MiB idle, {peak / _MIB:.0f} at most"


def _search(count: int) -> None:
    """Searches by a text and by a vector, one after the other: a search over HTTP, one through the socket, …"""
    texts = sentences(count)
    with Instance() as instance:
        instance.start()
        with instance.connect() as client, Gateway(instance) as gateway:
            client.request("library.create", library="bench", embedder="hash")
            for start in range(0, count, 1_000):
                some = texts[start : start + 1_000]
                client.ingest([{"id": str(start + place), "text": text} for place, text in enumerate(some)], "bench")
            host = gateway.url.removeprefix("http://")
            connection = http.client.HTTPConnection(host)

            def over_http(query: str, mode: str) -> None:
                body = json.dumps({"query": query, "mode": mode})
                connection.request("POST", "/v1/libraries/bench/search", body, {"content-type": "application/json"})
                answer = json.loads(connection.getresponse().read())
                assert answer["hits"]

            def by_socket(query: str, mode: str) -> None:
                assert list(client.search(query, library="bench", mode=mode))

            sides = ("HTTP", over_http), ("socket", by_socket)
            print(f"  search of {count:,} documents, alternated")
            for mode in ("vector", "text", "hybrid"):
                taken: dict[str, list[float]] = {"HTTP": [], "socket": []}
                for turn, query in enumerate(texts[:600]):
                    for name, search in sides if turn % 2 else reversed(sides):
                        started = time.perf_counter()
                        search(query, mode)
                        if turn >= 50:
                            taken[name].append((time.perf_counter() - started) * 1e3)
                medians = {name: statistics.median(each) for name, each in taken.items()}
                for name, each in taken.items():
                    print(f"    {mode}, {name}: {told(sorted(each))}")
                print(
                    f"    {mode}: HTTP takes {medians['HTTP'] / medians['socket']:.2f} times the socket's median,"
                    f" {medians['HTTP'] - medians['socket']:.3f} ms more",
                    flush=True,
                )
            connection.close()


def _listed(ratios: list[float]) -> str:
    return ", ".join(f"{each:.2f}" for each in ratios)


if __name__ == "__main__":
    main()
