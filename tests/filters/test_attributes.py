"""Columns of documents: whatever is asked, and whenever, the answer is that of looking at every document."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Sequence
from typing import Any, cast

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vecd import limits
from vecd.errors import VecError
from vecd.filters.attributes import DocumentRow, DocumentSelection
from vecd.filters.expressions import OWN, Field, FilterWarning, Where, parse

from .documents import Document, Store, document, stored
from .trees import Tree, Writer, flat, holds, kind, leaves, reached, trees

# --- against looking at every document ------------------------------------------------------------------------------

_NAMES = ("a", "b", "c", "x y", "title", "", "a.b", "\"'\\", "metadata", "größe", "and")
_EDGES = (2**53, 2**63, 2**64, -(2**53), -(2**63))
#: Numbers around those where floats have gaps, and where the types of columns end.
_INTEGERS = st.sampled_from(sorted({edge + step for edge in _EDGES for step in range(-3, 4)} | set(range(-2, 3))))
_STORED_INTEGERS = _INTEGERS.filter(lambda number: -(2**63) <= number < 2**64)
_FLOATS = st.sampled_from(
    (
        -1.5,
        -1.0,
        0.0,
        -0.0,
        0.5,
        1.0,
        2.0,
        1e9,
        1e300,
        -1e300,
        *map(float, _EDGES),
        2.0**53 + 2,
        2.0**53 - 1,
        2.0**63 - 1024,
        2.0**64 + 4096,
    )
)
_NUMBERS: st.SearchStrategy[int | float] = st.one_of(_FLOATS, _INTEGERS, st.sampled_from((10**30, -(10**30), 10**399)))
_TEXTS = st.sampled_from(("", "a", "ab", "b", "Ä", "ß", "1", "true", "\U0001f600", "a b", "d1", "d2"))
_SCALARS = st.one_of(st.none(), st.booleans(), _STORED_INTEGERS, _FLOATS, _TEXTS)
_JSON = st.recursive(
    _SCALARS,
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.sampled_from(_NAMES), inner, max_size=3)),
    max_leaves=6,
)
_DOCUMENTS = st.builds(
    lambda number, title, chunks, metadata: {
        "id": f"d{number}", "title": title, "chunks": chunks, "metadata": metadata,
    },
    st.integers(0, 5), st.one_of(st.none(), _TEXTS), st.integers(1, 3),
    st.dictionaries(st.sampled_from(_NAMES), _JSON, max_size=4),
)  # fmt: skip
_PATHS = st.lists(st.sampled_from(_NAMES), min_size=1, max_size=3).map(tuple)
_TREES = trees(leaves(_PATHS, _NUMBERS, _TEXTS), 5)
_STEPS = st.lists(
    st.one_of(
        st.tuples(
            st.just("commit"), st.lists(_DOCUMENTS, max_size=5), st.lists(st.integers(0, 1_000), max_size=3),
            st.integers(0, 3),
        ),
        st.tuples(st.just("leave"), st.integers(1, 3)),
        st.tuples(st.just("ask"), st.integers(0, 2)),
    ),
    max_size=14,
)  # fmt: skip


def doubted(tree: Tree, documents: Sequence[Document]) -> set[tuple[str, ...]]:
    """The fields of the tests in it that can never hold: no document has the field, or only values of other types."""
    if tree[0] == "not":
        return doubted(tree[1], documents)
    if tree[0] in ("all", "any"):
        return set().union(*(doubted(each, documents) for each in tree[1]))
    _, own, path, _, values = tree
    there = [each for document in documents for each in reached(document, own, path)]
    if not there:
        return set() if own or not documents else {path}
    held = {kind(each) for each in flat(there)} - {None}
    return {path} if values and held and not held & {kind(value) for value in values} else set()


def check(store: Store, tree: Tree, text: str) -> None:
    """Asks, and holds the answer against every document that is there."""
    selection = store.select(text)
    found = selection.firsts[selection.matching].tolist()
    assert found == [label for label, each in store.known.items() if holds(tree, each)]
    assert {paths_of(warning) for warning in selection.warnings} == doubted(tree, list(store.known.values()))
    check_numbers(selection, store.known)


def paths_of(warning: FilterWarning) -> tuple[str, ...]:
    """The field that a doubt names, read where it points at or in its message."""
    assert not warning.text[warning.column - 1].isspace()
    match = re.search(r"the field ('(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\")", warning.message)
    assert match is not None
    (where,) = parse((f"{ast.literal_eval(match[1])} exists",))
    return next(where.tests).field.path


def check_numbers(selection: DocumentSelection, state: dict[int, Document]) -> None:
    """Each label leads to its document, others to none."""
    known = selection.last_label
    expected = {label + chunk: label for label, each in state.items() for chunk in range(each["chunks"])}
    numbers = selection.numbers(np.arange(known + 5, dtype=np.int64))
    assert numbers.dtype == np.int32
    for label, number in enumerate(numbers.tolist()):
        if label in expected:
            assert selection.firsts[number] == expected[label]
            assert selection.alive[number]
        else:
            assert number == -1 or not selection.alive[number]
    assert known >= max(expected, default=-1)
    assert len(selection.mask) == len(selection.firsts) + 1
    assert not selection.mask[-1]


@settings(deadline=None, max_examples=150)
@given(expressions=st.lists(_TREES, min_size=3, max_size=3), steps=_STEPS, seed=st.integers(0, 2**32))
def test_a_filter_gives_what_looking_at_every_document_gives_however_writes_and_questions_alternate(
    expressions: list[Tree], steps: list[tuple[Any, ...]], seed: int
) -> None:
    store = Store()
    texts = [Writer(seed + place).write(tree) for place, tree in enumerate(expressions)]
    kept: list[tuple[DocumentSelection, list[int]]] = []
    for step in [*steps, ("leave", 1_000), ("ask", 0), ("ask", 1), ("ask", 2)]:
        if step[0] == "commit":
            _, documents, gone, gap = step
            there = list(store.states[-1])
            store.commit(documents, {there[place % len(there)] for place in gone} if there else (), gap)
        elif step[0] == "leave":
            store.leave(step[1])
        else:
            check(store, expressions[step[1]], texts[step[1]])
            selection = store.attributes.select(())
            kept.append((selection, selection.firsts[selection.matching].tolist()))
    for selection, found in kept:  # what was selected once stays as it was
        assert selection.firsts[selection.matching].tolist() == found


@settings(deadline=None, max_examples=60)
@given(documents=st.lists(_DOCUMENTS, max_size=8), both=st.tuples(_TREES, _TREES), seed=st.integers(0, 2**32))
def test_several_filters_are_all_to_hold(documents: list[Document], both: tuple[Tree, Tree], seed: int) -> None:
    store = stored(*documents)
    texts = [Writer(seed + place).write(tree) for place, tree in enumerate(both)]
    state = store.states[-1]
    assert store.found(*texts) == [label for label, each in state.items() if all(holds(tree, each) for tree in both)]


# --- rules worth a name ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("n = 1", [1]),
        ("n != 1", [2, 3, 4, 5]),
        ("n not in (1, 2)", [3, 4, 5]),
        ("n > 1", [2]),
        ("n exists", [1, 2, 4]),
        ("n not exists", [3, 5]),
        ("n = x", [4]),
        ("tags = red", [1, 2]),
        ("tags != red", [3, 4, 5]),
        ("tags ^= b", [2]),
        ("tags exists", [1, 2, 4]),
        ("who.name = ann", [1, 3]),
        ("who.age >= 30", [3]),
        ("who.name = ann and who.age = 7", [3]),
        ("who exists", [1, 3]),
        ("title exists", [1]),
        ("title = One", [1]),
        ("metadata.title = Other", [1]),
        ("document_id in (d2, d3)", [2, 3]),
        ("document_id ^= d", [1, 2, 3, 4, 5]),
        ("missing exists", []),
        ("missing = 5", []),
        ("missing != 5", [1, 2, 3, 4, 5]),
        ("not missing exists", [1, 2, 3, 4, 5]),
    ],
)
def test_missing_fields_lists_and_nested_keys_are_as_documented(text: str, found: list[int]) -> None:
    store = stored(
        {**document(1, title="One", n=1, tags=["red", "green"], who={"name": "ann"}), "metadata":
            {"n": 1, "tags": ["red", "green"], "who": {"name": "ann"}, "title": "Other"}},
        document(2, n=2, tags=[["blue"], "red", None]),
        document(3, n=None, who=[{"name": "bob", "age": 31}, {"name": "ann", "age": 7}, "nobody"]),
        document(4, n="x", tags=[]),
        document(5),
    )  # fmt: skip
    assert store.found(text) == found


def test_strings_are_ordered_by_code_points_and_numbers_by_size() -> None:
    store = stored(*(document(place, s=text) for place, text in enumerate(["B", "a", "ä", "\U0001f600"])))
    assert store.found("s < a") == [1]
    assert store.found("s >= ä") == [3, 4]
    store = stored(*(document(place, n=number) for place, number in enumerate([10, 9.5, -1, 1e300])))
    assert store.found("n < 10") == [2, 3]
    assert store.found("n >= 1e300") == [4]


@pytest.mark.parametrize(
    ("text", "column", "told", "hint"),
    [
        ("year = '2020'", 8, "'year' holds numbers, and '2020' is a string", "leave out the quotes"),
        ("year != '2020'", 9, "holds numbers", "leave out the quotes"),
        ("name = 7", 8, "'name' holds strings, and 7 is a number", "quote it: '7'"),
        ("name < 7", 8, "holds strings", "quote it: '7'"),
        ("name = true", 8, "holds strings, and true is true or false", None),
        ("done = 1", 8, "'done' holds true or false, and 1 is a number", None),
        ("done ^= t", 9, "holds true or false, and t is a string", None),
        ("year = abc", 8, "holds numbers, and abc is a string", None),
        ("year ^= 20", 9, "holds numbers, and 20 is a string", None),
        ("deep.list = 1", 13, "'deep.list' holds strings and true or false", "quote it: '1'"),
        ("not (name = x or name > 7)", 25, "holds strings", "quote it: '7'"),
    ],
)
def test_comparing_with_what_a_field_never_holds_is_doubted_at_the_value(
    text: str, column: int, told: str, hint: str | None
) -> None:
    store = stored(document(1, year=2020, name="x", done=True, deep={"list": [["s"], False, None]}))
    (warning,) = store.warnings("year exists", text)
    assert (warning.text, warning.column) == (text, column)
    assert told in warning.message
    assert hint is None or hint in str(warning.hint)


@pytest.mark.parametrize("text", ["a in (1, x)", "a = x or a = 1", "a != true", "a not in (1, 2, true)", "a < 7"])
def test_a_mixed_list_and_a_field_with_mixed_types_are_compared_value_by_value(text: str) -> None:
    store = stored(*(document(place, a=value) for place, value in enumerate([1, "x", True, "1", 2.0, None], 1)))
    found = {
        "a in (1, x)": [1, 2], "a = x or a = 1": [1, 2], "a != true": [1, 2, 4, 5, 6], "a < 7": [1, 5],
        "a not in (1, 2, true)": [2, 4, 6],
    }[text]  # fmt: skip
    assert store.found(text) == found
    assert store.warnings(text) == []


def test_a_list_of_which_one_value_can_be_met_is_not_doubted() -> None:
    store = stored(document(1, a=1))
    assert store.warnings("a in ('x', 1)") == []
    assert [warning.column for warning in store.warnings("a in ('x', y)")] == [7]


def test_a_field_that_holds_no_value_yet_may_be_compared_with_anything() -> None:
    store = stored(document(1, b={"c": 1}, d=[]))
    for text in ("b = true", "d < 'x'", "d in (1, x, true)"):
        assert store.found(text) == []
        assert store.warnings(text) == []


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("id = x", "document_id"), ("doc_id = x", "document_id"), ("yaer = 1", "year"), ("Year = 1", "year"),
        ("author.nam = x", "author.name"), ("titel = x", "title"), ("zzz = 1", None), ("a = 1", None),
        ("'odd kye' = 1", '"odd key"'),
    ],
)  # fmt: skip
def test_a_field_that_no_document_has_is_doubted_with_the_nearest_name(text: str, hint: str | None) -> None:
    store = stored(document(1, year=1, author={"name": "ann"}, a=None, **cast("dict[str, Any]", {"odd key": 1})))
    (warning,) = store.warnings(text)
    assert (warning.column, "no document has the field" in warning.message) == (1, True)
    assert (warning.hint is None) if hint is None else (f"did you mean {hint}?" in str(warning.hint))


def test_doubts_are_of_living_documents_alone() -> None:
    store = stored(document(1, a="x"), document(2, b=1))
    assert store.found("a = 1") == []
    assert "holds strings" in store.warnings("a = 1")[0].message
    (label,) = store.commit([document(3, a=1)])
    store.leave()
    assert store.found("a = 1") == [label]
    assert store.warnings("a = 1") == []
    store.commit(removed=[label])
    store.leave()
    assert "holds strings" in store.warnings("a = 1")[0].message
    assert store.warnings("b = 1") == []
    store.commit(removed=[1, 2])
    store.leave()
    assert store.warnings("a = 1", "b = 1") == []  # there is nothing
    store.commit([document(4, c=1)])
    store.leave()
    assert ["no document has" in warning.message for warning in store.warnings("a = 1", "b = 1")] == [True, True]


def test_few_doubts_of_many_are_told_and_the_others_counted() -> None:
    store = stored(document(1, a=1))
    warnings = store.warnings(" or ".join(f"x{number} = 1" for number in range(50)))
    assert len(warnings) == 11
    assert "40 more" in warnings[-1].message


@pytest.mark.parametrize("other", [2**53, 2**53 + 2, float(2**53)])
def test_an_integer_is_not_its_neighbour(other: int | float) -> None:
    store = stored(document(1, b=other), document(2, b=2**53 + 1))
    assert store.found(f"b = {2**53 + 1}") == [2]
    assert store.found(f"b != {2**53 + 1}") == [1]


# --- which columns there are ----------------------------------------------------------------------------------------


def test_a_field_whose_first_key_no_document_has_is_answered_without_reading_any() -> None:
    store = stored(document(1, a={"b": 1}), document(2, a=2))
    assert store.found("a = 2") == [2]
    fields = frozenset(Field(False, (f"x{number}", "y")) for number in range(5_000))
    store.attributes.load(fields, lambda: pytest.fail("no document can have these"))
    assert store.attributes.has(fields)
    assert store.found("a.b = 1") == [1]  # this one had to be read
    labels = store.commit([document(3, x7={"y": 1})])
    store.leave()
    assert store.found("x7.y = 1") == labels


def test_only_the_columns_that_are_missing_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    store = stored(document(1, a=1, b=1))
    assert store.found("a = 1") == [1]
    column = store.attributes._table.columns.by_field[Field(False, ("a",))]
    assert store.found("b = 1 and document_id = d1") == [1]
    assert store.attributes._table.columns.by_field[Field(False, ("a",))] is column


def test_columns_are_dropped_beyond_a_count_also_those_of_fields_that_no_document_has(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(limits, "FILTER_COLUMNS_MAX", 10)
    store = stored(document(1, a=1, b=1))
    for turn in range(50):
        assert store.found(f"unknown{turn} = 1 or a.deep{turn} = 1 or a = 1") == [1]
        assert len(store.attributes.fields) <= 10 + 3
    assert {Field(False, ("a",)), Field(False, ("unknown49",))} <= store.attributes.fields


@pytest.mark.parametrize("count", [3, 50])
def test_a_list_finds_the_same_numbers_however_long_it_is(count: int) -> None:
    """Long lists are looked up in one pass; exactly, also where a type cannot hold a value."""
    values: list[Any] = [
        0,
        1,
        -1,
        1.5,
        2.0,
        2**53 + 1,
        2**63,
        2**64 - 1,
        -(2**63),
        1e300,
        float(2**63),
        True,
        "1",
        None,
    ]
    store = stored(*(document(place, a=value) for place, value in enumerate(values, 1)))
    wanted = ["1", "2", "1.5", "9007199254740993", "9223372036854775808", "1e300", "true", "-9223372036854775808.0"]
    padding = [str(7_000 + number) for number in range(count)]
    one_by_one = sorted({label for each in wanted for label in store.found(f"a = {each}")})
    assert store.found(f"a in ({', '.join([*wanted, *padding, '9' * 30])})") == one_by_one
    assert one_by_one == [2, 4, 5, 6, 7, 9, 10, 11, 12]


def test_columns_that_are_not_used_are_dropped_beyond_the_bound_and_come_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "FILTER_COLUMNS_BYTES", 40_000)
    names = [f"n{number}" for number in range(20)]
    store = stored(*(document(place, **cast("dict[str, Any]", dict.fromkeys(names, place))) for place in range(1, 101)))
    for name in [*names, *names]:
        assert store.found(f"{name} = 7") == [7]
        assert store.attributes._table.columns.size_bytes < 60_000
    assert Field(False, ("n19",)) in store.attributes.fields
    assert Field(False, ("n0",)) not in store.attributes.fields
    with store.attributes.pinned(frozenset([Field(False, ("n0",))])):
        assert store.found("n0 = 7") == [7]
        for name in names[1:]:
            store.found(f"{name} = 7")
        assert Field(False, ("n0",)) in store.attributes.fields


def test_columns_that_join_others_know_what_was_written_and_deleted_while_they_were_read() -> None:
    """At every moment of a load: before the documents are read, between, and when they are and nobody was told yet."""
    for told_before, told_after in ((True, True), (True, False), (False, True), (False, False)):
        store = stored(*(document(number, a=number, b=number % 2) for number in range(1, 7)))
        store.found("a = 1")

        def read(store: Store = store, told_before: bool = told_before, told_after: bool = told_after) -> Any:
            store.commit([document(7, a=7, b=1)], removed=[1])
            if told_before:
                store.leave()
                store.attributes.select(parse(("a = 7",)))  # others go on
            seq, rows = store.read()
            rows = iter(list(rows))
            store.commit([document(8, a=8, b=1)], removed=[3, 7])
            if told_after:
                store.leave()
                store.attributes.select(parse(("a = 8",)))
            return seq, rows

        (where,) = parse(("b = 1 and a > 0",))
        store.attributes.load(where.fields, read)
        store.leave()
        assert store.found("b = 1 and a > 0") == [5, 8]
        assert store.found("b != 1") == [2, 4, 6]
        assert store.found("a > 6") == [8]
        selection = store.select("b != 0 or a exists")
        assert not selection.mask[[0]].any(), "dead before the column was made: nothing is known of it"
        check_numbers(selection, store.states[-1])


# --- writes after a selection ---------------------------------------------------------------------------------------


def test_a_mask_that_is_kept_knows_what_came_later_and_what_went() -> None:
    store = stored(*(document(number, n=number) for number in range(100)))
    assert store.found("n >= 90") == list(range(91, 101))
    labels = store.commit([document(1, n=95), document(2, n=5)], removed=[100])
    assert store.found("n >= 90") == list(range(91, 101))  # it has not been told yet
    store.leave()
    assert store.found("n >= 90") == [*range(91, 100), labels[0]]
    assert store.found("n < 90") == [*range(1, 91), labels[1]]


def test_more_filters_than_are_kept_are_all_right_also_the_second_time() -> None:
    store = stored(*(document(number, n=number % 50) for number in range(1, 201)))
    for more in range(3):
        for wanted in range(2 * limits.FILTER_MASKS_KEPT):
            expected = [label for label, each in store.states[-1].items() if each["metadata"]["n"] == wanted]
            assert store.found(f"n = {wanted}") == expected
        store.commit([document(number, n=number % 50) for number in range(more, 70)], removed=range(1, 200, 7 + more))
        store.leave()


def test_a_field_that_is_named_later_is_read_once_and_nothing_is_lost_or_doubled() -> None:
    store = Store()
    store.commit([document(1, a=1, b="x")])
    assert store.found("a = 1") == [1]  # loaded as of the store; the commit itself is left only now
    store.leave()
    assert store.found("a = 1") == [1]
    store.commit([document(2, a=1, b="y")])
    store.commit([document(3, a=1, b="y")], removed=[1])
    store.leave(1)
    assert store.found("a = 1") == [1, 2]
    assert store.found("b = y") == [2, 3]  # reads the store, which is ahead of what was left
    assert store.found("a = 1") == [2, 3]
    store.leave()
    assert store.found("a = 1", "b = y") == [2, 3]
    assert store.attributes.fields == {field for where in parse(("a = 1", "b = 1")) for field in where.fields}
    store.attributes.load(store.attributes.fields, lambda: pytest.fail("there is nothing to read"))


def test_columns_that_could_not_be_read_are_read_again() -> None:
    """Half a column would give wrong answers, and a delete by them."""

    def broken(after: int) -> tuple[int, Iterator[DocumentRow]]:
        def rows() -> Iterator[DocumentRow]:
            yield from list(store.read()[1])[:after]
            raise VecError("storage_failed", "the disk is gone")

        if after < 0:
            raise VecError("storage_failed", "the disk is gone")
        return 1, rows()

    for known in ((), ("a = 1",)):
        for after in (-1, 0, 1):
            store = stored(document(1, a=1, b=1), document(2, a=2, b=1))
            for text in known:
                assert store.found(text) == [1]
            (where,) = parse(("b = 1",))
            with pytest.raises(VecError, match="the disk is gone"):
                store.attributes.load(where.fields, lambda after=after: broken(after))  # type: ignore[misc]
            assert store.found("b = 1") == [1, 2], (known, after)
            assert store.found("a = 1") == [1]


def test_a_selection_without_documents_lets_nothing_through() -> None:
    store = Store()
    selection = store.select("a = 1")
    assert (selection.last_label, selection.matching.tolist(), selection.mask.tolist()) == (-1, [], [False])
    assert selection.numbers(np.array([1, 2, 7], np.int64)).tolist() == [-1, -1, -1]
    assert store.select("a != 1").mask.tolist() == [False]


def test_selections_have_the_same_basis_until_documents_are_numbered_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    store = stored(document(1, a=1), document(2, a=1))
    first = store.select("a = 1")
    store.commit([document(3, a=2)], removed=[1])
    store.leave()
    second = store.select("a != 1")
    assert first.basis is second.basis
    assert first.firsts.tolist() == second.firsts[:2].tolist()
    third = store.select("b exists")  # a column joins the others
    assert third.basis is first.basis
    assert third.firsts.tolist() == [1, 2, 3]
    monkeypatch.setattr(limits, "ATTRIBUTES_PENDING", 1)
    store.commit(removed=[2])
    store.leave()
    store.select("b exists")
    fourth = store.select("c exists or a exists")  # most are dead: all is read anew, and they have no number any more
    assert fourth.basis is not first.basis
    assert fourth.firsts.tolist() == [3]


def test_nobody_waits_for_the_columns_of_a_library_that_is_not_asked_any_more() -> None:
    store = stored(document(1, a=1))
    store.found("a = 1")
    assert not store.attributes.worn
    store.commit([document(number, a=number) for number in range(limits.ATTRIBUTES_PENDING + 1)])
    store.leave()
    assert store.attributes.worn
    store.found("a = 1")
    assert not store.attributes.worn
    store.commit(removed=range(2, limits.ATTRIBUTES_PENDING))
    store.leave()
    store.found("a = 1")
    assert store.attributes.worn


def test_own_fields_are_the_two_that_every_document_has() -> None:
    assert OWN == ("document_id", "title")
    (where,) = parse(("title = x",))
    assert isinstance(where, Where)


# --- parts of strings, patterns, dates ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("path ~ '\\.md$'", ["a.md", "notes/b.md"]),
        ("path ~ '(?i)^A'", ["a.md"]),
        ("path !~ md", ["c.txt", None]),
        ("path contains otes/", ["notes/b.md"]),
        ("path not contains md", ["c.txt", None]),
    ],
)
def test_strings_are_found_by_a_part_and_by_a_pattern(text: str, found: list[str | None]) -> None:
    paths = ["a.md", "notes/b.md", "c.txt", None]
    store = stored(*(document(number, path=path) for number, path in enumerate(paths)))
    assert [store.states[-1][label]["metadata"]["path"] for label in store.found(text)] == found


def test_a_list_matches_a_pattern_if_any_of_its_strings_does() -> None:
    store = stored(document(0, tags=["mail", "ops"]), document(1, tags=[["x"], "news"]), document(2, tags=5))
    assert store.found("tags ~ ^o") == store.found("tags contains ps")
    assert len(store.found("tags ~ ^o")) == 1
    assert len(store.found("tags ~ x")) == 1


_TIMES = ["2026-11-27", "2026-11-28", "2026-11-28T00:30:00+02:00", "2026-11-28T23:59:59.5Z", "2026-11-29T00:00:00Z"]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("at > 2026-11-28", [4]),
        ("at >= 2026-11-28", [1, 3, 4]),
        ("at < 2026-11-28", [0, 2]),
        ("at <= 2026-11-28", [0, 1, 2, 3]),
        ("at > 2026-11-28T23:59:59Z", [3, 4]),
        ("at >= 2026-11-29T01:00:00+01:00", [4]),
        ("at < 2026-11-28T00:00", [0, 2]),
        ("at = 2026-11-28", [1]),
        ("at > '2026-11-28'", [2, 3, 4, 5]),
        ("at > 2026-02-30", [0, 1, 2, 3, 4, 5]),
    ],
)
def test_an_unquoted_date_is_compared_as_a_point_in_time(text: str, found: list[int]) -> None:
    store = stored(*(document(number, at=at) for number, at in enumerate([*_TIMES, "some day", 5, None])))
    assert [label - 1 for label in store.found(text)] == found
    store.commit([document(8, at="2026-11-30T10:00:00Z"), document(9, at="2020-01-01")])
    store.leave()
    later = {">": [8], "<": [9]}.get(text.split()[1][0], []) if "02-30" not in text and "'" not in text else [8]
    assert [label - 1 for label in store.found(text)] == [*found, *later]


def test_a_pattern_takes_linear_time_and_is_given_up_after_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    store = stored(*(document(number, text="a" * 3_000 + str(number)) for number in range(200)))
    assert store.found("text ~ '^(a+)+$'") == []  # a backtracking matcher would not return
    monkeypatch.setattr(limits, "FILTER_PATTERN_S", 0.0)
    with pytest.raises(VecError) as caught:
        store.found("text ~ '^(a*)*$'")
    assert caught.value.code == "invalid_filter"
    assert len(store.found("text ^= a")) == 200
