"""Columns of documents: whatever is asked, and whenever, the answer is that of looking at every document."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vecd import limits
from vecd.errors import VecError
from vecd.filters.attributes import DocumentSelection, Row
from vecd.filters.language import OWN, Where, parse

from .documents import Document, Store, document, stored
from .trees import Tree, Writer, flat, holds, kind, leaves, reached, trees


def refusal(store: Store, *texts: str) -> VecError:
    with pytest.raises(VecError) as raised:
        store.select(*texts)
    return raised.value


# --- against looking at every document ------------------------------------------------------------------------------

_NAMES = ("a", "b", "c", "x y", "title")
_NUMBERS = st.sampled_from((-1.5, -1.0, 0.0, 0.5, 1.0, 2.0, 1e9))
_TEXTS = st.sampled_from(("", "a", "ab", "b", "Ä", "ß", "1", "true", "\U0001f600", "a b", "d1", "d2"))
_SCALARS = st.one_of(st.none(), st.booleans(), st.integers(-2, 2), _NUMBERS, _TEXTS)
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
_PATHS = st.one_of(
    st.lists(st.sampled_from([name for name in _NAMES if " " not in name]), min_size=1, max_size=3).map(tuple),
    st.just(("x y",)),
)
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


def refusable(tree: Tree, documents: Iterable[Document]) -> bool:
    """Whether somewhere in it a field is compared with what it never holds, and holds something else."""
    if tree[0] == "not":
        return refusable(tree[1], documents)
    if tree[0] in ("all", "any"):
        return any(refusable(each, documents) for each in tree[1])
    _, own, path, _, values = tree
    held = {kind(each) for document in documents for each in flat(reached(document, own, path))} - {None}
    return bool(held) and any(kind(value) not in held for value in values)


def check(store: Store, tree: Tree, text: str) -> None:
    """Asks, and holds the answer against every document that is there."""
    try:
        selection = store.select(text)
    except VecError as error:
        assert error.code == "invalid_filter"
        assert (error.details["where"], text[error.details["column"] - 1].isspace()) == (text, False)
        assert refusable(tree, store.held)
        return
    assert not refusable(tree, store.held), "it compares what is not there, and nobody is told"
    found = selection.firsts[selection.matching].tolist()
    assert found == [label for label, each in store.known.items() if holds(tree, each)]
    check_numbers(selection, store.known)


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
    if any(refusable(tree, documents) for tree in both):
        assert refusal(store, *texts).details["where"] in texts
        return
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
        ("name = x and year in (2020, 'x')", 29, "holds numbers, and 'x' is a string", "leave out the quotes"),
        ("name = 7", 8, "'name' holds strings, and 7 is a number", "write it in quotes: '7'"),
        ("name < 7", 8, "holds strings", "write it in quotes: '7'"),
        ("name = true", 8, "holds strings, and true is true or false", None),
        ("done = 1", 8, "'done' holds true or false, and 1 is a number", None),
        ("done ^= t", 9, "holds true or false, and t is a string", None),
        ("year = abc", 8, "holds numbers, and abc is a string", None),
        ("year ^= 20", 9, "holds numbers, and 20 is a string", None),
        ("deep.list = 1", 13, "'deep.list' holds strings and true or false", "in quotes: '1'"),
        ("not (name = x or name > 7)", 25, "holds strings", "in quotes: '7'"),
    ],
)
def test_comparing_what_a_field_never_holds_is_refused_at_the_value(
    text: str, column: int, told: str, hint: str | None
) -> None:
    store = stored(document(1, year=2020, name="x", done=True, deep={"list": [["s"], False, None]}))
    error = refusal(store, "year exists", text)
    assert (error.code, error.details["where"], error.details["column"]) == ("invalid_filter", text, column)
    assert told in error.message
    assert hint is None or hint in str(error.hint)


def test_a_field_that_holds_nothing_yet_may_be_compared_with_anything() -> None:
    store = stored(document(1, a=None, b={"c": 1}, d=[]))
    for text in ("a = 1", "a = 'x'", "b = true", "d < 'x'", "nowhere in (1, x, true)"):
        assert store.found(text) == []


def test_as_soon_as_one_document_holds_it_it_may_be_compared() -> None:
    store = stored(document(1, a="x"))
    assert refusal(store, "a = 1").details["column"] == 5
    store.commit([document(2, a=1)])
    store.leave()
    assert store.found("a = 1") == [2]


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

    def broken(after: int) -> tuple[int, Iterator[Row]]:
        def rows() -> Iterator[Row]:
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


def test_selections_have_the_same_basis_until_documents_are_numbered_anew() -> None:
    store = stored(document(1, a=1), document(2, a=1))
    first = store.select("a = 1")
    store.commit([document(3, a=2)], removed=[1])
    store.leave()
    second = store.select("a != 1")
    assert first.basis is second.basis
    assert first.firsts.tolist() == second.firsts[:2].tolist()
    third = store.select("b exists")  # read anew: the dead one has no number any more
    assert third.basis is not first.basis
    assert third.firsts.tolist() == [2, 3]


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
