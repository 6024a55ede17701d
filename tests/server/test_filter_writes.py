"""Filters and writes: what was acknowledged is what a filter sees, and a delete by filter takes that and no more."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import numpy as np
import pytest

from tests.support import history
from tests.support.instance import Instance
from tests.support.vectors import create, drawn, ids, put, structured
from vecd import limits
from vecd.client import Client
from vecd.errors import VecError

_VECTORS = drawn(17_000, 8)


@pytest.fixture(scope="module")
def instance() -> Iterator[Instance]:
    with Instance({"VEC_EMBEDDER": "hash"}) as made:
        made.start()
        yield made


@pytest.fixture(scope="module")
def client(instance: Instance) -> Iterator[Client]:
    with instance.connect() as connected:
        yield connected


class Writer:
    """Another connection that writes to a library all the time, until the block ends."""

    def __init__(self, instance: Instance, library: str) -> None:
        self._instance, self._library = instance, library
        self._thread = threading.Thread(target=self._write)
        self._stop = threading.Event()
        self.batches = 0

    def _write(self) -> None:
        with self._instance.connect() as client:
            while not self._stop.is_set():
                numbers = range(self.batches * 20, self.batches * 20 + 20)
                client.ingest(
                    [
                        {"id": f"other-{number % 500}", "text": "zebra", "vector": _VECTORS[number % 9_000],
                         "metadata": {"other": number, "turn": -9}}
                        for number in numbers
                    ],
                    self._library,
                )  # fmt: skip
                self.batches += 1

    def __enter__(self) -> Writer:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()


def written_and_found(client: Client, library: str, turns: int) -> None:
    """Writes, updates and deletes one document after the other, and asks for each at once in every mode."""
    for turn in range(turns):
        document_id, vector = f"mine-{turn % 7}", _VECTORS[turn]
        document = {"id": document_id, "text": "zebra", "vector": vector, "metadata": {"turn": turn}}
        answer = client.ingest([document], library)
        assert answer["added"] + answer["updated"] == 1
        new, old = [f"turn = {turn}"], [f"turn = {turn - 7}"]
        query = {"query": "zebra", "vector": _VECTORS[turn + 1]}
        mode = ("vector", "text", "hybrid")[turn % 3]
        (hit,) = client.search(**query, mode=mode, library=library, where=new)
        assert (hit["document_id"], hit["metadata"]) == (document_id, {"turn": turn})
        assert list(client.search(**query, mode=mode, library=library, where=old)) == []
        assert client.count(library, where=new)["documents"] == 1
        assert client.count(library, where=old)["documents"] == 0
        if turn % 3 == 0:
            if turn % 2:
                assert client.delete([document_id], library)["deleted"] == 1
            else:
                assert client.delete(library=library, where=new)["deleted"] == 1
            for mode in ("vector", "text", "hybrid"):
                assert list(client.search(**query, mode=mode, library=library, where=new)) == []
            assert client.count(library, where=new)["documents"] == 0
            assert list(client.items("list", "documents", library=library, where=new)) == []


def test_what_was_acknowledged_is_seen_by_the_next_filtered_question(client: Client) -> None:
    written_and_found(client, create(client, "alone", dimension=8), 150)


@pytest.mark.parametrize(("kind", "count"), [("flat", 0), ("pq", 16_500), ("hnsw", 8_500), ("kdtree", 2_000)])
def test_it_is_also_while_another_connection_writes_all_the_time(
    instance: Instance, client: Client, kind: str, count: int
) -> None:
    library = create(client, f"busy-{kind}", dimension=8, index=kind)
    if count:
        put(
            client,
            library,
            ({"id": f"d{n}", "vector": _VECTORS[n], "metadata": {"turn": -9}} for n in range(count)),
        )
        structured(client, library)
    with Writer(instance, library) as writer:
        written_and_found(client, library, 45)
    assert writer.batches > 3
    assert client.count(library, where=["other exists"])["documents"] == min(500, 20 * writer.batches)


def test_a_field_that_was_never_named_before_is_right_at_once_while_somebody_writes(
    instance: Instance, client: Client
) -> None:
    """Its values are read from the store while commits go on: none may fall between."""
    library = create(client, "late", dimension=8)
    with Writer(instance, library):
        for turn in range(40):
            document = {"id": "mine", "vector": _VECTORS[turn], "metadata": {f"field{turn}": turn, "mine": True}}
            client.ingest([document], library)
            assert ids(client.search(vector=_VECTORS[0], library=library, where=[f"field{turn} = {turn}"])) == ["mine"]
            assert client.count(library, where=["mine = true", f"field{turn - 1} exists"])["documents"] == 0


def test_count_list_search_and_delete_mean_the_same_documents(client: Client) -> None:
    library = create(client, "agreed", dimension=8)
    put(
        client,
        library,
        (
            {"id": f"d{n:04}", "vectors": [_VECTORS[n]] * (1 + n % 2), "metadata": {"n": n, "tags": [n % 5, "x"]}}
            for n in range(3_000)
        ),
    )
    left = {f"d{n:04}" for n in range(3_000)}
    for where in (["n < 10"], ["n in (1, 20, 21)"], ["tags = 3", "n >= 1500"], ["n < 0"], ["not tags = 4"], ["n > 0"]):
        listed = ids_of(client, library, where)
        counted = client.count(library, where=where)
        found = list(client.search(vector=_VECTORS[0], k=10_000, library=library, where=where, group_by="chunk"))
        assert listed == sorted(set(ids(found)))
        assert (counted["documents"], counted["chunks"]) == (len(listed), len(found))
        answer = client.delete(library=library, where=where)
        assert answer == {
            "deleted": len(listed), "missing": 0, "missing_ids": [], "seq": client.status()["seq"],
        }  # fmt: skip
        left -= set(listed)
        assert ids_of(client, library, where) == []
        assert client.count(library, where=where)["chunks"] == 0
        assert set(ids_of(client, library, [])) == left
    assert left == set()


def ids_of(client: Client, library: str, where: list[str]) -> list[str]:
    return [each["id"] for each in client.items("list", "documents", library=library, where=where or None)]


def test_a_delete_by_filter_takes_many_thousands(client: Client) -> None:
    library = create(client, "many", dimension=8)
    put(client, library, ({"id": f"d{n}", "vector": _VECTORS[n], "metadata": {"n": n}} for n in range(7_000)))
    before = client.status()["seq"]
    answer = client.delete(library=library, where=["n < 5500"])
    assert (answer["deleted"], answer["missing"], answer["missing_ids"]) == (5_500, 0, [])
    assert answer["seq"] == client.status()["seq"]
    assert client.count(library) == {
        "library": library, "documents": 1_500, "chunks": 1_500, "seq": answer["seq"],
    }  # fmt: skip
    hits = ids(client.search(vector=_VECTORS[0], k=10_000, library=library))
    assert sorted(hits) == sorted(f"d{n}" for n in range(5_500, 7_000))
    events = list(client.watch(f"{client.log}:{before}", follow=False, libraries=[library]))
    gone = [event["data"]["id"] for event in events if event["type"] == "document.deleted"]
    assert sorted(gone) == sorted(f"d{n}" for n in range(5_500))


def test_writes_of_one_connection_take_effect_in_the_order_they_were_sent(client: Client) -> None:
    library = create(client, "ordered", dimension=8)
    for turn in range(8):
        many = [{"id": f"{turn}-{n}", "vector": _VECTORS[n], "metadata": {"turn": turn, "n": n}} for n in range(500)]
        again = [{**each, "metadata": {**each["metadata"], "again": True}} for each in many[:100]]
        packed = [[{**each, "vector": _VECTORS[0].tobytes()} for each in batch] for batch in (many, again)]
        flying = [
            client.submit("ingest", library=library, documents=packed[0]),
            client.submit("delete", library=library, where=[f"turn = {turn}", "n >= 50"]),
            client.submit("ingest", library=library, documents=packed[1]),
            client.submit("delete", library=library, where=[f"turn = {turn}", "again = true", "n < 20"]),
            client.submit("delete", library=library, ids=[f"{turn}-30"]),
            client.submit("ingest", library=library, documents=packed[1][:1]),
        ]
        answers = [pending.result() for pending in flying]
        assert [answers[1]["deleted"], answers[3]["deleted"], answers[4]["deleted"]] == [450, 20, 1]
        assert (answers[2]["added"], answers[2]["updated"], answers[5]["added"]) == (50, 50, 1)
        there = sorted(f"{turn}-{n}" for n in (0, *range(20, 30), *range(31, 100)))
        assert ids_of(client, library, [f"turn = {turn}"]) == there


def test_that_holds_also_for_the_write_that_makes_the_default_library() -> None:
    with Instance({"VEC_EMBEDDER": "hash"}) as instance:
        instance.start()
        with instance.connect() as client:
            flying = [
                client.submit("ingest", documents=[{"id": each, "text": each, "metadata": {"n": 1}} for each in "ab"]),
                client.submit("delete", where=["document_id = a and n = 1"]),
            ]
            assert [pending.result().get("deleted") for pending in flying] == [0, 1]
            assert ids_of(client, "default", ["n = 1"]) == ["b"]


def test_a_document_that_somebody_changes_meanwhile_outlives_a_delete_by_what_it_was() -> None:
    """Whichever comes first: an update to `old = false` is either left alone, or adds the document again."""
    count, size = 6_000, 300
    packed = _VECTORS[0].tobytes()
    with Instance() as instance:
        instance.start()
        with instance.connect() as client, instance.connect() as other:
            library = create(client, "contested", dimension=8)
            put(client, library, ({"id": f"d{n:04}", "vector": packed, "metadata": {"old": 1}} for n in range(count)))
            deleting = client.submit("delete", library=library, where=["old = 1"])
            updated = []
            for start in range(0, count, 2 * size):
                changed = [f"d{n:04}" for n in range(start, start + size)]
                documents = [{"id": each, "vector": packed, "metadata": {"old": 0}} for each in changed]
                updated.append((changed, other.submit("ingest", library=library, documents=documents)))
            for _, pending in updated:
                assert pending.result()["failed"] == 0
            assert 0 < deleting.result()["deleted"] <= count
            assert ids_of(client, library, []) == [each for changed, _ in updated for each in changed]
            assert client.count(library, where=["old = 1"])["documents"] == 0
            history.check(client)


def test_a_library_that_is_deleted_meanwhile_is_not_found_and_nothing_else(instance: Instance, client: Client) -> None:
    for turn in range(3):
        library = create(client, f"short-lived-{turn}", dimension=8)
        put(client, library, ({"id": f"d{n}", "vector": _VECTORS[n], "metadata": {"n": n}} for n in range(4_000)))
        with instance.connect() as other:
            packed = np.ones(8, "<f4").tobytes()
            flying = [other.submit("search", library=library, vector=packed, where=["n < 4000"])]
            flying += [client.submit("library.delete", library=library)]
            flying += [other.submit(op, library=library, where=[f"n > {turn}"]) for op in ("count", "delete")]
            flying += [other.submit("search", library=library, vector=packed, where=["n >= 0"]) for _ in range(5)]
            for pending in flying:
                try:
                    pending.result()
                except VecError as error:
                    assert error.code == "not_found", error
        with pytest.raises(VecError, match=r"library .* does not exist"):
            client.count(library, where=["n = 1"])


def test_columns_that_nobody_asked_for_while_much_was_written_are_right_when_somebody_does(client: Client) -> None:
    """They may be given up meanwhile, because most of what is in them is dead, or much more than that waits."""
    library = create(client, "forgotten", dimension=1)
    there: set[int] = set()

    def write(numbers: range) -> None:
        put(client, library, ({"id": str(n), "vector": [1], "metadata": {"n": n, "even": n % 2 == 0}} for n in numbers))
        there.update(numbers)

    def check() -> None:
        assert client.count(library, where=["even = true"])["documents"] == sum(n % 2 == 0 for n in there)
        assert client.count(library, where=["n < 50"])["documents"] == sum(n < 50 for n in there)
        assert ids_of(client, library, ["n < 50", "even = false"]) == sorted(str(n) for n in there if n < 50 and n % 2)

    write(range(20))
    check()
    write(range(20, 2 * limits.ATTRIBUTES_PENDING + 100))
    check()
    last = max(there) - 20
    for start in range(10, last, limits.IDS_MAX):
        gone = range(start, min(start + limits.IDS_MAX, last))
        client.delete([str(n) for n in gone], library)
        there.difference_update(gone)
    write(range(40, 45))
    check()
    write(range(45, 60))
    check()
