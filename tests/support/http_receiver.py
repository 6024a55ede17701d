"""An HTTP server that receives webhooks: it records each request, and answers as the test says."""

from __future__ import annotations

import contextlib
import http.server
import json
import socket
import ssl
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from email.message import Message
from typing import Any, Self


@dataclass(frozen=True)
class Received:
    """A request."""

    path: str
    headers: Message
    body: bytes
    at: float  # of the monotonic clock

    @property
    def lines(self) -> list[Any]:
        return [json.loads(line) for line in self.body.splitlines()]


@dataclass(frozen=True)
class Answer:
    status: int = 204
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""


class Receiver:
    """Listens on 127.0.0.1, by default on a free port. A context manager. `answer` may be replaced at any time."""

    def __init__(self, *, port: int = 0, certificate: str | None = None, key: str | None = None) -> None:
        """With a certificate and its key (paths), it speaks TLS."""
        self.received: list[Received] = []
        self.answer: Callable[[Received], Answer] = lambda _: Answer()
        receiver = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def setup(self) -> None:
                super().setup()
                receiver.connections.append(self.connection)

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                request = Received(self.path, self.headers, body, time.monotonic())
                receiver.received.append(request)
                answer = receiver.answer(request)
                self.send_response(answer.status)
                for name, value in answer.headers.items():
                    self.send_header(name, value)
                if answer.status != 204:
                    self.send_header("Content-Length", str(len(answer.body)))
                self.end_headers()
                self.wfile.write(answer.body)

            def log_message(self, *_: Any) -> None:
                """Nothing: the test asks."""

        self.connections: list[Any] = []
        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self._server.daemon_threads = True
        self._server.handle_error = lambda *_: None  # type: ignore[method-assign]  # a client that went away
        self.port = int(self._server.server_address[1])
        self.url = f"{'https' if certificate else 'http'}://127.0.0.1:{self.port}"
        if certificate:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate, key)
            self._server.socket = context.wrap_socket(
                self._server.socket, server_side=True, do_handshake_on_connect=False
            )
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
        self.drop_connections()

    def drop_connections(self) -> None:
        """Closes all connections, as a server does with idle ones."""
        connections, self.connections = self.connections, []
        for each in connections:
            with contextlib.suppress(OSError):  # the client has closed it
                each.shutdown(socket.SHUT_RDWR)
            each.close()

    @property
    def lines(self) -> list[Any]:
        """The lines of all bodies."""
        return [line for each in list(self.received) for line in each.lines]


def main(port: int, arrived: str) -> None:
    """A server for benchmarks. To the file it appends the cursor of each event that is posted to a URL with `?tell`."""
    with open(arrived, "a", buffering=1) as file, Receiver(port=port) as receiver:

        def answer(request: Received) -> Answer:
            receiver.received.clear()
            if request.path.endswith("?tell"):
                file.write("".join(f"{line['cursor']}\n" for line in request.lines))
            return Answer()

        receiver.answer = answer
        threading.Event().wait()


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2])
