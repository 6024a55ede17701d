"""Rows of Parquet and Arrow, as pyarrow writes them, come out with the values that they have, and packed vectors."""

from __future__ import annotations

import datetime as dt
import io
from array import array
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.feather
import pyarrow.parquet
import pytest

from vecd.errors import VecError
from vecd.wire.mapping import DocumentMapping
from vecd.wire.ndjson import Line, document
from vecd.wire.records import records

ROWS = 3_000


def parquet(table: Any, **options: Any) -> bytes:
    with io.BytesIO() as file:
        pyarrow.parquet.write_table(table, file, **options)
        return file.getvalue()


def feather(table: Any) -> bytes:
    with io.BytesIO() as file:
        pyarrow.feather.write_feather(table, file, chunksize=700)
        return file.getvalue()


def stream(table: Any) -> bytes:
    with io.BytesIO() as file:
        with pyarrow.ipc.new_stream(file, table.schema) as writer:
            writer.write_table(table, max_chunksize=700)
        return file.getvalue()


#: Format -> how a table is written.
WRITERS = {"parquet": parquet, "arrow": feather, "arrow stream": stream}


def read(form: str, data: bytes, rules: dict[str, str] | None = None, size: int = 10_000) -> list[Line]:
    mapping = DocumentMapping.parse(rules) if rules else None
    pieces = iter([data[start : start + size] for start in range(0, len(data), size)])
    return [line for line in records(form.split()[0], "a file", pieces, mapping) if line is not None]


def documents(form: str, data: bytes, rules: dict[str, str] | None = None) -> list[Any]:
    mapping = DocumentMapping.parse(rules) if rules else None
    return [document(line, mapping) for line in read(form, data, rules)]


def numbers() -> Any:
    vectors = [[float(row), 0.5, -1.0] for row in range(ROWS)]
    return pyarrow.table(
        {
            "id": range(ROWS),
            "text": [f"text {row}" for row in range(ROWS)],
            "vector": pyarrow.array(vectors, pyarrow.list_(pyarrow.float64())),
            "n": range(ROWS),
        }
    )


@pytest.mark.parametrize("form", WRITERS)
def test_each_row_comes_out_once_and_in_its_order(form: str) -> None:
    data = WRITERS[form](numbers())
    lines = read(form, data)
    assert [line.number for line in lines] == list(range(1, ROWS + 1))
    found = [document(line) for line in lines]
    assert found[2_999] == {
        "id": 2_999, "text": "text 2999", "vector": array("f", [2_999.0, 0.5, -1.0]).tobytes(), "metadata": {"n": 2_999}
    }  # fmt: skip
    assert [each["id"] for each in found if each] == list(range(ROWS))
    assert all(line.size > 0 for line in lines)


@pytest.mark.parametrize("form", ["parquet", "arrow"])
def test_a_file_is_recognised_by_its_first_bytes(form: str) -> None:
    assert len(read("ndjson", WRITERS[form](numbers()), size=3)) == ROWS


def test_a_parquet_file_on_the_disk_is_read_where_it_is(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    path.write_bytes(parquet(numbers(), row_group_size=500))
    with path.open("rb", buffering=0) as file:
        nothing: Any = iter(())
        found = [line for line in records("parquet", "a", nothing, None, file) if line is not None]
    assert len(found) == ROWS


@pytest.mark.parametrize(
    "kind",
    [
        pyarrow.list_(pyarrow.float32()), pyarrow.list_(pyarrow.float16()), pyarrow.large_list(pyarrow.float64()),
        pyarrow.list_(pyarrow.float32(), 2), pyarrow.list_(pyarrow.int8()),
    ],
    ids=str,
)  # fmt: skip
def test_a_vector_is_packed_whatever_its_numbers_are_and_a_null_is_none(kind: Any) -> None:
    rows = [[1, 2], None, [3, 4]]
    given = pyarrow.array([[1, 2], [0, 0], [3, 4]], kind)
    table = pyarrow.table({"id": ["a", "b", "c"], "emb": pyarrow.array([*given.to_pylist()[:1], None, [3, 4]], kind)})
    for start in (0, 1):
        found = documents("parquet", parquet(table.slice(start)), {"id": "id", "vector": "emb", "title": "id"})
        packed = [each.get("vector") for each in found]
        assert packed == [None if row is None else array("f", row).tobytes() for row in rows[start:]]


@pytest.mark.parametrize(
    ("values", "kind", "wanted"),
    [
        ([dt.datetime(2026, 1, 2, 3, 4, 5, 0, dt.UTC)], pyarrow.timestamp("ns", "Asia/Tokyo"), "2026-01-02T03:04:05Z"),
        ([dt.datetime(2026, 1, 2, 3, 4, 5, 6, dt.UTC)], pyarrow.timestamp("us"), "2026-01-02T03:04:05.000006"),
        ([dt.date(2026, 1, 2)], pyarrow.date32(), "2026-01-02"),
        ([dt.timedelta(seconds=90)], pyarrow.duration("ns"), 90.0),
        ([Decimal("12.50")], pyarrow.decimal128(5, 2), 12.5),
        ([Decimal("12.00")], pyarrow.decimal128(5, 2), 12),
        ([Decimal("0.12345678901234567890")], pyarrow.decimal128(38, 20), "0.12345678901234567890"),
        ([b"caf\xc3\xa9"], pyarrow.binary(), "café"),
        ([b"\xff\x00"], pyarrow.binary(), "/wA="),
        ([[("k", 1)]], pyarrow.map_(pyarrow.string(), pyarrow.int64()), {"k": 1}),
        ([{"x": [1, None]}], None, {"x": [1, None]}),
        ([2**64 - 1], pyarrow.uint64(), 2**64 - 1),
        ([True], pyarrow.bool_(), True),
        (["red"], pyarrow.dictionary(pyarrow.int8(), pyarrow.string()), "red"),
    ],
)  # fmt: skip
def test_a_value_that_json_does_not_have_is_written_as_json_has_it(values: list[Any], kind: Any, wanted: Any) -> None:
    table = pyarrow.table({"text": ["t"], "v": pyarrow.array(values, kind)})
    (found,) = documents("parquet", parquet(table))
    assert found["metadata"] == {"v": wanted}
    assert type(found["metadata"]["v"]) is type(wanted)


def test_null_and_nan_are_missing() -> None:
    table = pyarrow.table({"text": ["a", "b"], "n": [None, 1], "f": [float("nan"), 1.5], "id": [None, "b"]})
    assert documents("parquet", parquet(table)) == [
        {"text": "a"}, {"id": "b", "text": "b", "metadata": {"n": 1, "f": 1.5}},
    ]  # fmt: skip


def test_a_value_that_cannot_be_read_costs_its_row_only() -> None:
    years = pyarrow.array([10**18, 0], pyarrow.int64()).cast(pyarrow.timestamp("s"))  # the first is far beyond 9999
    lines = read("arrow stream", stream(pyarrow.table({"text": ["a", "b"], "when": years})))
    with pytest.raises(VecError, match="'when' cannot be read"):
        document(lines[0])
    assert document(lines[1]) == {"text": "b", "metadata": {"when": "1970-01-01T00:00:00"}}


def test_a_column_of_metadata_is_the_metadata_with_the_others_in_it() -> None:
    table = pyarrow.table({"text": ["a"], "metadata": [{"x": 1}], "y": [2]})
    assert documents("parquet", parquet(table)) == [{"text": "a", "metadata": {"x": 1, "y": 2}}]


def test_columns_without_contents_are_refused_with_what_to_do() -> None:
    with pytest.raises(VecError, match=r"no column 'text' or 'vector': its columns are id, body") as caught:
        read("parquet", parquet(pyarrow.table({"id": [1], "body": ["x"]})))
    assert "--text COLUMN" in (caught.value.hint or "")
    assert documents("parquet", parquet(pyarrow.table({"id": [1], "body": ["x"]})), {"text": "body"}) == [
        {"id": "1", "text": "x"}
    ]


@pytest.mark.parametrize("form", WRITERS)
def test_damage_is_an_error_of_the_input_and_never_a_crash(form: str) -> None:
    data = WRITERS[form](numbers())
    kinds = {data[: len(data) // 2], data[:100], b"hello there, this is text", data[:8]}
    for start in range(0, len(data), len(data) // 25):
        kinds.add(data[:start] + b"\xff" * 40 + data[start + 40 :])
    for damaged in kinds:
        try:
            for line in read(form, damaged):
                line.file  # noqa: B018
        except VecError as error:
            assert error.details["file"] == "a file", error


def test_formats_that_are_mixed_up_are_told_apart() -> None:
    with pytest.raises(VecError, match="is Parquet, not Arrow"):
        read("arrow", parquet(numbers()))
    with pytest.raises(VecError, match="is no Parquet"):
        read("parquet", feather(numbers()))
    with pytest.raises(VecError, match="version 1 of Feather"):
        read("arrow", b"FEA1" + b"x" * 100)
