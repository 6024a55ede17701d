"""Records of JSON, CSV and TSV: each comes out once, however the input arrives, and a wrong one costs itself only."""

from __future__ import annotations

import csv
import io
import itertools
import json
import time
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


def rows_of(form: str, text: str, size: int | None = None) -> list[Any]:
    """The cells of a table with the columns id, text and c."""
    found = objects(form, cut(text, size) if size else [text.encode()], {"id": "id", "text": "text"})
    return [tuple(each.get(key) for key in ("id", "text")) + tuple(each.get("metadata", {}).values()) for each in found]


#: Cells that are hard to write.
CELLS = [
    "plain",
    'say "no"',
    '"',
    '""',
    '"a" b',
    "tab\there",
    "two\nlines",
    "cr\rlf\r\n",
    ' "',
    'ends "',
    "a,b;c",
    '"\t"',
]


@pytest.mark.parametrize("size", [1, 3, None])
@pytest.mark.parametrize(("form", "dialect"), [("tsv", "excel-tab"), ("csv", "excel"), ("csv", "unix")])
def test_what_the_csv_module_writes_comes_back(form: str, dialect: str, size: int | None) -> None:
    written = io.StringIO(newline="")
    writer = csv.writer(written, dialect)
    rows = [(str(n), one, other) for n, (one, other) in enumerate(itertools.product(CELLS, CELLS))]
    writer.writerows([("id", "text", "c"), *rows])
    assert rows_of(form, written.getvalue(), size) == rows


@pytest.mark.parametrize("size", [1, 3, None])
def test_quotes_in_tsv_that_are_not_around_a_cell_are_characters(size: int | None) -> None:
    table = 'id\ttext\n1\t"to be" or\n"2\t5" disk\n3\t"\n4\tx\r\n5\t"two\n""lines""\t"\n6\t"open\n7\tx'
    assert rows_of("tsv", table, size) == [
        ("1", '"to be" or'), ('"2', '5" disk'), ("3", '"'), ("4", "x"), ("5", 'two\n"lines"\t'), ("6", '"open'),
        ("7", "x"),
    ]  # fmt: skip
    numbers = [line.number for line in read("tsv", cut(table, size or len(table)), {"id": "id", "text": "text"})]
    assert numbers == [2, 3, 4, 5, 6, 8, 9]


def test_a_pause_between_the_lines_of_a_tsv_cell_loses_nothing() -> None:
    table = 'id\ttext\n1\t"a\nb"\n2\t"open\n3\tx\n'
    pieces = [piece for byte in table.encode() for piece in (bytes([byte]), None)]
    assert [each["text"] for each in objects("tsv", pieces)] == ["a\nb", '"open', "x"]


def test_quotes_that_never_end_cost_no_time() -> None:
    table = "text\n" + '"a\n' * 100_000 + '"\n' + '""b\n' * 100_000
    started = time.process_time()
    assert len(read("tsv", [table.encode()])) == 200_000
    assert time.process_time() - started < 10


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("form", ["csv", "tsv"])
@pytest.mark.parametrize("size", [1, 2, 5, None])
def test_lines_may_end_as_on_any_system(form: str, end: str, size: int | None) -> None:
    table = end.join(["id,text", "1,x", "", "2,y", ""]).replace(",", "," if form == "csv" else "\t")
    assert rows_of(form, table, size) == [("1", "x"), ("2", "y")]
    assert [line.number for line in read(form, cut(table, size or 100))] == [2, 4]


def told(table: str) -> tuple[list[Any], list[str]]:
    said: list[str] = []
    found = records("csv", "a.csv", iter(cut(table, 3)), None, None, said.append)
    return [document(line) for line in found if line is not None], said


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ("sep=;\nid;text\na;1,5\n", []),
        ('"sep=;"\r\nid;text\r\na;1,5\r\n', []),
        ('SEP=,\nid,text\na,"1,5"\n', []),
        ("sep=\t\nid\ttext\na\t1,5\n", []),
        ("id;text\na;1,5\n", ["a.csv: the cells are separated by ';', not by commas"]),
        ('\nid;"text"\na;"1,5"\n', ["a.csv: the cells are separated by ';', not by commas"]),
        ("id|text\na|1,5\n", ["a.csv: the cells are separated by '|', not by commas"]),
        ("id\ttext\na\t1,5\n", ["a.csv: the cells are separated by tabs, not by commas"]),
        ('id,text\na,"1,5"\n', []),
    ],
)
def test_a_table_says_or_shows_what_separates_its_cells(table: str, said: list[str]) -> None:
    assert told(table) == ([{"id": "a", "text": "1,5"}], said)


def test_a_header_of_one_column_is_one_whatever_is_in_its_quotes() -> None:
    assert read("csv", [b'"a;b"\n1;2\n'], {"text": '"a;b"'})[0].value == {"a;b": "1;2"}


@pytest.mark.parametrize(
    ("rules", "error", "hint"),
    [
        ({"id": "nosuch", "text": "body"}, "has no column 'nosuch', where the id should be: it has id, body", "--map"),
        ({"text": "bodi"}, "has no column 'bodi', where the text should be: it has id, body", "did you mean 'body'?"),
        ({"vector": "emb"}, "has no column 'emb', where the vector should be: it has id, body", "--map vector=COLUMN"),
    ],
)
@pytest.mark.parametrize("form", ["csv", "tsv"])
def test_a_column_without_which_no_row_is_a_document_is_one_error(
    form: str, rules: dict[str, str], error: str, hint: str
) -> None:
    with pytest.raises(VecError) as refused:
        read(form, [b"id,body\na,b\n".replace(b",", b"\t" if form == "tsv" else b",")], rules)
    assert (refused.value.message, refused.value.details["file"]) == (f"a file {error}", "a file")
    assert hint in str(refused.value.hint)


def test_a_column_that_only_some_documents_need_may_be_missing() -> None:
    assert objects("csv", [b"id,body\na,b\n"], {"text": "head,body", "title": "name", "vector": "emb"}) == [
        {"id": "a", "text": "b"}
    ]
    assert objects("csv", [b"op,id\ndelete,a\n"], {"id": "key", "text": "body"}) == [{"op": "delete", "id": "a"}]


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
        ("id,text,text\na,b,c\n", "a file: the header has two columns 'text'"),
        ("id,,text\na,b,c\n", "a file: the header has a column without a name"),
    ],
)
def test_a_header_of_which_nothing_can_come_is_an_error(table: str, error: str) -> None:
    with pytest.raises(VecError) as refused:
        read("csv", [table.encode()])
    assert refused.value.message == error


# --- encodings ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be"])
@pytest.mark.parametrize("size", [1, 2, 3, 1_000_000])
def test_utf16_with_a_mark_is_read_as_it_is(encoding: str, size: int) -> None:
    rows = [{"id": "ä", "text": "日本 😀 \u0a0d"}, {"id": "b", "text": "y"}]
    table = "id,text\r\n" + "".join(f"{row['id']},{row['text']}\r\n" for row in rows)
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\r\n" for row in rows)
    for form, text in (
        ("csv", table), ("tsv", table.replace(",", "\t")), ("ndjson", lines), ("json", json.dumps(rows)),
        ("ndjson", json.dumps(rows, ensure_ascii=False)),
    ):  # fmt: skip
        data = ("\ufeff" + text).encode(encoding)
        assert objects(form, [data[at : at + size] for at in range(0, len(data), size)]) == rows


def test_utf16_that_is_cut_is_an_error() -> None:
    with pytest.raises(VecError, match="a file begins as UTF-16, but is damaged \\(truncated data\\)"):
        read("csv", ["id,text\na,b\n".encode("utf-16")[:-1]])


@pytest.mark.parametrize(
    ("text", "encoding", "hint"),
    [
        ("id,text\na,Grüße aus Köln\n", "cp1252", "it could be Windows-1252: iconv -f Windows-1252 -t UTF-8 a file |"),
        ("id,text\na,Привет мир\n", "cp1251", "from the encoding that it was written in: iconv -f ENCODING "),
        ("id,text\na,日本語の文\n", "shift-jis", "from the encoding that it was written in: iconv -f ENCODING "),
        ("id,text\na,Grüße\n", "utf-16-le", "it could be UTF-16LE: iconv -f UTF-16LE -t UTF-8 a file |"),
        ("id,text\na,Grüße\n", "utf-16-be", "it could be UTF-16BE: iconv -f UTF-16BE -t UTF-8 a file |"),
    ],
)
@pytest.mark.parametrize("form", ["csv", "tsv"])
def test_a_table_in_another_encoding_is_an_error_whose_hint_is_plausible(
    text: str, encoding: str, hint: str, form: str
) -> None:
    with pytest.raises(VecError) as refused:
        read(form, [text.encode(encoding)])
    assert "UTF-" in refused.value.message
    assert hint in str(refused.value.hint)
    assert str(refused.value.hint).endswith(f"| vec ingest --format {form}")


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
