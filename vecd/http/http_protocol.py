"""HTTP/1.1 on one connection: uvicorn's protocol on httptools, with bounds for what it reads.

httptools (llhttp) refuses malformed requests. It does not bound their size, and uvicorn neither their number nor their
time. Added here:
- the headers: HEAD_BYTES_MAX, HEADERS_MAX, HEAD_S from the first byte, or from the connection, to the last;
- requests that are sent before the first is answered (pipelining): PIPELINE_MAX; a segment of 256 KB holds 10,000;
- Transfer-Encoding only as `chunked`, in HTTP/1.1, and without Content-Length: anything else is a way to smuggle a
  request past a proxy that reads it differently;
- no trailers, and at most HEAD_BYTES_MAX of chunk headers between two pieces of a body;
- what still arrives after the answer: LINGER_BYTES, LINGER_S;
- errors of the protocol are problems (problems.py), and are not logged: a line per bad request would fill a disk.
"""

from __future__ import annotations

import time
from typing import Any

import httptools
import orjson
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState

from .. import limits
from ..errors import Code, VecError
from .connections import Config
from .endpoint import PROBLEM
from .problems import problem

_UPGRADE = b"upgrade"


class HttpProtocol(HttpToolsProtocol):
    """One connection. It is either in a head (`_head_since` is set), in a request, or idle."""

    def __init__(self, config: Config, server_state: ServerState, app_state: dict[str, Any], _loop: Any = None) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self._shared = config.connections
        self._refusal: tuple[int, VecError] | None = None
        self._head_since: float | None = None
        self._head_bytes = self._head_count = 0
        self._in_message = False  # from the first byte of a request to the last of its body
        self._in_body = False
        self._body_came = False  # a piece of a body, in the data that is being parsed
        self._silent_bytes = 0  # of chunk headers and trailers since the last piece of a body
        self._linger_since: float | None = None
        self._linger_bytes = 0
        self._running: RequestResponseCycle | None = None  # `cycle` is the one that was received last

    # --- the connection -----------------------------------------------------------------------------------------------

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        if transport.get_extra_info("sslcontext") is None:  # with TLS, it is admitted before the handshake
            refused = self._shared.admit(transport)
            if refused is not None:
                self._refuse(503 if "limit" in refused.message else 429, refused)
                return
        self._shared.serve(transport, self)
        self._shared.idle(transport)
        self._head_since = time.monotonic()

    def connection_lost(self, exc: Exception | None) -> None:
        self._shared.remove(self.transport)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        self._unset_keepalive_if_required()
        if self.transport.is_closing():
            return
        in_head, in_body = self._head_since is not None and self._in_message, self._in_body
        self._body_came = False
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            if self._should_upgrade():
                self.handle_websocket_upgrade()
            elif self.cycle is not None:
                self.cycle.keep_alive = False  # another protocol: it is answered as HTTP/1.1, and nothing follows
            return
        except httptools.HttpParserError as error:
            self._refusal = self._refusal or (
                400,
                VecError(Code.INVALID_REQUEST, f"this is not an HTTP/1.1 request ({_reason(error)})"),
            )
            self.send_400_response("")
            return
        if self._head_since is not None and in_head:
            self._head_bytes += len(data)
            if self._head_bytes > limits.HEAD_BYTES_MAX:
                self._refuse_head()
        elif in_body and self._in_body and not self._body_came:
            self._silent_bytes += len(data)
            if self._silent_bytes > limits.HEAD_BYTES_MAX:
                self._refuse(400, VecError(Code.INVALID_REQUEST, "the headers of a chunk are too long"))
        if self._linger_since is not None:
            self._linger_bytes += len(data)
            if self._linger_bytes > limits.LINGER_BYTES:
                self.transport.close()
        if self._head_since is None and self._is_idle():  # empty lines
            self._head_since = time.monotonic()

    def _is_idle(self) -> bool:
        return not self._in_message and (self.cycle is None or self.cycle.response_complete)

    # --- the clock ----------------------------------------------------------------------------------------------------

    def overdue(self, now: float) -> bool:
        if self._head_since is not None and now - self._head_since > self._shared.head_s:
            return True
        return self._linger_since is not None and now - self._linger_since > limits.LINGER_S

    def expire(self) -> None:
        if self._linger_since is not None or not self._in_message:
            self.transport.close()
            return
        what = f"the headers were not complete within {self._shared.head_s:g} s"
        self._refuse(408, VecError(Code.TIMEOUT, what, "send the request at once"))

    def abort(self) -> None:
        """Cuts the connection. What is being answered is told first: uvloop raises if it writes afterwards."""
        if self.cycle is not None:
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        for cycle, _ in self.pipeline:
            cycle.disconnected = True
        if self._running is not None:
            self._running.disconnected = True
            self._running.message_event.set()
        self.flow.resume_writing()
        self.transport.abort()

    # --- the parser's callbacks ---------------------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._in_message = True
        self._head_bytes = self._head_count = 0
        if self._head_since is None:
            self._head_since = time.monotonic()

    def on_url(self, url: bytes) -> None:
        self._count_head(len(url))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._in_body:
            self._reject(400, VecError(Code.INVALID_REQUEST, "a body with trailers is not supported"))
        self._head_count += 1
        self._count_head(len(name) + len(value) + 4)
        super().on_header(name, value)

    def _count_head(self, count: int) -> None:
        self._head_bytes += count
        if self._head_bytes > limits.HEAD_BYTES_MAX or self._head_count > limits.HEADERS_MAX:
            self._reject(431, _head_error())

    def on_headers_complete(self) -> None:
        self._head_since = None
        self._shared.busy(self.transport)
        self._check_framing()
        if len(self.pipeline) >= limits.PIPELINE_MAX:
            what = f"over {limits.PIPELINE_MAX} requests were sent before the first was answered"
            self._reject(429, VecError(Code.BUSY, what, "wait for the answers"))
        self._in_body = True
        self._silent_bytes = 0
        super().on_headers_complete()

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        self._running = cycle
        super()._start_asgi_task(cycle, app)

    def _check_framing(self) -> None:
        encodings = [value.strip().lower() for name, value in self.headers if name == b"transfer-encoding"]
        lengths = [value for name, value in self.headers if name == b"content-length"]
        if encodings and (encodings != [b"chunked"] or lengths or self.parser.get_http_version() != "1.1"):
            what = "the request has a Transfer-Encoding other than chunked, or together with a Content-Length"
            self._reject(400, VecError(Code.INVALID_REQUEST, what, "send one of the two"))

    def on_body(self, body: bytes) -> None:
        self._silent_bytes, self._body_came = 0, True
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._in_message = self._in_body = False
        self._linger_since = None
        super().on_message_complete()

    def on_response_complete(self) -> None:
        if self._in_body and not self.pipeline:
            self._linger_since, self._linger_bytes = time.monotonic(), 0
        super().on_response_complete()
        if not self.transport.is_closing() and (self.cycle is None or self.cycle.response_complete):
            self._shared.idle(self.transport)

    def handle_websocket_upgrade(self) -> None:
        if self.cycle is not None and not self.cycle.response_complete:
            self.abort()  # an earlier request is being answered
            return
        self._shared.busy(self.transport)
        super().handle_websocket_upgrade()

    # --- refusals -----------------------------------------------------------------------------------------------------

    def _reject(self, status: int, error: VecError) -> None:
        """Refuses the request from within a callback of the parser, which turns any error into its own."""
        self._refusal = self._refusal or (status, error)
        raise error

    def _refuse_head(self) -> None:
        self._refuse(431, _head_error())

    def _refuse(self, status: int, error: VecError) -> None:
        self._refusal = status, error
        self.send_400_response("")

    def send_400_response(self, msg: str) -> None:
        """Answers with the refusal, and closes the connection. Where an answer to another request is not complete,
        there is no place for it: the connection is cut."""
        if self.transport.is_closing():
            return
        cycle = self.cycle
        if cycle is not None and not cycle.response_complete:
            if self.pipeline or cycle.response_started or not cycle.more_body:
                self.abort()
                return
            cycle.disconnected = True  # its own body is wrong
            cycle.message_event.set()
        status, error = self._refusal or (400, VecError(Code.INVALID_REQUEST, "this is not an HTTP/1.1 request"))
        body = orjson.dumps(problem(error, status))
        lines = [STATUS_LINE[status]]
        lines += [name + b": " + value + b"\r\n" for name, value in self.server_state.default_headers]
        lines.append(f"content-type: {PROBLEM}\r\ncontent-length: {len(body)}\r\nconnection: close\r\n".encode())
        if status in (429, 503):
            lines.append(f"retry-after: {limits.RETRY_AFTER_S}\r\n".encode())
        self.transport.write(b"".join((*lines, b"\r\n", body)))
        self.transport.close()


def _head_error() -> VecError:
    return VecError(
        Code.TOO_LARGE,
        f"the request line and the headers exceed {limits.HEAD_BYTES_MAX:,} bytes or {limits.HEADERS_MAX} headers",
        "send large input in a body",
    )


def _reason(error: Exception) -> str:
    """llhttp's reason, which quotes nothing of the request."""
    text = str(error)
    return text[:100] if text.isprintable() else type(error).__name__
