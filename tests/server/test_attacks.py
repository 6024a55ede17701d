"""One request, or one peer, must not freeze or exhaust the daemon for everybody else.

Each test sends what costs much and asks, over another connection, that the daemon answers meanwhile; or looks at what
the daemon's memory has grown by. `python -m tests.fuzz.attacks` measures the same, and more, at full size.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests.fuzz.attacks import resident_mib
from tests.fuzz.peer import Peer, frame
from tests.instance import Instance
from vecd import limits
from vecd.client import Client
from vecd.errors import Code, VecError, nearest

PATIENCE_S = 60.0


@pytest.fixture(scope="module")
def instance() -> Iterator[Instance]:
    with Instance({"VEC_EMBEDDER": "hash"}) as instance:
        instance.start()
        yield instance


@pytest.fixture
def client(instance: Instance) -> Iterator[Client]:
    with instance.connect(PATIENCE_S) as client:
        yield client


def peak_mib(instance: Instance) -> float:
    pid = instance.pid()
    assert pid is not None
    return resident_mib(pid)


# --- long strings -----------------------------------------------------------------------------------------------------

LONG = "x" * (4 * limits.MIB)


@pytest.mark.parametrize(
    ("op", "fields", "named"),
    [
        ("watch", {"types": [LONG]}, "types"),
        ("watch", {"types": ["*"] * 1_000}, "types"),
        ("watch", {"libraries": [LONG]}, "libraries"),
        ("watch", {"where": [LONG]}, "where"),
        ("get", {"ids": [LONG]}, "ids"),
        ("delete", {"ids": [LONG]}, "ids"),
        ("jobs.list", {"states": [LONG]}, "states"),
        ("jobs.pause", {"kinds": [LONG]}, "kinds"),
        ("library.create", {"library": "some", "parameters": {LONG: 1}}, "parameters"),
        ("jobs.submit", {"kind": "backup", "params": {LONG: 1}}, "params"),
        ("search", {"query": LONG}, "query"),
        ("search", {"query": LONG.encode()}, "query"),
        ("library.show", {"library": LONG[:100_000]}, "library"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_long_string_is_refused_shortly_wherever_it_stands(
    instance: Instance, op: str, fields: dict[str, Any], named: str
) -> None:
    with Peer(instance) as peer:
        began = time.monotonic()
        peer.send(frame(op, 1, **fields) + frame("ping", 2))
        error = peer.answer(1)["error"]
        assert time.monotonic() - began < 10  # difflib on it takes minutes
        assert error["code"] in (Code.INVALID_REQUEST, Code.INVALID_FILTER, Code.NOT_FOUND)
        assert named in (error.get("field"), *error)
        assert all(len(value) <= limits.ERROR_CHARS_MAX for value in error.values() if isinstance(value, str))
        assert peer.received_bytes < 10_000
        assert peer.answer(2) == {"id": 2, "result": {}}


def test_the_errors_of_a_whole_batch_fit_one_answer(client: Client) -> None:
    """However long what they quote is."""
    wide = "\N{GRINNING FACE}" * 400
    documents = [{"text": "t", f"{wide}{number}": 1} for number in range(limits.BATCH_DOCUMENTS_MAX)]
    answer = client.request("ingest", documents=documents)
    assert answer["failed"] == len(documents)
    assert [error["index"] for error in answer["errors"]] == list(range(len(documents)))
    assert {error["code"] for error in answer["errors"]} == {Code.INVALID_DOCUMENT}
    (error,) = client.request("ingest", documents=documents[:1])["errors"]
    assert len(error["field"]) == len(wide) + 1  # a few errors quote more


def test_an_error_can_be_sent_whatever_it_quotes() -> None:
    error = VecError(
        Code.INVALID_REQUEST, "m" * 5_000, "half \ud800 a pair", field=b"x" * 5_000, number=2**70, some=[{"a": object}]
    )
    wire = error.to_wire()
    assert (len(wire["message"]), len(wire["field"])) == (limits.ERROR_CHARS_MAX,) * 2
    assert (wire["hint"], wire["number"]) == ("half ? a pair", str(2**70))
    assert frame("an error", 1, error=wire)


def test_a_word_has_a_nearest_one_only_if_looking_for_it_is_cheap() -> None:
    assert nearest("serach", ["search", "watch"]) == "search"
    assert nearest("s" * 100_000, ["search"]) is None
    assert nearest("search", ["x" * 10_000_000, "search1"]) == "search1"
    began = time.monotonic()
    nearest("a" * 60, ["a" * 59 + str(n) for n in range(50_000)])
    assert time.monotonic() - began < 5
