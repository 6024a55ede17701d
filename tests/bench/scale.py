"""The default index at several sizes, through the socket: how right, how fast, how large.

    python -m tests.bench.scale [SIZE…]        10,000 100,000 200,000 unless given

Vectors of real texts, 256 dimensions. Queries: like the stored ones (texts of the same sources that are not stored),
and foreign ones (questions and keywords). Each is searched without a filter, under random filters, with its own topic
alone, without its own topic, and after its own topic has been deleted. Topics are the fifty parts that random vectors
cut the library into. A hit is right if it is as near as the k-th nearest, by numpy in this process. Recall is told as
the mean, the share of queries below 0.7, and the worst; beside the times stands an exact search of the same library.

Wanted: a mean of 0.98 or more and no more than 1 % below 0.7 in each row.
"""

from __future__ import annotations

import time
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from tests.bench import corpus
from tests.bench.library import NAME, Floats, in_turn, searches_per_second, settle
from tests.bench.measure import resident_bytes, sizes, times_ms, told
from tests.support.instance import Instance
from vecd.client import Client
from vecd.text import embedders

_SIZES = (10_000, 100_000, 200_000)
_LIKE, _K, _BATCH, _TOPICS = 200, 10, 500, 50
_TIMED, _TIMED_EXACT = 500, 50

FOREIGN = (
    "undo last commit", "rotate the logs every night", "parse json", "out of memory in the parser", "redis client",
    "convert pdf to text", "machine learning", "unit test", "http server", "color terminal", "resize an image",
    "sql orm", "date parsing", "async queue", "validate an email address", "cat", "the", "list files by size",
    "kill a process by name", "why is my disk full", "how do I copy a folder over ssh", "compress", "usb", "dns lookup",
    "what does this error mean", "measurement of dielectric constant of liquids", "electron beam", "game", "bible",
    "translate german to english", "firewall", "spell checker", "solve a system of linear equations", "git",
    "download a video", "remove duplicate lines", "encrypt a file with a password", "weather", "mail", "chess engine",
)  # fmt: skip


def main() -> None:
    for size in sizes(*_SIZES):
        _measure(size)


def _measure(size: int) -> None:
    _, vectors, what = corpus.vectors(size + _LIKE)
    vectors, like = vectors[:size], vectors[size:]
    embedder = embedders.make("wordllama")
    assert embedder is not None
    queries = {"like": like, "foreign": embedder.embed(list(FOREIGN))}
    topics = np.argmax(vectors @ _anchors(vectors).T, axis=1)
    print(f"  {size:,} vectors: {what}", flush=True)
    with Instance() as instance:
        daemon = instance.start()
        with instance.connect(None) as client:
            before = resident_bytes(daemon.pid)
            client.request("library.create", library=NAME, embedder="none", dimension=vectors.shape[1])
            _fill(client, vectors, topics)
            started = time.perf_counter()
            memory = settle(client)
            built = time.perf_counter() - started
            print(
                f"    index {memory['memory_bytes'] / size:,.0f} bytes a vector, {memory['structure']:,} rows in codes"
                f" {built:.1f} s after the last write; daemon grown by"
                f" {(resident_bytes(daemon.pid) - before) / vectors.nbytes:.2f} x the vectors"
            )
            for name, asked in queries.items():
                _recalls(client, vectors, topics, name, asked)
            _times(instance, client, like)
            _deleted(client, vectors, topics, queries)


def _anchors(vectors: Floats) -> Floats:
    chosen: Floats = vectors[np.random.default_rng(3).choice(len(vectors), _TOPICS, replace=False)]
    return chosen


def _fill(client: Client, vectors: Floats, topics: npt.NDArray[np.int64]) -> None:
    started = time.perf_counter()
    for start in range(0, len(vectors), _BATCH):
        rows = range(start, min(start + _BATCH, len(vectors)))
        client.ingest(
            [
                {
                    "id": str(row),
                    "vector": vectors[row],
                    "metadata": {"topic": int(topics[row]), "share": row * 7_919 % 1_000},
                }
                for row in rows
            ],
            NAME,
        )
    print(f"    written at {len(vectors) / (time.perf_counter() - started):,.0f} documents/s", flush=True)


def _recalls(client: Client, vectors: Floats, topics: npt.NDArray[np.int64], name: str, asked: Floats) -> None:
    share = np.arange(len(vectors)) * 7_919 % 1_000
    own = np.argmax(asked @ _anchors(vectors).T, axis=1)
    patterns: dict[str, tuple[list[str], list[npt.NDArray[np.bool_] | None]]] = {
        "all": ([""] * len(asked), [None] * len(asked)),
        "half": (["share < 500"] * len(asked), [share < 500] * len(asked)),
        "1 %": (["share < 10"] * len(asked), [share < 10] * len(asked)),
        "own topic": ([f"topic = {each}" for each in own], [topics == each for each in own]),
        "not own topic": ([f"topic != {each}" for each in own], [topics != each for each in own]),
    }
    for pattern, (wheres, masks) in patterns.items():
        found = []
        for query, where, mask in zip(asked, wheres, masks, strict=True):
            hits = client.search(vector=query, library=NAME, k=_K, where=[where] if where else ())
            found.append(_right(vectors, query, mask, [int(hit["document_id"]) for hit in hits]))
        _tell(name, pattern, found)


def _right(vectors: Floats, query: Floats, mask: npt.NDArray[np.bool_] | None, ids: list[int]) -> float:
    scores = vectors @ query
    if mask is not None:
        scores = np.where(mask, scores, -np.inf)
    wanted = min(_K, int(np.isfinite(scores).sum()))
    if not wanted:
        return 1.0
    least = np.partition(scores, -wanted)[-wanted]
    return float(np.count_nonzero(scores[ids] >= least - 1e-6)) / wanted


def _tell(name: str, pattern: str, found: list[float]) -> None:
    recalls = np.array(found)
    print(
        f"    {name:>7}, {pattern:>15}: recall@{_K} {recalls.mean():.4f}, below 0.7 {(recalls < 0.7).mean():.1%},"
        f" worst {recalls.min():.1f}  (n={len(recalls)})",
        flush=True,
    )


def _times(instance: Instance, client: Client, queries: Floats) -> None:
    ours = times_ms(in_turn(queries, lambda q: list(client.search(vector=q, library=NAME))), _TIMED)
    exact = times_ms(in_turn(queries, lambda q: list(client.search(vector=q, library=NAME, exact=True))), _TIMED_EXACT)
    print(f"    one client: {told(ours)}; exact {told(exact)}", flush=True)
    print(f"    8 clients: {searches_per_second(instance, queries, 8):,.0f} searches/s", flush=True)


def _deleted(client: Client, vectors: Floats, topics: npt.NDArray[np.int64], queries: dict[str, Floats]) -> None:
    """Each query's own topic is gone; topics are deleted one after the other, a fifth of them at the most."""
    anchors = _anchors(vectors)
    own = {name: np.argmax(asked @ anchors.T, axis=1) for name, asked in queries.items()}
    found: dict[str, list[float]] = {name: [] for name in queries}
    gone = np.zeros(len(vectors), np.bool_)
    for topic in _asked_most(own):
        client.delete(library=NAME, where=[f"topic = {topic}"])
        gone |= topics == topic
        for name, asked in queries.items():
            for query in asked[own[name] == topic]:
                ids = [int(hit["document_id"]) for hit in client.search(vector=query, library=NAME, k=_K)]
                found[name].append(_right(vectors, query, ~gone, ids))
    for name, recalls in found.items():
        _tell(name, "topic deleted", recalls)


def _asked_most(own: dict[str, npt.NDArray[np.int64]]) -> Iterator[int]:
    """The topics that most queries belong to."""
    counts = sum((np.bincount(each, minlength=_TOPICS) for each in own.values()), np.zeros(_TOPICS, np.int64))
    yield from np.argsort(-counts)[: _TOPICS // 5].tolist()


if __name__ == "__main__":
    main()
