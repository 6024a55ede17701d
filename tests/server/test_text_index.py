"""Full text: the same answers after a restart, a kill, a damaged snapshot and an update; phrases, languages, groups."""

from __future__ import annotations

import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.instance import Instance
from tests.support.vectors import create, memory, put
from tests.support.waiting import until
from vecd.client import Client
from vecd.errors import VecError

_COUNT = 1_500
_WORDS = ("rotate", "logs", "night", "daemon", "socket", "index", "vector", "search", "queue", "cursor")
_QUERIES = ("rotating logs", "the daemon", "n7", "socket*", '"index vector"', "n1 n2 n3", "search the queue")


def document(number: int, version: int = 0) -> dict[str, Any]:
    words = [_WORDS[(number + step * (1 + number % 3)) % len(_WORDS)] for step in range(4)]
    return {
        "id": f"d{number:05}",
        "title": f"Title {_WORDS[number % 7]}",
        "text": f"the {' '.join(words)} of n{number} in v{version}",
        "vector": b"\0\0\x80?" * 4,
    }


def answers(client: Client, library: str = "docs") -> list[list[tuple[str, float]]]:
    """All that is found for some queries, with scores."""
    return [
        [(hit["document_id"], hit["score"]) for hit in client.search(query, library=library, mode="text", k=_COUNT)]
        for query in _QUERIES
    ]


def fill(client: Client) -> None:
    create(client, "docs", dimension=4)
    put(client, "docs", (document(number) for number in range(_COUNT)))


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[list[tuple[str, float]]]]:
    """The data of an instance that was stopped, and what it answered."""
    kept = tmp_path_factory.mktemp("stopped")
    with Instance({"VEC_EMBEDDER": "hash"}) as instance:
        daemon = instance.start()
        with instance.connect() as client:
            fill(client)
            found = answers(client)
        daemon.send_signal(signal.SIGTERM)
        assert daemon.wait(30) == 0
        shutil.copytree(instance.settings.data, kept / "data")
    assert all(found)
    return kept / "data", found


@pytest.fixture
def instance(stopped: tuple[Path, object]) -> Iterator[Instance]:
    with Instance({"VEC_EMBEDDER": "hash"}) as made:
        shutil.copytree(stopped[0], made.settings.data, dirs_exist_ok=True)
        yield made


def snapshot(instance: Instance) -> Path:
    return instance.settings.data / "indexes" / "1.text"


def test_after_a_stop_the_answers_are_the_same_to_the_last_digit(
    instance: Instance, stopped: tuple[Path, list[list[tuple[str, float]]]]
) -> None:
    assert snapshot(instance).stat().st_mode & 0o777 == 0o600
    instance.start()
    with instance.connect() as client:
        assert answers(client) == stopped[1]


@pytest.mark.parametrize("how", ["missing", "flipped", "cut short", "not one"])
def test_a_snapshot_that_cannot_be_used_costs_time_and_nothing_else(
    instance: Instance, stopped: tuple[Path, list[list[tuple[str, float]]]], how: str
) -> None:
    file = snapshot(instance)
    data = bytearray(file.read_bytes())
    if how == "flipped":
        data[len(data) * 3 // 4] ^= 1
    elif how == "cut short":
        del data[len(data) // 2 :]
    elif how == "not one":
        data = bytearray(b"something else")
    file.unlink() if how == "missing" else file.write_bytes(data)
    instance.start()
    with instance.connect() as client:
        assert answers(client) == stopped[1]
        assert ("damage" in memory(client, "docs")["text"]) == (how != "missing")
    assert file.with_name("1.text.damaged").exists() == (how != "missing")


def test_what_was_written_after_the_snapshot_is_found_after_a_kill(instance: Instance) -> None:
    daemon = instance.start()
    with instance.connect() as client:
        put(client, "docs", (document(number, version=1) for number in range(300)))
        client.delete([f"d{number:05}" for number in range(300, 400)], "docs")
        put(client, "docs", (document(number) for number in range(_COUNT, _COUNT + 50)))
        before = answers(client)
    daemon.send_signal(signal.SIGKILL)
    daemon.wait()
    instance.start()
    with instance.connect() as client:
        assert answers(client) == before
        assert len(list(client.search("v1", library="docs", mode="text", k=_COUNT))) == 300
        assert list(client.search("n350", library="docs", mode="text")) == []


def test_a_document_is_found_by_its_words_as_soon_as_it_is_answered_and_not_after_it_is_deleted(
    instance: Instance,
) -> None:
    instance.start()
    with instance.connect() as client:
        for number in range(40):
            name = f"once{number}"
            assert list(client.search(name, library="docs", mode="text")) == []
            client.ingest([{**document(number), "id": name, "text": f"{name} and more"}], "docs")
            (hit,) = client.search(name, library="docs", mode="text")
            assert hit["document_id"] == name
            client.delete([name], "docs")
            assert list(client.search(name, library="docs", mode="text")) == []


def test_a_phrase_stands_in_every_hit_however_deep_it_lies(instance: Instance) -> None:
    """Many documents hold both words, and score more; few hold them in this order."""
    instance.start()
    with instance.connect() as client:
        create(client, "phrases", dimension=4)
        vector = b"\0\0\x80?" * 4
        much = [{"id": f"m{n}", "text": "alpha gamma beta alpha gamma beta", "vector": vector} for n in range(1_000)]
        few = [{"id": f"f{n}", "text": f"alpha beta{' and on' * 40}", "vector": vector} for n in range(3)]
        put(client, "phrases", [*much, *few])
        for mode in ("text", "hybrid"):
            hits = client.search('"alpha beta"', vector=vector, library="phrases", mode=mode, k=10)
            assert sorted(hit["document_id"] for hit in hits) == ["f0", "f1", "f2"], mode
        assert len(list(client.search('"beta alpha"', library="phrases", mode="text", k=2_000))) == 1_000
        assert list(client.search('"gamma alpha"', library="phrases", mode="text")) == []


@pytest.mark.parametrize("group", ["document", "chunk"])
def test_a_phrase_that_is_not_in_a_documents_best_chunk_is_found(instance: Instance, group: str) -> None:
    instance.start()
    with instance.connect() as client:
        create(client, "chunks", dimension=4)
        vector = b"\0\0\x80?" * 4
        texts = ["brown paint quick paint brown quick brown paint", "The quick brown thing", "nothing of it"]
        put(client, "chunks", [{"id": "a", "texts": texts, "vectors": [vector] * 3}])
        for mode in ("text", "hybrid"):
            hits = client.search('"quick brown"', vector=vector, library="chunks", mode=mode, group_by=group)
            found = [hit["text"] for hit in hits]
            assert sorted(found) == sorted(texts[:2] if group == "chunk" else found[:1])
            assert found[0] in texts[:2]
        (hit,) = client.search('"the quick"', vector=vector, library="chunks", mode="hybrid", group_by=group)
        assert hit["text"] == texts[1]


def test_few_documents_of_many_chunks_are_not_ranked_to_the_last_chunk(instance: Instance) -> None:
    """There are fewer documents than a hybrid search looks at: it stops when it has them all."""
    instance.start()
    with instance.connect() as client:
        create(client, "few", dimension=4)
        vector = b"\0\0\x80?" * 4
        many = [
            {"id": f"m{n}", "texts": [f"logs {n} {at}" for at in range(400)], "vectors": [vector] * 400}
            for n in range(9)
        ]
        put(client, "few", [*many, {"id": "gone", "text": "logs", "vector": vector}])
        client.delete(["gone"], "few")
        put(client, "few", [{**many[0], "texts": [f"logs again {at}" for at in range(400)]}])
        for where in ((), ("document_id != m1",)):
            for k in (5, 9, 50):
                hits = client.search("logs", vector=vector, library="few", k=k, where=where)
                found = [hit["document_id"] for hit in hits]
                assert len(set(found)) == len(found) == min(k, 9 - len(where))


def test_a_search_that_waits_for_the_text_ends_when_the_library_goes_or_the_daemon_stops(instance: Instance) -> None:
    daemon = instance.start()
    with instance.connect() as client, instance.connect() as other:
        for number in range(3):
            create(client, f"gone{number}", dimension=4)
            put(client, f"gone{number}", (document(each) for each in range(300)))
    daemon.send_signal(signal.SIGKILL)
    daemon.wait()
    daemon = instance.start()
    with instance.connect() as client, instance.connect() as other:
        for number in range(3):
            waiting = client.submit("search", library=f"gone{number}", query="rotate", mode="text")
            other.request("library.delete", library=f"gone{number}")
            try:
                assert len(waiting.result()["hits"]) == 10
            except VecError as error:
                assert error.code == "not_found"
        waiting = client.submit("search", library="docs", query="rotate", mode="text")
        daemon.send_signal(signal.SIGTERM)
        try:
            assert len(waiting.result()["hits"]) == 10
        except VecError as error:
            assert error.code in ("shutting_down", "connection_lost", "unavailable")
    assert daemon.wait(20) == 0


def test_the_language_of_a_library_decides_which_words_are_the_same(instance: Instance) -> None:
    instance.start()
    with instance.connect() as client:
        for language, found in (("german", True), ("english", False), ("none", False)):
            library = create(client, f"in-{language}", dimension=4, language=language)
            put(client, library, [{"id": "h", "text": "die alten Häuser", "vector": b"\0\0\x80?" * 4}])
            assert bool(list(client.search("Hauses", library=library, mode="text"))) is found
        with pytest.raises(VecError, match="german"):
            create(client, "in-no-language", language="germann")


def test_a_document_comes_once_with_its_best_passage(instance: Instance) -> None:
    """By document: one whose chunks crowd both rankings does not crowd out the others."""
    instance.start()
    with instance.connect() as client:
        create(client, "grouped", dimension=4)
        vector = b"\0\0\x80?" * 4
        crowd = {"id": "crowd", "texts": [f"logs {n}" for n in range(300)], "vectors": [vector] * 300}
        others = [{"id": f"o{n}", "text": f"the {n} logs are elsewhere", "vector": vector} for n in range(20)]
        put(client, "grouped", [{**crowd, "texts": [*crowd["texts"][:299], "logs logs"]}, *others])
        for mode in ("text", "vector", "hybrid"):
            hits = list(client.search("logs", vector=vector, library="grouped", mode=mode, k=15, group_by="document"))
            assert len({hit["document_id"] for hit in hits}) == 15, mode
        hits = list(client.search("logs", library="grouped", mode="text", k=3, group_by="document"))
        assert (hits[0]["document_id"], hits[0]["text"]) == ("crowd", "logs logs")
        chunks = list(client.search("logs", library="grouped", mode="text", k=15, group_by="chunk"))
        assert {hit["document_id"] for hit in chunks} == {"crowd"}


def test_who_types_a_title_finds_the_document_of_that_title_first(instance: Instance) -> None:
    """Its words occur in many others, more often and also in titles."""
    instance.start()
    with instance.connect() as client:
        create(client, "titles", embedder="hash")
        others = [
            {"id": f"o{n}", "title": f"git-{n} tool", "text": f"{n}: manages git by git, for git and for Git users"}
            for n in range(300)
        ]
        put(client, "titles", [*others, {"id": "git", "title": "Git", "text": "a fast revision control system"}])
        put(client, "titles", [{"id": f"same{n}", "title": "The same title", "text": f"no {n}"} for n in range(150)])
        for mode in ("text", "hybrid", "auto"):
            for query in ("git", "GIT", '"git"'):
                (hit,) = client.search(query, library="titles", mode=mode, k=1)
                assert hit["document_id"] == "git", (mode, query)
            hits = client.search("the same title", library="titles", mode=mode, k=150)
            assert all(hit["document_id"].startswith("same") for hit in list(hits)[:100])


def test_hits_below_a_score_are_left_out(instance: Instance) -> None:
    instance.start()
    with instance.connect() as client:
        hits = list(client.search("rotate n5", library="docs", mode="text", k=50))
        least = hits[9]["score"]
        kept = list(client.search("rotate n5", library="docs", mode="text", k=50, min_score=least))
        assert kept == [hit for hit in hits if hit["score"] >= least]


def test_a_hit_says_where_it_comes_from_and_how_sure_the_answer_is(instance: Instance) -> None:
    instance.start()
    with instance.connect() as client:
        vector = b"\0\0\x80?" * 4
        answer = client.request("search", library="docs", query="rotate n5", vector=vector, k=20, explain=True)
        explain = answer["explain"]
        assert (explain["mode"], explain["index"], explain["exact"], explain["recall"]) == ("hybrid", "pq", True, 1.0)
        for hit in answer["hits"]:
            told = hit["explain"]
            parts = [
                weight / (20 + told[name]["rank"]) for name, weight in (("vector", 1), ("text", 1.5)) if told[name]
            ]
            assert hit["score"] == pytest.approx(sum(parts), abs=1e-6)


def test_full_text_is_kept_by_a_snapshot_job_and_goes_with_its_library(instance: Instance) -> None:
    instance.start()
    with instance.connect() as client:
        put(client, "docs", [document(_COUNT)])
        list(client.search("rotate", library="docs", mode="text"))
        before = snapshot(instance).stat().st_mtime_ns
        (job,) = client.wait_for_jobs([client.submit_job("snapshot", {}, library="docs")["job_id"]])
        assert job["state"] == "completed", job["error"]
        assert snapshot(instance).stat().st_mtime_ns > before
        client.request("library.delete", library="docs")
        until(lambda: not snapshot(instance).exists(), "the snapshot to go")
