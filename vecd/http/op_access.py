"""What a principal needs for each op of the daemon, where a client names the op itself: over a WebSocket.

The table is complete (tests/http/test_websocket_access.py): an op that is not in it is refused to a principal that may
not do everything. A key for some libraries can do what names one of them; what concerns all libraries, or work that
does not say which library it is for, is refused to it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

from ..errors import Code, VecError
from .endpoint import Scope

#: How an op names its libraries: in `library`, which is `default` if missing; in `library`, where missing means none in
#: particular; in the list `libraries`, where missing means all; in the list, where "*" means all, or in `library` as
#: first; always all; or none, because it touches no data.
Names = Literal["library", "any library", "libraries", "libraries or library", "all", "none"]

#: Kinds of job whose parameters name files of the server. (A tuple: what a client names need not be hashable.)
PATH_KINDS: Final = ("backup", "export", "ingest")


@dataclass(frozen=True, slots=True)
class OpAccess:
    """What an op needs."""

    scope: Scope
    names: Names = "all"


OPS: Final[dict[str, OpAccess]] = {
    "hello": OpAccess("open", "none"),
    "ping": OpAccess("read", "none"),
    "status": OpAccess("read"),
    "shutdown": OpAccess("admin"),
    "cancel": OpAccess("read", "none"),
    "library.create": OpAccess("write", "library"),
    "library.list": OpAccess("read"),
    "library.show": OpAccess("read", "library"),
    "library.settings": OpAccess("read", "library"),
    "library.set": OpAccess("write", "library"),
    "library.rebuild": OpAccess("write", "library"),
    "library.rename": OpAccess("write", "library"),
    "library.delete": OpAccess("write", "library"),
    "ingest": OpAccess("write", "library"),
    "delete": OpAccess("write", "library"),
    "update": OpAccess("write", "library"),
    "get": OpAccess("read", "library"),
    "list": OpAccess("read", "library"),
    "count": OpAccess("read", "library"),
    "search": OpAccess("read", "libraries or library"),
    "watch": OpAccess("read", "libraries"),
    "ack": OpAccess("write"),
    "flush": OpAccess("read"),
    "trim": OpAccess("admin"),
    "consumers.list": OpAccess("read"),
    "consumers.reset": OpAccess("write"),
    "consumers.delete": OpAccess("write"),
    "jobs.spool": OpAccess("admin"),
    "jobs.submit": OpAccess("write", "any library"),
    "jobs.status": OpAccess("read"),
    "jobs.kinds": OpAccess("read", "none"),
    "jobs.list": OpAccess("read", "any library"),
    "jobs.show": OpAccess("read"),
    "jobs.logs": OpAccess("read"),
    "jobs.wait": OpAccess("read"),
    "jobs.cancel": OpAccess("write"),
    "jobs.retry": OpAccess("write"),
    "jobs.drop": OpAccess("write"),
    "jobs.pause": OpAccess("admin"),
    "jobs.resume": OpAccess("admin"),
    "jobs.claim": OpAccess("write"),
    "jobs.heartbeat": OpAccess("write"),
    "jobs.checkpoint": OpAccess("write"),
    "jobs.finish": OpAccess("write"),
    "jobs.workers": OpAccess("read"),
    "tasks.heartbeat": OpAccess("write"),
    "tasks.finish": OpAccess("write"),
    "schedule.add": OpAccess("write", "any library"),
    "schedule.list": OpAccess("read"),
    "schedule.run": OpAccess("write"),
    "schedule.remove": OpAccess("write"),
    # A relay names a server, or a file of this one, and sees all libraries that it is not restricted to.
    "relay.add": OpAccess("admin"),
    "relay.list": OpAccess("read"),
    "relay.show": OpAccess("read"),
    "relay.pause": OpAccess("admin"),
    "relay.resume": OpAccess("admin"),
    "relay.reset": OpAccess("admin"),
    "relay.remove": OpAccess("admin"),
    "relay.dead": OpAccess("read"),
    "relay.retry": OpAccess("write"),
    "relay.drop": OpAccess("admin"),
    "relay.watch": OpAccess("admin"),
    "relay.commit": OpAccess("admin"),
    # A source does, too, and writes to its library whatever the key's libraries are.
    "source.add": OpAccess("admin"),
    "source.list": OpAccess("read"),
    "source.show": OpAccess("read"),
    "source.pause": OpAccess("admin"),
    "source.resume": OpAccess("admin"),
    "source.reset": OpAccess("admin"),
    "source.remove": OpAccess("admin"),
    "source.dead": OpAccess("read"),
    "source.retry": OpAccess("write"),
    "source.drop": OpAccess("admin"),
    "source.offsets": OpAccess("admin"),
    "source.commit": OpAccess("admin"),
    # A sync reads a folder of this machine, and writes to its library.
    "sync.add": OpAccess("admin"),
    "sync.list": OpAccess("read"),
    "sync.show": OpAccess("read"),
    "sync.pause": OpAccess("admin"),
    "sync.resume": OpAccess("admin"),
    "sync.remove": OpAccess("admin"),
    "sync.hold": OpAccess("admin"),
    "sync.files": OpAccess("admin"),
    "sync.commit": OpAccess("admin"),
    "connectors.watch": OpAccess("admin"),
    "connectors.report": OpAccess("admin"),
}


def may_do_everything(principal: Any) -> bool:
    """Whether no request of this principal needs a check."""
    return principal is None or ("admin" in principal.scopes and _rest(principal) and principal.libraries is None)


def _rest(principal: Any) -> bool:
    return {"read", "write"} <= set(principal.scopes)


def check_op(principal: Any, op: str, fields: Mapping[str, Any]) -> None:
    """Raises VecError `forbidden` or `unauthorized` if the principal may not send this request."""
    if may_do_everything(principal):
        return
    access = OPS.get(op)
    if access is None:
        raise VecError(Code.UNSUPPORTED, f"this gateway does not know the operation {op!r:.80}", "upgrade it")
    scope: Scope = access.scope
    # A consumer belongs to the whole log: a watch that holds one may move it.
    if op == "watch" and fields.get("consumer") is not None:
        scope = "write"
    # Who may write needs to know how: by which mapping.
    if op == "library.settings" and "read" not in principal.scopes:
        scope = "write"
    if op in ("jobs.submit", "schedule.add") and fields.get("kind") in PATH_KINDS:
        scope = "admin"
    # They name servers, programs, and files with keys.
    params = fields.get("params")
    given = [fields, params] if isinstance(params, Mapping) else [fields]
    if any(each.get("embedder_parameters") or " " in str(each.get("embedder")) for each in given):
        scope = "admin"
    # A schedule that is replaced may be another library's.
    replaces = op == "schedule.add" and bool(fields.get("replace"))
    libraries = _libraries("all" if replaces else access.names, fields)
    if not libraries:
        principal.check(scope, None)
        if principal.libraries is not None and access.names != "none":
            raise VecError(
                Code.FORBIDDEN,
                f"the key {principal.name!r} is for some libraries only, and {op!r} without one concerns all",
                "name a library, or use a key that was made without --library",
            )
    if op == "library.rename" or (op in ("jobs.submit", "schedule.add") and fields.get("kind") == "copy"):
        libraries.append(_target(op, fields))
    for library in libraries:
        principal.check(scope, library)


def _target(op: str, fields: Mapping[str, Any]) -> str:
    """The library that a rename or a copy makes."""
    params = fields if op == "library.rename" else fields.get("params")
    return str(params.get("to")) if isinstance(params, Mapping) else ""


def _libraries(names: Names, fields: Mapping[str, Any]) -> list[str]:
    """The libraries that a request names; whatever else it has there, the daemon refuses."""
    if names == "libraries":
        given = fields.get("libraries")
        return [str(each) for each in given] if isinstance(given, (list, tuple)) else []
    if names == "libraries or library" and (given := fields.get("libraries")) is not None:
        listed = [str(each) for each in given] if isinstance(given, (list, tuple)) else []
        return [] if "*" in listed else listed
    library = fields.get("library") if names in ("library", "any library", "libraries or library") else None
    if library is None:
        return ["default"] if names in ("library", "libraries or library") else []
    return [str(library)]
