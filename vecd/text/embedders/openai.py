"""The `openai` embedder: any server with OpenAI's embeddings API, POST <url>/embeddings: Ollama, llama.cpp, Text
Embeddings Inference, vLLM, OpenAI.

What an answer means:

    200                         vectors, put in the order of their `index`, and checked
    408, 425, 429, 5xx, a cut connection
                                tried again after a growing pause, or after Retry-After, for a bounded time
    401, 403, 404, 405, 407, 410, 3xx
                                the URL, the model or the key is wrong
    400, 413, 422, all other 4xx; a vector with NaN, or of another dimension
                                the batch is refused: it is sent again in halves, down to the text that is to blame

The client is the standard library's. A timer bounds each request as a whole: the socket's time-out alone would start
again with each byte.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import math
import re
import ssl
import threading
import time
from collections.abc import Mapping, Sequence
from typing import Any, Final
from urllib.parse import urlsplit

import numpy as np
import numpy.typing as npt
import orjson

from ... import limits
from ...backoff import pause_s
from ...credentials import check_secret, read_secret
from ...errors import Code, VecError
from ...parameters import Parameter
from .answers import SHARED, UnusableVector, check_shared, matrix, normalized, refused
from .embedder import EmbedderKind

#: How long a call goes on trying, in seconds: a job tries again later, and a user waits for a query.
_TEXTS_S, _QUERY_S = 120.0, 10.0
_PAUSE_S, _PAUSE_S_MAX = 0.25, 15.0
#: Characters of one request, unless one text has more: servers often take a few MiB.
_REQUEST_CHARS: Final = 500_000
#: Bytes of an answer for each text: a number is written with 24 characters at most.
_ANSWER_BYTES_EACH: Final = 32 * limits.DIMENSION_MAX
_ANSWER_BYTES_MIN: Final = 64 * 1024
_QUOTED_CHARS_MAX: Final = 200
_TEMPORARY: Final = frozenset((408, 425, 429))
_MISCONFIGURED: Final = frozenset((401, 403, 404, 405, 407, 410))
#: llama.cpp answers a text that is too long with status 500.
_TOO_LONG: Final = re.compile(r"too (?:large|long)|context (?:size|length)|maximum .{0,20}length", re.IGNORECASE)

Floats = npt.NDArray[np.float32]


class _Refused(Exception):
    """The server does not take this batch."""


class _Failed(Exception):
    """Another attempt may succeed. `wait_s`: not earlier, by Retry-After."""

    def __init__(self, why: str, wait_s: float = 0.0) -> None:
        super().__init__(why)
        self.wait_s = wait_s


class OpenAI:
    """A client of one server and one model."""

    def __init__(
        self,
        *,
        url: str,
        model: str,
        dimension: int | None,
        normalize: bool,
        query_prompt: str,
        text_prompt: str,
        key_file: str | None,
        key_env: str | None,
        timeout_s: float,
        batch: int,
    ) -> None:
        self._url = urlsplit(url)
        self._path = f"{self._url.path.rstrip('/').removesuffix('/embeddings')}/embeddings"
        self._source = f"{self._url.scheme}://{self._url.netloc}{self._path}"
        self._fields = {"model": model, "encoding_format": "float", **({"dimensions": dimension} if dimension else {})}
        self._model = model
        self._normalize, self._query_prompt, self._text_prompt = normalize, query_prompt, text_prompt
        self._key = {"key_file": key_file, "key_env": key_env}
        self._timeout_s = timeout_s
        self._texts_max = batch  # of a request; smaller if the server refuses that number
        self._lock = threading.Lock()  # guards what follows
        self._idle: list[http.client.HTTPConnection] = []
        self.dimension = dimension  # learnt from the first answer, if it was not given

    def embed(self, texts: Sequence[str]) -> Floats:
        return self._embedded([self._text_prompt + text for text in texts], time.monotonic() + _TEXTS_S)

    def embed_queries(self, texts: Sequence[str]) -> Floats:
        return self._embedded([self._query_prompt + text for text in texts], time.monotonic() + _QUERY_S)

    def close(self) -> None:
        """Closes the connections that are kept for the next call."""
        with self._lock:
            idle, self._idle = self._idle, []
        for each in idle:
            each.close()

    def _embedded(self, texts: list[str], deadline: float) -> Floats:
        made: list[Floats] = []
        start = 0
        while start < len(texts):
            stop, chars = start + 1, len(texts[start])
            while stop < len(texts) and stop - start < self._texts_max:
                chars += len(texts[stop])
                if chars > _REQUEST_CHARS:
                    break
                stop += 1
            made.append(self._in_parts(texts[start:stop], deadline))
            start = stop
        if not made:
            return np.zeros((0, self.dimension or 0), np.float32)
        vectors = self._joined(made)
        # Not before: of a batch that was sent in halves, the first answer may be the wrong one.
        self.dimension = vectors.shape[1]
        return normalized(vectors) if self._normalize else vectors

    def _in_parts(self, texts: list[str], deadline: float) -> Floats:
        """The vectors of one request, or of several if the server refuses it. Raises VecError."""
        try:
            return self._attempts(texts, deadline)
        except _Refused as refusal:
            if len(texts) == 1:
                raise refused(str(refusal)) from None
            half = (len(texts) + 1) // 2
            made = self._joined([self._in_parts(part, deadline) for part in (texts[:half], texts[half:])])
            # No text is to blame, so the batch was too large.
            self._texts_max = min(self._texts_max, half)
            return made

    def _attempts(self, texts: list[str], deadline: float) -> Floats:
        failures = 0
        while True:
            try:
                return self._post(texts, min(self._timeout_s, max(0.1, deadline - time.monotonic())))
            except _Failed as failure:
                failures += 1
                wait_s = max(failure.wait_s, pause_s(failures, _PAUSE_S, _PAUSE_S_MAX))
                if time.monotonic() + wait_s >= deadline:
                    attempts = f" ({failures} attempts)" if failures > 1 else ""
                    raise VecError(
                        Code.EMBEDDER_FAILED,
                        f"{self._source}: {failure}{attempts}",
                        "see whether the server runs and serves the model",
                    ) from failure
                time.sleep(wait_s)

    def _post(self, texts: list[str], timeout_s: float) -> Floats:
        body = json.dumps({**self._fields, "input": texts}).encode()  # a lone surrogate becomes an escape
        status, headers, answer = self._exchange(body, len(texts), timeout_s)
        if status == 200:
            return self._vectors(answer, len(texts))
        why = f"{self._source} answered with status {status}{_quoted(answer)}"
        if status in _TEMPORARY or (status >= 500 and not (status == 500 and _TOO_LONG.search(_quoted(answer)))):
            raise _Failed(f"status {status}{_quoted(answer)}", _retry_after_s(headers.get("retry-after")))
        if status in _MISCONFIGURED or status < 400:
            raise VecError(
                Code.SETTINGS, why, f"correct the URL, the model ({self._model}) or the key of the library's embedder"
            )
        raise _Refused(why)

    def _exchange(self, body: bytes, texts: int, timeout_s: float) -> tuple[int, Mapping[str, str], bytes]:
        """One request and its answer. Raises _Failed, or VecError `invalid_settings` for the key."""
        headers = {"content-type": "application/json", "accept": "application/json", "connection": "keep-alive"}
        if (key := read_secret(self._key, "key")) is not None:
            headers["authorization"] = f"Bearer {key}"
        with self._lock:
            kept = self._idle.pop() if self._idle else None
        connection = kept or self._connection(timeout_s)
        bytes_max = _ANSWER_BYTES_MIN + texts * _ANSWER_BYTES_EACH
        expired = threading.Event()

        def expire() -> None:
            expired.set()
            with contextlib.suppress(OSError, AttributeError):  # it may be closed, or have no socket yet
                connection.sock.shutdown(2)

        timer = threading.Timer(timeout_s, expire)
        timer.daemon = True
        timer.start()
        try:
            connection.request("POST", self._path, body, headers)
            response = connection.getresponse()
            answer = response.read(bytes_max + 1)
            if len(answer) > bytes_max:
                raise _Failed(f"the answer is longer than {bytes_max:,} bytes")
            if not response.isclosed():  # shorter than it said
                response.read()
            if expired.is_set():
                raise _Failed(f"no answer within {timeout_s:g} s")
        except (OSError, http.client.HTTPException) as error:
            connection.close()
            if expired.is_set() or isinstance(error, TimeoutError):
                raise _Failed(f"no answer within {timeout_s:g} s") from error
            if kept is not None:  # the server may have closed it long ago
                return self._exchange(body, texts, timeout_s)
            raise _Failed(_reason(error)) from error
        except BaseException:
            connection.close()
            raise
        finally:
            timer.cancel()
        with self._lock:
            self._idle.append(connection)
        return response.status, {name.lower(): value for name, value in response.getheaders()}, answer

    def _connection(self, timeout_s: float) -> http.client.HTTPConnection:
        host, port = self._url.hostname or "", self._url.port
        if self._url.scheme == "https":
            return http.client.HTTPSConnection(host, port, timeout=timeout_s, context=ssl.create_default_context())
        return http.client.HTTPConnection(host, port, timeout=timeout_s)

    def _vectors(self, answer: bytes, texts: int) -> Floats:
        """Raises _Failed, _Refused, and VecError `embedder_failed`."""
        try:
            body = orjson.loads(answer)
        except orjson.JSONDecodeError:
            try:
                body = json.loads(answer)  # reads NaN, too
            except (ValueError, RecursionError):
                raise _Failed("the answer is not JSON") from None
        items = body.get("data") if isinstance(body, dict) else None
        if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
            raise self._wrong("the answer has no list `data`: this is not OpenAI's embeddings API")
        if len(items) != texts:
            raise self._wrong(f"{texts} texts were answered with {len(items)} vectors")
        if any("index" in item for item in items):
            places = [item.get("index") for item in items]
            if {*map(repr, places)} != {*map(repr, range(texts))}:
                raise self._wrong("the `index` of the vectors is not 0, 1, 2, …")
            items.sort(key=lambda item: int(item["index"]))
        try:
            vectors = matrix([item.get("embedding") for item in items], self.dimension, self._source)
        except UnusableVector as error:
            raise _Refused(str(error)) from error
        return vectors

    def _joined(self, parts: list[Floats]) -> Floats:
        """The vectors of several requests. Raises VecError if their dimensions differ."""
        dimensions = {each.shape[1] for each in parts}
        if len(dimensions) > 1:
            low, high = min(dimensions), max(dimensions)
            raise refused(f"{self._source} answered with vectors of {low:,} and {high:,} dimensions")
        return np.concatenate(parts)

    def _wrong(self, why: str) -> VecError:
        return VecError(Code.EMBEDDER_FAILED, f"{self._source}: {why}")


def _reason(error: Exception) -> str:
    if isinstance(error, http.client.HTTPException):
        return "the connection ended before the answer was complete"
    return getattr(error, "strerror", None) or str(error) or type(error).__name__


def _quoted(answer: bytes) -> str:
    """What an answer says, to be put behind a status."""
    text = answer[: 10 * _QUOTED_CHARS_MAX].decode("utf-8", "replace")
    with contextlib.suppress(ValueError, AttributeError):
        body = json.loads(answer)
        error = body.get("error", body.get("message", text))
        text = str(error.get("message", error) if isinstance(error, dict) else error)
    text = " ".join(text.split())[:_QUOTED_CHARS_MAX]
    return f": {text}" if text else ""


def _retry_after_s(value: str | None) -> float:
    """The seconds that a Retry-After header asks for; 0 for a date, which embedding servers do not send."""
    with contextlib.suppress(ValueError):
        seconds = float(value or 0)
        return max(seconds, 0.0) if math.isfinite(seconds) else 0.0
    return 0.0


def _check(parameters: Mapping[str, Any]) -> None:
    check_shared(parameters)
    check_secret(parameters, "key")
    text = parameters["url"]
    try:
        url = urlsplit(text)
        valid = url.scheme in ("http", "https") and bool(url.hostname) and (url.port or 1) > 0
        valid = valid and not (url.username or url.password or url.query or url.fragment)
    except ValueError:
        valid = False
    if not valid or not text.isascii() or re.search(r"[\x00-\x20\x7f]", text):
        raise VecError(
            Code.INVALID_REQUEST,
            f"{re.sub(r'//[^/]*@', '//…@', text)!r:.200} cannot be the URL of an embeddings API",
            "for example http://localhost:11434/v1; a key is given by key_file or key_env",
            field="url",
        )
    path = parameters.get("key_file")
    if path is not None and not path.startswith("/"):
        raise VecError(
            Code.INVALID_REQUEST, f"key_file is the relative path {path!r:.200}", "use an absolute path",
            field="key_file",
        )  # fmt: skip
    host = url.hostname or ""
    has_key = path is not None or parameters.get("key_env") is not None
    if has_key and url.scheme == "http" and host not in ("localhost", "::1") and not host.startswith("127."):
        raise VecError(Code.INVALID_REQUEST, "the key would be sent without encryption", "use https://", field="url")


EMBEDDER: Final = EmbedderKind(
    "any server with OpenAI's embeddings API: Ollama, llama.cpp, TEI, vLLM",
    OpenAI,
    None,
    slow=True,
    here=True,
    parameters={
        "url": Parameter("the base URL of the API, for example http://localhost:11434/v1", str, required=True),
        "model": Parameter("the name of the model", str, required=True),
        **SHARED,
        "key_file": Parameter("the file with the API key", str),
        "key_env": Parameter("the variable of the daemon's environment with the API key", str),
        "timeout_s": Parameter("how long the server may take for a request", float, low=0.1, high=300.0, default=60.0),
        "batch": Parameter("texts of a request", int, low=1, high=limits.EMBED_TEXTS, default=64),
    },
    check=_check,
)
