"""vec search, get, list, count, delete and library: what is there is found, in the right order, at once."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from tests.support.instance import Instance, ndjson
from tests.support.running import end_of_input, feed, fresh, ids_in, line_of, rest_of, running
from vecd import limits

HIT = ["rank", "score", "document_id", "chunk_id", "title", "text", "metadata"]

TEXTS = {
    "logs": ("Log rotation", "Rotate the logs every night, and keep thirty of them."),
    "mail": (None, "The mail server answers on port 25."),
    "cron": ("Cron", "A job that runs every night at three."),
    "csv": (None, "Read a file of comma separated values."),
}


@pytest.fixture(scope="module")
def instance() -> Iterator[Instance]:
    with Instance({"VEC_EMBEDDER": "hash"}) as made:
        made.vec("status")
        yield made


@pytest.fixture(scope="module")
def texts(instance: Instance) -> str:
    """A library of four texts; no test writes to it."""
    library = fresh(instance)
    documents = [
        {"id": name, "title": title, "text": text, "metadata": {"n": n}}
        for n, (name, (title, text)) in enumerate(TEXTS.items())
    ]
    put(instance, library, documents)
    return library


@pytest.fixture(scope="module")
def matrix() -> npt.NDArray[np.float32]:
    """3,000 vectors of 8 dimensions, of different lengths."""
    drawn = np.random.default_rng(11).normal(size=(3_000, 8)) * np.linspace(0.2, 3, 3_000)[:, None]
    return drawn.astype(np.float32)


@pytest.fixture(scope="module")
def libraries(instance: Instance, matrix: npt.NDArray[np.float32]) -> dict[str, str]:
    """Metric -> a library that holds `matrix`, row n as document n; no test writes to it."""
    documents = [{"id": str(row), "vector": vector} for row, vector in enumerate(matrix)]
    made = {}
    for metric in ("cosine", "dot", "l2"):
        made[metric] = fresh(instance, embedder="none", metric=metric)
        put(instance, made[metric], documents)
    return made


def put(instance: Instance, library: str, documents: list[dict[str, Any]]) -> None:
    with instance.connect() as client:
        for start in range(0, len(documents), 4_000):
            answer = client.ingest(documents[start : start + 4_000], library)
            assert answer["failed"] == 0, answer["errors"]


def found(hits: list[dict[str, Any]]) -> list[str]:
    return [hit["document_id"] for hit in hits]


# --- search ---------------------------------------------------------------------------------------------------------


def test_a_hit_says_what_it_is_and_the_best_comes_first(instance: Instance, texts: str) -> None:
    hits = instance.objects("search", "rotate logs at night", "-l", texts)
    assert [list(hit) for hit in hits] == [HIT] * len(hits)
    assert [hit["rank"] for hit in hits] == list(range(1, len(hits) + 1))
    scores = [hit["score"] for hit in hits]
    assert scores == sorted(scores, reverse=True)
    title, text = TEXTS["logs"]
    assert {key: hits[0][key] for key in HIT[2:]} == {
        "document_id": "logs", "chunk_id": "logs#0", "title": title, "text": text, "metadata": {"n": 0},
    }  # fmt: skip
    assert instance.vec("search", "rotate logs at night", "-l", texts, "--json").stdout.count("\n") == len(hits)


@pytest.mark.parametrize("k", [1, 2, 3])
def test_k_is_how_many_hits_there_are(instance: Instance, texts: str, k: int) -> None:
    all_of_them = instance.objects("search", "every night", "-l", texts)
    assert len(all_of_them) == len(TEXTS)
    assert instance.objects("search", "every night", "-l", texts, "-k", str(k)) == all_of_them[:k]


def test_a_k_larger_than_the_library_gives_all_of_it(instance: Instance) -> None:
    library = fresh(instance)
    put(instance, library, [{"id": "a", "texts": ["one", "two", "three"]}, {"id": "b", "text": "four"}])
    for k in ("100", "1000", "1001", "1000000"):
        hits = instance.objects("search", "one", "-l", library, "-k", k, "--group-by", "chunk")
        assert sorted(hit["chunk_id"] for hit in hits) == ["a#0", "a#1", "a#2", "b#0"]
        assert hits[0]["chunk_id"] == "a#0"
        # By document, as is usual: the best chunk of each.
        assert [hit["chunk_id"] for hit in instance.objects("search", "one", "-l", library, "-k", k)] == ["a#0", "b#0"]


def test_ten_hits_are_what_you_get_if_you_do_not_say(instance: Instance, libraries: dict[str, str]) -> None:
    assert len(instance.objects("search", "-l", libraries["l2"], "--vector", "[0,0,0,0,0,0,0,0]")) == 10


def test_each_mode_finds_in_its_own_way(instance: Instance) -> None:
    """Vectors of one's own, so that each mode has to answer differently."""
    library = fresh(instance, embedder="none")
    put(
        instance,
        library,
        [
            {"id": "word", "text": "the zebra", "vector": [0.0, 1.0]},
            {"id": "near", "text": "the horse", "vector": [1.0, 0.0]},
            {"id": "both", "text": "a zebra and a horse", "vector": [1.0, 0.5]},
        ],
    )

    def modes(*arguments: str) -> list[str]:
        return found(instance.objects("search", "-l", library, *arguments))

    assert modes("--vector", "[1, 0]") == ["near", "both", "word"]
    assert modes("--vector", "[1, 0]", "--mode", "vector") == ["near", "both", "word"]
    assert modes("zebra", "--vector", "[1, 0]", "--mode", "vector") == ["near", "both", "word"]
    assert modes("zebra", "--mode", "text") == ["word", "both"]  # BM25 prefers the shorter
    assert modes("zebra", "--vector", "[1, 0]", "--mode", "text") == ["word", "both"]
    # By reciprocal ranks: word 1/23 + 1.5/21, both 1/22 + 1.5/22, near 1/21.
    assert modes("zebra", "--vector", "[1, 0]", "--mode", "hybrid") == ["word", "both", "near"]
    assert modes("zebra", "--vector", "[1, 0]") == ["word", "both", "near"]
    assert modes("zebra") == ["word", "both"]  # nothing to embed it with: full text


def test_a_hybrid_score_is_the_sum_of_reciprocal_ranks(instance: Instance) -> None:
    library = fresh(instance, embedder="none")
    put(
        instance,
        library,
        [{"id": "a", "text": "zebra", "vector": [1.0]}, {"id": "b", "text": "horse", "vector": [-1.0]}],
    )
    a, b = instance.objects("search", "zebra", "-l", library, "--vector", "[1]", "--mode", "hybrid")
    assert (a["score"], b["score"]) == (round(1 / 21 + 1.5 / 21, 6), round(1 / 22, 6))


@pytest.mark.parametrize(
    "query", ['zebra "OR" AND (', "zebra*", "-zebra", "text:zebra", '"', "NEAR(zebra, 2)", "zebra'"]
)
def test_what_full_text_would_take_for_an_operator_is_only_text(instance: Instance, texts: str, query: str) -> None:
    for mode in ("text", "auto"):
        instance.vec("search", "--mode", mode, "-l", texts, "--", query)


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ([], "specify either a QUERY, a --vector, --like, or --stdin"),
        (["words", "--stdin"], "a QUERY and --stdin cannot be combined"),
        (["--vector", "[1]", "--stdin"], "--vector cannot be combined with --stdin"),
        (["words", "--like", "a"], "a QUERY and --like cannot be combined"),
        (["--like", "a", "--stdin"], "--like cannot be combined with --stdin"),
        (["words", "-k", "0"], "-k"),
        (["words", "-k", "1000001"], "-k"),
        (["words", "--mode", "guess"], "--mode"),
        (["--vector", "[1, 2]", "--mode", "text"], "mode 'text' needs a query text"),
        (["--vector", "[1, 2]", "--mode", "hybrid"], "mode 'hybrid' needs a query text"),
        (["--vector", "[1, 2]"], "256-dimension vectors, but the query has 2"),
        (["--vector", "[1, 2"], "--vector: not a vector"),
        (["--vector", "5"], "--vector: not a vector"),
        (["--vector", '{"a": 1}'], "--vector: not a vector"),
        (["--vector", '["1", "2"]'], "contains a string"),
        (["--vector", "[]"], "vector"),
        (["--vector", json.dumps([float("nan")] * 256)], "not finite"),
        (["--vector", json.dumps([1e39] * 256)], "not finite|too large"),
    ],
)
def test_a_search_that_makes_no_sense_is_a_usage_error(
    instance: Instance, texts: str, arguments: list[str], reason: str
) -> None:
    done = instance.vec("search", "-l", texts, *arguments, status=2)
    assert done.stdout == ""
    assert any(part in done.stderr for part in reason.split("|")), done.stderr


def test_words_without_an_embedder_need_a_vector_or_full_text(instance: Instance, libraries: dict[str, str]) -> None:
    done = instance.vec("search", "words", "--mode", "vector", "-l", libraries["dot"], status=2)
    assert "has no embedder, so mode 'vector' needs a vector" in done.stderr
    assert instance.objects("search", "words", "-l", libraries["dot"]) == []


def test_an_empty_library_has_no_hits_and_a_missing_one_is_exit_4(instance: Instance) -> None:
    for library in (fresh(instance), fresh(instance, embedder="none"), fresh(instance, embedder="none", dimension=2)):
        assert instance.vec("search", "anything", "-l", library).stdout == ""
        assert instance.vec("search", "--vector", "[1, 2]", "-l", fresh(instance, embedder="none")).stdout == ""
    done = instance.vec("search", "anything", "-l", "nowhere-at-all", status=4)
    assert "library 'nowhere-at-all' does not exist" in done.stderr


def test_an_instance_that_nothing_was_written_to_is_empty_and_not_an_error() -> None:
    with Instance({"VEC_EMBEDDER": "hash"}) as own:
        empty = "no hits: library 'default' is empty; "
        for form in ("json", "grep", "text"):
            done = own.vec("search", "anything", "--format", form)
            assert (done.stdout, done.stderr) == ("", f"{empty}vec ingest adds documents to it\n")
        assert own.vec("list").stdout == ""
        assert own.objects("count") == [{"library": "default", "documents": 0, "chunks": 0, "seq": 0}]
        assert own.objects("delete", "x")[0]["missing"] == 1
        assert "document 'x' does not exist in library 'default'" in own.vec("get", "x", status=4).stderr
        assert own.objects("library", "list") == []  # looking makes nothing
        own.vec("library", "create", "without-documents")
        for count, named in ((1, "-l n1"), (3, "-l n1, -l n2, -l n3"), (4, "-l n1, -l n2, -l n3, …")):
            own.vec("ingest", "-l", f"n{count}", stdin='{"id": "a", "text": "logs"}\n')
            if count == 3:
                own.vec("ingest", "-l", "n2", stdin='{"id": "a", "text": "logs"}\n')
            assert own.vec("search", "logs").stderr == f"{empty}search another: {named}\n"
        assert own.vec("search", "zebra", "--mode", "text", "-l", "n1").stderr == ""


# --- order and scores -----------------------------------------------------------------------------------------------


def brute_force(
    metric: str, matrix: npt.NDArray[np.float32], query: npt.NDArray[np.float32]
) -> npt.NDArray[np.float64]:
    """The score of every row, in double precision."""
    rows, q = matrix.astype(np.float64), query.astype(np.float64)
    if metric == "dot":
        scores: npt.NDArray[np.float64] = rows @ q
    elif metric == "cosine":
        scores = rows @ q / np.linalg.norm(rows, axis=1) / np.linalg.norm(q)
    else:
        scores = -np.linalg.norm(rows - q, axis=1)
    return scores


@pytest.mark.parametrize("k", [10, 999, 1_000, 1_001, 2_500, 3_000])
@pytest.mark.parametrize("metric", ["cosine", "dot", "l2"])
def test_the_order_is_that_of_brute_force_and_higher_is_better(
    instance: Instance, libraries: dict[str, str], matrix: npt.NDArray[np.float32], metric: str, k: int
) -> None:
    """Up to a page in one answer, beyond it as a stream: the same order, the same scores."""
    query = matrix[7] + np.float32(0.1)
    hits = instance.objects("search", "-l", libraries[metric], "-k", str(k), "--vector", json.dumps(query.tolist()))
    truth = brute_force(metric, matrix, query)
    scores = [hit["score"] for hit in hits]
    assert scores == sorted(scores, reverse=True)
    assert [hit["rank"] for hit in hits] == list(range(1, k + 1))
    assert len(set(found(hits))) == k
    assert scores == pytest.approx(np.sort(truth)[::-1][:k].tolist(), abs=2e-5)
    assert scores == pytest.approx([truth[int(each)] for each in found(hits)], abs=2e-5)


@pytest.mark.parametrize("metric", ["cosine", "l2"])
def test_the_same_vector_is_the_best_there_can_be(
    instance: Instance, libraries: dict[str, str], matrix: npt.NDArray[np.float32], metric: str
) -> None:
    (hit,) = instance.objects(
        "search", "-l", libraries[metric], "-k", "1", "--vector", json.dumps(matrix[2_000].tolist())
    )
    assert hit["document_id"] == "2000"
    assert hit["score"] == pytest.approx(1 if metric == "cosine" else 0, abs=2e-3)


@pytest.mark.parametrize("size", [1e-30, 1e-20, 1e18, 1e30, 3e38])
@pytest.mark.parametrize("metric", ["cosine", "dot", "l2"])
def test_scores_are_numbers_and_the_order_right_however_large_or_small_the_vectors(
    instance: Instance, metric: str, size: float
) -> None:
    """A vector of finite floats is either refused with a reason, or searched properly."""
    library = fresh(instance, embedder="none", metric=metric)
    lines = ndjson([{"id": "same", "vector": [size, 0]}, {"id": "opposite", "vector": [-size, 0]}])
    done = instance.vec("ingest", "-l", library, stdin=lines, status=None)
    if done.returncode == 3:
        assert "vector" in done.stderr
        return
    assert done.returncode == 0
    hits = instance.objects("search", "-l", library, "--vector", json.dumps([size, 0]))
    assert all(isinstance(hit["score"], float) for hit in hits), hits
    if metric == "cosine":
        assert [hit["score"] for hit in hits] == pytest.approx([1, -1], abs=1e-5)
    elif size > 1e-20:  # the square of less is no float32
        assert found(hits) == ["same", "opposite"]


def test_a_query_needs_no_quotes_and_a_dash_is_text_behind_two(instance: Instance, texts: str) -> None:
    quoted = instance.objects("search", "rotate logs -k", "-l", texts)
    assert instance.objects("search", "-l", texts, "--", "rotate", "logs", "-k") == quoted
    assert instance.objects("search", "rotate", "logs", "-l", texts, "-k", "1", "at", "night")[0]["rank"] == 1


def test_a_vector_is_read_from_a_file_or_from_stdin(
    instance: Instance, libraries: dict[str, str], tmp_path: Path
) -> None:
    given = json.dumps([1, 0, 0, 0, 0, 0, 0, 0.5])
    library = libraries["cosine"]
    expected = instance.objects("search", "-l", library, "--vector", given)
    path = tmp_path / "vector.json"
    path.write_text(given.replace(", ", ",\n "))
    assert instance.objects("search", "-l", library, "--vector", f"@{path}") == expected
    assert instance.objects("search", "-l", library, "--vector", "-", stdin=f"{given}\n") == expected
    for wrong, told in (
        ("@/no/such", "cannot read /no/such"),
        (f"@{tmp_path}", "Is a directory"),
        ("@", "cannot read"),
    ):
        done = instance.vec("search", "-l", library, "--vector", wrong, status=2)
        assert (done.stdout, told in done.stderr) == ("", True), done.stderr
    path.write_bytes(b"\xff")
    assert "it is not UTF-8" in instance.vec("search", "-l", library, "--vector", f"@{path}", status=2).stderr
    assert "not a vector" in instance.vec("search", "-l", library, "--vector", "-", stdin="", status=2).stderr


def test_like_prints_what_is_similar_and_an_unknown_id_is_exit_4(instance: Instance, texts: str) -> None:
    hits = instance.objects("search", "-l", texts, "--like", "logs")
    assert sorted(found(hits)) == ["cron", "csv", "mail"]
    done = instance.vec("search", "-l", texts, "--like", "nobody", status=4)
    assert f"document 'nobody' does not exist in library '{texts}'" in done.stderr


# --- queries from stdin ---------------------------------------------------------------------------------------------


def test_queries_from_stdin_are_answered_in_their_order_with_the_query_in_each_hit(
    instance: Instance, texts: str
) -> None:
    queries = [f"night {number}" if number % 2 else f"file {number}" for number in range(200)]
    hits = instance.objects("search", "-l", texts, "--stdin", "-k", "2", stdin="\n".join(queries))
    assert [hit["query"] for hit in hits] == [query for query in queries for _ in range(2)]
    assert [hit["rank"] for hit in hits] == [1, 2] * 200
    assert all(list(hit) == ["query", *HIT] for hit in hits)
    for query in queries[:4]:
        alone = instance.objects("search", query, "-l", texts, "-k", "2")
        assert [{"query": query, **hit} for hit in alone] == [hit for hit in hits if hit["query"] == query]


def test_a_query_may_be_bare_or_an_object_with_k_mode_or_vector(instance: Instance, texts: str) -> None:
    with instance.connect() as client:
        (csv,) = (document for document in client.get(["csv"], texts, vectors=True) if document)
    vector = np.frombuffer(csv["chunks"][0]["vector"], "<f4").tolist()
    lines = ["every night", "", "  ", json.dumps({"query": "every night", "k": 1}), "comma\r"]
    lines += [json.dumps({"query": "mail", "mode": "text"}), json.dumps({"vector": vector, "k": 1})]
    hits = instance.objects("search", "-l", texts, "--stdin", stdin="\n".join(lines))
    by_query = [(hit["query"], hit["rank"], hit["document_id"]) for hit in hits]
    assert [query for query, rank, _ in by_query if rank == 1] == ["every night", "every night", "comma", "mail", None]
    assert [each for each in by_query if each[0] == "mail"] == [("mail", 1, "mail")]
    assert by_query[-1] == (None, 1, "csv")
    assert len([each for each in by_query if each[0] == "every night"]) == len(TEXTS) + 1


def test_what_is_no_key_of_a_query_is_passed_through_to_its_hits(instance: Instance, texts: str) -> None:
    lines: list[dict[str, Any]] = [
        {"id": 7, "query": "mail", "k": 1, "tags": ["a", {"b": None}]},
        {"like": "mail", "k": 1, "offset": 1, "query_id": "x"},
        {"query": "mail", "title": "t"},
        {"query": "mail", "k": 1, "wher": "n = 1"},
    ]
    done = instance.vec("search", "-l", texts, "--stdin", stdin=ndjson(lines), status=3)
    first, second, third = (json.loads(line) for line in done.stdout.splitlines())
    assert list(first) == ["query", "id", "tags", *HIT]
    assert (first["query"], first["id"], first["tags"]) == ("mail", 7, ["a", {"b": None}])
    assert (second["query"], second["query_id"], second["rank"]) == (None, "x", 2)
    assert third["wher"] == "n = 1"
    told = done.stderr.splitlines()
    assert "vec: stdin:3: the key 'title' is one of a hit, and cannot be passed through (invalid_request)" in told
    assert any("stdin:4: the key 'wher' is passed through to the hits; did you mean 'where'?" in line for line in told)


def test_a_query_is_answered_while_stdin_stays_open(instance: Instance, texts: str) -> None:
    with running(instance, "search", "-l", texts, "--stdin", "-k", "1") as process:
        for query in ("every night", "comma", "every night"):
            feed(process, query + "\n")
            assert line_of(process.stdout)["query"] == query
        feed(process, "one\ntwo\n")
        assert [line_of(process.stdout)["query"] for _ in range(2)] == ["one", "two"]
        end_of_input(process)
        assert process.wait() == 0
        assert rest_of(process.stdout) == ""


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b'{"query": ', "stdin:3: not a query"),
        (b'{"k": 3}', 'stdin:3: a query needs a "query", a "vector" or a "like"'),
        (b'{"vector": "abc"}', "stdin:3: not a vector"),
        (b"caf\xe9", "stdin:3: not a query"),
        (b"x" * (limits.LINE_BYTES_MAX + 1), "stdin:3: the line exceeds"),
        (b"x" * (limits.QUERY_CHARS_MAX + 1), "a string of at most 100,000 characters"),
        (b'{"query": "a", "k": 0}', "'k' must be a whole number"),
        (b'{"query": "a", "k": "3"}', "'k' must be a whole number"),
        (b'{"query": 5}', "'query' must be a string"),
        (b'{"query": "a", "mode": "guess"}', "unknown mode 'guess'"),
    ],
)
def test_a_line_that_is_no_query_is_named_and_the_others_are_answered(
    instance: Instance, texts: str, line: bytes, reason: str
) -> None:
    given = b"every night\ncomma\n" + line + b"\nmail\n"
    done = instance.vec("search", "-l", texts, "--stdin", "-k", "1", stdin=given, status=3)
    assert [json.loads(each)["query"] for each in done.stdout.splitlines()] == ["every night", "comma", "mail"]
    assert done.stderr.startswith("vec: stdin:3: ")
    assert reason in done.stderr
    assert done.stderr.count("vec: ") == 1


def test_what_is_wrong_with_an_option_ends_a_run_of_queries(instance: Instance, texts: str) -> None:
    for options, told in ((["-w", "year >"], "(invalid_filter)"), (["--min-score", "nan"], "'--min-score'")):
        done = instance.vec("search", "-l", texts, "--stdin", *options, stdin="mail\ncomma\n", status=2)
        assert done.stdout == ""
        assert told in done.stderr
    done = instance.vec(
        "search", "-l", texts, "--stdin", "-k", "1", stdin='{"query": "a", "where": "year >"}\n', status=3
    )
    assert done.stderr.startswith("vec: stdin:1: ")


def test_an_option_that_cannot_be_is_named_as_it_is_written(instance: Instance, texts: str) -> None:
    for option in ("--min-score", "--recall"):
        done = instance.vec("search", "-l", texts, "mail", option, "nan", status=2)
        assert f"invalid value for '{option}': must be a finite number, not nan" in done.stderr
    done = instance.vec("search", "-l", texts, "x" * (limits.QUERY_CHARS_MAX + 1), status=2)
    assert "the query has 100,001 characters; the limit is 100,000 (invalid_request)" in done.stderr
    done = instance.vec("search", "-C++", status=2)
    assert "put an argument that begins with - after --: vec search -- -C++" in " ".join(done.stderr.split())
    assert instance.vec("search", "-l", texts, "-k", "1", "--", "-C++").stdout


# --- at once --------------------------------------------------------------------------------------------------------


def test_a_search_right_after_the_answer_sees_the_add_the_update_and_the_delete(instance: Instance) -> None:
    """200 times each, over one connection; the hash embedder and full text both know the new word only."""
    library = fresh(instance)
    with instance.connect() as client:

        def hits(word: str, mode: str) -> list[str]:
            return [hit["document_id"] for hit in client.search(word, library=library, k=1_000, mode=mode)]

        for number in range(200):
            document_id, old, new = f"d{number}", f"old{number}", f"new{number}"
            assert client.ingest([{"id": document_id, "text": old}], library)["added"] == 1
            assert hits(old, "text") == [document_id]
            assert hits(old, "auto")[0] == document_id
            assert client.ingest([{"id": document_id, "text": new}], library)["updated"] == 1
            assert (hits(new, "text"), hits(old, "text")) == ([document_id], [])
            assert hits(new, "vector").count(document_id) == 1
            if number % 2:
                assert client.delete([document_id], library)["deleted"] == 1
                assert hits(new, "text") == []
                assert document_id not in hits(new, "vector")
        assert client.count(library)["documents"] == 100


def test_a_search_from_another_connection_sees_it_too(instance: Instance) -> None:
    library = fresh(instance, embedder="none", metric="l2")
    with instance.connect() as writer, instance.connect() as reader:
        for number in range(100):
            writer.ingest([{"id": str(number), "vector": [1.0, number]}], library)
            (hit,) = reader.search(vector=[1.0, number], library=library, k=1)
            assert hit["document_id"] == str(number)
            assert len(list(reader.search(vector=[1.0, number], library=library, k=1_000))) == number + 1


# --- get ------------------------------------------------------------------------------------------------------------


def test_get_prints_documents_in_the_order_they_are_asked_for(instance: Instance, texts: str) -> None:
    printed = instance.objects("get", "-l", texts, "csv", "logs", "csv")
    assert found([{"document_id": each["id"]} for each in printed]) == ["csv", "logs", "csv"]
    title, text = TEXTS["logs"]
    assert printed[1] == {
        "id": "logs", "title": title, "metadata": {"n": 0}, "chunks": [{"chunk_id": "logs#0", "text": text}],
    }  # fmt: skip


def test_get_names_what_is_missing_and_prints_the_rest(instance: Instance, texts: str) -> None:
    done = instance.vec("get", "-l", texts, "nobody", "csv", "nothing", "mail", status=4)
    assert [json.loads(line)["id"] for line in done.stdout.splitlines()] == ["csv", "mail"]
    assert done.stderr.splitlines() == [
        f"vec: document {name!r} does not exist in library {texts!r} (not_found)" for name in ("nobody", "nothing")
    ]


def test_get_vectors_are_the_ones_that_were_given(instance: Instance, libraries: dict[str, str], matrix: Any) -> None:
    printed = instance.objects("get", "-l", libraries["cosine"], "--vectors", "0", "2999")
    for document, row in zip(printed, (0, 2_999), strict=True):
        assert document["chunks"][0]["vector"] == pytest.approx(matrix[row].tolist(), rel=1e-6)
    assert "vector" not in instance.objects("get", "-l", libraries["cosine"], "0")[0]["chunks"][0]


def test_get_reads_ids_from_stdin_bare_or_as_json(instance: Instance, texts: str) -> None:
    lines = 'csv\n\n{"id": "mail"}\r\n"logs"\n {"document_id": "cron", "title": "what search prints, get takes"}'
    assert [each["id"] for each in instance.objects("get", "-l", texts, "--stdin", stdin=lines)] == [
        "csv", "mail", "logs", "cron",
    ]  # fmt: skip
    assert instance.vec("get", "-l", texts, "--stdin", stdin="").stdout == ""
    done = instance.vec("get", "-l", texts, "--stdin", stdin="csv\nnobody\nmail\n", status=4)
    assert (done.stdout.count("\n"), "'nobody'" in done.stderr) == (2, True)


_ODD_IDS = [" k1", "k1 ", '{"id": "k2"}', '"k1"', "[k1]", "k\t1", "k\r1", "\\", "größe \U0001f600", "-k1", "a,b"]


def test_every_id_travels_as_a_json_string(instance: Instance) -> None:
    library = fresh(instance)
    instance.vec("ingest", "-l", library, stdin=ndjson([{"id": each, "text": "x"} for each in ["k1", "k2", *_ODD_IDS]]))
    for line_of_id in (json.dumps, lambda each: json.dumps({"id": each})):
        lines = "\n".join(map(line_of_id, _ODD_IDS))
        assert [each["id"] for each in instance.objects("get", "-l", library, "--stdin", stdin=lines)] == _ODD_IDS
    lines = "\n".join(map(json.dumps, _ODD_IDS))
    assert instance.objects("delete", "-l", library, "--stdin", stdin=lines)[0]["deleted"] == len(_ODD_IDS)
    assert [each["id"] for each in instance.objects("list", "-l", library)] == ["k1", "k2"]


@pytest.mark.parametrize("odd", [" k1", "k1 ", '{"id": "k1"}', '"k1"', "[k1]", '{"document_id": "k1"}'])
def test_an_id_that_is_bare_by_mistake_deletes_nothing_else(instance: Instance, odd: str) -> None:
    """As `jq -r .id` prints it."""
    library = fresh(instance)
    instance.vec("ingest", "-l", library, stdin=ndjson([{"id": each, "text": "x"} for each in ("a", "k1", odd)]))
    done = instance.vec("delete", "-l", library, "--stdin", stdin=f"a\n{odd}\n", status=2)
    assert "stdin:2: " in done.stderr
    assert "jq .id" in done.stderr
    assert {each["id"] for each in instance.objects("list", "-l", library)} == {"k1", odd}


def test_get_of_many_ids_leaves_none_out(instance: Instance, libraries: dict[str, str]) -> None:
    ids = [str(number) for number in range(0, 3_000, 7)]
    printed = instance.objects("get", "-l", libraries["dot"], "--stdin", stdin="\n".join(ids))
    assert [each["id"] for each in printed] == ids


@pytest.mark.parametrize("command", ["get", "delete"])
@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b'{"name": "x"}', "stdin:1: "),
        (b'{"id": 5.5}', 'stdin:1: "id" must be a string'),
        (b'{"id": ', "stdin:1: "),
        (b"caf\xe9", "stdin:1: "),
        (b" k1", "stdin:1: the bare id has surrounding white space and is ambiguous"),
        (b"k1\t", "stdin:1: the bare id has surrounding white space"),
        (b"k\x1b1", "stdin:1: the bare id contains a control character"),
        (b'"k1', "stdin:1: not an id"),
        (b'"k1" x', "stdin:1: not an id"),
        (b'["k1"]', 'stdin:1: "id" must be a string'),
        (b"[k1]", "stdin:1: not an id"),
        (b'{"id": "a", "id": "b"}', "stdin:1: not an id (the key 'id' occurs twice"),
        (b'{"id": "a", "document_id": "b"}', "stdin:1: the object has two different ids"),
        (b"x" * (limits.LINE_BYTES_MAX + 1), "stdin:1: the line exceeds"),
    ],
)
def test_a_line_that_is_no_id_is_named(instance: Instance, texts: str, command: str, line: bytes, reason: str) -> None:
    done = instance.vec(command, "-l", texts, "--stdin", stdin=line + b"\n", status=2)
    assert reason in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("command", "told"),
    [("get", "specify either ids or --stdin"), ("delete", "specify either ids, --where, or --stdin")],
)
def test_ids_come_from_arguments_or_from_stdin(instance: Instance, texts: str, command: str, told: str) -> None:
    for arguments in ([], ["csv", "--stdin"]):
        assert told in instance.vec(command, "-l", texts, *arguments, status=2).stderr
    assert "does not exist" in instance.vec(command, "-l", "nowhere-at-all", "x", status=4).stderr


def test_documents_that_are_large_together_can_all_be_read(instance: Instance) -> None:
    """100 documents of 200 KB: more than a frame of 16 MiB holds, and each of them well within its limits."""
    library = fresh(instance, embedder="none", dimension=1)
    for start in range(0, 100, 20):
        put(
            instance,
            library,
            [
                {"id": f"d{number:03}", "text": "word", "vector": [1.0], "metadata": {"much": "x" * 200_000}}
                for number in range(start, start + 20)
            ],
        )
    ids = [f"d{number:03}" for number in range(100)]
    told = {}
    for name, arguments in {
        "get": ["get", "-l", library, *ids],
        "list": ["list", "-l", library],
        "search by vector": ["search", "-l", library, "--vector", "[1]", "-k", "100"],
        "search by text": ["search", "word", "--mode", "text", "-l", library, "-k", "100"],
        "search for more than a page": ["search", "-l", library, "--vector", "[1]", "-k", "5000"],
    }.items():
        done = instance.vec(*arguments, status=None)
        told[name] = (done.returncode, done.stdout.count("\n"), done.stderr)
    assert told == dict.fromkeys(told, (0, 100, ""))


# --- list and count -------------------------------------------------------------------------------------------------


def test_list_has_every_document_once_in_the_order_of_ids(instance: Instance) -> None:
    library = fresh(instance)
    shuffled = [f"{number:04}" for number in range(2_500)] + ["ü", "Z", "a", "\U0001f600", "a b", "~"]
    random.Random(5).shuffle(shuffled)
    put(instance, library, [{"id": each, "texts": ["one", "two"]} for each in shuffled])
    listed = instance.objects("list", "-l", library)
    assert [each["id"] for each in listed] == sorted(shuffled, key=str.encode)
    assert listed[0] == {"id": "0000", "title": None, "metadata": {}, "chunks": 2}
    (counted,) = instance.objects("count", "-l", library)
    seq = instance.objects("status")[0]["seq"]
    assert counted == {"library": library, "documents": 2_506, "chunks": 5_012, "seq": seq}


def test_list_and_count_of_a_missing_library_are_exit_4(instance: Instance) -> None:
    for command in ("list", "count"):
        done = instance.vec(command, "-l", "nowhere-at-all", status=4)
        assert (done.stdout, "library 'nowhere-at-all' does not exist" in done.stderr) == ("", True)


# --- delete ---------------------------------------------------------------------------------------------------------


def test_delete_counts_what_went_and_names_what_was_not_there(instance: Instance) -> None:
    library = fresh(instance)
    put(instance, library, [{"id": each, "texts": [each, each]} for each in "abcd"])
    done = instance.vec("delete", "-l", library, "a", "nobody", "c", "a")
    with instance.connect() as client:
        assert json.loads(done.stdout) == {"deleted": 2, "missing": 2, "seq": client.status()["seq"]}
    assert done.stderr.splitlines() == [
        f"vec: document {name!r} does not exist in library {library!r}" for name in ("nobody", "a")
    ]
    assert ids_in(instance, library) == ["b", "d"]
    assert instance.objects("count", "-l", library)[0]["chunks"] == 4
    assert sorted(found(instance.objects("search", "a", "-l", library, "--mode", "vector"))) == ["b", "b", "d", "d"]
    assert instance.objects("delete", "-l", library, "a")[0]["deleted"] == 0


def test_delete_reads_ids_from_stdin_however_many(instance: Instance) -> None:
    library = fresh(instance, embedder="none")
    put(instance, library, [{"id": f"d{number}", "vector": [1.0]} for number in range(2_600)])
    lines = "".join(f"d{number}\n" if number % 2 else f'{{"id": "d{number}"}}\n' for number in range(2_500))
    assert instance.objects("delete", "-l", library, "--stdin", stdin=lines)[0]["deleted"] == 2_500
    assert instance.objects("count", "-l", library)[0]["documents"] == 100
    # What list prints, delete takes.
    rest = instance.vec("list", "-l", library).stdout
    assert instance.objects("delete", "-l", library, "--stdin", stdin=rest)[0]["deleted"] == 100
    assert instance.objects("delete", "-l", library, "--stdin", stdin="")[0]["deleted"] == 0


# --- libraries ------------------------------------------------------------------------------------------------------


def test_a_library_is_made_shown_listed_and_deleted(instance: Instance) -> None:
    arguments = ["--embedder", "none", "--dimension", "3", "--metric", "l2", "--index", "flat", "--chunk-chars", "200"]
    (made,) = instance.objects("library", "create", "notes", *arguments)
    described = {
        "name": "notes", "dimension": 3, "metric": "l2", "index": "flat", "parameters": {}, "embedder": "none",
        "chunk_chars": 200, "documents": 0, "chunks": 0,
    }  # fmt: skip
    assert {key: made[key] for key in described} == described
    put(instance, "notes", [{"id": "a", "vectors": [[1.0, 2.0, 3.0], [1.0, 2.0, 3.0]]}])
    (shown,) = instance.objects("library", "show", "notes")
    assert {key: shown[key] for key in described} == {**described, "documents": 1, "chunks": 2}
    assert shown["created_at"] == made["created_at"]
    assert shown["recall"].pop("probe") is None  # every search is exact
    listed = instance.objects("library", "list")
    assert shown in listed
    assert [each["name"] for each in listed] == sorted(each["name"] for each in listed)
    (gone,) = instance.objects("library", "delete", "notes")
    assert gone == {"library": "notes", "documents": 1, "chunks": 2, "seq": made["seq"] + 4}
    assert "notes" not in [each["name"] for each in instance.objects("library", "list")]
    for command in (["library", "show", "notes"], ["library", "delete", "notes"], ["count", "-l", "notes"]):
        assert "library 'notes' does not exist" in instance.vec(*command, status=4).stderr


def test_a_library_made_again_under_its_name_is_empty_and_of_its_own_kind(instance: Instance) -> None:
    instance.vec("library", "create", "again", "--embedder", "none", "--dimension", "2")
    put(instance, "again", [{"id": "old", "text": "old", "vector": [1.0, 2.0]}])
    assert found(instance.objects("search", "-l", "again", "--vector", "[1, 2]")) == ["old"]
    instance.vec("library", "delete", "again")
    instance.vec("library", "create", "again", "--embedder", "none", "--dimension", "3")
    assert instance.vec("search", "-l", "again", "--vector", "[1, 2, 3]").stdout == ""
    put(instance, "again", [{"id": "new", "text": "new", "vector": [1.0, 2.0, 3.0]}])
    assert found(instance.objects("search", "-l", "again", "--vector", "[1, 2, 3]")) == ["new"]
    assert found(instance.objects("search", "old new", "-l", "again", "--mode", "text")) == ["new"]
    assert ids_in(instance, "again") == ["new"]


def test_a_name_that_is_taken_is_exit_1(instance: Instance, texts: str) -> None:
    done = instance.vec("library", "create", texts, status=1)
    assert (done.stdout, f"library {texts!r} already exists (exists)" in done.stderr) == ("", True)


def test_the_first_vector_sets_a_dimension_that_was_left_open(instance: Instance) -> None:
    (made,) = instance.objects("library", "create", "open", "--embedder", "none")
    assert made["dimension"] is None
    put(instance, "open", [{"id": "a", "vector": [1.0, 2.0]}])
    assert instance.objects("library", "show", "open")[0]["dimension"] == 2
    done = instance.vec("ingest", "-l", "open", stdin='{"id": "b", "vector": [1]}\n', status=3)
    assert "library 'open' holds 2-dimension vectors, and this one has 1" in done.stderr


def test_an_embedder_has_a_dimension_of_its_own(instance: Instance) -> None:
    done = instance.vec("library", "create", "conflict", "--embedder", "hash", "--dimension", "100", status=2)
    assert "makes 256-dimension vectors, but the requested dimension is 100" in done.stderr
    assert (
        instance.objects("library", "create", "agreed", "--embedder", "hash", "--dimension", "256")[0]["dimension"]
        == 256
    )


@pytest.mark.parametrize(
    "arguments",
    [
        *(["--metric", metric] for metric in ("cosin", "euclid", "")),
        *(["--index", kind] for kind in ("falt", "")),
        *(["--embedder", embedder] for embedder in ("gpt", "")),
        *(["--dimension", dimension] for dimension in ("0", "-1", "16385", "many")),
        *(["--chunk-chars", chars] for chars in ("49", "100001", "x")),
    ],
    ids="".join,
)
def test_a_kind_that_there_is_not_is_a_usage_error(instance: Instance, arguments: list[str]) -> None:
    done = instance.vec("library", "create", "never", *arguments, status=2)
    assert arguments[0] in done.stderr
    assert instance.vec("library", "show", "never", status=4).stdout == ""


@pytest.mark.parametrize("name", ["", " ", "a b", "a/b", "../up", ".hidden", "ü", "a\n", "x" * 129])
def test_a_name_that_no_shell_or_url_would_like_is_a_usage_error(instance: Instance, name: str) -> None:
    done = instance.vec("library", "create", name, status=2)
    assert "is not a valid name of a library" in done.stderr


@pytest.mark.parametrize("name", ["a", "7", "A.b_c-d", "x" * 128])
def test_a_plain_name_is_a_name(instance: Instance, name: str) -> None:
    assert instance.objects("library", "create", name)[0]["name"] == name
