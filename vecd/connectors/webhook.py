"""Webhook: a relay posts its messages to an HTTP server, in batches, signed as the Standard Webhooks specification says
(https://www.standardwebhooks.com).

A body is NDJSON, or a batch of CloudEvents. `webhook-id`, which `Idempotency-Key` repeats, is a digest of the body: a
body that is sent again has the same one, so a server drops what it knows. What an answer means:

    2xx                         the events are delivered
    408, 425, 429, 5xx          tried again, without a limit; Retry-After is obeyed
    401, 403, 404, 405, 407, 410, 3xx
                                the URL or the secret is wrong: shown as the last error, and tried again slowly
    413, and all other 4xx      the body is refused: it is sent again in halves, until single events are refused

The client is the standard library's, one connection that is kept open. A watchdog bounds each request as a whole: the
socket's time-out alone would start again with each byte.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import datetime
import email.utils
import hashlib
import hmac
import http.client
import math
import socket
import ssl
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Final
from urllib.parse import urlsplit

from .. import __version__
from ..credentials import read_secret
from ..delivery import AttemptFailed, DeliveryBatch, Refused, Stop
from ..errors import Code, VecError
from . import cloudevents, tls
from .messages import OutMessage
from .transport import MessageSink, Opening

#: Bytes of a body, unless one event has more: servers often take a MiB and not more.
_BODY_BYTES_MAX: Final = 1_000_000
#: Bytes of an answer that are read: it only explains a refusal.
_ANSWER_BYTES_MAX: Final = 64 * 1024
#: Characters of an answer that a reason quotes.
_QUOTED_CHARS_MAX: Final = 200
#: How long a Retry-After can make a relay wait, in seconds.
_RETRY_AFTER_S_MAX: Final = 3_600.0
#: Statuses that say nothing about the body: 4xx that may pass.
_TEMPORARY: Final = frozenset((408, 425, 429))
#: Statuses that say that the URL, the secret or the permission is wrong, not the body.
_MISCONFIGURED: Final = frozenset((401, 403, 404, 405, 407, 410))
#: Bytes of a signing secret, as the specification has it.
_SECRET_BYTES_MIN: Final = 24
_SECRET_PREFIX: Final = "whsec_"
#: How often the watchdog looks whether the connector is to stop, in seconds.
_LOOK_S: Final = 0.25


def signature(secret: bytes, webhook_id: str, timestamp: int, body: bytes) -> str:
    """The version 1 signature: HMAC-SHA256 over the id, the time in seconds, and the body."""
    signed = f"{webhook_id}.{timestamp}.".encode() + body
    return "v1," + base64.b64encode(hmac.digest(secret, signed, hashlib.sha256)).decode()


def read_signing_secrets(text: str) -> list[bytes]:
    """The secrets in a file, one a line: during a rotation there are two.

    Raises VecError `invalid_settings`, which does not quote them.
    """
    secrets = []
    for line in text.split():
        try:
            secret = base64.b64decode(line.removeprefix(_SECRET_PREFIX), validate=True)
        except (binascii.Error, ValueError):
            secret = b""
        if len(secret) < _SECRET_BYTES_MIN:
            raise VecError(
                Code.SETTINGS,
                f"the webhook's secret is not the base64 of at least {_SECRET_BYTES_MIN} bytes",
                f"make one: echo {_SECRET_PREFIX}$(openssl rand -base64 32)",
            )
        secrets.append(secret)
    return secrets


def retry_after_s(value: str | None, now: datetime.datetime) -> float:
    """The seconds that a Retry-After header asks for: a number, or a date. 0 if it is neither."""
    if value is None:
        return 0.0
    with contextlib.suppress(ValueError):
        seconds = float(value)
        return min(max(seconds, 0.0), _RETRY_AFTER_S_MAX) if math.isfinite(seconds) else 0.0
    try:
        when = email.utils.parsedate_to_datetime(value)
    except ValueError:
        return 0.0
    if when.tzinfo is None:
        when = when.replace(tzinfo=datetime.UTC)
    return min(max((when - now).total_seconds(), 0.0), _RETRY_AFTER_S_MAX)


class _Watchdog:
    """Ends a connection's waits when a request has taken too long, or the connector is to stop."""

    def __init__(self, name: str, stop: Stop) -> None:
        self._stop = stop
        self._changed = threading.Condition()
        self._socket: socket.socket | None = None  # that is watched
        self._deadline = math.inf
        self._closed = False
        self.expired = False  # the request that is watched has taken too long
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    @contextlib.contextmanager
    def watching(self, timeout_s: float) -> Iterator[None]:
        """Watches what `watch` names meanwhile."""
        with self._changed:
            self._deadline = time.monotonic() + timeout_s
            self.expired = False
            self._changed.notify()
        try:
            yield
        finally:
            with self._changed:
                self._deadline, self._socket = math.inf, None

    def watch(self, connection: socket.socket) -> None:
        with self._changed:
            self._socket = connection

    def close(self) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join(1.0)

    def _run(self) -> None:
        with self._changed:
            while not self._closed:
                self._changed.wait(None if self._deadline == math.inf else _LOOK_S)
                self.expired = self.expired or time.monotonic() > self._deadline
                if self._socket is not None and (self.expired or self._stop.is_set()):
                    with contextlib.suppress(OSError):
                        # Not SSLSocket's own: it would pull the state from under the thread that reads.
                        socket.socket.shutdown(self._socket, socket.SHUT_RDWR)


class _Answer:
    def __init__(self, response: http.client.HTTPResponse, body: bytes) -> None:
        self.status = response.status
        self.location = response.getheader("Location")
        self.retry_after_s = retry_after_s(response.getheader("Retry-After"), datetime.datetime.now(datetime.UTC))
        text = "".join(each if each.isprintable() else " " for each in body.decode("utf-8", "replace"))
        self.text = " ".join(text.split())[:_QUOTED_CHARS_MAX]

    def __str__(self) -> str:
        name = http.client.responses.get(self.status, "")
        return f"{self.status} {name}".rstrip() + (f": {self.text}" if self.text else "")


class _WebhookSink:
    """Posts to one URL."""

    def __init__(self, opening: Opening) -> None:
        parts = urlsplit(opening.url.text)
        self._secure = parts.scheme == "https"
        self._host = parts.hostname or "localhost"
        self._port = parts.port or (443 if self._secure else 80)
        self._target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        self._server = f"{self._host}:{self._port}"
        self._timeout_s = opening.timeout_s
        self._stop = opening.stop
        self._context = tls.client_context(opening.parameters) if self._secure else None
        self._authorization = _authorization(opening)
        text = read_secret(opening.parameters, "secret")
        self._secrets = [] if text is None else read_signing_secrets(text)
        self._watchdog = _Watchdog(f"relay {opening.definition.name}: watchdog", opening.stop)
        self._connection: http.client.HTTPConnection | None = None

    def open(self) -> None:
        """Connects, so that a wrong name or an untrusted certificate shows before there is an event. The server may
        close the connection before the first one: that is no failure. Raises AttemptFailed and VecError."""
        with self._watchdog.watching(self._timeout_s):
            try:
                self._connect()
            except (OSError, http.client.HTTPException) as error:
                raise self._failed(error) from error

    def deliver(self, batch: DeliveryBatch[OutMessage]) -> None:
        refused: dict[int, str] = {}
        for indexes in _pieces(batch.items):
            self._send(batch.items, indexes, refused)
        if refused:
            raise Refused(refused)

    def close(self) -> None:
        self._disconnect()
        self._watchdog.close()

    # --- a body -------------------------------------------------------------------------------------------------------

    def _send(self, messages: Sequence[OutMessage], indexes: range, refused: dict[int, str]) -> None:
        """Sends these messages in one body; if it is refused, in halves. Adds what is refused alone to `refused`."""
        answer = self._post(*_body([messages[index] for index in indexes]))
        status = answer.status
        if 200 <= status < 300:
            return
        if 300 <= status < 400:
            where = f" to {answer.location!r:.200}" if answer.location else ""
            raise VecError(
                Code.SETTINGS,
                f"{self._server} redirects{where} ({status}); redirects are not followed",
                "check where it leads, and name that URL",
            )
        if status in _MISCONFIGURED:
            raise VecError(Code.SETTINGS, f"{self._server} answers {answer}", "check the URL, the user and the secrets")
        if status in _TEMPORARY or not 400 <= status < 500:
            raise AttemptFailed(
                f"{self._server} answers {answer}", unreachable=True, retry_after_s=answer.retry_after_s
            )
        if len(indexes) == 1:
            refused[indexes[0]] = f"{self._server} answers {answer}"
            return
        middle = len(indexes) // 2
        self._send(messages, indexes[:middle], refused)
        self._send(messages, indexes[middle:], refused)

    def _post(self, body: bytes, content_type: str) -> _Answer:
        """Raises AttemptFailed, and VecError for a server that is not trusted."""
        headers = {
            "Content-Type": content_type,
            "User-Agent": f"vecd/{__version__}",
            **self._signed(body),
            **self._authorization,
        }
        with self._watchdog.watching(self._timeout_s):
            if self._connection is not None:
                try:
                    return self._request(self._connection, body, headers)
                except (http.client.RemoteDisconnected, ConnectionError, ssl.SSLEOFError) as error:
                    # Most probably the server has closed it since the last request: a new one tells.
                    self._check_interrupted(error)
                except (OSError, http.client.HTTPException) as error:
                    raise self._failed(error) from error
            try:
                return self._request(self._connect(), body, headers)
            except (OSError, http.client.HTTPException) as error:
                raise self._failed(error) from error

    def _check_interrupted(self, error: Exception) -> None:
        """Raises AttemptFailed if it was not the server that ended the request."""
        if self._stop.is_set():
            raise AttemptFailed(f"the request to {self._server} was interrupted", unreachable=True) from error
        if self._watchdog.expired or isinstance(error, TimeoutError):
            reason = f"{self._server} did not answer within {self._timeout_s:g} s"
            raise AttemptFailed(reason, unreachable=True) from error

    def _failed(self, error: Exception) -> Exception:
        self._check_interrupted(error)
        if isinstance(error, ssl.SSLError) and not isinstance(error, ssl.SSLEOFError):
            return tls.refused(self._server, error)
        why = (isinstance(error, OSError) and error.strerror) or str(error) or type(error).__name__
        return AttemptFailed(f"{self._server} cannot be reached, or did not answer: {why}", unreachable=True)

    def _signed(self, body: bytes) -> dict[str, str]:
        webhook_id = "msg_" + hashlib.sha256(body).hexdigest()[:32]
        now = int(time.time())
        headers = {
            "webhook-id": webhook_id,
            "webhook-timestamp": str(now),
            "Idempotency-Key": f'"{webhook_id}"',
        }
        if self._secrets:
            headers["webhook-signature"] = " ".join(signature(each, webhook_id, now, body) for each in self._secrets)
        return headers

    # --- the connection -----------------------------------------------------------------------------------------------

    def _connect(self) -> http.client.HTTPConnection:
        self._disconnect()
        connection = socket.create_connection((self._host, self._port), timeout=self._timeout_s)
        self._connection = http.client.HTTPConnection(self._host, self._port)
        self._connection.sock = connection
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if self._context is not None:
            secured = self._context.wrap_socket(connection, server_hostname=self._host, do_handshake_on_connect=False)
            self._connection.sock = secured
            self._watchdog.watch(secured)
            secured.do_handshake()
        return self._connection

    def _request(self, connection: http.client.HTTPConnection, body: bytes, headers: Mapping[str, str]) -> _Answer:
        self._watchdog.watch(connection.sock)
        with contextlib.suppress(BrokenPipeError):  # a server may refuse the body before it has read it
            connection.request("POST", self._target, body, dict(headers))
        response = connection.getresponse()
        answer = _Answer(response, response.read(_ANSWER_BYTES_MAX))
        if not response.isclosed():  # there is more
            self._disconnect()
        if self._watchdog.expired:  # what was read of the answer ends where the watchdog has cut it
            raise TimeoutError
        return answer

    def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()


def open_sink(opening: Opening) -> MessageSink:
    """Reads the secrets, and connects. Raises AttemptFailed and VecError."""
    sink = _WebhookSink(opening)
    try:
        sink.open()
    except BaseException:
        sink.close()
        raise
    return sink


def _authorization(opening: Opening) -> dict[str, str]:
    if (token := read_secret(opening.parameters, "token")) is not None:
        if not token.isascii() or not token.isprintable():
            raise VecError(Code.SETTINGS, "the webhook's token is not one line of ASCII", "correct it where it is kept")
        return {"Authorization": f"Bearer {token}"}
    if opening.url.user is not None:
        pair = f"{opening.url.user}:{read_secret(opening.parameters, 'password') or ''}"
        return {"Authorization": "Basic " + base64.b64encode(pair.encode()).decode()}
    return {}


def _pieces(messages: Sequence[OutMessage]) -> Iterator[range]:
    """The indexes of the messages of each body, in order. The same messages are always divided alike."""
    start = size = 0
    for index, message in enumerate(messages):
        if index > start and size + len(message.body) > _BODY_BYTES_MAX:
            yield range(start, index)
            start, size = index, 0
        size += len(message.body) + 1
    yield range(start, len(messages))


def _body(messages: Sequence[OutMessage]) -> tuple[bytes, str]:
    """A body, and its content type."""
    if messages[0].content_type == cloudevents.CONTENT_TYPE:
        return b"[" + b",".join(each.body for each in messages) + b"]", cloudevents.BATCH_CONTENT_TYPE
    return b"".join(each.body + b"\n" for each in messages), "application/x-ndjson"
