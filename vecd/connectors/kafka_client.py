"""The client of Kafka, for sink and source: its configuration, how it finds a topic, and what its errors mean.

librdkafka has threads of its own. What it reports arrives in the connector's thread, during polls.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final

from confluent_kafka import Consumer, KafkaError, KafkaException, Producer

from ..credentials import read_secret
from ..delivery import AttemptFailed
from ..errors import Code, VecError
from .tls import client_context
from .transport import Opening

PORT: Final = 9092
#: How long one call into the library may take before the stop is looked at, in seconds.
LOOK_S: Final = 0.25
#: Beside timeout_s, by which the library's own time-outs have ended a call.
_GRACE_S: Final = 5.0
#: Between two questions for a topic, in seconds.
_AGAIN_S: Final = 0.02
#: How long a topic that brokers create when they are asked may be unknown, in seconds.
_CREATION_S: Final = 2.0
#: Errors that say only that nothing came; there may be a reason among the reports of the connections.
_SILENCE: Final = frozenset((
    KafkaError._TIMED_OUT, KafkaError._MSG_TIMED_OUT, KafkaError._TIMED_OUT_QUEUE, KafkaError._TRANSPORT,
    KafkaError._ALL_BROKERS_DOWN, KafkaError._PURGE_QUEUE, KafkaError._PURGE_INFLIGHT,
))  # fmt: skip

#: Errors that a change of the configuration removes, of this side or of the broker's, and what to do.
_CONFIGURATION: Final[dict[int, str]] = {
    KafkaError._AUTHENTICATION: "check the URL's user, the password and sasl_mechanism",
    KafkaError.SASL_AUTHENTICATION_FAILED: "check the URL's user, the password and sasl_mechanism",
    KafkaError.UNSUPPORTED_SASL_MECHANISM: "set sasl_mechanism to one that the broker has",
    KafkaError.TOPIC_AUTHORIZATION_FAILED: "allow it to the user (kafka-acls), or name another user",
    KafkaError.GROUP_AUTHORIZATION_FAILED: "allow the group to the user (kafka-acls), or name another group",
    KafkaError.CLUSTER_AUTHORIZATION_FAILED: "allow it to the user (kafka-acls), or name another user",
    KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED: "allow transactional ids beginning with vec. to the user",
    KafkaError.UNKNOWN_TOPIC_OR_PART: "create the topic, or correct the URL",
    KafkaError._UNKNOWN_TOPIC: "create the topic, or correct the URL",
    KafkaError.TOPIC_EXCEPTION: "correct the topic's name",
    KafkaError.INVALID_TRANSACTION_TIMEOUT: "make timeout_s smaller, or the broker's transaction.max.timeout.ms larger",
    KafkaError.UNSUPPORTED_VERSION: "the broker is too old for this",
    KafkaError._INVALID_ARG: "correct the parameters",
}


class _Losses(logging.Logger):
    """Counts what the library logs of a connection that failed."""

    def __init__(self, connection: Connection) -> None:
        super().__init__("librdkafka")
        self._connection = connection

    def log(self, level: int, msg: object, *args: object, **_: Any) -> None:
        if "FAIL" in args or "FAIL" in str(msg):
            self._connection.losses += 1


class Connection:
    """Where a cluster is, how to log in, and the last that the library reported of the connections to it."""

    def __init__(self, opening: Opening) -> None:
        self._opening = opening
        self.topic = opening.url.path
        self.timeout_s = opening.timeout_s
        self.losses = 0  # connections that were lost or not made, as far as a poll has reported it
        self._last: KafkaError | None = None

    @property
    def server(self) -> str:
        return f"Kafka at {','.join(self._opening.url.addresses(PORT))}"

    @property
    def stopping(self) -> bool:
        return self._opening.stop.is_set()

    def configuration(self, **more: Any) -> dict[str, Any]:
        """For a client of confluent_kafka; reads the secrets. A name in `more` has underscores for dots, if it
        is not of a callback."""
        url, parameters = self._opening.url, self._opening.parameters
        tls, user = url.scheme == "kafka+ssl", url.user
        settings: dict[str, Any] = {
            "bootstrap.servers": ",".join(url.addresses(PORT)),
            "client.id": "vec",
            "security.protocol": f"{'SASL_' if user else ''}{'SSL' if tls else 'PLAINTEXT'}",
            "socket.connection.setup.timeout.ms": max(1000, int(self.timeout_s * 1000)),
            # Of one request; a consumer that is closed waits for those that are open.
            "socket.timeout.ms": min(300_000, max(10, int(self.timeout_s * 1000))),
            "reconnect.backoff.ms": 50,
            "reconnect.backoff.max.ms": 1000,
            "error_cb": self._report,
            # The only place where the library reports each lost connection. Nothing is printed.
            "logger": _Losses(self),
            "log_level": 6,
            "log.connection.close": True,
        }
        if user:
            settings["sasl.mechanism"] = parameters["sasl_mechanism"]
            settings["sasl.username"] = user
            settings["sasl.password"] = read_secret(parameters, "password") or ""
        if tls:
            client_context(parameters)  # checks the files: its errors name them
            files = {"ca_file": "ssl.ca.location", "cert_file": "ssl.certificate.location",
                     "key_file": "ssl.key.location"}  # fmt: skip
            settings |= {theirs: parameters[ours] for ours, theirs in files.items() if parameters[ours]}
        more = {name if callable(value) else name.replace("_", "."): value for name, value in more.items()}
        return settings | more

    def _report(self, error: KafkaError) -> None:
        if error.code() != KafkaError._ALL_BROKERS_DOWN or self._last is None:
            self._last = error

    def wait(self, call: Callable[[float], bool], what: str, grace_s: float = _GRACE_S) -> None:
        """Repeats `call(seconds)` until it returns true. Raises AttemptFailed at a stop, and after `timeout_s` and
        `grace_s`: the library has its own time-outs, whose errors say more."""
        deadline = time.monotonic() + self.timeout_s + grace_s
        while not call(LOOK_S):
            if self.stopping:
                raise AttemptFailed(f"{what} was interrupted: the connector stops", unreachable=True)
            if time.monotonic() > deadline:
                raise self.failed(None, what)

    def failed(self, error: KafkaError | None, what: str) -> AttemptFailed | VecError:
        """What to raise. None: there was no answer in time; what the connections reported is the reason."""
        if error is None or error.code() in _SILENCE:
            error = self._last or error
        if error is None:
            return AttemptFailed(f"{self.server} did not answer within {self.timeout_s:g} s ({what})", unreachable=True)
        text = f"{what}: {self.server}: {error.str()}"
        if hint := _what_to_correct(error):
            return VecError(Code.SETTINGS, text, hint)
        return AttemptFailed(text, unreachable=True)

    @contextmanager
    def errors(self, what: str) -> Iterator[None]:
        """Translates what the library raises in the block."""
        try:
            yield
        except KafkaException as error:
            raise self.failed(error.args[0], what) from error
        except SystemError as error:  # a poll met a fatal error, and had more to report behind it
            if isinstance(error.__cause__, KafkaException):
                raise self.failed(error.__cause__.args[0], what) from error
            raise

    def find_topic(self, client: Producer | Consumer) -> Sequence[int]:
        """The numbers of the topic's partitions. Some brokers create it when they are asked."""
        found: list[int] = []
        unknown_since: float | None = None

        def look(seconds: float) -> bool:
            nonlocal unknown_since
            try:
                topic = client.list_topics(self.topic, timeout=seconds).topics[self.topic]
            except KafkaException as error:
                client.poll(0)  # what the connections report
                # Before there was any answer it may be on its way, unless we know that there will be none.
                if error.args[0].code() in _SILENCE and not self.hopeless:
                    time.sleep(_AGAIN_S)
                    return False
                raise
            if topic.error is None and topic.partitions:
                found.extend(topic.partitions)
                return True
            now = time.monotonic()
            unknown_since = unknown_since or now
            if topic.error is not None and (not _is_new(topic.error) or now - unknown_since > _CREATION_S):
                raise KafkaException(topic.error)
            time.sleep(_AGAIN_S)
            return False

        with self.errors(f"the topic {self.topic!r}"):
            self.wait(look, f"the topic {self.topic!r}", grace_s=0.0)
        return sorted(found)

    @property
    def hopeless(self) -> bool:
        """Whether the last report says that the configuration is wrong."""
        return self._last is not None and _what_to_correct(self._last) is not None


def _what_to_correct(error: KafkaError) -> str | None:
    """None if the same may succeed later."""
    if error.code() == KafkaError._SSL and "certificate" in error.str():
        return "name the certificate to trust: -p ca_file=PATH; its names must include the URL's host"
    return _CONFIGURATION.get(error.code())


def _is_new(error: KafkaError) -> bool:
    return error.code() in (
        KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError._UNKNOWN_TOPIC, KafkaError.LEADER_NOT_AVAILABLE,
    )  # fmt: skip
