"""Nobody waits for another's bulk load: small requests are answered while large ones are still being worked on."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.support.instance import Instance
from vecd.client import Client, Pending

_WORDS = "the quick brown fox jumps over the lazy dog and looks for another one " * 8


@pytest.fixture(scope="module")
def instance() -> Iterator[Instance]:
    with Instance({"VEC_EMBEDDER": "hash"}) as found:
        found.start()
        with found.connect() as client:
            client.request("library.create", library="small")
            client.ingest([{"id": f"kept-{number}", "text": f"line {number}"} for number in range(10)], "small")
        yield found


def _one_large_document(client: Client) -> Pending:
    texts = [f"{number} {_WORDS}" for number in range(2_000)]
    return client.submit("ingest", library="bulk", documents=[{"id": "large", "texts": texts}])


def _many_long_texts(client: Client) -> Pending:
    documents = [{"id": f"d{number}", "text": f"{number}. " + _WORDS * 60} for number in range(40)]
    return client.submit("ingest", library="bulk", documents=documents)


@pytest.mark.parametrize("load", [_one_large_document, _many_long_texts])
def test_a_line_a_delete_and_a_search_are_answered_while_large_ingests_are_in_flight(
    instance: Instance, load: Callable[[Client], Pending]
) -> None:
    with instance.connect() as bulk, instance.connect() as small:
        small.request("library.create", library="bulk")
        large = [load(bulk) for _ in range(3)]  # more than there are threads
        assert small.ingest([{"id": "line", "text": "a line beside it"}], "small")["added"] == 1
        assert small.delete(["line"], "small")["deleted"] == 1
        assert len(list(small.search("line", library="small", k=10))) == 10
        bulk.pump()
        assert not any(each.done for each in large)
        assert all(each.result()["failed"] == 0 for each in large)
        small.request("library.delete", library="bulk")


def test_a_line_is_answered_while_everything_is_deleted_by_id(instance: Instance) -> None:
    with instance.connect() as bulk, instance.connect() as small:
        small.request("library.create", library="bulk")
        ids = [f"d{number}" for number in range(18_000)]
        for start in range(0, len(ids), 6_000):
            bulk.ingest([{"id": each, "text": each} for each in ids[start : start + 6_000]], "bulk")
        deletes = [
            bulk.submit("delete", library="bulk", ids=ids[start : start + 6_000]) for start in range(0, 18_000, 6_000)
        ]
        small.ingest([{"id": "line", "text": "a line beside it"}], "small")
        bulk.pump()
        assert not deletes[-1].done
        answers: list[dict[str, Any]] = [each.result() for each in deletes]
        assert [(each["deleted"], each["missing"]) for each in answers] == [(6_000, 0)] * 3
        assert small.count("bulk")["documents"] == 0
        small.request("library.delete", library="bulk")


def test_writes_of_one_connection_keep_their_order_whatever_each_costs(instance: Instance) -> None:
    """Large and small, into several libraries, deletes between: the last write of each id is what is there."""
    with instance.connect() as client:
        pending = []
        for turn in range(6):
            library = f"order-{turn % 2}"
            if turn < 2:
                pending.append(client.submit("library.create", library=library))
            texts = [f"{turn} {number} {_WORDS}" for number in range(700 if turn % 3 == 0 else 1)]
            pending.append(client.submit("ingest", library=library, documents=[{"id": "x", "texts": texts}]))
            pending.append(client.submit("delete", library=library, ids=["x"]))
            pending.append(client.submit("ingest", library=library, documents=[{"id": "x", "text": f"last {turn}"}]))
        answers = [each.result() for each in pending]
        seqs = [answer["seq"] for answer in answers]
        assert seqs == sorted(seqs)
        for turn, library in ((4, "order-0"), (5, "order-1")):
            (document,) = client.get(["x"], library)
            assert document is not None
            assert [chunk["text"] for chunk in document["chunks"]] == [f"last {turn}"]
