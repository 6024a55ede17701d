"""Who may do what: the outermost ASGI middleware of the gateway, for HTTP and WebSockets.

It checks, in this order: the proxy, the Host header, the origin and CORS (hosts.py), the form of the URL, and the key
or ticket (keys.py, tickets.py). Behind it, `scope["state"]["principal"]` says who asks; the endpoint that a request is
routed to then checks its scope and its library, on the same parsed path that its handler gets. So no check depends on
how a path is written.

Rules:
- A request without a key is nobody's: only endpoints with the scope `open` answer it. Where there is no file of keys, a
  request from this machine over loopback or a Unix socket is `anyone`'s, who may do everything.
- A key is in the header Authorization: Bearer, never in a URL, and never in an error or a log line.
- A key that is presented and not valid is refused, also where none is needed.
- Streams and WebSockets that a key has opened end within a few seconds after it expires, is revoked or is changed.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Final
from urllib.parse import parse_qsl, unquote, unquote_to_bytes, urlencode

import orjson

from .. import limits
from ..errors import Code, VecError
from . import keys as api_keys
from .hosts import Hosts, Peer, is_loopback
from .keys import Key, KeyFile, Ring
from .principal import ANYONE, NOBODY, Principal
from .problems import Refusal, problem, problem_answer
from .tickets import Tickets

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

log = logging.getLogger("vecd.http.access")

#: The close code of a WebSocket whose key has ended: in the range for applications, and recognisable.
CLOSE_UNAUTHORIZED: Final = 4401
#: On every answer: no content sniffing, and no inclusion of answers in other sites' pages.
_SAFE: Final = ((b"x-content-type-options", b"nosniff"), (b"cross-origin-resource-policy", b"same-origin"))
_METHODS: Final = b"GET, POST, PUT, DELETE"
_ALLOWED: Final = b"authorization, content-type, last-event-id"
_EXPOSED: Final = b"retry-after, location, content-disposition"
#: Names under which clients put keys into URLs.
_KEY_PARAMETERS: Final = frozenset(("key", "api_key", "apikey", "token", "access_token", "authorization"))
#: How long telling a client why its stream ends may take.
_LAST_WORD_S: Final = 1.0


class Open:
    """A request, a stream or a WebSocket that is being served."""

    __slots__ = ("body_bytes", "ended", "media_type", "principal", "scope", "send", "started", "task")

    def __init__(self, scope: Scope, send: Send, principal: Principal) -> None:
        self.scope, self.send, self.principal = scope, send, principal
        self.task = asyncio.current_task()
        self.started = False
        self.media_type = b""
        self.ended: VecError | None = None
        self.body_bytes = 0  # of a body that is held as a whole


class Access:
    """The keys, tickets and checks of one gateway."""

    def __init__(
        self,
        keys: KeyFile,
        hosts: Hosts,
        open_max: int = limits.OPEN_OF_KEY_MAX,
        *,
        now: Callable[[], float] = time.time,
    ) -> None:
        """Raises VecError `invalid_settings` if the file of keys cannot be used."""
        self.hosts = hosts
        self.tickets = Tickets()
        self._keys, self._open_max, self._now = keys, open_max, now
        self._ring = keys.ring()
        self._failure: str | None = None
        self._open: dict[bytes, set[Open]] = {}
        self._bodies_bytes = 0
        self._ending: set[asyncio.Task[None]] = set()

    def check_start(self, listens: Iterable[tuple[str, bool]]) -> None:
        """Raises VecError `invalid_settings` for an address beyond this machine (the flag says whether it is loopback)
        if there are no keys."""
        if self._ring is not None and self._ring.keys:
            return
        for address, loopback in listens:
            if not loopback:
                raise VecError(
                    Code.SETTINGS,
                    f"{address} can be reached from other machines, and there are no keys: anybody could read and "
                    "change everything",
                    "create a key first: vec keys create NAME --scope admin; or listen on 127.0.0.1",
                )

    def open_of(self, name: str) -> int:
        """How many requests, streams and WebSockets of that key's name are open."""
        return sum(each.principal.name == name for held in self._open.values() for each in held)

    # --- keys ---------------------------------------------------------------------------------------------------------

    def ring(self) -> Ring | None:
        """The keys as they are now, which costs a call of the system, about a microsecond. If the file becomes
        unusable, the keys read last remain."""
        try:
            self._ring = self._keys.ring()
        except VecError as error:
            if str(error) != self._failure:
                log.error("the file of keys cannot be used; the keys read last remain", extra={"error": str(error)})
            self._failure = str(error)
        else:
            self._failure = None
        return self._ring

    async def watch(self) -> None:
        """Ends what keys have open that are no longer valid; runs as long as the gateway."""
        while True:
            await asyncio.sleep(limits.KEYS_LOOK_S)
            self._end_invalid()

    def _end_invalid(self) -> None:
        now, ring = self._now(), self.ring()
        for held in list(self._open.values()):
            for each in list(held):
                key = each.principal.key
                valid = ring is None if key is None else ring is not None and ring.holds(key, now)
                if valid or each.principal is NOBODY or each.ended is not None:
                    continue
                each.ended = _ended(key, now)
                task = asyncio.ensure_future(_end(each))
                self._ending.add(task)
                task.add_done_callback(self._ending.discard)

    # --- one request --------------------------------------------------------------------------------------------------

    def principal(self, scope: Scope, peer: Peer) -> Principal:
        """Who asks. Raises VecError `unauthorized` for a key or ticket that is not valid."""
        ring = self.ring()
        presented = _bearer(scope["headers"])
        ticket = _take_ticket(scope)
        if presented is not None and ticket is not None:
            raise VecError(Code.INVALID_REQUEST, "the request has a key and a ticket", "send one of them")
        if presented is not None:
            key = (ring or Ring()).find(presented, self._now())
            return Principal(key.name, key.scopes, key.libraries, key)
        if ticket is not None:
            if scope["type"] == "http" and scope["method"] != "GET":
                raise VecError(
                    Code.INVALID_REQUEST, "a ticket only opens streams and WebSockets", "send the key in a header"
                )
            found = self.tickets.redeem(ticket)
            if found.key is not None and (ring is None or not ring.holds(found.key, self._now())):
                raise _ended(found.key, self._now())
            if found.key is None and ring is not None:
                raise VecError(Code.UNAUTHORIZED, "this gateway has keys now", "'vec keys create' makes a key")
            return found
        server = scope.get("server")
        reachable = server is not None and server[1] is not None and not is_loopback(server[0])
        return ANYONE if ring is None and peer.local and not reachable else NOBODY

    def enter(self, scope: Scope, send: Send, principal: Principal) -> Open:
        """Registers a request. Raises VecError `busy` if its key has too many open."""
        digest = principal.key.digest if principal.key is not None else b""
        held = self._open.get(digest)
        if held is None:
            held = self._open[digest] = set()
        elif principal.key is not None and len(held) >= self._open_max:
            raise VecError(
                Code.BUSY,
                f"the key {principal.name!r} has {self._open_max:,} requests, streams and WebSockets open",
                "close some, or use another key",
            )
        entry = Open(scope, send, principal)
        held.add(entry)
        return entry

    def hold(self, entry: Open, count: int) -> None:
        """Counts bytes of a body that are held until the request ends. Raises VecError `busy` beyond the bound."""
        if self._bodies_bytes + count > limits.BODIES_BYTES_MAX:
            raise VecError(Code.BUSY, "too many large requests at once", "try again later, or stream the documents")
        self._bodies_bytes += count
        entry.body_bytes += count

    def leave(self, entry: Open) -> None:
        self._bodies_bytes -= entry.body_bytes
        digest = entry.principal.key.digest if entry.principal.key is not None else b""
        held = self._open[digest]
        held.discard(entry)
        if not held:
            del self._open[digest]


class AccessMiddleware:
    """The ASGI application with the checks around it."""

    def __init__(self, app: ASGIApp, access: Access) -> None:
        self._app, self._access = app, access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        origin: str | None = None
        try:
            origin = self._check(scope)
            if _is_preflight(scope):
                await _preflight(origin, send)
                return
            principal = self._access.principal(scope, scope["state"]["peer"])
            entry = self._access.enter(scope, send, principal)
        except VecError as error:
            await _refuse(scope, receive, _with_headers(scope, send, origin, None), error)
            return
        scope["state"].update(principal=principal, open=entry)
        try:
            await self._app(scope, receive, _with_headers(scope, send, origin, entry))
        except asyncio.CancelledError:
            if entry.ended is None:
                raise
            await _last_word(entry, receive)
        finally:
            self._access.leave(entry)

    def _check(self, scope: Scope) -> str | None:
        """Checks where the request comes from; returns the allowed foreign origin, if it has one. Raises VecError."""
        hosts, headers = self._access.hosts, scope["headers"]
        address = scope["client"][0] if scope.get("client") else None
        peer = hosts.peer(address, scope["scheme"], headers)
        if address is not None or hosts.trusts(None):  # no browser reaches a Unix socket
            hosts.check_host(peer.host)
        origin = hosts.check_origin(headers, peer)
        scope["scheme"] = peer.scheme
        if peer.address != address:
            scope["client"] = (peer.address, 0)
        scope.setdefault("state", {})["peer"] = peer
        _check_url(scope)
        for name, value in headers:
            if name == b"content-encoding" and value.strip().lower() not in (b"", b"identity"):
                raise Refusal(
                    415,
                    Code.UNSUPPORTED,
                    f"bodies in the encoding {value.decode('latin-1')!r:.40} are not supported",
                    "send the body without compression",
                )
        return origin


def _check_url(scope: Scope) -> None:
    """Refuses a URL with a key, and a path that is not text. Raises VecError `invalid_request`."""
    raw = scope.get("raw_path") or b""
    if b"%" in raw:
        try:
            decoded = unquote_to_bytes(raw).decode()
        except UnicodeDecodeError:
            raise VecError(Code.INVALID_REQUEST, "the path is not UTF-8", "encode it as UTF-8, then in %XX") from None
        if "\0" in decoded:
            raise VecError(Code.INVALID_REQUEST, "the path has a NUL character")
    query = scope["query_string"]
    if b"vec" in query or b"vec_" in raw or b"key" in query or b"token" in query:
        text = unquote(query.decode("latin-1"))
        named = {name.lower() for name, value in parse_qsl(text) if value} & _KEY_PARAMETERS
        if named or api_keys.PATTERN.search(text) or api_keys.PATTERN.search(scope["path"]):
            scope["query_string"] = b""  # for whatever logs it
            raise VecError(
                Code.INVALID_REQUEST,
                "the URL has a key: URLs are logged and remembered",
                "revoke it, and send keys in the header 'Authorization: Bearer KEY'; for a browser's EventSource and "
                "WebSocket, which cannot, POST /v1/tickets and use ?ticket=",
            )


def _bearer(headers: Iterable[tuple[bytes, bytes]]) -> str | None:
    said = [value for name, value in headers if name == b"authorization"]
    if not said:
        return None
    scheme, _, secret = said[0].decode("latin-1").strip().partition(" ")
    if len(said) > 1 or scheme.lower() != "bearer" or not secret.strip():
        raise VecError(
            Code.UNAUTHORIZED,
            "the header Authorization has no key",
            "send one header 'Authorization: Bearer KEY'",
        )
    return secret.strip()


def _take_ticket(scope: Scope) -> str | None:
    """Takes the ticket out of the query, so that nothing that reads or logs it later sees it."""
    query = scope["query_string"]
    if b"ticket" not in query:
        return None
    pairs = parse_qsl(query.decode("latin-1"), keep_blank_values=True)
    tickets: list[str] = [value for name, value in pairs if name == "ticket"]
    if not tickets:
        return None
    scope["query_string"] = urlencode([pair for pair in pairs if pair[0] != "ticket"]).encode()
    return tickets[0]


# --- answers ----------------------------------------------------------------------------------------------------------


def _with_headers(scope: Scope, send: Send, origin: str | None, entry: Open | None) -> Send:
    """`send`, with the headers that every answer has."""
    if scope["type"] == "websocket":
        return send
    extra = list(_SAFE)
    if origin is not None:
        extra += [
            (b"access-control-allow-origin", origin.encode("latin-1")),
            (b"access-control-expose-headers", _EXPOSED),
        ]
    extra.append((b"vary", b"origin"))

    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = list(message.get("headers", ()))
            message = {**message, "headers": [*headers, *extra]}
            if entry is not None:
                entry.started = True
                entry.media_type = next((value for name, value in headers if name.lower() == b"content-type"), b"")
        await send(message)

    return sending


async def _refuse(scope: Scope, receive: Receive, send: Send, error: VecError) -> None:
    """Answers with a problem; a WebSocket handshake too."""
    log.debug("refused", extra={"code": error.code, "error": error.message, "client": (scope.get("client") or "?")[0]})
    await problem_answer(error)(scope, receive, send)


def _is_preflight(scope: Scope) -> bool:
    return (
        scope["type"] == "http"
        and scope["method"] == "OPTIONS"
        and any(name == b"access-control-request-method" for name, _ in scope["headers"])
    )


async def _preflight(origin: str | None, send: Send) -> None:
    headers = [*_SAFE, (b"vary", b"origin")]
    if origin is not None:
        headers += [
            (b"access-control-allow-origin", origin.encode("latin-1")),
            (b"access-control-allow-methods", _METHODS),
            (b"access-control-allow-headers", _ALLOWED),
            (b"access-control-max-age", str(limits.PREFLIGHT_S).encode()),
        ]
    await send({"type": "http.response.start", "status": 204, "headers": headers})
    await send({"type": "http.response.body", "body": b""})


# --- the end of a key -------------------------------------------------------------------------------------------------


def _ended(key: Key | None, now: float) -> VecError:
    if key is None:
        return VecError(Code.UNAUTHORIZED, "this gateway has keys now", "'vec keys create' makes a key")
    what = "has expired" if key.expired(now) else "was revoked"
    return VecError(Code.UNAUTHORIZED, f"the key {key.name!r} {what}", "'vec keys create' makes a new one")


async def _end(entry: Open) -> None:
    """Ends a request whose key has ended. A WebSocket gets its close code first, because its handler, when it is
    cancelled, may send another."""
    assert entry.ended is not None
    if entry.scope["type"] == "websocket":
        close = {"type": "websocket.close", "code": CLOSE_UNAUTHORIZED, "reason": entry.ended.message[:100]}
        with contextlib.suppress(Exception):
            await asyncio.wait_for(entry.send(close), _LAST_WORD_S)
    if entry.task is not None:
        entry.task.cancel()


async def _last_word(entry: Open, receive: Receive) -> None:
    """Tells the client of a cancelled HTTP request why it ends. A stream of events ends with an event. Any other answer
    that has begun is cut off, because a proper end would say that it is complete."""
    assert entry.ended is not None
    if entry.scope["type"] == "websocket":
        return
    with contextlib.suppress(Exception):
        async with asyncio.timeout(_LAST_WORD_S):
            if not entry.started:
                await _refuse(entry.scope, receive, entry.send, entry.ended)
            elif entry.media_type.startswith(b"text/event-stream"):
                event = b"event: error\ndata: " + orjson.dumps(problem(entry.ended)) + b"\n\n"
                await entry.send({"type": "http.response.body", "body": event, "more_body": False})
