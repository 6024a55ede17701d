"""The language of filters: every construct means what it should, and what cannot be read is pointed at."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vecd import limits
from vecd.errors import VecError
from vecd.filters.expressions import parse

from .trees import KEYWORDS, Tree, Writer, leaves, tree_of, trees


def read(text: str) -> Tree:
    (where,) = parse((text,))
    assert where.text == text
    return tree_of(where.node)


def leaf(field: str, sign: str, *values: float | str | bool, own: bool = False) -> Tree:
    return ("test", own, tuple(field.split(".")), sign, values)


def refusal(*texts: str) -> VecError:
    with pytest.raises(VecError) as raised:
        parse(texts)
    return raised.value


# --- what there is --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sign", ["=", "<", "<=", ">", ">=", "^="])
def test_each_comparison_is_read(sign: str) -> None:
    assert read(f"a {sign} x") == leaf("a", sign, "x")


@pytest.mark.parametrize(
    ("text", "means"),
    [
        ("a != 5", ("not", leaf("a", "=", 5.0))),
        ("a == 5", leaf("a", "=", 5.0)),
        ("a in (1, b, 'c d', true)", leaf("a", "in", 1.0, "b", "c d", True)),
        ("a in(1)", leaf("a", "in", 1.0)),
        ("a not in (1, 2)", ("not", leaf("a", "in", 1.0, 2.0))),
        ("a exists", leaf("a", "exists")),
        ("exists a.b", leaf("a.b", "exists")),
        ("a not exists", ("not", leaf("a", "exists"))),
        ("not exists a", ("not", leaf("a", "exists"))),
        ("a = null", ("not", leaf("a", "exists"))),
        ("a != NULL", ("not", ("not", leaf("a", "exists")))),
        ("(((a = 1)))", leaf("a", "=", 1.0)),
        ("not not a = 1", ("not", ("not", leaf("a", "=", 1.0)))),
        ("a contains b", leaf("a", "contains", "b")),
        ("a CONTAINS 5", leaf("a", "contains", "5")),
        ("a not contains 'b c'", ("not", leaf("a", "contains", "b c"))),
        ("contains = 1", leaf("contains", "=", 1.0)),
        ("contains contains contains", leaf("contains", "contains", "contains")),
        ("a ~ ^x", leaf("a", "~", "^x")),
        ("a~'b c'", leaf("a", "~", "b c")),
        (r"a ~ '^v\d+\.\'$'", leaf("a", "~", r"^v\d+\.'$")),
        ("a !~ x", ("not", leaf("a", "~", "x"))),
        ("a = ~/notes", leaf("a", "=", "~/notes")),
        ("a = file~ and b = 1", ("all", (leaf("a", "=", "file~"), leaf("b", "=", 1.0)))),
        ("a~b = 1", leaf("a~b", "=", 1.0)),
    ],
)
def test_each_other_test_is_read(text: str, means: Tree) -> None:
    assert read(text) == means


@pytest.mark.parametrize(
    "pattern", ["'('", "'a{2000}'", r"'(a)\1'", "'(?=a)'", "'(a{0,100}){0,100}'", f"'{'a' * 1_001}'"]
)
def test_a_regular_expression_that_cannot_be_used_is_refused_with_the_reason(pattern: str) -> None:
    error = refusal(f"b = 1 and a ~ {pattern}")
    assert (error.code, error.details["column"]) == ("invalid_filter", 15)
    assert "the regular expression" in error.message


@pytest.mark.parametrize("sign", ["=", "!=", "<", "<=", ">", ">=", "==", "^="])
@pytest.mark.parametrize("value", ["x", "5", "'x y'"])
def test_an_operator_needs_no_spaces_around_it(sign: str, value: str) -> None:
    assert read(f"a.b{sign}{value}") == read(f"a.b {sign} {value}")


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("5", 5), ("-5", -5), ("+5", 5), ("9007199254740993", 2**53 + 1),
        ("-" + "9" * 400, -int("9" * 400)), ("0.5", 0.5), (".5", 0.5), ("5.", 5.0), ("1e3", 1000.0),
        ("-1.5E-2", -0.015), ("true", True), ("FALSE", False), ("word", "word"), ("2026-01-01", "2026-01-01"),
        ("1_000", "1_000"), ("0x10", "0x10"), ("nan", "nan"), ("inf", "inf"), ("-infinity", "-infinity"),
        ("a.b", "a.b"), ("x@y.org", "x@y.org"), ("c++", "c++"), ("'5'", "5"), ('"true"', "true"), ("'null'", "null"),
        ("''", ""), ("'it''s'", None), (r"'it\'s'", "it's"), (r'"a \"b\" \\ c"', 'a "b" \\ c'), ("'and'", "and"),
        ("'a\nb'", "a\nb"), ("'(,<=!'", "(,<=!"), ("日本", "日本"), ("x^2", "x^2"), ("^", "^"),
    ],
)  # fmt: skip
def test_a_value_is_a_number_a_truth_or_a_string(text: str, value: int | float | str | bool | None) -> None:
    if value is None:
        assert refusal(f"a = {text}").code == "invalid_filter"
        return
    assert read(f"a = {text}") == leaf("a", "=", value)
    assert type(read(f"a = {text}")[4][0]) is type(value)


@pytest.mark.parametrize(
    ("text", "own", "path"),
    [
        ("document_id", True, ("document_id",)),
        ("title", True, ("title",)),
        ("metadata.title", False, ("title",)),
        ("metadata.document_id", False, ("document_id",)),
        ("metadata.a.b", False, ("a", "b")),
        ("metadata", False, ("metadata",)),
        ("metadata.metadata.a", False, ("metadata", "a")),
        ("title.de", False, ("title", "de")),
        ("a.title", False, ("a", "title")),
        ("Title", False, ("Title",)),
        ("'title'", False, ("title",)),
        ("'a.b'", False, ("a.b",)),
        ("'a b'", False, ("a b",)),
        ('"it\'s"', False, ("it's",)),
        ("'exists'", False, ("exists",)),
        ("and.or", False, ("and", "or")),
        ("5", False, ("5",)),
        ("'a b'.'c d'", False, ("a b", "c d")),
        ("a.'b.c'.d", False, ("a", "b.c", "d")),
        ("'a'.b.\"c\"", False, ("a", "b", "c")),
        ("''", False, ("",)),
        ("a.''.b", False, ("a", "", "b")),
        ("metadata.'title'", False, ("title",)),
        ("metadata.'a b'.c", False, ("a b", "c")),
        ("'metadata'.a", False, ("metadata", "a")),
        ("'title'.de", False, ("title", "de")),
        ('"it\'s \\""', False, ("it's \"",)),
        ("größe", False, ("größe",)),
    ],
)
def test_a_field_is_the_documents_own_or_leads_into_its_metadata(text: str, own: bool, path: tuple[str, ...]) -> None:
    for expression in (f"{text} = x", f"exists {text}", f"{text} in (x)"):
        _, its_own, its_path, *_ = read(expression)
        assert (its_own, its_path) == (own, path)


@pytest.mark.parametrize("field", ["document_id", "title"])
@pytest.mark.parametrize("value", ["5", "-1e3", "true", "False"])
def test_what_is_compared_with_an_own_field_is_a_string(field: str, value: str) -> None:
    for sign in ("=", "<", ">=", "^="):
        assert read(f"{field} {sign} {value}") == leaf(field, sign, value, own=True)
    assert read(f"{field} in ({value}, 'x')") == leaf(field, "in", value, "x", own=True)
    assert read(f"{field} = null") == ("not", leaf(field, "exists", own=True))


@pytest.mark.parametrize("value", ["20", "-1.5", "true", "FALSE", "word"])
def test_a_prefix_is_a_string_whatever_it_looks_like(value: str) -> None:
    assert read(f"a ^= {value}") == leaf("a", "^=", value)


def test_not_binds_before_and_and_and_before_or() -> None:
    a, b, c, d = (leaf(each, "=", 1.0) for each in "abcd")
    assert read("a=1 or b=1 and c=1 or d=1") == ("any", (a, ("all", (b, c)), d))
    assert read("(a=1 or b=1) and (c=1 or d=1)") == ("all", (("any", (a, b)), ("any", (c, d))))
    assert read("not a=1 and b=1") == ("all", (("not", a), b))
    assert read("not (a=1 and b=1)") == ("not", ("all", (a, b)))
    assert read("a=1 and not b=1 or c=1") == ("any", (("all", (a, ("not", b))), c))
    assert read("not a != 1") == ("not", ("not", a))


@pytest.mark.parametrize("text", ["a IN (1) AND NOT b EXISTS", "a In (1) aNd nOt b Exists"])
def test_keywords_may_be_written_large(text: str) -> None:
    assert read(text) == read("a in (1) and not b exists")


def test_line_breaks_and_tabs_are_spaces() -> None:
    assert read("\n a\t=\r\n1 \n and\nb = 2\n") == read("a = 1 and b = 2")


def test_the_column_of_each_value_and_field_is_kept() -> None:
    (where,) = parse(("  a in (1, 'x')  or metadata.b >= 5",))
    a, b = sorted(where.tests, key=lambda each: each.column)
    assert [(a.column, [value.column for value in a.values]), (b.column, [value.column for value in b.values])] == [
        (3, [9, 12]), (21, [35]),
    ]  # fmt: skip
    assert [value.text for value in a.values] == ["1", "'x'"]
    assert {str(field) for field in where.fields} == {"a", "b"}


_KEYS = st.one_of(
    st.sampled_from(["a", "b", "x_1", "größe", "title", "document_id", "metadata", *KEYWORDS]),
    st.text("ab_19", min_size=1, max_size=4),
    st.text(max_size=6),
)
_PATHS = st.lists(_KEYS, min_size=1, max_size=3).map(tuple)
_NUMBERS: st.SearchStrategy[int | float] = st.one_of(
    st.floats(allow_nan=False, allow_infinity=False).map(lambda number: number + 0.0), st.integers()
)
_TEXTS = st.one_of(st.text(max_size=8), st.sampled_from(["5", "true", "null", "and", "'", '"', "\\", "it's", "a b"]))


@settings(deadline=None)
@given(tree=trees(leaves(_PATHS, _NUMBERS, _TEXTS)), seed=st.integers(0, 2**32))
def test_whatever_is_written_is_read_as_what_was_meant(tree: Tree, seed: int) -> None:
    text = Writer(seed).write(tree)
    assert read(text) == tree, text


@settings(deadline=None)
@given(text=st.text(st.sampled_from("ab.=<>!^()',\"\\ 15\n") | st.characters(), max_size=40))
def test_whatever_is_typed_is_read_or_refused_at_a_column_of_it(text: str) -> None:
    try:
        parse((text,))
    except VecError as error:
        assert error.code == "invalid_filter"
        assert error.details["where"] == text
        assert 1 <= error.details["column"] <= len(text) + 1


# --- what cannot be read --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "column", "told"),
    [
        ("", 1, "a field was expected, not the end"),
        ("   ", 1, "a field was expected, not the end"),
        ("a", 2, "one of = != < <= > >= ^= ~ !~ in contains exists was expected, not the end"),
        ("a b", 3, "not 'b'"),
        ("a =", 4, "a value was expected, not the end"),
        ("a =   ", 4, "a value was expected, not the end"),
        ("a = and b = 1", 5, "a value was expected, not 'and'"),
        ("a = = 1", 5, "a value was expected, not '='"),
        ("a = (1)", 5, "a value was expected, not '('"),
        ("a = 1 b = 2", 7, "'and', 'or' or the end was expected, not 'b'"),
        ("a = 1, b = 2", 6, "'and', 'or' or the end was expected, not ','"),
        ("a = b = c", 7, "'and', 'or' or the end was expected, not '='"),
        ("a = 1 and", 10, "a field was expected, not the end"),
        ("a = 1 and or b = 2", 11, "a field was expected, not 'or'"),
        ("and = 1", 1, "a field was expected, not 'and'"),
        ("IN = 1", 1, "a field was expected, not 'IN'"),
        ("exists", 1, "a field was expected, not 'exists'"),
        ("exists = 1", 1, "a field was expected, not 'exists'"),
        ("exists not", 8, "a field was expected, not 'not'"),
        ("not", 4, "a field was expected, not the end"),
        ("= 1", 1, "a field was expected, not '='"),
        ("a..b = 1", 1, "the field 'a..b' has an empty key"),
        ("x = 1 and .a = 1", 11, "the field '.a' has an empty key"),
        ("a. = 1", 1, "the field 'a.' has an empty key"),
        ("metadata. = 1", 1, "has an empty key"),
        ("'a'. = 1", 1, "has an empty key"),
        ("b = 1 or a..'b' = 1", 10, "has an empty key"),
        ("'a'b = 1", 4, "not 'b'"),
        ("a.b'c' = 1", 4, "not \"'c'\""),
        ("'a'. 'b' = 1", 1, "has an empty key"),
        ("'a' .b = 1", 5, "not '.b'"),
        ("a = 1e999", 5, "larger than any that a document can hold"),
        ("a in (1, -" + "9" * 500 + ")", 10, "larger than any"),
        ("a not = 1", 7, "'in', 'contains' or 'exists' was expected, not '='"),
        ("a not", 6, "'in', 'contains' or 'exists' was expected, not the end"),
        ("a = 'x", 5, "unterminated quote"),
        ("  a = \"x' and b = 1", 7, "unterminated quote"),
        ("a = 'it's'", 10, "unterminated quote"),
        (r"a = 'x\'", 5, "unterminated quote"),
        ("name = O'Brien", 9, "unterminated quote"),
        ("a ! b", 3, "'!' means nothing"),
        ("(a = 1", 7, "')' was expected, not the end"),
        ("(a = 1 or (b = 2)", 18, "')' was expected, not the end"),
        ("a = 1)", 6, "'and', 'or' or the end was expected, not ')'"),
        (")", 1, "a field was expected, not ')'"),
        ("()", 2, "a field was expected, not ')'"),
        ("a in 1", 6, "'(' and a list of values was expected, not '1'"),
        ("a in", 5, "'(' and a list of values was expected, not the end"),
        ("a in ()", 7, "a value was expected, not ')'"),
        ("a in (1", 8, "',' or ')' was expected, not the end"),
        ("a in (1 2)", 9, "',' or ')' was expected, not '2'"),
        ("a in (1,)", 9, "a value was expected, not ')'"),
        ("a in (null)", 7, "null is not allowed in a list"),
        ("a in (1, 'x', Null)", 15, "null is not allowed in a list"),
        ("title in (null)", 11, "null is not allowed in a list"),
        ("a < true", 5, "true is not allowed after <"),
        ("a >= False", 6, "False is not allowed after >="),
        ("a > null", 5, "null is not allowed after >"),
        ("a ^= null", 6, "null is not allowed after ^="),
        ("title < null", 9, "null is not allowed after <"),
        ("a exists 1", 10, "'and', 'or' or the end was expected, not '1'"),
    ],
)
def test_what_cannot_be_read_is_refused_with_its_column(text: str, column: int, told: str) -> None:
    error = refusal(text)
    assert error.code == "invalid_filter"
    assert {key: error.details[key] for key in ("field", "where", "column")} == {
        "field": "where", "where": text, "column": column,
    }  # fmt: skip
    assert told in error.message
    assert f"at column {column} of the filter" in error.message
    assert error.hint


def test_of_several_filters_the_one_that_is_wrong_is_named() -> None:
    error = refusal("a = 1", "  b =", "c = 1")
    assert (error.details["where"], error.details["column"]) == ("  b =", 6)


@pytest.mark.parametrize(("opening", "closing"), [("(", ")"), ("not ", ""), ("not (", ")")])
def test_so_many_levels_may_be_nested_and_no_more(opening: str, closing: str) -> None:
    most = limits.FILTER_DEPTH_MAX // (opening.count("(") + opening.count("not"))
    read(opening * most + "a = 1" + closing * most)
    error = refusal(opening * (most + 1) + "a = 1" + closing * (most + 1))
    assert f"more than {limits.FILTER_DEPTH_MAX} levels" in error.message
    assert error.details["column"] == len(opening) * most + 1


def test_a_filter_may_be_so_long_and_no_longer() -> None:
    longest = "a = '" + "x" * (limits.FILTER_CHARS_MAX - 6) + "'"
    assert len(longest) == limits.FILTER_CHARS_MAX
    assert read(longest)[0] == "test"
    error = refusal(longest + " ")
    assert error.code == "invalid_filter"
    assert "100,001 characters" in error.message
    assert error.details["column"] == 1
    assert len(error.message) < 500
    assert len(error.details["where"]) <= 100
    with pytest.raises(VecError, match="characters together"):
        parse((longest, "a = 1"))


def test_a_long_chain_is_no_deep_one() -> None:
    chain = " or ".join(f"a = {number}" for number in range(limits.FILTER_TESTS_MAX))
    assert len(read(chain)[1]) == limits.FILTER_TESTS_MAX


def test_so_many_comparisons_and_fields_may_be_in_the_filters_of_a_request_and_no_more() -> None:
    tests = [f"a = {number}" for number in range(limits.FILTER_TESTS_MAX)]
    parse((" or ".join(tests[1:]), tests[0]))
    with pytest.raises(VecError, match="more than 1,000 comparisons"):
        parse((" or ".join(tests), "a = 0"))
    fields = [f"f{number} = 1" for number in range(limits.FILTER_FIELDS_MAX)]
    parse((" and ".join(fields), "f0 = 2"))
    with pytest.raises(VecError, match="more than 100 different fields"):
        parse((" and ".join(fields), "another = 2"))
    assert read(f"a in ({', '.join(map(str, range(10_000)))})")[0] == "test"


def test_what_is_refused_says_little_of_a_long_filter() -> None:
    assert len(refusal("a = 'x' and " * 1_000).message) < 500
