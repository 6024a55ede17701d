"""placeholder"""

from __future__ import annotations

from typing import TYPE_CHECKING

from . import websocket_binary
from .endpoint import SocketEndpoint

if TYPE_CHECKING:
    from starlette.websockets import WebSocket

    from .gateway import Gateway


async def serve(websocket: WebSocket, gateway: Gateway) -> None:
    if websocket_binary.SUBPROTOCOL in websocket.scope["subprotocols"]:
        await websocket_binary.serve(websocket, gateway)


ENDPOINTS = (SocketEndpoint("/v1/ws", serve, "All libraries, over a WebSocket."),)
