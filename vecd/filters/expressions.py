"""Parser of the filter language (`--where`): text -> syntax tree. It is documented in vec-search(1), FILTERS.

    expression  = term { "or" term }
    term        = factor { "and" factor }
    factor      = "not" factor | "(" expression ")" | test
    test        = field ( "=" | "!=" | "<" | "<=" | ">" | ">=" | "^=" | "~" | "!~" ) value
                | field [ "not" ] "contains" value
                | field [ "not" ] "in" "(" value { "," value } ")"
                | field [ "not" ] "exists" | "exists" field
    field       = key { "." key }, without spaces around the dots
    key         = a bare word without dots, or any key in quotes
    value       = a number, true, false, null, a quoted string, or a bare word

Rules: `!=` and `not in` are the negations of `=` and `in`, so they match documents that lack the field. A list matches
if any of its items matches. `^=` matches a prefix, `contains` a part, and `~` a regular expression (patterns.py);
`!~` and `not contains` are negations. `<`, `<=`, `>` and `>=` compare with an unquoted date as a point in time
(dates.py). `document_id` and `title` are the document's own fields, and strings, so an unquoted value is a string too.
All other fields are metadata, also `metadata.title`. A quoted key is always a metadata key.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Final, NamedTuple, NoReturn

from .. import limits
from ..errors import Code, VecError
from . import patterns
from .dates import Period, period

#: The fields of a document outside its metadata.
OWN: Final = ("document_id", "title")
_KEYWORDS: Final = ("and", "or", "not", "in", "exists")
_OPERATORS: Final = ("=", "!=", "<", "<=", ">", ">=", "^=", "~", "!~")
#: Operators whose value is a string, whatever it looks like.
_OF_STRINGS: Final = ("^=", "~", "contains")
#: A `~` that is an operator: one that stands alone, or before a quote. In `~/notes` and `file~` it is a character.
_TILDE = r"""(?:(?<!\S)~(?=\s)|~(?=['"]))"""
_TOKEN = re.compile(
    rf"""\s*(?:(?P<operator><=|>=|!=|!~|==|\^=|[=<>]|{_TILDE})|(?P<mark>[(),])"""
    r"""|(?P<quoted>'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*")"""
    rf"""|(?P<bare>(?:[^\s(),<>=!'"^~]|\^(?!=)|(?!{_TILDE})~)+))""",
    re.S,
)
_NUMBER = re.compile(r"[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")
_INTEGER = re.compile(r"[+-]?[0-9]+")
#: A key that is shown without quotes.
_PLAIN_KEY = re.compile(r"""[^\s(),<>=!'"^.]+""")
#: Digits of an integer: more than any stored integer has, and than the largest float.
_DIGITS_MAX: Final = 400


class Field(NamedTuple):
    """A field of a document: one of OWN, or a path of metadata keys."""

    own: bool
    path: tuple[str, ...]

    def __str__(self) -> str:
        """As it is written in a filter."""
        shown = ".".join(key if _PLAIN_KEY.fullmatch(key) else _quoted(key) for key in self.path)
        if self.own:
            return shown
        keyword = len(self.path) == 1 and shown.lower() in _KEYWORDS
        taken = shown in OWN or (self.path[0] == "metadata" and len(self.path) > 1)
        return _quoted(self.path[0]) if keyword else f"metadata.{shown}" if taken else shown


class Value(NamedTuple):
    """A literal: a number, a string or a bool, with its column and its source text."""

    value: int | float | str | bool
    column: int
    text: str
    quoted: bool = False
    period: Period | None = None  # of a date to compare with as a point in time


@dataclass(frozen=True, slots=True)
class Test:
    """A comparison, `field operator value`. `in` has one or more values, `exists` none."""

    field: Field
    operator: str  # one of = < <= > >= ^= ~ contains in exists
    values: tuple[Value, ...]
    column: int


@dataclass(frozen=True, slots=True)
class Not:
    inner: Node


@dataclass(frozen=True, slots=True)
class All:
    inner: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Any:
    inner: tuple[Node, ...]


Node = Test | Not | All | Any


@dataclass(frozen=True, slots=True)
class Where:
    """A parsed expression."""

    text: str
    node: Node = field(compare=False)  # determined by the text, and costly to hash or compare
    fields: frozenset[Field] = field(compare=False)
    count: int = field(compare=False)  # number of tests

    @property
    def tests(self) -> Iterator[Test]:
        return tests_of(self.node)


def tests_of(node: Node) -> Iterator[Test]:
    """All tests of a tree, the last first."""
    waiting = [node]
    while waiting:
        node = waiting.pop()
        if isinstance(node, Test):
            yield node
        elif isinstance(node, Not):
            waiting.append(node.inner)
        else:
            waiting.extend(node.inner)


class FilterWarning(NamedTuple):
    """A warning about a test that matches no current document: probably a mistake."""

    text: str  # of the filter
    column: int
    message: str
    hint: str | None

    @property
    def sentence(self) -> str:
        """The warning in one line, for people."""
        warning = f"{self.message}, at column {self.column} of the filter {self.text!r:.200}"
        return f"{warning}; {self.hint}" if self.hint else warning


def refuse(text: str, column: int, message: str, hint: str | None = None) -> NoReturn:
    """Raises VecError `invalid_filter`, pointing at the column (from 1)."""
    before = max(0, column - limits.ERROR_CHARS_MAX // 2) if len(text) > limits.ERROR_CHARS_MAX else 0
    raise VecError(
        Code.INVALID_FILTER,
        f"{message}, at column {column} of the filter {text!r:.200}",
        hint or "see FILTERS in vec-search(1)",
        field="where",
        where=text[before : before + limits.ERROR_CHARS_MAX],
        column=column,
        **({"where_offset": before} if before else {}),
    )


def refuse_slow(pattern: str) -> NoReturn:
    """Raises VecError `invalid_filter` for a regular expression that takes too long."""
    refuse(
        pattern, 1, f"the regular expression takes longer than {limits.FILTER_PATTERN_S:g} s on this library",
        "a filter by another field, or `contains` or `^=`, is faster",
    )  # fmt: skip


#: A document matches if it matches all of the expressions. The empty filter matches all documents.
Filter = tuple[Where, ...]


def parse(texts: tuple[str, ...]) -> Filter:
    """Parses each expression separately, so that later errors can quote its text. Raises VecError `invalid_filter`."""
    chars = sum(map(len, texts))
    if chars > limits.FILTER_CHARS_MAX:
        message = f"filters of {chars:,} characters together, over {limits.FILTER_CHARS_MAX:,}, begin"
        refuse(texts[0][:100], 1, message, "split the request, or filter by another field")
    return _parse_short(texts) if chars <= limits.FILTER_CHARS_AT_ONCE else _parse(texts)


def parse_field(text: str) -> Field:
    """A field alone, as it is written in a filter. Raises VecError `invalid_filter`."""
    return _Parser(text).whole_field()


def _parse(texts: tuple[str, ...]) -> tuple[Where, ...]:
    tests = 0
    fields: set[Field] = set()
    found = []
    for text in texts:
        node = _Parser(text).whole()
        its_fields, count = set(), 0
        for test in tests_of(node):
            count += 1
            its_fields.add(test.field)
        tests += count
        fields |= its_fields
        if tests > limits.FILTER_TESTS_MAX:
            refuse(text, 1, f"more than {limits.FILTER_TESTS_MAX:,} comparisons", "`in (…)` counts as one comparison")
        if len(fields) > limits.FILTER_FIELDS_MAX:
            refuse(text, 1, f"more than {limits.FILTER_FIELDS_MAX} different fields")
        found.append(Where(text, node, frozenset(its_fields), count))
    return tuple(found)


#: Only short filters are cached: the tree of a long one takes a hundred times the memory of its text.
_parse_short = lru_cache(maxsize=256)(_parse)


class _Token(NamedTuple):
    kind: str  # operator, mark, quoted, bare or end
    text: str
    column: int

    @property
    def end(self) -> int:
        """The column after its last character."""
        return self.column + len(self.text)

    @property
    def keyword(self) -> str:
        """The keyword, or an empty string if the token is none."""
        word = self.text.lower()
        return word if self.kind == "bare" and word in _KEYWORDS else ""


class _Parser:
    def __init__(self, text: str) -> None:
        self._text = text
        self._tokens = list(self._cut())
        self._at = 0
        self._depth = 0

    def _cut(self) -> Iterator[_Token]:
        at = 0
        while match := _TOKEN.match(self._text, at):
            kind = match.lastgroup or ""
            yield _Token(kind, match[kind], match.start(kind) + 1)
            at = match.end()
        rest = self._text[at:]
        column = at + 1 + len(rest) - len(rest.lstrip())
        if rest.strip():
            quote = rest.lstrip()[0] in "'\""
            refuse(self._text, column, "unterminated quote" if quote else f"{rest.strip()[0]!r} means nothing")
        yield _Token("end", "", len(self._text.rstrip()) + 1)

    def _peek(self) -> _Token:
        return self._tokens[self._at]

    def _next(self) -> _Token:
        token = self._tokens[self._at]
        self._at = min(self._at + 1, len(self._tokens) - 1)
        return token

    def _wanted(self, what: str, token: _Token) -> NoReturn:
        found = "the end" if token.kind == "end" else repr(token.text)
        refuse(self._text, token.column, f"{what} was expected, not {found}")

    def whole(self) -> Node:
        node = self._expression()
        if (token := self._peek()).kind != "end":
            self._wanted("'and', 'or' or the end", token)
        return node

    def whole_field(self) -> Field:
        found = self._field(self._next())
        if (token := self._peek()).kind != "end":
            self._wanted("the end of the field", token)
        return found

    def _expression(self) -> Node:
        return self._joined("or", self._term, Any)

    def _term(self) -> Node:
        return self._joined("and", self._factor, All)

    def _joined(self, keyword: str, inner: Callable[[], Node], join: type[All] | type[Any]) -> Node:
        nodes = [inner()]
        while self._peek().keyword == keyword:
            self._next()
            nodes.append(inner())
        return join(tuple(nodes)) if len(nodes) > 1 else nodes[0]

    def _factor(self) -> Node:
        token = self._peek()
        if token.keyword != "not" and (token.kind, token.text) != ("mark", "("):
            return self._test()
        self._depth += 1
        if self._depth > limits.FILTER_DEPTH_MAX:
            refuse(self._text, token.column, f"more than {limits.FILTER_DEPTH_MAX} levels of parentheses and 'not'")
        self._next()
        node: Node
        if token.keyword == "not":
            node = Not(self._factor())
        else:
            node = self._expression()
            if (closing := self._next()).text != ")":
                self._wanted("')'", closing)
        self._depth -= 1
        return node

    def _test(self) -> Node:
        token = self._next()
        if token.keyword == "exists" and self._peek().kind in ("bare", "quoted"):
            column = self._peek().column
            return Test(self._field(self._next()), "exists", (), column)
        field = self._field(token)
        negated = self._peek().keyword == "not"
        if negated:
            self._next()
        operator = self._next()
        node: Node
        if operator.keyword == "exists":
            node = Test(field, "exists", (), token.column)
        elif operator.keyword == "in":
            values = self._list()
            if field.own:
                values = tuple(value if value.quoted else value._replace(value=value.text) for value in values)
            node = Test(field, "in", values, token.column)
        elif operator.kind == "bare" and operator.text.lower() == "contains":  # no keyword: it may be a field
            node = Test(field, "contains", (self._string(self._next()),), token.column)
        elif operator.kind == "operator" and not negated:
            node = self._comparison(field, operator, token.column)
        else:
            wanted = "'in', 'contains' or 'exists'"
            self._wanted(wanted if negated else f"one of {' '.join(_OPERATORS)} in contains exists", operator)
        return Not(node) if negated else node

    def _comparison(self, field: Field, operator: _Token, column: int) -> Node:
        sign = {"==": "=", "!=": "=", "!~": "~"}.get(operator.text, operator.text)
        token = self._next()
        if sign == "~":
            test = Test(field, sign, (self._pattern(token),), column)
            return Not(test) if operator.text == "!~" else test
        if token.kind == "bare" and token.text.lower() == "null":
            if sign != "=":
                refuse(self._text, token.column, f"null is not allowed after {sign}", "use `exists` or `not exists`")
            node: Node = Not(Test(field, "exists", (), column))
        else:
            value = self._value(token)
            if (sign in _OF_STRINGS or field.own) and not value.quoted:
                value = value._replace(value=value.text)
            elif sign != "=" and not value.quoted:
                value = value._replace(period=period(value.text))
            if isinstance(value.value, bool) and sign != "=":
                refuse(self._text, value.column, f"{value.text} is not allowed after {sign}", "use = or !=")
            node = Test(field, sign, (value,), column)
        return Not(node) if operator.text == "!=" else node

    def _string(self, token: _Token) -> Value:
        """A value that is a string, also without quotes."""
        value = self._value(token)
        return value if value.quoted else value._replace(value=value.text)

    def _pattern(self, token: _Token) -> Value:
        """A regular expression. In quotes, a backslash belongs to it, except before the quote."""
        if token.kind not in ("bare", "quoted"):
            refuse(self._text, token.column, "a regular expression was expected", f"quote it: ~ '{token.text}…'")
        value = self._string(token)
        if value.quoted:
            quote = token.text[0]
            value = value._replace(value=token.text[1:-1].replace(f"\\{quote}", quote))
        try:
            patterns.matcher(str(value.value))
        except ValueError as error:
            what = f"the regular expression {value.value!r:.100} cannot be used: {error}"
            refuse(self._text, value.column, what, "the syntax is that of RE2; see FILTERS in vec-search(1)")
        return value

    def _list(self) -> tuple[Value, ...]:
        if (opening := self._next()).text != "(":
            self._wanted("'(' and a list of values", opening)
        values = [self._value(self._next())]
        while (token := self._next()).text == ",":
            values.append(self._value(self._next()))
        if token.text != ")":
            self._wanted("',' or ')'", token)
        return tuple(values)

    def _field(self, token: _Token) -> Field:
        if token.kind not in ("bare", "quoted") or token.keyword:
            self._wanted("a field", token)
        parts = [token]
        while (following := self._peek()).column == parts[-1].end and self._continues(parts[-1], following):
            parts.append(self._next())
        keys = [""]
        empty = [True]  # whether the key has been given neither a letter nor quotes
        for part in parts:
            if part.kind == "quoted":
                keys[-1], empty[-1] = _unquoted(part.text), False
                continue
            first, *others = part.text.split(".")
            if first:
                keys[-1], empty[-1] = first, False
            keys += others
            empty += (not other for other in others)
        if any(empty):
            whole = self._text[token.column - 1 : parts[-1].end - 1]
            hint = 'an empty key must be quoted: "".a'
            refuse(self._text, token.column, f"the field {whole!r} has an empty key between its dots", hint)
        path = tuple(keys)
        if token.kind == "bare" and path[0] == "metadata" and len(path) > 1:
            return Field(False, path[1:])
        return Field(token.kind == "bare" and len(path) == 1 and path[0] in OWN, path)

    @staticmethod
    def _continues(before: _Token, token: _Token) -> bool:
        """Whether a token that directly follows a token of a field belongs to the field: a dot is between them."""
        if token.kind == "quoted":
            return before.kind == "bare" and before.text.endswith(".")
        return token.kind == "bare" and before.kind == "quoted" and token.text.startswith(".")

    def _value(self, token: _Token) -> Value:
        if token.kind == "quoted":
            return Value(_unquoted(token.text), token.column, token.text, quoted=True)
        if token.kind != "bare" or token.keyword:
            self._wanted("a value", token)
        word = token.text.lower()
        if word in ("true", "false"):
            return Value(word == "true", token.column, token.text)
        if word == "null":
            refuse(self._text, token.column, "null is not allowed in a list", "use `exists` or `not exists`")
        if _NUMBER.fullmatch(token.text):
            return Value(self._number(token), token.column, token.text)
        return Value(token.text, token.column, token.text)

    def _number(self, token: _Token) -> int | float:
        """A number; exact if it is written as an integer."""
        if _INTEGER.fullmatch(token.text):
            if len(token.text.lstrip("+-")) <= _DIGITS_MAX:
                return int(token.text)
        elif math.isfinite(number := float(token.text)):
            return number
        what = f"the number {token.text:.40} is larger than any that a document can hold"
        refuse(self._text, token.column, what, "to use it as a string, quote it")


def _quoted(key: str) -> str:
    """A key in quotes."""
    return '"' + re.sub(r'(["\\])', r"\\\1", key) + '"'


def _unquoted(text: str) -> str:
    return re.sub(r"\\(.)", r"\1", text[1:-1], flags=re.S)
