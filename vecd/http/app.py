"""The ASGI application: routes from the table of endpoints, checks, and errors as problems."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route, WebSocketRoute
from starlette.types import ASGIApp
from starlette.websockets import WebSocket

from ..errors import Code, VecError
from .access import AccessMiddleware
from .call import Call, read_query
from .endpoint import Endpoint, SocketEndpoint
from .gateway import Gateway
from .problems import problem_answer
from .table import ENDPOINTS, SOCKETS

log = logging.getLogger("vecd.http")


def make_app(gateway: Gateway) -> ASGIApp:
    """The application of one gateway."""
    routes: list[BaseRoute] = [_route(gateway, each) for each in ENDPOINTS]
    routes += [WebSocketRoute(each.path, _socket(gateway, each), name=each.path) for each in SOCKETS]
    app = Starlette(routes=routes, exception_handlers={HTTPException: _http_error, Exception: _bug})
    return gateway.metrics.measured(AccessMiddleware(app, gateway.access))


def _route(gateway: Gateway, endpoint: Endpoint) -> Route:
    async def answer(request: Request) -> Response:
        try:
            principal = request.scope["state"]["principal"]
            principal.check(endpoint.scope, request.path_params.get("library"))
            query = read_query(endpoint.parameters, request.query_params)
            return await endpoint.handler(Call(request, gateway, endpoint, principal, request.path_params, query))
        except VecError as error:
            return problem_answer(error)
        except ClientDisconnect:
            return Response(status_code=499)  # nobody reads it

    path = endpoint.path.replace("{document}", "{document:path}")  # an id may have slashes
    for each in endpoint.parameters:
        if each.where == "path" and each.schema.get("type") == "integer":
            path = path.replace(f"{{{each.name}}}", f"{{{each.name}:int}}")
    return Route(path, answer, methods=[endpoint.method], name=endpoint.path)


def _socket(gateway: Gateway, endpoint: SocketEndpoint) -> Callable[[WebSocket], Awaitable[None]]:
    async def serve(websocket: WebSocket) -> None:
        await endpoint.handler(websocket, gateway)

    return serve


async def _http_error(request: Request, error: Any) -> Response:
    """What Starlette refuses itself: an unknown path, or a method that a path does not have."""
    codes = {404: Code.NOT_FOUND, 405: Code.UNSUPPORTED}
    path = request.url.path
    what = {404: f"there is nothing at {path:.200}", 405: f"{path:.200} does not take {request.method}"}
    hint = "see /docs" if error.status_code in codes else None
    wanted = VecError(
        codes.get(error.status_code, Code.INVALID_REQUEST), what.get(error.status_code, error.detail), hint
    )
    headers = dict(error.headers or {})
    if error.status_code == 405:  # Starlette knows the methods of one route; a path may have several
        route = getattr(request.scope.get("route"), "name", None)
        methods = {each.method for each in ENDPOINTS if each.path == route}
        headers["allow"] = ", ".join(sorted(methods | ({"HEAD"} if "GET" in methods else set())))
    return problem_answer(wanted, error.status_code, headers)


async def _bug(request: Request, error: Exception) -> Response:
    log.error("a request failed", extra={"path": request.url.path}, exc_info=error)
    return problem_answer(
        VecError(Code.INTERNAL, "an internal error", "this is a bug; the gateway's log has the traceback")
    )
