"""A transport over a WebSocket: the protocol of the Unix socket, through a gateway (`vec serve`), from any machine.

One binary message of the subprotocol `vec.msgpack` is the payload of one frame of vec-protocol(7), without its length;
the gateway passes them to a daemon connection of their own. `websockets` implements RFC 6455 without I/O; the socket,
TLS and the waiting are here, because a Connection reads without waiting and gives its descriptor to poll(2).

Rules: no wait is without a bound. A key travels in a header, never in the URL, and is in no message. A connection that
is open may be silent for long: TCP keepalive notices a host that is gone, and after SILENCE_S a second connection, as
on the Unix socket, a gateway or a daemon that is stuck.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
import ssl
import stat
import time
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple
from urllib.parse import urlsplit

from .. import __version__, limits
from ..durable_files import read_small
from ..errors import Code, VecError
from .transport import RECEIVE_BYTES, ConnectionEndedError

if TYPE_CHECKING:
    from websockets.http11 import Response

#: The WebSocket subprotocol whose messages are the payloads of frames of vec-protocol(7).
SUBPROTOCOL: Final = "vec.msgpack"
#: Where a gateway serves it.
PATH: Final = "/v1/ws"
_SCHEMES: Final = {"ws": False, "wss": True, "http": False, "https": True}
_KEY_BYTES_MAX: Final = 4_096
_KEY_HINT: Final = (
    "set VEC_KEY to the key, or VEC_KEY_FILE to a file with it; 'vec keys create' on the server makes one"
)

#: A close code -> the error that it means, if the reason names no other.
_CLOSE_CODES: Final = {
    1001: Code.SHUTTING_DOWN,
    1008: Code.FORBIDDEN,
    1009: Code.FRAME_TOO_LARGE,
    1012: Code.SHUTTING_DOWN,
    1013: Code.BUSY,
    4401: Code.UNAUTHORIZED,
}
#: An HTTP status of a refused handshake -> the error that it means, if the body names no other.
_STATUSES: Final = {401: Code.UNAUTHORIZED, 403: Code.FORBIDDEN, 404: Code.SETTINGS, 429: Code.BUSY}


class Address(NamedTuple):
    """Where a gateway is, and how to reach it."""

    url: str  # as errors show it
    host: str
    port: int
    secure: bool  # TLS
    path: str
    key: str | None = None
    ca_file: str | None = None  # certificates to trust instead of the system's

    @classmethod
    def of(cls, url: str, key: str | None = None, ca_file: str | None = None) -> Address:
        """Reads a URL: `wss://host`, `ws://host:8000`, or the same with https and http; with a path, if the gateway is
        below one. Raises VecError `invalid_settings`."""
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError as error:
            raise VecError(Code.SETTINGS, f"{url!r:.200} is not a URL ({error})", "use wss://HOST[:PORT]") from error
        if parts.username is not None or parts.password is not None:
            raise VecError(
                Code.SETTINGS,
                "the URL of a gateway must not contain a key: other users can see it in the list of processes",
                _KEY_HINT,
            )
        if parts.scheme not in _SCHEMES or not parts.hostname or parts.query or parts.fragment:
            raise VecError(
                Code.SETTINGS,
                f"{url!r:.200} is not the URL of a gateway",
                "use wss://HOST[:PORT], or ws://HOST[:PORT] without TLS",
            )
        secure = _SCHEMES[parts.scheme]
        path = parts.path.rstrip("/")
        return cls(
            f"{'wss' if secure else 'ws'}://{parts.netloc}{path.removesuffix(PATH)}", parts.hostname,
            port or (443 if secure else 80), secure, path if path.endswith(PATH) else path + PATH, key, ca_file,
        )  # fmt: skip

    @property
    def is_loopback(self) -> bool:
        return self.host in ("localhost", "::1") or self.host.startswith("127.")


def read_key(path: str) -> str:
    """The key in a file of one line. Raises VecError `invalid_settings`, also for a file that everyone may read."""
    try:
        mode = os.stat(path).st_mode
        key = read_small(Path(path), _KEY_BYTES_MAX).decode("ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not one line of ASCII"
        raise VecError(Code.SETTINGS, f"cannot read the key file {path} ({why})") from error
    if stat.S_ISREG(mode) and mode & stat.S_IROTH:
        raise VecError(Code.SETTINGS, f"everyone can read the key file {path}", f"chmod 600 {path}")
    return checked_key(key, f"the key file {path}")


def checked_key(key: str, where: str) -> str:
    """Raises VecError `invalid_settings`, which does not quote it, for what cannot be a key."""
    if not key or not key.isascii() or not key.isprintable() or " " in key:
        raise VecError(Code.SETTINGS, f"{where} does not contain a key", "`vec keys create` on the server prints one")
    return key


class WebSocketTransport:
    """A WebSocket to a gateway."""

    def __init__(self, address: Address, wait_s: float = limits.HELLO_S) -> None:
        """Connects, within `wait_s` seconds.

        Raises VecError `no_daemon` if nothing can be reached there; `forbidden` for a certificate that is not trusted,
        and for a key that the gateway refuses; `stalled` if it does not answer; `invalid_settings` if what answers is
        not a gateway; and what the gateway answers with.
        """
        try:
            from websockets.client import ClientProtocol
            from websockets.frames import Opcode
            from websockets.uri import WebSocketURI
        except ModuleNotFoundError as error:
            raise VecError(
                Code.UNSUPPORTED,
                "this installation of vecd cannot use WebSockets: the Python package 'websockets' is missing",
                "pip install 'vecd[http]'",
            ) from error
        self._address = address
        self._opcodes = Opcode
        host, port, path = address.host, address.port, address.path
        self._protocol = ClientProtocol(
            WebSocketURI(address.secure, host, port, path, ""),
            subprotocols=[SUBPROTOCOL],  # type: ignore[list-item]  # a NewType of str
            max_size=limits.FRAME_BYTES_MAX,
        )
        self._unsent: deque[memoryview] = deque()
        self._parts: list[bytes] = []  # of a message that arrives in several frames
        self._end: ConnectionEndedError | None = None
        self._arriving = memoryview(bytearray(RECEIVE_BYTES))
        self._socket, self._tls = _dial(address, wait_s)
        try:
            with _translated(address, wait_s):
                self._handshake(time.monotonic() + wait_s)
            self._socket.setblocking(self._tls is None)
            if self._tls is None:
                from ..unixsocket import bound_reads

                bound_reads(self._socket, limits.SILENCE_S)
        except BaseException:
            self._socket.close()
            raise
        self._poll = select.poll()
        self._poll.register(self._socket, select.POLLIN)

    def _handshake(self, deadline: float) -> None:
        protocol = self._protocol
        request = protocol.connect()
        request.headers["User-Agent"] = f"vec {__version__}"
        if self._address.key is not None:
            request.headers["Authorization"] = f"Bearer {self._address.key}"
        protocol.send_request(request)
        self._socket.sendall(b"".join(protocol.data_to_send()))
        while True:
            self._socket.settimeout(max(0.001, deadline - time.monotonic()))
            count = self._socket.recv_into(self._arriving)
            if count:
                protocol.receive_data(self._arriving[:count].tobytes())
            else:
                protocol.receive_eof()
            if (failed := protocol.handshake_exc) is not None:
                raise _refused(self._address, failed)
            events = protocol.events_received()
            if events:
                break
            if not count:
                raise VecError(Code.NO_DAEMON, f"{self._address.url} closed the connection before it answered")
        if protocol.subprotocol != SUBPROTOCOL:
            raise VecError(
                Code.SETTINGS,
                f"{self._address.url} accepts WebSockets, but not the subprotocol {SUBPROTOCOL}",
                "use the address of `vec serve`",
            )
        assert len(events) == 1, "the daemon sends nothing before the hello"

    @property
    def unsent(self) -> bool:
        return bool(self._unsent)

    @property
    def closed(self) -> bool:
        return self._socket.fileno() < 0

    def fileno(self) -> int:
        return self._socket.fileno()

    def send(self, frame: bytes) -> None:
        if self._end is not None:
            return  # `read` says why
        self._protocol.send_binary(memoryview(frame)[4:])
        self._collect()

    def _collect(self) -> None:
        """Takes what the protocol wants to send: messages, pongs, a close."""
        self._unsent.extend(memoryview(each) for each in self._protocol.data_to_send() if each)

    def write(self) -> None:
        while self._unsent:
            try:
                if self._tls is None:
                    sent = self._socket.send(self._unsent[0], socket.MSG_DONTWAIT)
                else:
                    sent = self._tls.send(self._unsent[0])
            except (BlockingIOError, ssl.SSLWantWriteError, ssl.SSLWantReadError):
                return
            except (BrokenPipeError, ConnectionResetError, ssl.SSLEOFError, ssl.SSLZeroReturnError):
                self._unsent.clear()  # the gateway has closed the connection; why may still be there to read
                return
            if sent == len(self._unsent[0]):
                self._unsent.popleft()
            else:
                self._unsent[0] = self._unsent[0][sent:]

    def poll(self, wait_s: float) -> bool:
        if self._end is not None:
            return True
        self._poll.modify(self._socket, select.POLLIN | (select.POLLOUT if self._unsent else 0))
        return bool(self._poll.poll(0 if wait_s == 0 else max(1, int(wait_s * 1000))))

    def read(self, wait: bool) -> list[bytes] | None:
        if self._end is not None:
            raise self._end
        if self._tls is None:
            try:
                count = self._socket.recv_into(self._arriving, RECEIVE_BYTES, 0 if wait else socket.MSG_DONTWAIT)
            except BlockingIOError:
                return None
        elif wait and not self.poll(limits.SILENCE_S):
            return None
        else:
            records = self._read_records(self._tls)
            if records is None:
                return []  # a part of a record
            count = records
        if count:
            self._protocol.receive_data(self._arriving[:count].tobytes())
        else:
            self._protocol.receive_eof()
        payloads = [payload for frame in self._protocol.events_received() for payload in self._take(frame)]
        self._collect()
        if self._unsent:
            self.write()  # pongs must not wait for the next request
        if not count and self._end is None:
            self._end = ConnectionEndedError()
        if self._protocol.parser_exc is not None and self._end is None:
            failed = self._protocol.parser_exc
            self._end = ConnectionEndedError(VecError(Code.PROTOCOL_ERROR, f"the gateway broke the protocol: {failed}"))
        if self._end is not None and not payloads:
            raise self._end
        return payloads

    def _read_records(self, tls: ssl.SSLSocket) -> int | None:
        """Bytes read; None if no whole record is there. Leaves none in the TLS layer, where poll(2) cannot see them."""
        count = 0
        try:
            while True:
                got = tls.recv_into(self._arriving[count:])
                count += got
                if not got or not tls.pending() or count == RECEIVE_BYTES:
                    return count
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            return count or None
        except (ssl.SSLEOFError, ssl.SSLZeroReturnError):
            return count

    def _take(self, frame: Any) -> Iterator[bytes]:
        opcodes = self._opcodes
        if frame.opcode is opcodes.BINARY or frame.opcode is opcodes.CONT:
            if frame.fin and not self._parts:
                yield bytes(frame.data)
                return
            self._parts.append(bytes(frame.data))
            if frame.fin:
                yield b"".join(self._parts)
                self._parts = []
        elif frame.opcode is opcodes.CLOSE:
            closed = self._protocol.close_rcvd
            assert closed is not None
            self._end = ConnectionEndedError(_closed(closed.code, closed.reason))
        elif frame.opcode is opcodes.TEXT:
            self._end = ConnectionEndedError(VecError(Code.PROTOCOL_ERROR, "the gateway sent a text message"))

    def is_serving(self, hello: bytes) -> bool:
        """Opens a second connection, through to the daemon, and waits PROBE_S for an answer to its hello.

        A gateway that has no place for it, or refuses it, is at work.
        """
        deadline = time.monotonic() + limits.PROBE_S
        try:
            second = WebSocketTransport(self._address, limits.PROBE_S)
        except VecError as error:
            return error.code != Code.STALLED
        try:
            second.send(hello)
            second.write()
            while (left_s := deadline - time.monotonic()) > 0:
                if second.poll(left_s) and second.read(wait=False):
                    return True
        except (OSError, ConnectionEndedError):
            return True
        finally:
            second.close()
        return False

    def stalled(self, silence_s: float) -> VecError:
        return VecError(
            Code.STALLED,
            f"{self._address.url} has not answered for {silence_s:g} s",
            "the gateway, the daemon behind it or the network is stuck; try again later",
        )

    def close(self) -> None:
        """Says goodbye if that needs no waiting, and closes the socket."""
        if self.closed:
            return
        from websockets.exceptions import InvalidState

        with contextlib.suppress(InvalidState, OSError):
            if self._end is None and not self._unsent:
                self._protocol.send_close(1000)
                self._collect()
                self.write()
        self._socket.close()


def _dial(address: Address, wait_s: float) -> tuple[socket.socket, ssl.SSLSocket | None]:
    """A connected socket, and the same as a TLS socket if it is one. Its timeout is `wait_s`."""
    context = _context(address) if address.secure else None
    with _translated(address, wait_s):
        sock = socket.create_connection((address.host, address.port), timeout=min(wait_s, limits.DIAL_S))
        try:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            _keep_alive(sock)
            sock.settimeout(wait_s)
            if context is None:
                return sock, None
            tls = context.wrap_socket(sock, server_hostname=address.host)
        except BaseException:
            sock.close()
            raise
        return tls, tls


def _keep_alive(sock: socket.socket) -> None:
    """Has the kernel check that the other host is there while both sides are silent."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    idle = getattr(socket, "TCP_KEEPIDLE", None) or getattr(socket, "TCP_KEEPALIVE", None)  # Linux; macOS
    for option, value in (
        (idle, limits.KEEPALIVE_IDLE_S),
        (getattr(socket, "TCP_KEEPINTVL", None), limits.KEEPALIVE_EVERY_S),
        (getattr(socket, "TCP_KEEPCNT", None), limits.KEEPALIVE_TRIES),
    ):
        if option is not None:
            sock.setsockopt(socket.IPPROTO_TCP, option, value)


def _context(address: Address) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=address.ca_file)
    except (OSError, ssl.SSLError) as error:
        why = getattr(error, "strerror", None) or str(error)
        raise VecError(
            Code.SETTINGS, f"cannot read certificates from {address.ca_file} ({why})", "it must be a PEM file"
        ) from error


@contextlib.contextmanager
def _translated(address: Address, wait_s: float) -> Iterator[None]:
    """Translates what the operating system and TLS raise while a connection is made."""
    try:
        yield
    except ssl.SSLCertVerificationError as error:
        hint = "for a certificate of your own, set VEC_CA_FILE or --ca-file to its file"
        if "mismatch" in error.verify_message.lower():
            hint = "use a host name that the certificate names"
        raise VecError(
            Code.FORBIDDEN, f"the certificate of {address.url} is not trusted: {error.verify_message}", hint
        ) from error
    except ssl.SSLError as error:
        what = (error.reason or str(error)).replace("_", " ").lower()
        raise VecError(
            Code.SETTINGS,
            f"no TLS connection to {address.url} ({what})",
            "a server without TLS is at ws://, not wss://" if "wrong version" in what else None,
        ) from error
    except TimeoutError as error:
        raise VecError(
            Code.STALLED, f"{address.url} has not answered for {wait_s:g} s", "check the address, and try again later"
        ) from error
    except OSError as error:
        if isinstance(error, socket.gaierror):
            what = f"the host {address.host} is unknown"
        else:
            what = error.strerror or str(error)
        raise VecError(
            Code.NO_DAEMON, f"cannot connect to {address.url} ({what})", "is `vec serve` running there?"
        ) from error


def _refused(address: Address, failed: Exception) -> VecError:
    """The error for a handshake that failed."""
    from websockets.exceptions import InvalidStatus

    if not isinstance(failed, InvalidStatus):
        what = f"{address.url} does not answer as a WebSocket server ({failed})"
        return VecError(Code.SETTINGS, what, "a server with TLS is at wss://, not ws://")
    response = failed.response
    status = response.status_code
    if (said := _problem(response)) is not None:
        return said
    if location := response.headers.get("Location"):
        return VecError(
            Code.SETTINGS, f"{address.url} redirects to {location}", "use that address, with wss:// for https://"
        )
    hint = {
        401: "set VEC_KEY, or VEC_KEY_FILE to a file with the key",
        403: "check the address and the key",
        404: "use the address of `vec serve`",
    }
    code = _STATUSES.get(status, Code.NO_DAEMON if status >= 500 else Code.SETTINGS)
    return VecError(code, f"{address.url} answered {status} {response.reason_phrase}", hint.get(status))


def _problem(response: Response) -> VecError | None:
    """The error in a body of the type application/problem+json."""
    if not response.headers.get("Content-Type", "").startswith("application/problem+json"):
        return None
    import json

    try:
        body = json.loads(response.body or b"")
        code, detail = str(body["code"]), str(body["detail"])
    except (ValueError, KeyError, TypeError):
        return None
    hint = _KEY_HINT if code == Code.UNAUTHORIZED else body.get("hint")
    return VecError(code, detail, str(hint) if hint else None)


def _closed(code: int, reason: str) -> VecError | None:
    """The error that a close frame means; None if it is an end without a reason. Our gateway's reasons begin with a
    code: `stalled: the daemon …`."""
    name, colon, text = reason.partition(": ")
    if colon and name.isascii() and name.replace("_", "").isalpha():
        again = "the outcome of unanswered requests is unknown; it is safe to send them again"
        return VecError(name, text, again if name == Code.CONNECTION_LOST else None)
    if code in _CLOSE_CODES:
        return VecError(_CLOSE_CODES[code], f"the gateway closed the connection: {reason or f'code {code}'}")
    return None
