"""WebSockets: documents, searches and events of a library, or of all, as JSON messages on one connection.

    -> {"action": "search", "id": 1, "query": "log rotation", "k": 3}
    <- {"id": 1, "status": "ok", "hits": [...]}
    -> {"action": "search", "id": 2, "kk": 3}
    <- {"id": 2, "status": "error", "error": {"code": "invalid_request", "message": "unknown key 'kk'", "hint": "…"}}
    -> {"action": "subscribe", "id": 3, "events": ["document.added"]}
    <- {"id": 3, "status": "ok", "subscription": 1, "cursor": "77d5d23b47fbedfa:41"}
    <- {"event": "document.added", "cursor": "77d5d23b47fbedfa:42", "library_id": "notes", "data": {...},
        "subscription": 1}

websocket_actions.py lists the actions. Besides events of the log, a subscription sends `heartbeat` (the position has
moved, and nothing matched), `gap` (history was lost), `error`, and `end` as its last; their `data` says more. A list
that is too long for one frame of the daemon comes in messages with the status `part`, and the last has `ok`.

A client that offers the subprotocol `vec.msgpack` is served by websocket_binary.py; closing.py lists the close codes.

Rules:
- Any number of requests may be unanswered; answers come in any order, and writes take effect in the order of their
  messages. The daemon connection is the WebSocket's own; so the daemon's bounds and fairness hold for it.
- A message that is not JSON, or not a valid request, is answered with an error, and ends nothing. A violation of the
  WebSocket protocol, or a binary message, ends the connection.
- Memory is bounded by back-pressure: nothing is read while UNANSWERED_MAX requests are unanswered or the daemon has not
  taken the last, and messages are sent one at a time, as the client takes them.
- Subscriptions survive a daemon that ends and is started again. Requests that were unanswered then fail with
  `connection_lost`; reads are repeated.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import TYPE_CHECKING, Any, Final

import orjson
from starlette.websockets import WebSocketDisconnect

from .. import limits
from ..client.aio import AsyncClient, AsyncPending
from ..errors import Code, VecError
from ..wire import strict_json
from . import websocket_binary
from .call import filters
from .closing import UNSUPPORTED_DATA, close
from .endpoint import SocketEndpoint
from .fan_out import Batch, Selection, Start, Subscription
from .json_bytes import dumps
from .op_access import check_op
from .problems import problem, problem_answer
from .websocket_actions import ACTIONS, Action, Request, read

if TYPE_CHECKING:
    from starlette.websockets import WebSocket

    from ..wire.messages import ReplyMessage
    from .gateway import Gateway

log = logging.getLogger("vecd.http")

_SUBSCRIBE: Final = (
    "events", "libraries", "from", "where", "payload", "replaced", "vectors", "snapshot", "on_gap", "consumer",
)  # fmt: skip
#: Actions that are not one request to the daemon, and their keys.
_OTHERS: Final = {"subscribe": _SUBSCRIBE, "unsubscribe": ("subscription",)}

#: Reads, which are sent again if the daemon ends before it answers.
_READS: Final = frozenset(("ping", "search", "get", "count", "library.list", "jobs.show", "jobs.status"))

#: What the transport raises when the client has gone; Starlette's RuntimeError is for one that this side has closed.
_GONE: Final = (WebSocketDisconnect, RuntimeError)


async def serve(websocket: WebSocket, gateway: Gateway) -> None:
    """Serves one WebSocket to its end."""
    if websocket_binary.SUBPROTOCOL in websocket.scope["subprotocols"]:
        await websocket_binary.serve(websocket, gateway)
        return
    session = Session(websocket, gateway)
    try:
        session.check()
    except VecError as error:
        await websocket.send_denial_response(problem_answer(error))
        return
    await websocket.accept()
    await session.run()


class Session:
    """One WebSocket with JSON messages."""

    def __init__(self, websocket: WebSocket, gateway: Gateway) -> None:
        self._websocket = websocket
        self._gateway = gateway
        self._principal = websocket.scope.get("state", {}).get("principal")
        self._library: str | None = websocket.path_params.get("library")
        self._client: AsyncClient | None = None
        self._connecting = asyncio.Lock()
        self._places = asyncio.Semaphore(limits.UNANSWERED_MAX)
        self._answering: set[asyncio.Task[None]] = set()
        self._subscriptions: dict[int, tuple[Subscription, asyncio.Task[None]]] = {}
        self._number = 0  # of the last subscription
        self._sending = asyncio.Lock()

    def check(self) -> None:
        """Raises VecError if the client may not connect at all, or the gateway is stopping."""
        principal = self._principal
        if principal is not None and (not principal.scopes or self._library is not None):
            principal.check("read", self._library)
        if self._gateway.stopping.is_set():
            raise VecError(Code.SHUTTING_DOWN, "the gateway is stopping", "try again later")

    async def run(self) -> None:
        """Serves until the client has gone or the gateway stops."""
        reading = asyncio.create_task(self._read())
        stopping = asyncio.create_task(self._gateway.stopping.wait())
        try:
            await asyncio.wait((reading, stopping), return_when=asyncio.FIRST_COMPLETED)
            if not reading.done():
                reading.cancel()
                await self._stop()
            else:
                reading.result()
        except _GONE:
            pass
        except VecError as error:
            with contextlib.suppress(*_GONE):
                await close(self._websocket.send, error, UNSUPPORTED_DATA)
        except Exception as bug:
            log.error("a WebSocket failed", exc_info=bug)
            with contextlib.suppress(*_GONE):
                said = VecError(Code.INTERNAL, "this is a bug; the gateway's log has the traceback")
                await close(self._websocket.send, said)
        finally:
            tasks = [reading, stopping, *self._answering, *(task for _, task in self._subscriptions.values())]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            for subscription, _ in self._subscriptions.values():
                subscription.close()
            if self._client is not None:
                self._client.close()

    async def _stop(self) -> None:
        """Answers what was asked; the fan-out ends the subscriptions, each with a last message."""
        tasks = [*self._answering, *(task for _, task in self._subscriptions.values())]
        if tasks:
            await asyncio.wait(tasks, timeout=self._gateway.settings.drain_s)
        await close(self._websocket.send, VecError(Code.SHUTTING_DOWN, "the gateway is stopping"))

    # --- messages -----------------------------------------------------------------------------------------------------

    async def _read(self) -> None:
        """Reads messages until the client closes the connection. Raises VecError for a violation of the protocol."""
        while True:
            received = await self._websocket.receive()
            if received["type"] == "websocket.disconnect":
                return
            text = received.get("text")
            if text is None:
                raise VecError(Code.PROTOCOL_ERROR, "a binary message; send JSON as text")
            number: Any = None
            try:
                message = _parsed(text)
                number = _id_of(message)
                name = read(message, ACTIONS, self._library, _OTHERS)
                if (action := ACTIONS.get(name)) is not None:
                    await self._ask(number, action, message)
                elif name == "subscribe":
                    await self._subscribe(number, message)
                else:
                    await self._unsubscribe(number, message)
            except VecError as error:
                await self._refuse(number, error)

    async def _send(self, data: bytes) -> None:
        async with self._sending:
            await self._websocket.send({"type": "websocket.send", "text": data.decode()})

    async def _answer(self, number: Any, body: dict[str, Any], status: str = "ok") -> None:
        head = {"status": status} if number is None else {"id": number, "status": status}
        await self._send(dumps({**body, **head}))

    async def _refuse(self, number: Any, error: VecError) -> None:
        await self._answer(number, {"error": error.to_wire()}, "error")

    # --- requests to the daemon ---------------------------------------------------------------------------------------

    async def _ask(self, number: Any, action: Action, message: dict[str, Any]) -> None:
        """Sends a request to the daemon; a task answers it."""
        request = action.request(message)
        check_op(self._principal, request.op, request.fields)
        await self._places.acquire()
        try:
            client = await self._connected()
            pending = client.submit(request.op, **request.fields)
            await client.drain()
        except BaseException:
            self._places.release()
            raise
        if request.op not in _READS:
            request = request._replace(fields={})  # documents need not wait here for their answer
        task = asyncio.create_task(self._answer_request(number, action, request, pending))
        self._answering.add(task)
        task.add_done_callback(self._answered)

    def _answered(self, task: asyncio.Task[None]) -> None:
        self._answering.discard(task)
        self._places.release()
        if not task.cancelled() and (failed := task.exception()) is not None and not isinstance(failed, _GONE):
            log.error("an answer failed", exc_info=failed)

    async def _connected(self) -> AsyncClient:
        """The one connection to the daemon: a second one would not keep the order of writes."""
        async with self._connecting:
            if self._client is None or self._client.lost is not None:
                self._client = await self._gateway.pool.connect()
            return self._client

    async def _answer_request(self, number: Any, action: Action, request: Request, pending: AsyncPending) -> None:
        again = request.op in _READS
        try:
            while True:
                try:
                    first = await pending.next()
                except VecError as error:
                    if not (again and error.code == Code.CONNECTION_LOST):
                        raise
                else:  # from here on, a repetition would send parts twice
                    await self._answer_parts(number, action, request, first, pending)
                    return
                again = False
                pending = (await self._connected()).submit(request.op, **request.fields)
        except VecError as error:
            await self._refuse(number, error)
        except _GONE:
            raise
        except Exception as error:
            await self._refuse(number, VecError(Code.INTERNAL, f"the answer could not be made: {error!r}"))
            raise  # it is logged
        finally:
            pending.cancel()

    async def _answer_parts(
        self, number: Any, action: Action, request: Request, reply: ReplyMessage | None, pending: AsyncPending
    ) -> None:
        """Sends a reply, and those that follow it."""
        while reply is not None:
            if reply.kind == "items":
                await self._answer(number, {action.items: reply.body}, "part")
                reply = await pending.next()
                continue
            body = request.shape(reply.body)
            if reply.kind == "end" and action.items:
                body.setdefault(action.items, [])
            await self._answer(number, body)
            return

    # --- subscriptions ------------------------------------------------------------------------------------------------

    async def _subscribe(self, number: Any, message: dict[str, Any]) -> None:
        if len(self._subscriptions) >= limits.STREAMS_MAX:
            raise VecError(
                Code.BUSY,
                f"this WebSocket has {limits.STREAMS_MAX:,} subscriptions",
                "unsubscribe, or open another one",
            )
        selection, start = _selection(message)
        checked = {"libraries": list(selection.libraries), "consumer": start.consumer}
        check_op(self._principal, "watch", checked)
        subscription: Subscription = await self._gateway.fan_out.subscribe(selection, start)
        self._number += 1
        mine = self._number
        try:
            await self._answer(number, {"subscription": mine, "cursor": subscription.cursor})
        except BaseException:
            subscription.close()
            raise
        task = asyncio.create_task(self._deliver(mine, subscription))
        self._subscriptions[mine] = subscription, task

    async def _unsubscribe(self, number: Any, message: dict[str, Any]) -> None:
        mine = message.get("subscription")
        found = self._subscriptions.pop(mine, None) if isinstance(mine, int) else None
        if found is None:
            raise VecError(Code.NOT_FOUND, f"there is no subscription {mine!r:.80}", field="subscription")
        subscription, task = found
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        subscription.close()
        await self._answer(number, {"subscription": mine, "cursor": subscription.cursor})

    async def _deliver(self, mine: int, subscription: Subscription) -> None:
        """Sends the events of a subscription, and why it ends."""
        tail = b',"subscription":%d}' % mine
        try:
            try:
                async with contextlib.aclosing(subscription.batches()) as batches:
                    before = subscription.cursor
                    async for batch in batches:
                        await self._send_batch(mine, batch, tail, before)
                        before = batch.cursor
                await self._send(_note("end", mine, subscription.cursor, {"reason": "done"}))
            except VecError as error:
                stops = error.code == Code.SHUTTING_DOWN
                data = {"reason": "shutting_down"} if stops else problem(error)
                await self._send(_note("end" if stops else "error", mine, subscription.cursor, data))
        except _GONE:
            pass
        finally:
            self._subscriptions.pop(mine, None)

    async def _send_batch(self, mine: int, batch: Batch, tail: bytes, before: str) -> None:
        if batch.gap is not None:
            await self._send(_note("gap", mine, batch.cursor, problem(batch.gap)))
        for event in batch.events:
            await self._send(event.message + tail)
        if not batch.events and batch.cursor != before:
            await self._send(_note("heartbeat", mine, batch.cursor, {}))


def _note(kind: str, subscription: int, cursor: str, data: dict[str, Any]) -> bytes:
    """A message of a subscription that is not an event of the log."""
    return dumps({"event": kind, "cursor": cursor, "data": data, "subscription": subscription})


def _parsed(text: str) -> dict[str, Any]:
    data = text.encode()
    strict_json.check_size(data)
    try:
        message = strict_json.loads(data)
    except orjson.JSONDecodeError as error:
        raise VecError(Code.INVALID_REQUEST, f"the message is not JSON ({error})") from error
    if not isinstance(message, dict):
        raise VecError(Code.INVALID_REQUEST, "the message must be a JSON object")
    return message


def _id_of(message: dict[str, Any]) -> Any:
    number = message.get("id")
    if number is not None and not isinstance(number, (str, int, float)):
        raise VecError(Code.INVALID_REQUEST, "'id' must be a string or a number", field="id")
    return number


def _selection(message: dict[str, Any]) -> tuple[Selection, Start]:
    """Raises VecError `invalid_request`."""
    if message.get("library") is not None and message.get("libraries") is not None:
        raise VecError(Code.INVALID_REQUEST, "'library' and 'libraries' exclude each other", field="libraries")
    library = message.get("library")
    return (
        Selection(
            (library,) if library is not None else _texts(message, "libraries"),
            _texts(message, "events"),
            _texts({"where": filters(message.get("where"))}, "where"),
            _flag(message, "payload", False),
            _flag(message, "replaced", True),
            _flag(message, "vectors", False),
        ),
        Start(
            _text(message, "from") or "now",
            _flag(message, "snapshot", False),
            _text(message, "on_gap") or "fail",
            _text(message, "consumer"),
        ),
    )


def _texts(message: dict[str, Any], key: str) -> tuple[str, ...]:
    found = message.get(key)
    if found is None:
        return ()
    if not isinstance(found, list) or not all(isinstance(each, str) for each in found):
        raise VecError(Code.INVALID_REQUEST, f"{key!r} must be a list of strings", field=key)
    return tuple(found)


def _text(message: dict[str, Any], key: str) -> str | None:
    found = message.get(key)
    if found is not None and not isinstance(found, str):
        raise VecError(Code.INVALID_REQUEST, f"{key!r} must be a string", field=key)
    return found


def _flag(message: dict[str, Any], key: str, default: bool) -> bool:
    found = message.get(key)
    if found is not None and not isinstance(found, bool):
        raise VecError(Code.INVALID_REQUEST, f"{key!r} must be true or false", field=key)
    return default if found is None else found


ENDPOINTS: Final = (
    SocketEndpoint("/v1/ws", serve, "Requests and events of all libraries."),
    SocketEndpoint("/v1/libraries/{library}/ws", serve, "Requests and events of one library."),
)
