"""The table of what each op of the daemon needs."""

from __future__ import annotations

from typing import Any

import pytest

from vecd.errors import Code, VecError
from vecd.http.endpoint import Endpoint
from vecd.http.op_access import OPS, PATH_KINDS, check_op
from vecd.http.principal import NOBODY, Principal
from vecd.http.table import ENDPOINTS
from vecd.http.websocket_actions import ACTIONS
from vecd.ops.table import OPS as DAEMON_OPS

READER = Principal("reader", frozenset(("read",)), None)
WRITER = Principal("writer", frozenset(("read", "write")), None)
ADMIN = Principal("admin", frozenset(("read", "write", "admin")), None)
ONE = Principal("one", frozenset(("read", "write")), frozenset(("mine",)))


def allowed(principal: Principal, op: str, **fields: Any) -> bool:
    try:
        check_op(principal, op, fields)
    except VecError as error:
        assert error.code in (Code.FORBIDDEN, Code.UNAUTHORIZED, Code.UNSUPPORTED)
        return False
    return True


def test_every_op_of_the_daemon_has_its_scope_and_no_other_has() -> None:
    assert OPS.keys() == {"hello", *DAEMON_OPS}


@pytest.mark.parametrize("endpoint", [each for each in ENDPOINTS if each.op is not None], ids=lambda each: each.path)
def test_an_op_needs_over_a_websocket_what_it_needs_over_http(endpoint: Endpoint) -> None:
    """Except where HTTP answers with less than the op does."""
    assert endpoint.op is not None
    if endpoint.op == "jobs.spool":
        return
    fields = {"kind": "backup"} if endpoint.path == "/v1/backup" else {}
    reaches = [who.name for who in (READER, WRITER, ADMIN) if allowed(who, endpoint.op, **fields)]
    wanted = {"open": 3, "read": 3, "write": 2, "admin": 1}[endpoint.scope]
    assert reaches == ["reader", "writer", "admin"][3 - wanted :], endpoint.path


def test_an_unknown_op_is_for_those_who_may_do_everything() -> None:
    assert allowed(ADMIN, "new")
    assert not allowed(WRITER, "new")


@pytest.mark.parametrize("op", ["shutdown", "trim", "jobs.spool"])
def test_what_touches_the_server_needs_admin(op: str) -> None:
    assert not allowed(WRITER, op)
    assert allowed(ADMIN, op)


@pytest.mark.parametrize("kind", sorted(PATH_KINDS))
@pytest.mark.parametrize("op", ["jobs.submit", "schedule.add"])
def test_a_job_that_names_files_of_the_server_needs_admin(op: str, kind: str) -> None:
    assert not allowed(WRITER, op, kind=kind)
    assert allowed(WRITER, op, kind="rebuild")
    assert allowed(ADMIN, op, kind=kind)


def test_parameters_of_an_embedder_need_admin() -> None:
    """They name servers, programs, and files with keys."""
    parameters = {"embedder_parameters": {"command": "id"}}
    assert not allowed(WRITER, "library.create", library="x", embedder="command", **parameters)
    assert not allowed(ONE, "library.create", library="mine", embedder="command", **parameters)
    assert not allowed(WRITER, "jobs.submit", kind="reembed", library="x", params=parameters)
    for op in ("jobs.submit", "schedule.add"):
        params = {"embedder": 'command {"command":"id"}'}
        assert not allowed(WRITER, op, kind="reembed", library="x", params=params)
        assert allowed(WRITER, op, kind="reembed", library="x", params={"embedder": "minilm"})
    assert allowed(WRITER, "library.create", library="x", embedder="minilm")
    assert allowed(ADMIN, "library.create", library="x", embedder="command", **parameters)


def test_a_key_for_one_library_reaches_that_library_only() -> None:
    for op in ("search", "ingest", "library.show", "jobs.submit"):
        assert allowed(ONE, op, library="mine"), op
        assert not allowed(ONE, op, library="other"), op
        assert not allowed(ONE, op, library=["mine"]), op
    assert not allowed(ONE, "search")  # the library is `default` then
    assert allowed(ONE, "watch", libraries=["mine"])
    for libraries in (None, [], ["mine", "other"], "mine"):
        assert not allowed(ONE, "watch", libraries=libraries), libraries
    for op in ("status", "library.list", "jobs.show", "jobs.list", "consumers.list", "flush", "jobs.submit"):
        assert not allowed(ONE, op), op
    assert allowed(ONE, "ping")
    assert allowed(ONE, "cancel", target=1)


def test_a_key_for_one_library_searches_no_others_with_it() -> None:
    assert allowed(ONE, "search", libraries=["mine"])
    assert allowed(ONE, "search", libraries=["mine"], library="other")  # which is ignored then
    assert allowed(READER, "search", libraries=["*"])
    for libraries in (["*"], ["mine", "*"], ["mine", "other"], [], "mine", {"mine": 1}, [["mine"]]):
        assert not allowed(ONE, "search", libraries=libraries), libraries
        assert not allowed(ONE, "search", libraries=libraries, library="other"), libraries


def test_a_key_for_one_library_replaces_no_schedule() -> None:
    """It may be another library's."""
    assert allowed(ONE, "schedule.add", kind="rebuild", library="mine")
    assert not allowed(ONE, "schedule.add", kind="rebuild", library="mine", replace=True)


def test_nobody_may_do_nothing() -> None:
    assert [op for op in OPS if allowed(NOBODY, op)] == ["hello"]


def test_every_action_is_a_known_op() -> None:
    message = {"library": "a", "data": {"text": "x"}, "documents": [], "job_id": 1, "ids": ["a"], "kind": "verify"}
    for name, action in ACTIONS.items():
        assert action.request(dict(message)).op in OPS, name
