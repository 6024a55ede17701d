"""Documents on the wire: the format of an NDJSON line, with packed vectors.

A value that cannot be encoded, or would arrive changed, is refused here with the name of its field. The daemon could
only refuse the whole message.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

from .. import limits
from ..errors import Code, VecError
from ..json_values import INTEGER_MAX, INTEGER_MIN, id_text, large_float, plain_numbers, refusals
from .vectors import pack_vector

_STRINGS = {str}
#: The number of keys in all objects of a document, and whether it has a float so large that it may have been written as
#: an integer beyond 64 bits.
Contents = tuple[int, bool]


def pack_document(document: dict[str, Any]) -> dict[str, Any]:
    """A document in wire format, with packed vectors. Raises VecError `invalid_document`, naming the field."""
    return pack(document)[0]


def pack(document: dict[str, Any]) -> tuple[dict[str, Any], Contents]:
    """A document in wire format, and its Contents. Raises VecError `invalid_document`, naming the field."""
    if not isinstance(document, dict):
        raise VecError(Code.INVALID_DOCUMENT, f"a document must be an object (a dict), not {type(document).__name__}")
    vector, vectors = document.get("vector"), document.get("vectors")
    if vector is None and vectors is None:
        return _examined(document)
    packed = dict(document)
    try:
        if vector is not None:
            packed["vector"] = pack_vector(vector)
        if vectors is not None:
            if isinstance(vectors, (str, bytes, dict)):
                raise VecError(Code.INVALID_DOCUMENT, "'vectors' must be a list of vectors")
            packed["vectors"] = [pack_vector(each) for each in vectors]
    except VecError as error:
        error.details["field"] = "vector" if vectors is None else "vectors"
        raise
    except TypeError:
        raise VecError(Code.INVALID_DOCUMENT, "'vectors' must be a list of vectors", field="vectors") from None
    return _examined(packed)


def _examined(document: dict[str, Any]) -> tuple[dict[str, Any], Contents]:
    try:
        return document, examine(document)
    except VecError:
        plain = plain_numbers(document)
        if plain is document:
            raise
        return plain, examine(plain)


class Packed(NamedTuple):
    """Documents in wire format, and errors for the documents that were refused."""

    documents: list[dict[str, Any]]
    places: list[int]  # position of each in the input
    refused: list[tuple[int, VecError]]  # (position, error) of the others

    def before_refused(self) -> Packed:
        """The documents before the first that was refused, and that one's error."""
        if not self.refused:
            return self
        count = sum(place < self.refused[0][0] for place in self.places)
        return Packed(self.documents[:count], self.places[:count], self.refused[:1])

    def complete(self, answer: dict[str, Any], strict: bool) -> dict[str, Any]:
        """The answer of an ingest of these documents, with their positions in the input, and with the documents that
        were refused here."""
        for each in (*answer["errors"], *answer.get("documents", ())):
            each["index"] = self.places[each["index"]]
        if self.refused and not (strict and answer["errors"]):
            answer["errors"] += [{"index": place, **error.to_wire()} for place, error in self.refused]
            answer["errors"].sort(key=lambda error: int(error["index"]))
            answer["failed"] += len(self.refused)
        return answer


def pack_all(
    documents: Iterable[Any], *, texts: bool = False, refused: Mapping[int, VecError] = MappingProxyType({})
) -> Packed:
    """Packs documents; a refused one does not affect the others. With `texts`, also refuses strings that cannot be
    encoded as UTF-8: for one of them, msgpack would refuse all documents. `refused` has errors by position, of
    documents that the parser has refused."""
    packed = Packed([], [], [])
    for place, document in enumerate(documents):
        try:
            if place in refused:
                raise refused[place]
            found = pack_document(document)
            if texts and (refusal := next(refusals(found, texts=True), None)) is not None:
                raise refusal
        except VecError as error:
            if isinstance(document, dict) and isinstance(given := id_text(document.get("id")), str):
                error.details.setdefault("id", given)
            packed.refused.append((place, error))
        else:
            packed.documents.append(found)
            packed.places.append(place)
    return packed


def examine(document: dict[str, Any]) -> Contents:
    """Refuses values that JSON does not have, integers beyond 64 bits, and lists and objects that are too long or too
    deeply nested. Raises VecError `invalid_document`, naming the field.

    This runs for every document of every stream, so a fast path accepts only exact types; `refusals` checks the rest.
    """
    keys, large, odd = len(document), False, False
    for field, value in document.items():
        if type(field) is not str:
            odd = True
        kind = type(value)
        if kind is str or kind is bytes or value is None:
            continue
        if kind is not dict and kind is not list:
            odd = odd or kind is not bool
            continue
        if field == "vectors" and len(value) <= limits.ARRAY_ITEMS_MAX:
            continue  # packed
        depth, level = 0, [value]
        while level:
            depth += 1
            below: list[Any] = []
            for each in level:
                if len(each) > limits.ARRAY_ITEMS_MAX:
                    odd = True
                if type(each) is dict:
                    keys += len(each)
                    if each and set(map(type, each)) != _STRINGS:
                        odd = True
                    items: Any = each.values()
                else:
                    items = each
                for item in items:
                    kind = type(item)
                    if kind is str or kind is bool or item is None:
                        continue
                    if kind is dict or kind is list:
                        below.append(item)
                    elif kind is int:
                        odd = odd or not INTEGER_MIN <= item <= INTEGER_MAX
                    elif kind is float:
                        if large_float(item):  # also NaN
                            large = True
                            odd = odd or not math.isfinite(item)
                    else:
                        odd = True
            level = below
            if depth > limits.METADATA_DEPTH_MAX:
                odd, level = True, []
    if odd and (refusal := next(refusals(document), None)) is not None:
        raise refusal
    return keys, large
