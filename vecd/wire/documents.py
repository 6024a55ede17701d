"""A document on the wire: as a line of NDJSON has it, but its vectors packed."""

from __future__ import annotations

from typing import Any

from .. import limits
from ..errors import Code, VecError
from .vectors import pack_vector


def pack_document(document: dict[str, Any]) -> dict[str, Any]:
    """A document as it travels: its vectors packed. Raises VecError `invalid_document`, naming the field."""
    vector, vectors = document.get("vector"), document.get("vectors")
    if vector is None and vectors is None:
        _check_sizes(document)
        return document
    packed = dict(document)
    try:
        if vector is not None:
            packed["vector"] = pack_vector(vector)
        if vectors is not None:
            if isinstance(vectors, (str, bytes, dict)):
                raise VecError(Code.INVALID_DOCUMENT, "'vectors' is a list of vectors")
            packed["vectors"] = [pack_vector(each) for each in vectors]
    except VecError as error:
        error.details["field"] = "vector" if vectors is None else "vectors"
        raise
    except TypeError:
        raise VecError(Code.INVALID_DOCUMENT, "'vectors' is a list of vectors", field="vectors") from None
    _check_sizes(packed)
    return packed


def _check_sizes(document: dict[str, Any]) -> None:
    """Refuses a list or an object that is too long to travel: it would take its whole batch down with it."""
    for field, value in document.items():
        if type(field) is not str:
            raise VecError(Code.INVALID_DOCUMENT, f"the key {field!r:.40} is not a string", field=str(field))
        inside = [value] if isinstance(value, (list, dict)) else []
        while inside:
            each = inside.pop()
            if len(each) > limits.ARRAY_ITEMS_MAX:
                raise VecError(
                    Code.INVALID_DOCUMENT,
                    f"'{field}' holds {len(each):,} items in one place, which is over the limit of"
                    f" {limits.ARRAY_ITEMS_MAX:,}",
                    field=field,
                )
            if isinstance(each, dict) and not all(type(key) is str for key in each):
                raise VecError(Code.INVALID_DOCUMENT, f"'{field}' has a key that is not a string", field=field)
            items = each.values() if isinstance(each, dict) else each
            inside += [item for item in items if isinstance(item, (list, dict))]
