"""Mappings: objects of any form become documents."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vecd.errors import Code, VecError
from vecd.wire.mapping import DocumentMapping


def mapped(value: dict[str, Any], envelope: dict[str, Any] | None = None, /, **rules: str) -> dict[str, Any]:
    """The document that an object becomes; `metadata__x` is the rule `metadata.x`."""
    named = {name.replace("__", "."): rule for name, rule in rules.items()}
    return DocumentMapping.parse(named).apply(value, envelope or {})


PAGE = {
    "url": "http://a/1",
    "head": {"title": "One", "lang": "en"},
    "body": "First text",
    "notes": ["Second", "Third"],
    "embedding": [1.0, 2.5],
    "year": 2024,
}


def test_paths_lead_to_the_fields_and_the_rest_is_the_metadata() -> None:
    assert mapped(PAGE, id="url", title="head.title", text="body") == {
        "id": "http://a/1",
        "title": "One",
        "text": "First text",
        "metadata": {"head": {"lang": "en"}, "notes": ["Second", "Third"], "embedding": [1.0, 2.5], "year": 2024},
    }


def test_texts_of_several_places_are_joined_by_blank_lines() -> None:
    found = mapped(PAGE, id="url", text="head.title,body,notes,missing,year", metadata="none")
    assert found == {"id": "http://a/1", "text": "One\n\nFirst text\n\nSecond\n\nThird\n\n2024"}


def test_a_list_becomes_chunks_and_a_vector_stays_a_list() -> None:
    assert mapped(PAGE, id="url", texts="notes", metadata="none")["texts"] == ["Second", "Third"]
    assert mapped(PAGE, id="url", vector="embedding", metadata="none") == {"id": "http://a/1", "vector": [1.0, 2.5]}


@pytest.mark.parametrize(("given_id", "expected"), [(7, "7"), (-(2**63), str(-(2**63))), ("seven", "seven"), (0, "0")])
def test_whole_numbers_become_ids_as_strings(given_id: Any, expected: str) -> None:
    assert mapped({"k": given_id, "t": "x"}, id="k", text="t")["id"] == expected


@pytest.mark.parametrize("given_id", [1.5, True, None, {}, ["a"]])
def test_an_id_of_another_kind_is_refused_and_its_place_is_named(given_id: Any) -> None:
    with pytest.raises(VecError, match=r"the id at a\.k is .*, not a string or a whole number") as caught:
        mapped({"a": {"k": given_id}, "t": "x"}, id="a.k", text="t")
    assert caught.value.code == Code.INVALID_DOCUMENT


def test_without_a_rule_for_the_id_the_document_has_none() -> None:
    assert mapped({"t": "x", "n": 1}, text="t") == {"text": "x", "metadata": {"n": 1}}


@pytest.mark.parametrize(
    ("rules", "expected"),
    [
        ({"metadata": "head"}, {"title": "One", "lang": "en"}),
        ({"metadata": "year"}, {"year": 2024}),
        ({"metadata": "year,head.lang,missing"}, {"year": 2024, "lang": "en"}),
        ({"metadata__when": "year"}, {"when": 2024}),
        ({"metadata": "head", "metadata__when": "year"}, {"title": "One", "lang": "en", "when": 2024}),
        ({"metadata": "none"}, None),
        ({"metadata": "missing"}, None),
    ],
)
def test_metadata_is_an_object_or_values_by_their_keys(rules: dict[str, str], expected: dict[str, Any] | None) -> None:
    assert mapped(PAGE, text="body", **rules).get("metadata") == expected


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("a.b", "ab"), ("$.a.b", "ab"), (".a.b", "ab"), ("list[1].x", "x1"), ("list[0]", None), ('"a.b".c', "quoted"),
        ('a."b"', "ab"), ("$.list[1].x", "x1"), ("list[9].x", None), ("a.b.c", None), ("a-b c", "spaced"),
        ('"\\u00e9"', "e"), ("é", "e"), ("a[0]", None), ("[0]", None),
    ],
)  # fmt: skip
def test_a_path_names_keys_and_positions(path: str, expected: str | None) -> None:
    value = {
        "a": {"b": "ab"}, "list": [None, {"x": "x1"}], "a.b": {"c": "quoted"}, "a-b c": "spaced", "é": "e", "t": "t",
    }  # fmt: skip
    assert mapped(value, title=path, text="t", metadata="none").get("title") == expected


def test_the_key_and_the_headers_of_a_message_are_beside_it() -> None:
    beside = {"key": "k1", "headers": {"tenant.name": "acme"}}
    found = mapped({"key": "inner", "t": "x"}, beside, id="@key", title='@headers."tenant.name"', text="t")
    assert found == {"id": "k1", "title": "acme", "text": "x", "metadata": {"key": "inner"}}


@pytest.mark.parametrize(
    ("rule", "value", "deletes"),
    [
        ("gone", {"gone": True}, True), ("gone", {"gone": False}, False), ("gone", {"gone": 1}, False),
        ("gone", {}, False), ("op=d", {"op": "d"}, True), ("op=d", {"op": "u"}, False), ("op=1", {"op": 1}, True),
        ('op="1"', {"op": "1"}, True), ("op=1", {"op": "1"}, False), ("op=1", {"op": True}, False),
        ("op=false", {"op": False}, True), ("a.op=d=e", {"a": {"op": "d=e"}}, True),
    ],
)  # fmt: skip
def test_a_rule_tells_deletes_apart(rule: str, value: dict[str, Any], deletes: bool) -> None:
    found = mapped({"k": 1, "t": "x", **value}, id="k", text="t", delete=rule)
    assert (found == {"op": "delete", "id": "1"}) is deletes


def test_an_object_without_text_and_vector_is_refused_and_the_places_are_named() -> None:
    with pytest.raises(VecError, match=r"there is no text, no vector and no title at body, note\.text") as caught:
        mapped({"id": "a", "body": "", "note": {"text": None}}, id="id", text="body,note.text")
    assert caught.value.code == Code.INVALID_DOCUMENT


@pytest.mark.parametrize("text", [True, {"a": 1}, [["nested"]], [1, {}]])
def test_a_text_of_another_kind_is_refused(text: Any) -> None:
    with pytest.raises(VecError, match="the text at t is"):
        mapped({"t": text}, text="t")


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        ({}, "needs a rule for 'text'"),
        ({"id": "a"}, "needs a rule for 'text'"),
        ({"txt": "a"}, "unknown field 'txt'"),
        ({"text": ""}, "not a path"),
        ({"text": "a..b"}, "not a path"),
        ({"text": "a,"}, "not a path"),
        ({"text": "a[x]"}, "not a path"),
        ({"text": 'a"b"'}, "not a path"),
        ({"text": '"a'}, "not a path"),
        ({"text": "a=b"}, "not a path"),
        ({"text": "@other"}, "@key and @headers"),
        ({"text": "@"}, "not a path"),
        ({"text": "a", "id": "a,b"}, "takes one path"),
        ({"text": "a", "texts": "b"}, "not both"),
        ({"vector": "a", "vectors": "b"}, "not both"),
        ({"text": "a", "delete": "op=d"}, "needs one for 'id'"),
        ({"text": "a", "id": "b", "delete": "op={}"}, "VALUE is"),
        ({"text": "a", "metadata": "x.n,y.n"}, "two paths of the metadata end in 'n'"),
        ({"text": "a", "metadata.": "x"}, "unknown field 'metadata.'"),
        ({"text": "a" * 1_001}, "at most 1,000 characters"),
    ],
)
def test_an_invalid_rule_is_refused_by_name(rules: dict[str, str], message: str) -> None:
    with pytest.raises(VecError) as caught:
        DocumentMapping.parse(rules)
    assert caught.value.code == Code.INVALID_REQUEST
    assert message in caught.value.message


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False)
    | st.text("aé1", max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abct"), inner, max_size=3),
    max_leaves=10,
)


@given(value=st.dictionaries(st.sampled_from("abct"), json_values, max_size=4))
def test_any_object_becomes_a_document_or_a_refusal_and_is_not_changed(value: dict[str, Any]) -> None:
    before = repr(value)
    mapping = DocumentMapping.parse({"id": "a", "title": "b.c", "text": "t,c[0].t", "delete": "b.a"})
    try:
        found = mapping.apply(value)
    except VecError as error:
        assert error.code == Code.INVALID_DOCUMENT
    else:
        assert isinstance(found["id"], str)
        assert found.get("op") == "delete" or found.get("text") or found["title"]
    assert repr(value) == before


@given(rule=st.text(alphabet='ab.,[]0"@$= \\', max_size=12))
def test_any_rule_is_a_path_or_is_refused(rule: str) -> None:
    try:
        DocumentMapping.parse({"text": rule})
    except VecError as error:
        assert error.code == Code.INVALID_REQUEST
