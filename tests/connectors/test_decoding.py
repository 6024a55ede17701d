"""What a broker's message means to a source."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from vecd.connectors import messages
from vecd.connectors.decoding import Decoder
from vecd.errors import Code, VecError
from vecd.wire.vectors import pack_vector

LOG = "77d5d23b47fbedfa"


def decoded(value: Any, key: bytes | None = None, *libraries: str, **mapping: str) -> dict[str, Any] | None:
    body = value if isinstance(value, bytes) else orjson.dumps(value)
    return Decoder(mapping, libraries).decode(body, key)


def event(kind: str, **data: Any) -> dict[str, Any]:
    """An event as a watch returns it."""
    return {
        "seq": 7,
        "cursor": f"{LOG}:7",
        "type": kind,
        "library": "notes",
        "time": "2026-11-28T08:00:00.000000Z",
        "data": data,
    }


def relayed(kind: str, format: str, **data: Any) -> bytes:
    """An event as a relay sends it."""
    (message,) = messages.encode([event(kind, **data)], format, LOG)
    return message.body


def document(*chunks: dict[str, Any]) -> dict[str, Any]:
    return {"id": "a", "title": "T", "metadata": {"n": 1}, "chunks": list(chunks)}


def test_a_line_of_an_ingest_is_the_document_with_packed_vectors() -> None:
    assert decoded({"id": "a", "text": "x", "vector": [1, 2]}) == {
        "id": "a",
        "text": "x",
        "vector": pack_vector([1.0, 2.0]),
    }
    assert decoded({"op": "delete", "id": "a"}) == {"op": "delete", "id": "a"}


@pytest.mark.parametrize("format", ["vec", "cloudevents"])
@pytest.mark.parametrize("kind", ["document.added", "document.updated", "snapshot.document"])
def test_a_relayed_event_is_its_document(format: str, kind: str) -> None:
    texts = document({"chunk_id": "a#0", "text": "one"}, {"chunk_id": "a#1", "text": "two"})
    expected = {"id": "a", "title": "T", "metadata": {"n": 1}, "texts": ["one", "two"]}
    assert decoded(relayed(kind, format, id="a", document=texts)) == expected


@pytest.mark.parametrize("format", ["vec", "cloudevents"])
def test_the_vectors_of_a_relayed_event_arrive_unchanged(format: str) -> None:
    vector = pack_vector([0.1, -1.5e-7, 3.0e38])
    whole = document({"chunk_id": "a#0", "text": None, "vector": vector})
    found = decoded(relayed("document.added", format, id="a", document=whole))
    assert found == {"id": "a", "title": "T", "metadata": {"n": 1}, "vectors": [vector]}


@pytest.mark.parametrize("format", ["vec", "cloudevents"])
def test_deletes_and_documents_that_left_the_selection_are_deletes(format: str) -> None:
    assert decoded(relayed("document.deleted", format, id="a", title=None)) == {"op": "delete", "id": "a"}
    assert decoded(relayed("document.updated", format, id="a", left=True)) == {"op": "delete", "id": "a"}


@pytest.mark.parametrize("format", ["vec", "cloudevents"])
@pytest.mark.parametrize(
    "kind", ["library.created", "library.deleted", "chunk.added", "index.rebuilt", "job.started", "snapshot.end"]
)
def test_events_that_change_no_document_mean_nothing(format: str, kind: str) -> None:
    assert decoded(relayed(kind, format, id="a")) is None


@pytest.mark.parametrize("format", ["vec", "cloudevents"])
def test_events_of_other_libraries_mean_nothing_if_the_source_names_its_own(format: str) -> None:
    body = relayed("document.deleted", format, id="a")
    assert decoded(body, None, "notes") == {"op": "delete", "id": "a"}
    assert decoded(body, None, "other", "more") is None


def test_an_event_without_its_document_is_refused_with_what_to_do() -> None:
    with pytest.raises(VecError) as caught:
        decoded(relayed("document.added", "vec", id="a", title=None))
    assert caught.value.code == Code.INVALID_DOCUMENT
    assert caught.value.hint == "add the relay with --payload"
    with pytest.raises(VecError, match="too large for one message"):
        decoded(relayed("document.added", "vec", id="a", omitted=["document"]))
    chunk = {"chunk_id": "a#0", "text": None}
    for without_vectors in ({**document(chunk), "title": None}, document(chunk, {**chunk, "chunk_id": "a#1"})):
        with pytest.raises(VecError) as caught:
            decoded(relayed("document.added", "vec", id="a", document=without_vectors))
        assert caught.value.hint == "add the relay with --vectors"
    only_a_title = decoded(relayed("document.added", "vec", id="a", document=document(chunk)))
    assert only_a_title == {"id": "a", "title": "T", "metadata": {"n": 1}}


def test_a_mapping_turns_any_object_into_a_document() -> None:
    value = {"type": "page", "data": {"url": 5, "body": "text"}}
    assert decoded(value, id="data.url", text="data.body") == {"id": "5", "text": "text", "metadata": {"type": "page"}}
    assert decoded({"t": "x"}, b"k", id="@key", text="t") == {"id": "k", "text": "x"}


def test_an_empty_message_deletes_the_document_of_its_key() -> None:
    assert decoded(b"", b"a") == {"op": "delete", "id": "a"}
    assert decoded(b"", b"a", id="@key", text="t") == {"op": "delete", "id": "a"}
    headers = {messages.ID: "a/b", messages.LIBRARY: "notes"}
    assert Decoder({}).decode(b"", b"notes/a/b", headers) == {"op": "delete", "id": "a/b"}
    assert Decoder({}, ("notes",)).decode(b"", b"notes/a/b", headers) == {"op": "delete", "id": "a/b"}
    assert Decoder({}, ("other",)).decode(b"", b"notes/a/b", headers) is None


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", "empty, and has no key"),
        (b"{", "not JSON"),
        (b"\xff", "invalid UTF-8"),
        (b"[]", "but this message is a list"),
        (b"7", "but this message is no object"),
        (b'{"id":"a","text":"x","id":"b"}', "occurs twice"),
        (b'{"id":"a","metadata":{"n":99999999999999999999},"text":"x"}', "outside the range"),
        (b'{"type":"order.placed","data":{}}', "unknown type of an event: 'order.placed'"),
        (b'{"type":7,"data":{}}', "a string 'type'"),
        (b'{"type":"document.added","data":[]}', "an object 'data'"),
        (b'{"type":"document.deleted","data":{}}', "no id of a document"),
        (b'{"type":"document.added","data":{"id":"a","document":{"chunks":[1]}}}', "no list of chunks"),
        (b'{"id":"a","vector":["x"]}', "a list of numbers"),
    ],
)
def test_a_message_that_means_nothing_valid_is_refused(body: bytes, message: str) -> None:
    with pytest.raises(VecError, match=message) as caught:
        decoded(body)
    assert caught.value.code == Code.INVALID_DOCUMENT


def test_a_mapping_refuses_values_that_the_parser_would_change() -> None:
    with pytest.raises(VecError, match="outside the range"):
        decoded(b'{"id":99999999999999999999,"t":"x"}', id="id", text="t")
