"""Expressions as plain trees, and how they are written and what they mean, by FILTERS in man/vec-search.1.

A tree is ("test", own, path, operator, values), ("not", tree), ("all", (tree, …)) or ("any", (tree, …)). Nothing here
uses the parser or the columns: this is what they are held against.
"""

from __future__ import annotations

import operator
import random
import re
from collections.abc import Callable, Iterator
from typing import Any

from hypothesis import strategies as st

from vecd.filters import expressions

Tree = tuple[Any, ...]

KEYWORDS = ("and", "or", "not", "in", "exists")
WORDS = (*KEYWORDS, "true", "false", "null")
ORDERED: dict[str, Callable[[Any, Any], bool]] = {
    "=": operator.eq, "<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge,
}  # fmt: skip
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")
_BARE = re.compile(r"[A-Za-z0-9_./:@äß+-]+")

# --- trees to text --------------------------------------------------------------------------------------------------


class Writer:
    """Writes a tree in one of the many ways that mean it."""

    def __init__(self, seed: int) -> None:
        self._chance = random.Random(seed)

    def write(self, tree: Tree) -> str:
        return self._space() + self._written(tree, ("test", "not", "all", "any")) + self._space()

    def _written(self, tree: Tree, bare: tuple[str, ...]) -> str:
        """`bare`: the sorts of tree that need no parentheses where this one stands."""
        text = {"test": self._test, "not": self._not, "all": self._all, "any": self._any}[tree[0]](tree)
        while tree[0] not in bare or self._chance.random() < 0.1:
            text, bare = f"({self._space()}{text}{self._space()})", ("test", "not", "all", "any")
        return text

    def _not(self, tree: Tree) -> str:
        inner = tree[1]
        if inner[0] == "test" and inner[3] in ("=", "in", "exists", "contains") and self._chance.random() < 0.5:
            return self._test(inner, negated=True)
        return f"{self._keyword('not')}{self._gap()}{self._written(inner, ('test', 'not'))}"

    def _all(self, tree: Tree) -> str:
        between = f"{self._gap()}{self._keyword('and')}{self._gap()}"
        return between.join(self._written(each, ("test", "not")) for each in tree[1])

    def _any(self, tree: Tree) -> str:
        between = f"{self._gap()}{self._keyword('or')}{self._gap()}"
        return between.join(self._written(each, ("test", "not", "all")) for each in tree[1])

    def _test(self, tree: Tree, negated: bool = False) -> str:
        _, own, path, sign, values = tree
        field, gap = self._field(own, path), self._gap()
        no = f"{self._keyword('not')}{gap}" if negated else ""
        if sign == "exists":
            if not negated and self._chance.random() < 0.5:
                return f"{self._keyword('exists')}{gap}{field}"
            if negated and self._chance.random() < 0.3:
                return f"{field} = {self._keyword('null')}"
            return f"{field}{gap}{no}{self._keyword('exists')}"
        if sign == "in":
            listed = f"{self._space()},{self._space()}".join(self._value(each, own) for each in values)
            return f"{field}{gap}{no}{self._keyword('in')}{self._space()}({self._space()}{listed}{self._space()})"
        if sign == "contains":
            return f"{field}{gap}{no}{self._keyword('contains')}{self._gap()}{self._value(values[0], own, True)}"
        sign = "!=" if negated else self._chance.choice(("=", "==")) if sign == "=" else sign
        before = gap if sign == "^=" else self._space()
        return f"{field}{before}{sign}{self._space()}{self._value(values[0], own, sign == '^=')}"

    def _field(self, own: bool, path: tuple[str, ...]) -> str:
        if own:
            return path[0]
        bare = [bool(_BARE.fullmatch(key)) and "." not in key and self._chance.random() < 0.7 for key in path]
        keys = [key if plain else self._quoted(key) for key, plain in zip(path, bare, strict=True)]
        joined = ".".join(keys)
        taken = bare[0] and (joined in expressions.OWN or (path[0] == "metadata" and len(path) > 1))
        if taken or (bare[0] and len(path) == 1 and joined.lower() in KEYWORDS) or self._chance.random() < 0.1:
            return f"metadata.{joined}"
        return joined

    def _value(self, value: int | float | str | bool, own: bool, prefix: bool = False) -> str:
        """Behind a document's own field a value without quotes is a string; behind ^= also one that is a number."""
        if isinstance(value, bool):
            return self._keyword("true" if value else "false")
        if isinstance(value, int):
            return self._chance.choice((str(value), f"{value:+}"))
        if isinstance(value, float):
            return self._chance.choice((repr(value), f"{value:e}")) if float(f"{value:e}") == value else repr(value)
        plain = bool(_BARE.fullmatch(value)) and value.lower() not in ((*KEYWORDS, "null") if own else WORDS)
        if plain and (own or prefix or not _NUMBER.fullmatch(value)) and self._chance.random() < 0.7:
            return value
        return self._quoted(value)

    def _quoted(self, text: str) -> str:
        quote = self._chance.choice("'\"")
        return quote + "".join(f"\\{each}" if each in (quote, "\\") else each for each in text) + quote

    def _keyword(self, word: str) -> str:
        return self._chance.choice((word, word.upper(), word.capitalize()))

    def _gap(self) -> str:
        return self._chance.choice((" ", " ", " ", "  ", "\t", "\n", " \r\n "))

    def _space(self) -> str:
        return self._chance.choice(("", "", " ", "  ", "\n"))


def tree_of(node: expressions.Node) -> Tree:
    """What the parser made, as a tree."""
    if isinstance(node, expressions.Test):
        return ("test", node.field.own, node.field.path, node.operator, tuple(value.value for value in node.values))
    if isinstance(node, expressions.Not):
        return ("not", tree_of(node.inner))
    return ("all" if isinstance(node, expressions.All) else "any", tuple(tree_of(each) for each in node.inner))


# --- what a tree means ----------------------------------------------------------------------------------------------


def holds(tree: Tree, document: dict[str, Any]) -> bool:
    """Whether a document (id, title, metadata) passes."""
    if tree[0] == "not":
        return not holds(tree[1], document)
    if tree[0] in ("all", "any"):
        return (all if tree[0] == "all" else any)(holds(each, document) for each in tree[1])
    _, own, path, sign, values = tree
    there = list(reached(document, own, path))
    if sign == "exists":
        return bool(there)
    items = list(flat(there))
    return any(_passes(item, sign, value) for item in items for value in values)


def reached(document: dict[str, Any], own: bool, path: tuple[str, ...]) -> Iterator[Any]:
    """All that the field leads to and that is not null."""
    if own:
        value = document["id" if path[0] == "document_id" else path[0]]
        yield from () if value is None else (value,)
        return
    yield from _led_to(document["metadata"], path)


def _led_to(value: Any, path: tuple[str, ...]) -> Iterator[Any]:
    if not path:
        yield from () if value is None else (value,)
    elif isinstance(value, list):
        for each in value:
            yield from _led_to(each, path)
    elif isinstance(value, dict):
        yield from _led_to(value.get(path[0]), path[1:])


def flat(values: Any) -> Iterator[Any]:
    for each in values:
        if isinstance(each, list):
            yield from flat(each)
        else:
            yield each


def kind(value: Any) -> type | None:
    """What a value can be compared as."""
    if isinstance(value, bool):
        return bool
    if isinstance(value, (int, float)):
        return float
    return str if isinstance(value, str) else None


def _passes(item: Any, sign: str, value: Any) -> bool:
    """Python compares integers with floats exactly."""
    if kind(item) is not kind(value):
        return False
    if sign in ("^=", "contains"):
        return bool(item.startswith(value) if sign == "^=" else value in item)
    return ORDERED["=" if sign == "in" else sign](item, value)


# --- strategies -----------------------------------------------------------------------------------------------------


def leaves(
    paths: st.SearchStrategy[tuple[str, ...]], numbers: st.SearchStrategy[int | float], texts: st.SearchStrategy[str]
) -> st.SearchStrategy[Tree]:
    """Single tests of metadata fields with these keys, and of documents' own fields."""
    values = st.one_of(numbers, texts, st.booleans())

    def fields(own: bool) -> st.SearchStrategy[tuple[str, ...]]:
        return st.sampled_from([(name,) for name in expressions.OWN]) if own else paths

    def of(own: bool) -> st.SearchStrategy[Tree]:
        anything, ordered = (texts, texts) if own else (values, st.one_of(numbers, texts))
        return st.one_of(
            st.tuples(st.just("test"), st.just(own), fields(own), st.just("="), st.tuples(anything)),
            st.tuples(
                st.just("test"), st.just(own), fields(own), st.sampled_from(("<", "<=", ">", ">=")), st.tuples(ordered)
            ),
            st.tuples(
                st.just("test"), st.just(own), fields(own), st.sampled_from(("^=", "contains")), st.tuples(texts)
            ),
            st.tuples(
                st.just("test"), st.just(own), fields(own), st.just("in"),
                st.lists(anything, min_size=1, max_size=4).map(tuple),
            ),
            st.tuples(st.just("test"), st.just(own), fields(own), st.just("exists"), st.just(())),
        )  # fmt: skip

    return st.one_of(of(False), of(False), of(False), of(True))


def trees(single: st.SearchStrategy[Tree], count_max: int = 12) -> st.SearchStrategy[Tree]:
    return st.recursive(
        single,
        lambda inner: st.one_of(
            inner.map(lambda each: ("not", each)),
            st.tuples(st.sampled_from(("all", "any")), st.lists(inner, min_size=2, max_size=4).map(tuple)),
        ),
        max_leaves=count_max,
    )
