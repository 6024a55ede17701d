"""Records of JSON, CSV and TSV: each comes out once, however the input arrives, and a wrong one costs itself only."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

import pytest

from vecd import limits
from vecd.errors import VecError
from vecd.wire.mapping import DocumentMapping
from vecd.wire.ndjson import Line, document
from vecd.wire.records import format_of, records

#: Objects with all that could be taken for the end of one.
OBJECTS: list[dict[str, Any]] = [
    {"id": "a", "text": 'quotes " and \\ and \\"'},
    {"id": "b", "text": "brackets ]}[{ and, commas", "metadata": {"deep": [{"er": [[]]}, {}]}},
    {"id": "c", "text": "line\nbreaks and ünïcode \u2028"},
    {"id": "d", "texts": ["x", "y\\"], "metadata": {"k": None, "n": -1.5e3}},
]

JSON = {
    "array": json.dumps(OBJECTS),
    "indented array": json.dumps(OBJECTS, indent=2),
    "array on the lines of a log": "[\n" + ",\n".join(map(json.dumps, OBJECTS)) + "\n]\n",
    "one behind the other": "".join(map(json.dumps, OBJECTS)),
    "indented, one behind the other": "\n".join(json.dumps(each, indent=4) for each in OBJECTS),
    "byte order mark": "\ufeff" + json.dumps(OBJECTS),
}


def cut(text: str, size: int) -> list[bytes]:
    data = text.encode()
    return [data[start : start + size] for start in range(0, len(data), size)]


def read(form: str, pieces: Iterable[bytes | None], rules: dict[str, str] | None = None) -> list[Line]:
    mapping = DocumentMapping.parse(rules) if rules else None
    return [line for line in records(form, "a file", iter(pieces), mapping) if line is not None]


def objects(form: str, pieces: Iterable[bytes | None], rules: dict[str, str] | None = None) -> list[Any]:
    mapping = DocumentMapping.parse(rules) if rules else None
    return [document(line, mapping) for line in read(form, pieces, rules)]


# --- JSON -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", JSON.values(), ids=JSON)
def test_json_comes_out_as_its_objects_however_it_is_cut(text: str) -> None:
    for size in (1, 2, 3, 7, 64, len(text.encode())):
        assert objects("json", cut(text, size)) == OBJECTS
    assert [line.number for line in read("json", cut(text, 5))] == [1, 2, 3, 4]


@pytest.mark.parametrize("text", [JSON["array"], "\n " + JSON["indented array"], JSON["byte order mark"]])
def test_ndjson_that_begins_with_a_bracket_is_an_array(text: str) -> None:
    for size in (1, len(text.encode())):
        assert objects("ndjson", cut(text, size)) == OBJECTS


@pytest.mark.parametrize("text", ["", " \n", "[]", " [ ]\n", "\ufeff[\n]"])
def test_json_without_an_object_has_no_records(text: str) -> None:
    assert objects("json", cut(text, 1)) == objects("json", [text.encode()] if text else []) == []


@pytest.mark.parametrize(
    ("text", "whole", "error"),
    [
        ('[{"id": "a", "text": "x"}, {"id": ', 1, "a file ends within object 2"),
        ('[{"id": "a", "text": "x"}', 1, "a file ends within the array"),
        ('[{"id": "a", "text": "x"},\n5]', 1, "a file: unexpected '5]' between the objects, on line 2"),
        ('[{"id": "a", "text": "x"}]\n{"id"', 1, "a file: unexpected '{\"id\"' behind the array, on line 2"),
        ("hello", 0, "a file: unexpected 'hello' between the objects, on line 1"),
    ],
)
def test_json_that_is_none_is_named_after_the_objects_before(text: str, whole: int, error: str) -> None:
    found: list[Line | None] = []
    with pytest.raises(VecError) as refused:
        found.extend(records("json", "a file", iter([text.encode()])))
    assert (len(found), refused.value.code) == (whole, "invalid_document")
    assert refused.value.message == error


def test_an_object_that_is_too_large_is_one_rejected_record() -> None:
    large = json.dumps({"id": "b", "text": "x" * limits.LINE_BYTES_MAX})
    text = f"[{json.dumps(OBJECTS[0])}, {large}, {json.dumps(OBJECTS[2])}]"
    first, second, third = read("json", cut(text, 250_000))
    assert [document(first), document(third)] == [OBJECTS[0], OBJECTS[2]]
    with pytest.raises(VecError, match="over the limit"):
        document(second)


def test_a_pause_is_passed_on_within_an_object() -> None:
    text = JSON["array"].encode()
    found = list(records("json", "a file", iter([text[:10], None, text[10:60], None, text[60:]])))
    assert found.count(None) == 2
    assert [document(line) for line in found if line is not None] == OBJECTS


# --- tables ---------------------------------------------------------------------------------------------------------

TABLE = (
    'id,title,text,year,code,open,vector\n1,A,"one, ""two""\nthree",2020,007,true,"[1, 2.5]"\n02,,four,1.50,,false,\n'
)

ROWS = [
    {"id": "1", "title": "A", "text": 'one, "two"\nthree', "vector": [1, 2.5],
     "metadata": {"year": 2020, "code": "007", "open": True}},
    {"id": "02", "text": "four", "metadata": {"year": "1.50", "open": False}},
]  # fmt: skip


def documents(found: list[Any]) -> list[Any]:
    """With their vectors as lists."""
    import numpy as np

    return [
        {**each, "vector": np.frombuffer(each["vector"], "<f4").tolist()} if "vector" in each else each
        for each in found
    ]


@pytest.mark.parametrize("size", [1, 3, 1_000])
@pytest.mark.parametrize(
    "change", [str, lambda text: "\ufeff" + text.replace("\n", "\r\n").replace("\r\nthree", "\nthree")]
)
def test_a_table_is_documents_whose_other_columns_are_metadata(size: int, change: Any) -> None:
    """A number that would be written otherwise stays a text: an area code, a version."""
    assert documents(objects("csv", cut(change(TABLE), size))) == ROWS


def test_a_pause_within_a_row_loses_nothing() -> None:
    pieces = [piece for byte in TABLE.encode() for piece in (bytes([byte]), None)]
    assert documents(objects("csv", pieces)) == ROWS


def test_a_mapping_names_the_columns() -> None:
    table = "Url\tHead\tBody\tStars\n7\ttrue\t12\t4\n"
    rules = {"id": "Url", "title": "Head", "text": "Body"}
    assert objects("tsv", [table.encode()], rules) == [
        {"id": "7", "title": "true", "text": "12", "metadata": {"Stars": 4}}
    ]


def test_quotes_in_tsv_are_characters() -> None:
    assert objects("tsv", [b'id\ttext\na\t"to be" or\n']) == [{"id": "a", "text": '"to be" or'}]


def test_a_wrong_row_is_one_rejected_record_and_names_its_line() -> None:
    lines = read("csv", [b'id,text\na,x\nb\n\nc,"y"z\nd,"two\nlines"\ne,x,y\nf,z\n'])
    assert [line.number for line in lines] == [2, 3, 5, 6, 8, 9]
    errors = {line.number: line.error.message for line in lines if line.error is not None}
    assert errors.keys() == {3, 5, 8}
    assert errors[3] == "the row has 1 cells, but the header has 2"
    assert errors[8] == "the row has 3 cells, but the header has 2"
    assert errors[5].startswith("not a row of a table: ")
    assert [document(line) for line in lines if line.error is None] == [
        {"id": "a", "text": "x"}, {"id": "d", "text": "two\nlines"}, {"id": "f", "text": "z"}
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("table", "error"),
    [
        ("name,body\na,b\n", "a file: the header has no column 'text' and no column 'vector': it has name, body"),
        ("id;text\na;b\n", "a file: the cells are separated by ';', not by a comma: id;text"),
        ("id,text,text\na,b,c\n", "a file: the header has two columns 'text'"),
        ("id,,text\na,b,c\n", "a file: the header has a column without a name"),
    ],
)
def test_a_header_of_which_nothing_can_come_is_an_error(table: str, error: str) -> None:
    with pytest.raises(VecError) as refused:
        read("csv", [table.encode()])
    assert refused.value.message == error


def test_a_table_that_is_not_utf8_is_an_error_with_the_remedy() -> None:
    with pytest.raises(VecError, match="not UTF-8 \\(byte 0xe4\\)") as refused:
        read("csv", ["id,text\na,ä\n".encode("latin1")])
    assert "iconv" in str(refused.value.hint)


# --- names ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "form"),
    [
        ("a.csv", "csv"), ("A.CSV.GZ", "csv"), ("a.tsv.zst", "tsv"), ("a.json", "json"), ("a.json.xz", "json"),
        ("a.ndjson", "ndjson"), ("a.jsonl.bz2", "ndjson"), ("csv", "ndjson"), ("stdin", "ndjson"),
    ],
)  # fmt: skip
def test_the_suffix_says_the_format(name: str, form: str) -> None:
    assert format_of(name) == form
