"""sync.add; and the ops for the process that runs a sync: sync.hold, sync.files and sync.commit."""

from __future__ import annotations

import asyncio
from typing import Any

from ... import limits
from ...connectors import definition, folder
from ...engine.libraries import find_for_writing
from ...errors import Code, VecError
from ...store.catalogue import DEFAULT
from ...store.sync_files import SyncFile
from ..call import Call
from ..syncs import SyncCommit
from .connectors import name_of
from .relay import generation_of

#: The largest id that the store can have.
_ID_MAX = 2**63 - 1


async def add(call: Call) -> dict[str, Any]:
    """Fields: name, url, library, prefix, parameters, follow, paused."""
    fields = call.fields
    definition.check_name("sync", name_of(call))
    url, parameters = folder.check(fields.text("url"), fields.mapping("parameters"))
    wanted = definition.SyncDefinition(
        name=name_of(call),
        url=url,
        parameters=parameters,
        paused=fields.flag("paused"),
        library=fields.text("library", DEFAULT, chars_max=limits.NAME_BYTES_MAX),
        prefix=fields.text("prefix", "", chars_max=limits.SYNC_VALUE_BYTES_MAX),
        follow=fields.flag("follow", True),
    )
    find_for_writing(call.engine, wanted.library, ())
    return await call.service.syncs.add(wanted)


async def hold(call: Call) -> dict[str, Any]:
    """Field: name. A stream: the definition, once; the sync is the caller's until the stream ends."""
    name = name_of(call)
    with call.service.syncs.hold(name, call.peer):
        await call.items([(await call.service.connectors.definition("sync", name)).to_wire()])
        await asyncio.Event().wait()
    raise AssertionError("a stream without an end")


async def files(call: Call) -> dict[str, Any]:
    """Fields: name; after, a path (exclusive). A page of what is known of the files, by path."""
    after = call.fields.optional_bytes("after") or b""
    await call.wait_for_room()
    return {"files": [tuple(each) for each in await call.service.syncs.files(name_of(call), after)]}


async def commit(call: Call) -> dict[str, Any]:
    """Fields: name, generation, library_id, documents, files (as `sync.files` answers), gone (paths), run
    (counts)."""
    fields = call.fields
    found = await call.service.connectors.definition("sync", name_of(call), generation_of(call))
    assert isinstance(found, definition.SyncDefinition)
    wanted = SyncCommit(
        name=found.name,
        generation=found.generation,
        library=found.library,
        library_id=fields.optional_integer("library_id", low=0, high=_ID_MAX),
        documents=fields.items("documents", count_max=limits.BATCH_DOCUMENTS_MAX),
        files=[_file(each) for each in _listed(call, "files")],
        gone=[_path(each) for each in _listed(call, "gone")],
        run=fields.mapping("run") or None,
    )
    return await wanted.apply(call.engine, call.slot)


def _listed(call: Call, name: str) -> list[Any]:
    if call.fields.raw(name) is None:
        return []
    return call.fields.items(name, count_max=limits.SYNC_COMMIT_FILES)


def _path(given: Any) -> bytes:
    if not isinstance(given, bytes) or not given or len(given) > limits.SYNC_PATH_BYTES_MAX:
        raise VecError(
            Code.INVALID_REQUEST,
            f"a path must be bytes, from 1 to {limits.SYNC_PATH_BYTES_MAX:,} of them",
            field="files",
        )
    return given


def _file(given: Any) -> SyncFile:
    if not isinstance(given, list) or len(given) != len(SyncFile._fields):
        raise _not_a_file()
    path, stamp, digest, ids, reason = given
    small = all(isinstance(each, bytes) and len(each) <= limits.SYNC_VALUE_BYTES_MAX for each in (stamp, digest))
    if not small or not isinstance(ids, list) or not all(isinstance(each, str) for each in ids):
        raise _not_a_file()
    if reason is not None and (not isinstance(reason, str) or len(reason) > limits.SYNC_VALUE_BYTES_MAX):
        raise _not_a_file()
    return SyncFile(_path(path), stamp, digest, ids, reason)


def _not_a_file() -> VecError:
    return VecError(
        Code.INVALID_REQUEST,
        "a file of a sync is a list: path, stamp, digest (bytes), ids (a list of strings), reason (a string or null)",
        field="files",
    )
