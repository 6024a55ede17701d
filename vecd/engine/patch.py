"""Updates of documents' metadata: sets and removes keys of documents, by id or by a filter, without embedding again."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import orjson

from .. import limits
from ..errors import Code, VecError
from ..filters.expressions import Field, Filter, parse_field
from ..store import patch as store
from ..store.catalogue import Library
from ..store.patch import Patched, Wanted
from ..write_order import WriteSlot
from . import ingest
from .documents import find_versions
from .engine import Engine
from .prepare import metadata_json

if TYPE_CHECKING:
    from ..store.transaction import Transaction

Path = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class MetadataPatch:
    """What changes: keys that get a value, and keys that are removed. A path of keys leads into nested objects."""

    values: Mapping[Path, Any]
    removed: Sequence[Path]

    def __call__(self, metadata: str) -> str:
        """The new metadata, both as JSON. Raises VecError `invalid_document`."""
        found: dict[str, Any] = orjson.loads(metadata)
        for path in self.removed:
            inner: Any = found
            for key in path[:-1]:
                inner = inner.get(key) if isinstance(inner, dict) else None
            if isinstance(inner, dict):
                inner.pop(path[-1], None)
        for path, value in self.values.items():
            inner = found
            for place, key in enumerate(path[:-1], 1):
                inner = inner.setdefault(key, {})
                if not isinstance(inner, dict):
                    above = Field(False, path[:place])
                    raise VecError(
                        Code.INVALID_DOCUMENT,
                        f"the metadata field {str(above)!r:.200} is not an object, so it cannot have the key"
                        f" {path[place]!r:.200}",
                        f"set {str(above)!r:.200} itself, or remove it first",
                        field="set",
                    )
            inner[path[-1]] = value
        return metadata_json(found)


def parse(values: Mapping[str, Any], removed: Sequence[str]) -> MetadataPatch:
    """A patch of fields, written as in filters. Raises VecError `invalid_request`."""
    if not values and not removed:
        raise VecError(Code.INVALID_REQUEST, "update: give 'set' or 'unset'", field="set")
    wanted = {_path("set", name): value for name, value in values.items()}
    without = [_path("unset", name) for name in removed]
    for path in wanted:
        for other in (*wanted, *without):
            if (other != path and other[: len(path)] == path) or (other in without and path[: len(other)] == other):
                raise VecError(
                    Code.INVALID_REQUEST,
                    f"update: the fields {_shown(path)} and {_shown(other)} overlap",
                    "change one of them, or send two updates",
                    field="set",
                )
    return MetadataPatch(wanted, without)


def _path(what: str, name: str) -> Path:
    try:
        found = parse_field(name)
    except VecError as error:
        hint = "quote a key that has other characters than letters, digits, '_' and '-'"
        raise VecError(
            Code.INVALID_REQUEST, f"update: {what}: {name!r:.100} is not the name of a field", hint, field=what
        ) from error
    if found.own:
        raise VecError(
            Code.INVALID_REQUEST,
            f"update: {name!r} is the document's own, and is embedded or identifies it",
            f"ingest the document again, or write metadata.{name} for a key of the metadata",
            field=what,
        )
    return found.path


def _shown(path: Path) -> str:
    return repr(str(Field(False, path)))


async def update(
    engine: Engine, name: str, ids: Sequence[str], where: Filter, change: MetadataPatch, slot: WriteSlot
) -> dict[str, Any]:
    """Updates the metadata of documents, by id, or of those that match a filter:
    `{"updated","unchanged","missing","missing_ids","failed","errors","seq"}`, and perhaps `warnings`.

    A filter is applied after all earlier writes of this sender; a document that another sender changes before it is
    updated is left out. Many documents are updated in several transactions. Raises VecError.
    """
    library = await ingest.library_after_writes(engine, name, slot)
    total, seq = Patched(0), engine.database.head
    warnings: list[str] = []
    if library.library_id:
        async with slot:
            wanted: list[Wanted] = [(each_id, None) for each_id in ids]
            if where:
                found, warnings = await find_versions(engine, library, where, slot)
                wanted += found
            start = 0
            while page := wanted[start : start + limits.UPDATE_CHUNKS]:
                work = partial(_write, library, page, change)
                future = engine.database.submit(work, limits.UPDATE_CHUNKS, sender=slot.sender)
                done, seq = await asyncio.wrap_future(future)
                start += done.taken
                total.updated += done.updated
                total.unchanged += done.unchanged
                total.missing += done.missing
                total.failed += done.failed
    else:
        total.missing += ids
    answer = {
        "updated": total.updated,
        "unchanged": total.unchanged,
        "missing": len(total.missing),
        "missing_ids": total.missing,
        "failed": len(total.failed),
        "errors": [{"id": each_id, **error.to_wire()} for each_id, error in total.failed[: limits.UPDATE_ERRORS_MAX]],
        "seq": seq,
    }
    return {**answer, "warnings": warnings} if warnings else answer


def _write(library: Library, page: list[Wanted], change: MetadataPatch, tx: Transaction) -> tuple[Patched, int]:
    """On the writer."""
    now = tx.catalogue.by_id[library.library_id]
    if now.deleted:
        raise VecError(Code.NOT_FOUND, f"library {library.name!r} has been deleted", library=library.name)
    return store.patch(tx, now, page, change, limits.UPDATE_CHUNKS), tx.seq
