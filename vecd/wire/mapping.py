"""Maps JSON objects of any form to documents: which place of the object becomes which field of the document.

A mapping has a rule for each field, such as `{"id": "url", "text": "title,body"}`. A place is a path:

    title            the value of a key
    data.items[0]    keys and positions, from the outermost to the innermost; `$.data` and `.data` are `data` as well
    "a.b".c          a key in quotes, as in JSON
    @key             not in the object, but beside it: the key of a broker's message; @headers.NAME one of its headers

A value that is null counts as missing. Pure: no I/O, and nothing of a broker.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Final, NamedTuple

from .. import limits
from ..errors import Code, VecError, nearest
from ..json_values import id_text, name_of, records_hint

#: The fields of a mapping, and what their rules say.
FIELDS: Final[Mapping[str, str]] = {
    "id": "PATH of the id: a string or a whole number; default: the key `id`, or else derived from the content",
    "title": "PATH[,PATH…] of the title: strings or numbers, joined by spaces; default: the key `title`",
    "text": "PATH[,PATH…] of the text: strings, numbers, or lists of them, joined by blank lines",
    "texts": "PATH of a list of strings, one for each chunk",
    "vector": "PATH of the vector: a list of numbers",
    "vectors": "PATH of a list of vectors, one for each chunk",
    "metadata": "rest (the default): what no other rule names; none; PATH of an object; or PATH,PATH… of values",
    "metadata.NAME": "PATH of the value of NAME in the metadata; without a rule for `metadata`, nothing else is in it",
    "delete": "PATH or PATH=VALUE: the object is a delete if the value is true, or equals VALUE",
}

_PREFIX: Final = "metadata."
_REST, _NONE = "rest", "none"
#: They are stored, and shown in lists.
_RULES_MAX: Final = 100

_STEP: Final = re.compile(r'\[(\d{1,9})\]|(\.?)("(?:[^"\\]|\\.)*"|[^\s.,=\[\]"@][^.,=\[\]"]*)')
_SEPARATORS: Final = {"title": " ", "text": "\n\n"}

#: What is beside the object: `key` (a string or null) and `headers`.
Envelope = Mapping[str, Any]
_NO_ENVELOPE: Final[Envelope] = MappingProxyType({})


class Path(NamedTuple):
    """A place in an object, or beside it."""

    steps: tuple[str | int, ...]
    beside: bool = False  # in the envelope

    def of(self, value: Any, envelope: Envelope) -> Any:
        """The value there; None if there is none."""
        found: Any = envelope if self.beside else value
        for step in self.steps:
            if isinstance(step, int):
                found = found[step] if isinstance(found, list) and step < len(found) else None
            else:
                found = found.get(step) if isinstance(found, Mapping) else None
        return found

    @property
    def key(self) -> str:
        """The innermost key."""
        return next((str(step) for step in reversed(self.steps) if isinstance(step, str)), "")

    def __str__(self) -> str:
        return "@" * self.beside + name_of(self.steps) if self.steps else "$"


#: Fields of which a document has one.
_CONTENTS: Final = frozenset(("title", "text", "texts", "vector", "vectors"))
_DELETE_KEYS: Final = {"op", "id"}

_ID: Final = Path(("id",))
_TITLE: Final = Path(("title",))


class _Delete(NamedTuple):
    path: Path
    value: Any  # what is there in a delete

    def holds(self, value: Any, envelope: Envelope) -> bool:
        found = self.path.of(value, envelope)
        return type(found) is type(self.value) and found == self.value


@dataclass(frozen=True, slots=True)
class DocumentMapping:
    """A parsed mapping. `parse` makes one."""

    id: Path | None = None
    title: tuple[Path, ...] = ()
    text: tuple[Path, ...] = ()
    lists: Mapping[str, Path] = field(default_factory=dict)  # texts, vector, vectors
    metadata: tuple[Path, ...] = ()
    named: Mapping[str, Path] = field(default_factory=dict)  # values of the metadata by name
    rest: bool = True  # what no rule names is in the metadata
    delete: _Delete | None = None

    @classmethod
    def parse(cls, rules: Mapping[str, str]) -> DocumentMapping:
        """Raises VecError `invalid_request`, which names the rule."""
        if len(rules) > _RULES_MAX:
            raise VecError(Code.INVALID_REQUEST, f"a mapping has at most {_RULES_MAX} rules", field="mapping")
        named = {name[len(_PREFIX) :]: _one(name, rule) for name, rule in rules.items() if name.startswith(_PREFIX)}
        for name in rules:
            if name == _PREFIX or (name not in FIELDS and not name.startswith(_PREFIX)):
                close = nearest(name, FIELDS)
                hint = f"did you mean {close!r}?" if close else f"the fields are {', '.join(FIELDS)}"
                raise VecError(
                    Code.INVALID_REQUEST, f"unknown field {name!r:.60} in the mapping", hint, field="mapping"
                )
        contents = [name for name in ("title", "text", "texts", "vector", "vectors") if name in rules]
        if not contents and "delete" not in rules:
            raise _refused("text", "a mapping needs a rule for 'text', 'texts', 'vector', 'vectors' or 'title'")
        if "delete" in rules and "id" not in rules:
            raise _refused("delete", "a mapping with a rule for 'delete' needs one for 'id'")
        for one, other in (("text", "texts"), ("vector", "vectors")):
            if one in rules and other in rules:
                raise _refused(other, f"a mapping has {one!r} or {other!r}, not both")
        whole = rules.get("metadata", _NONE if named else _REST)
        paths = () if whole in (_REST, _NONE) else _several("metadata", whole)
        keys = [path.key for path in paths]
        if (
            len(paths) > 1
            and (twice := next((key for key in keys if keys.count(key) > 1 or not key), None)) is not None
        ):
            raise _refused("metadata", f"two paths of the metadata end in {twice!r:.60}", f"use {_PREFIX}NAME for one")
        return cls(
            id=_one("id", rules["id"]) if "id" in rules else None,
            title=_several("title", rules["title"]) if "title" in rules else (),
            text=_several("text", rules["text"]) if "text" in rules else (),
            lists={name: _one(name, rules[name]) for name in ("texts", "vector", "vectors") if name in rules},
            metadata=paths,
            named=named,
            rest=whole == _REST,
            delete=_delete(rules["delete"]) if "delete" in rules else None,
        )

    @property
    def text_keys(self) -> frozenset[str]:
        """The keys of an object whose values become texts: in a table, their cells are no numbers."""
        paths = [*self.title, *self.text, *([self.id] if self.id is not None else [])]
        return frozenset(str(path.steps[0]) for path in paths if path.steps and not path.beside) | {"id", "title"}

    def lacking(self, columns: Collection[str]) -> tuple[str, str] | None:
        """A field of the document and its column, if no row of a table with these columns becomes a document because
        that column is missing; else None."""
        if columns and {"op", "id"} <= {*columns}:
            return None  # the rows may be deletes

        def missing(path: Path) -> bool:
            return path.beside or (bool(path.steps) and path.steps[0] not in columns)

        if self.id is not None and missing(self.id):
            return "id", str(self.id)
        contents = {
            **dict.fromkeys(self.text, "text"),
            **{path: name for name, path in self.lists.items()},
            **dict.fromkeys(self.title or (_TITLE,), "title"),
        }
        if self.delete is None and all(map(missing, contents)):
            path, name = next(iter(contents.items()))
            return name, str(path)
        return None

    def apply(self, value: dict[str, Any], envelope: Envelope = _NO_ENVELOPE) -> dict[str, Any]:
        """The document that an object becomes, in the form of an NDJSON line; it shares parts with the object.

        An object that is a delete in the form of an NDJSON line stays one. Raises VecError `invalid_document`, naming
        the place.
        """
        if value.get("op") == "delete" and value.keys() == _DELETE_KEYS:
            return value
        document_id = self._id(value, envelope)
        if self.delete is not None and self.delete.holds(value, envelope):
            return {"op": "delete", "id": document_id}
        document: dict[str, Any] = {} if document_id is None else {"id": document_id}
        titles = self.title or ((_TITLE,) if isinstance(value.get("title"), str) else ())
        if (title := self._joined("title", titles, value, envelope)) is not None:
            document["title"] = title
        if (text := self._joined("text", self.text, value, envelope)) is not None:
            document["text"] = text
        for name, path in self.lists.items():
            if (found := path.of(value, envelope)) is not None:
                document[name] = found
        if not document.keys() & _CONTENTS:
            places = ", ".join(map(str, (*self.text, *self.lists.values(), *self.title))) or "(no rule)"
            raise VecError(
                Code.INVALID_DOCUMENT,
                f"there is no text, no vector and no title at {places:.200}",
                records_hint(value),
                field="text",
            )
        if metadata := self._metadata(value, envelope):
            document["metadata"] = metadata
        return document

    def _id(self, value: Any, envelope: Envelope) -> str | None:
        found = id_text(value.get("id") if self.id is None else self.id.of(value, envelope))
        if isinstance(found, str):
            return found
        if self.id is None:
            return None
        raise _unfit("id", self.id, found, "a string or a whole number", records_hint(value) if found is None else None)

    def _joined(self, name: str, paths: Sequence[Path], value: Any, envelope: Envelope) -> str | None:
        """The texts at these places; None if there are none."""
        texts: list[str] = []
        for path in paths:
            found = path.of(value, envelope)
            for each in found if isinstance(found, list) and name == "text" else (found,):
                if isinstance(each, bool) or not (each is None or isinstance(each, (str, int, float))):
                    raise _unfit(name, path, each, "a string or a number")
                if each is not None and each != "":
                    texts.append(str(each))
        return _SEPARATORS[name].join(texts) if texts else None

    def _metadata(self, value: dict[str, Any], envelope: Envelope) -> dict[str, Any]:
        found: dict[str, Any] = self._unnamed(value) if self.rest else {}
        for path in self.metadata:
            each = path.of(value, envelope)
            if len(self.metadata) == 1 and isinstance(each, dict):
                found = dict(each)
            elif each is not None:
                found[path.key] = each
        for name, path in self.named.items():
            if (each := path.of(value, envelope)) is not None:
                found[name] = each
        return found

    def _unnamed(self, value: dict[str, Any]) -> dict[str, Any]:
        """What no rule names. A rule with a position names nothing: its list stays whole."""
        found = dict(value)
        paths = [*self.title, *self.text, *self.lists.values(), *self.named.values()]
        paths += [each for each in (self.id, self.delete and self.delete.path) if each is not None]
        if self.id is None and self._id(value, _NO_ENVELOPE) is not None:
            paths.append(_ID)
        if not self.title and isinstance(value.get("title"), str):
            paths.append(_TITLE)
        for path in paths:
            if not path.beside and path.steps and all(isinstance(step, str) for step in path.steps):
                _remove(found, path.steps)
        return found


def _remove(within: dict[str, Any], steps: tuple[str | int, ...]) -> None:
    """Removes a value from an object, and each object around it that has nothing else. The objects on the way, except
    the outermost, are copied: they may be shared."""
    key, *below = steps
    if key not in within:
        return
    if not below:
        del within[key]
        return
    if isinstance(within[key], dict):
        inner = dict(within[key])
        _remove(inner, tuple(below))
        if inner:
            within[key] = inner
        else:
            del within[key]


# --- rules ----------------------------------------------------------------------------------------------------------


def _one(name: str, rule: str) -> Path:
    paths = _several(name, rule)
    if len(paths) > 1:
        raise _refused(name, f"{name}={rule:.200}: this field takes one path")
    return paths[0]


def _several(name: str, rule: str) -> tuple[Path, ...]:
    paths: list[Path] = []
    at = 0
    while True:
        path, at = _path(name, rule, at)
        paths.append(path)
        if at == len(rule):
            return tuple(paths)
        if rule[at] != ",":
            raise _not_a_path(name, rule, at)
        at += 1


def _delete(rule: str) -> _Delete:
    path, at = _path("delete", rule, 0)
    if at == len(rule):
        return _Delete(path, True)
    if rule[at] != "=":
        raise _not_a_path("delete", rule, at)
    text = rule[at + 1 :]
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        value = text  # a word needs no quotes
    if not isinstance(value, (str, int, float, bool)):
        raise _refused("delete", f"delete={rule:.200}: VALUE is a string, a number, true or false")
    return _Delete(path, value)


def _path(name: str, rule: str, at: int) -> tuple[Path, int]:
    """The path that begins at a character of a rule, and where it ends."""
    if len(rule) > limits.SOURCE_VALUE_CHARS_MAX:
        raise _refused(name, f"a rule of a mapping has at most {limits.SOURCE_VALUE_CHARS_MAX:,} characters")
    start = at
    beside = rule.startswith("@", at)
    if beside or rule.startswith("$", at):
        at += 1
    whole = rule[start:at] == "$" and (at == len(rule) or rule[at] in ",=")
    steps: list[str | int] = []
    while not whole and (match := _STEP.match(rule, at)) is not None:
        position, dot, key = match.groups()
        if position is None and not dot and steps:
            break  # two keys need a dot between them
        if position is not None:
            steps.append(int(position))
        else:
            steps.append(_unquoted(name, rule, at, key) if key.startswith('"') else key.rstrip())
        at = match.end()
    if not (steps or whole) or len(steps) > limits.METADATA_DEPTH_MAX:
        raise _not_a_path(name, rule, at)
    if beside and steps[0] not in ("key", "headers"):
        raise _refused(name, f"{name}={rule:.200}: beside a message there are @key and @headers.NAME")
    return Path(tuple(steps), beside), at


def _unquoted(name: str, rule: str, at: int, key: str) -> str:
    try:
        return str(json.loads(key))
    except ValueError:
        raise _not_a_path(name, rule, at) from None


def _not_a_path(name: str, rule: str, at: int) -> VecError:
    what = f"at {rule[at:]!r:.40}" if at < len(rule) else "at its end"
    return _refused(
        name,
        f"{name}={rule:.200} is not a path: it cannot be read {what}",
        "keys with dots between them, as in data.body; quote a key that has other characters",
    )


def _refused(name: str, message: str, hint: str | None = None) -> VecError:
    return VecError(Code.INVALID_REQUEST, message, hint, field="mapping", rule=name)


_KINDS: Final[Sequence[tuple[type, str]]] = (
    (bool, "true or false"), (str, "a string"), (int, "a number"), (float, "a number"), (dict, "an object"),
    (list, "a list"),
)  # fmt: skip


def _unfit(name: str, path: Path, value: Any, wanted: str, hint: str | None = None) -> VecError:
    kind = next((word for kind, word in _KINDS if isinstance(value, kind)), "missing")
    return VecError(Code.INVALID_DOCUMENT, f"the {name} at {path!s:.200} is {kind}, not {wanted}", hint, field=name)
