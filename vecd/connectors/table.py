"""The table of transports. Adding one is one file and one entry here. It imports no broker's library."""

from __future__ import annotations

import importlib
import importlib.util
import re
from collections.abc import Hashable, Mapping
from typing import Any, Final

from ..credentials import check_secret
from ..errors import Code, VecError, nearest
from ..parameters import Parameter, check_parameters
from .definition import Definition, Direction
from .parameters import PASSWORD, START, TIMEOUT, TLS, check_paths
from .transport import NUMBER, Offsets, OpenSink, OpenSource, Transport
from .url import Url, parse

#: Bytes of a name in AMQP.
_AMQP_NAME_BYTES_MAX: Final = 255
_KAFKA_TOPIC: Final = re.compile(r"[A-Za-z0-9._-]{1,249}")


def _check_file(direction: Direction, url: Url, parameters: Mapping[str, Any]) -> None:
    if url.hosts[0].name or url.user or url.query or not url.path or len(url.hosts) > 1:
        raise VecError(
            Code.INVALID_REQUEST,
            f"{url.text!r:.200} names no file",
            "use file:///PATH, with three slashes",
            field="url",
        )


def _check_redis(direction: Direction, url: Url, parameters: Mapping[str, Any]) -> None:
    if len(url.hosts) > 1 or url.query:
        raise VecError(
            Code.INVALID_REQUEST,
            f"{url.text!r:.200} names more than one server and one stream",
            "use redis://HOST:PORT/STREAM; for another database: -p db=NUMBER",
            field="url",
        )
    if not url.path:
        raise VecError(
            Code.INVALID_REQUEST, f"{url.text!r:.200} names no stream", "use redis://HOST:PORT/STREAM", field="url"
        )
    _check_tls(url, parameters, "rediss")
    check_secret(parameters, "password")


def _check_tls(url: Url, parameters: Mapping[str, Any], scheme: str) -> None:
    """Raises VecError for parameters of TLS with a scheme that does not use it."""
    if url.scheme != scheme and any(parameters[name] is not None for name in TLS):
        raise VecError(Code.INVALID_REQUEST, f"{url.scheme}:// does not use TLS", f"use {scheme}://", field="url")


def _check_rabbitmq(direction: Direction, url: Url, parameters: Mapping[str, Any]) -> None:
    check_secret(parameters, "password")
    if not url.path or url.query:
        raise VecError(
            Code.INVALID_REQUEST,
            f"{url.text!r:.200} names no {'exchange' if direction == 'relay' else 'queue'}",
            "use amqp://HOST/NAME; a virtual host is a parameter: -p vhost=NAME",
            field="url",
        )
    if len(url.path.encode()) > _AMQP_NAME_BYTES_MAX:
        raise VecError(Code.INVALID_REQUEST, f"the name exceeds {_AMQP_NAME_BYTES_MAX} bytes", field="url")


def _check_kafka(direction: Direction, url: Url, parameters: Mapping[str, Any]) -> None:
    check_secret(parameters, "password")
    _check_tls(url, parameters, "kafka+ssl")
    if not url.hosts[0].name or url.query or not _KAFKA_TOPIC.fullmatch(url.path) or url.path in (".", ".."):
        raise VecError(
            Code.INVALID_REQUEST,
            f"{url.text!r:.200} names no topic",
            "use kafka://HOST[,HOST…]/TOPIC; a topic has up to 249 letters, digits, '.', '_' and '-'",
            field="url",
        )
    has_password = parameters["password_file"] or parameters["password_env"]
    if bool(has_password) != (url.user is not None):
        raise VecError(
            Code.INVALID_REQUEST,
            "there is a password, and no user" if has_password else "there is a user, and no password",
            "name both: kafka://USER@HOST/TOPIC, and -p password_file=PATH or -p password_env=NAME",
            field="url",
        )
    if not _KAFKA_TOPIC.fullmatch(parameters["position_topic"]) or parameters["position_topic"] == url.path:
        raise VecError(Code.INVALID_REQUEST, "position_topic must be the name of another topic", field="position_topic")


def _check_webhook(direction: Direction, url: Url, parameters: Mapping[str, Any]) -> None:
    for name in ("password", "secret", "token"):
        check_secret(parameters, name)
    if not url.hosts[0].name or len(url.hosts) > 1 or not url.text.isascii() or " " in url.text:
        raise VecError(
            Code.INVALID_REQUEST,
            f"{url.text!r:.200} cannot be the URL of a webhook",
            "it has one host, and is ASCII; write %XX for other characters",
            field="url",
        )
    has = {name for name in ("password", "token") if parameters[f"{name}_file"] or parameters[f"{name}_env"]}
    if "password" in has and url.user is None:
        raise VecError(
            Code.INVALID_REQUEST,
            "there is a password, and no user",
            "name the user: https://USER@HOST/PATH",
            field="url",
        )
    if "token" in has and url.user is not None:
        raise VecError(Code.INVALID_REQUEST, "there is a token, and a user", "use one of them", field="url")
    if has and url.scheme == "http" and not url.is_loopback:
        raise VecError(
            Code.INVALID_REQUEST, f"the {has.pop()} would be sent without encryption", "use https://", field="url"
        )


_NATS_STREAM: Final = re.compile(r"[^\s.*>/\\]+")
_NATS_SUBJECT: Final = re.compile(r"[^\s.*>]+(\.[^\s.*>]+)*")


def _check_nats(direction: Direction, url: Url, parameters: Mapping[str, Any]) -> None:
    if url.query or not _NATS_STREAM.fullmatch(url.path):
        raise VecError(
            Code.INVALID_REQUEST,
            f"{url.text!r:.200} does not name a stream",
            "use nats://HOST:PORT/STREAM; a stream's name has no spaces and none of . * > / \\",
            field="url",
        )
    subject = parameters["subject"]
    if direction == "relay" and not _NATS_SUBJECT.fullmatch(subject or url.path):
        raise VecError(
            Code.INVALID_REQUEST,
            f"{subject!r:.200} is not the beginning of a subject",
            "use words with dots between them, without * and >",
            field="subject",
        )
    _check_tls(url, parameters, "tls")
    check_secret(parameters, "password")


def _file_offsets(url: Url, parameters: Mapping[str, Any]) -> Offsets:
    return Offsets("", NUMBER, "=BYTES, how many bytes of the file are not to be read again")


def _redis_offsets(url: Url, parameters: Mapping[str, Any]) -> Offsets:
    return Offsets(re.escape(url.path), f"{NUMBER}(-{NUMBER})?", f"{url.path}=ID, with the id of an entry as 1700-0")


def _rabbitmq_offsets(url: Url, parameters: Mapping[str, Any]) -> Offsets | None:
    return Offsets(re.escape(url.path), NUMBER, f"{url.path}=NUMBER") if parameters["stream"] else None


def _kafka_offsets(url: Url, parameters: Mapping[str, Any]) -> Offsets:
    return Offsets("[0-9]{1,9}", NUMBER, "PARTITION=NUMBER, as 0=1200")


def _redis_place(url: Url, parameters: Mapping[str, Any]) -> Hashable:
    host = "localhost" if url.is_loopback else url.host.lower()
    return "redis", host, url.port(6379), parameters["db"], url.path


TRANSPORTS: Final[dict[str, Transport]] = {
    "file": Transport(
        name="file",
        schemes=("file",),
        what="a file, with one JSON object a line",
        url="file:///PATH",
        sink="vecd.connectors.file_lines:open_sink",
        source="vecd.connectors.file_reader:open_source",
        parameters=START,
        of_source=frozenset(START),
        check=_check_file,
        offsets=_file_offsets,
    ),
    "redis": Transport(
        name="redis",
        schemes=("redis", "rediss"),
        what="a stream of Redis",
        url="redis://[USER@]HOST[:PORT]/STREAM",
        sink="vecd.connectors.redis_streams:open_sink",
        source="vecd.connectors.redis_streams:open_source",
        extra="redis",
        requires="redis",
        parameters={
            "db": Parameter("the number of the database", int, low=0, high=1_000_000, default=0),
            "maxlen": Parameter(
                "of a relay: about how many entries the stream keeps; 0: all", int, low=0, default=1_000_000
            ),
            "replicas": Parameter(
                "of a relay: how many replicas must have a batch before it counts as confirmed",
                int,
                low=0,
                high=100,
                default=0,
            ),
            "field": Parameter(
                "of a source: the field with the message; default: body, or else all fields as an object", str
            ),
            **START,
            **PASSWORD,
            **TLS,
            **TIMEOUT,
        },
        of_relay=frozenset({"maxlen", "replicas"}),
        of_source=frozenset({"field", *START}),
        check=_check_redis,
        offsets=_redis_offsets,
        place=_redis_place,
        send_again="delete the stream and what is known of it: redis-cli DEL {path} {path}:vec",
    ),
    "nats": Transport(
        name="nats",
        schemes=("nats", "tls"),
        what="a stream of NATS JetStream",
        url="nats://[USER@]HOST[:PORT][,HOST[:PORT]]…/STREAM",
        sink="vecd.connectors.nats_jetstream:open_sink",
        source="vecd.connectors.nats_jetstream:open_source",
        extra="nats",
        requires="nats",
        parameters={
            "subject": Parameter(
                "of a relay: what its subjects begin with; default: the stream's name. Of a source: the subjects to "
                "read, as events.notes.>; default: all",
                str,
            ),
            "create": Parameter("of a relay: create the stream if there is none", bool, default=True),
            "duplicate_window_s": Parameter(
                "of a relay that creates the stream: for how long the server knows a message again",
                float,
                low=0.1,
                high=86_400.0,
                default=120.0,
            ),
            "credentials_file": Parameter("the user's credentials (.creds), instead of a password", str),
            **START,
            **PASSWORD,
            **TLS,
            **TIMEOUT,
        },
        of_relay=frozenset({"create", "duplicate_window_s"}),
        of_source=frozenset(START),
        check=_check_nats,
        send_again="wait until the duplicate window of the stream {path} is over, and reset the relay then",
    ),
    "rabbitmq": Transport(
        name="rabbitmq",
        schemes=("amqp", "amqps"),
        what="RabbitMQ: a relay's exchange, a source's queue or stream",
        url="amqp://[USER@]HOST[:PORT]/NAME",
        sink="vecd.connectors.rabbitmq:open_sink",
        source="vecd.connectors.rabbitmq:open_source",
        extra="rabbitmq",
        requires="aio_pika",
        parameters={
            "vhost": Parameter("the virtual host", str, default="/"),
            "create": Parameter(
                "a relay declares the exchange, as a durable topic, if it is missing", bool, default=True
            ),
            "mandatory": Parameter("a relay's message that no queue is bound for is refused", bool, default=True),
            "stream": Parameter("a source reads a stream, each message exactly once", bool, default=False),
            "exchange": Parameter("a source declares its queue, and binds it to this exchange", str),
            "binding": Parameter("the routing keys that are bound, with exchange=", str, default="#"),
            "prefetch": Parameter("messages that a source takes in advance", int, low=1, high=65_535, default=1_000),
            **START,
            **TIMEOUT,
            **PASSWORD,
            **TLS,
        },
        of_relay=frozenset({"create", "mandatory"}),
        of_source=frozenset({"stream", "exchange", "binding", "prefetch", *START}),
        check=_check_rabbitmq,
        offsets=_rabbitmq_offsets,
    ),
    "kafka": Transport(
        name="kafka",
        schemes=("kafka", "kafka+ssl"),
        what="Kafka",
        url="kafka://[USER@]HOST[:PORT][,HOST[:PORT]…]/TOPIC",
        sink="vecd.connectors.kafka:open_sink",
        source="vecd.connectors.kafka_source:open_source",
        extra="kafka",
        requires="confluent_kafka",
        parameters={
            "exactly_once": Parameter("a relay sends each event once, in transactions", bool, default=False),
            "position_topic": Parameter(
                "the compacted topic with the positions of exactly_once; created if it is missing",
                str,
                default="vec-relay-positions",
            ),
            "tombstones": Parameter(
                "a relay sends a tombstone (no value) behind the event of a deleted document", bool, default=False
            ),
            "compression": Parameter(
                "of a relay's messages", str, choices=("none", "gzip", "snappy", "lz4", "zstd"), default="none"
            ),
            "sasl_mechanism": Parameter(
                "how the URL's user logs in",
                str,
                choices=("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"),
                default="SCRAM-SHA-512",
            ),
            **START,
            **TIMEOUT,
            **PASSWORD,
            **TLS,
        },
        of_relay=frozenset({"exactly_once", "position_topic", "tombstones", "compression"}),
        of_source=frozenset(START),
        check=_check_kafka,
        offsets=_kafka_offsets,
    ),
    "webhook": Transport(
        name="webhook",
        schemes=("https", "http"),
        what="an HTTP server, by POST",
        url="https://[USER@]HOST[:PORT]/PATH",
        sink="vecd.connectors.webhook:open_sink",
        parameters={
            "secret_file": Parameter("the file with the secrets that sign each request, one a line, as base64", str),
            "secret_env": Parameter("the variable of the daemon's environment with these secrets", str),
            "token_file": Parameter("the file with a token: Authorization: Bearer TOKEN", str),
            "token_env": Parameter("the variable of the daemon's environment with the token", str),
            **TIMEOUT,
            **PASSWORD,
            **TLS,
        },
        check=_check_webhook,
    ),
}

assert all(name == transport.name for name, transport in TRANSPORTS.items())


def find(url: Url, direction: Direction) -> Transport:
    """The transport of a URL's scheme, if it can be used in that direction. Raises VecError `unsupported`."""
    usable = [each for each in TRANSPORTS.values() if (each.sink if direction == "relay" else each.source)]
    for transport in usable:
        if url.scheme in transport.schemes:
            return transport
    if any(url.scheme in each.schemes for each in TRANSPORTS.values()):
        raise VecError(Code.UNSUPPORTED, f"{url.scheme}:// cannot be a {direction}", _schemes(usable), field="url")
    schemes = [scheme for each in usable for scheme in each.schemes]
    close = nearest(url.scheme, schemes)
    hint = f"did you mean {close}://?" if close else _schemes(usable)
    raise VecError(Code.UNSUPPORTED, f"unknown scheme {url.scheme!r:.40} of a {direction}'s URL", hint, field="url")


def check(direction: Direction, url_text: str, parameters: Mapping[str, Any]) -> tuple[Transport, dict[str, Any]]:
    """The transport, and the parameters as they are stored. Raises VecError `invalid_request` or `unsupported`, also if
    a package that the transport needs is not installed."""
    url = parse(url_text)
    transport = find(url, direction)
    others, other = (transport.of_source, "source") if direction == "relay" else (transport.of_relay, "relay")
    declared = {name: each for name, each in transport.parameters.items() if name not in others}
    for name in parameters:
        if name in others:
            has = f"a {direction} has {', '.join(declared)}" if declared else f"a {direction} has none"
            raise VecError(
                Code.INVALID_REQUEST,
                f"the parameter {name!r} of the transport {transport.name} is only for a {other}",
                has,
                field=name,
            )
    given = check_parameters(f"the transport {transport.name}", "parameter", declared, parameters, texts=True)
    check_paths(given)
    transport.check(direction, url, {**defaults(transport), **given})
    check_installed(transport)
    return transport, given


def check_offsets(definition: Definition, offsets: Mapping[str, str]) -> None:
    """Raises VecError `invalid_request` for an offset that the source's transport cannot have given."""
    url = parse(definition.url)
    transport = find(url, definition.direction)
    form = transport.offsets(url, {**defaults(transport), **definition.parameters})
    for partition, offset in offsets.items():
        if form is None:
            raise VecError(
                Code.INVALID_REQUEST, f"{url.text:.200} is a queue, which has no offsets", "leave them out",
                field="offsets",
            )  # fmt: skip
        if not re.fullmatch(form.partition, partition) or not re.fullmatch(form.offset, offset):
            raise VecError(
                Code.INVALID_REQUEST,
                f"{f'{partition}={offset}'!r:.200} is not an offset of {url.text:.200}",
                f"it has the form {form.form}",
                field="offsets",
            )


def send_again(definition: Definition) -> str | None:
    """What to do so that events that a relay sent before are sent again, if its broker drops those."""
    url = parse(definition.url)
    again = find(url, definition.direction).send_again
    return again and again.format(path=url.path)


def place_of(definition: Definition) -> Hashable | None:
    """What identifies the place that a relay writes to, if only one relay can write there."""
    url = parse(definition.url)
    transport = find(url, definition.direction)
    return transport.place and transport.place(url, {**defaults(transport), **definition.parameters})


def check_installed(transport: Transport) -> None:
    """Raises VecError `unsupported` if the package that the transport needs is not installed."""
    if transport.requires is not None and importlib.util.find_spec(transport.requires) is None:
        raise VecError(
            Code.UNSUPPORTED,
            f"{transport.schemes[0]}:// needs the Python package {transport.requires}, which is not installed",
            f"pip install 'vecd[{transport.extra}]', and vec daemon restart",
        )


def defaults(transport: Transport) -> dict[str, Any]:
    """All its parameters, with their defaults."""
    return {name: parameter.default for name, parameter in transport.parameters.items()}


def transport_of(definition: Definition) -> Transport:
    """Raises VecError `unsupported`: the definition may be of another version, or its package was removed."""
    transport = find(parse(definition.url), definition.direction)
    check_installed(transport)
    return transport


def load_sink(transport: Transport) -> OpenSink:
    """Imports the transport's file. Raises VecError `unsupported`."""
    assert transport.sink is not None
    opener: OpenSink = _load(transport, transport.sink)
    return opener


def load_source(transport: Transport) -> OpenSource:
    """Imports the transport's file. Raises VecError `unsupported`."""
    assert transport.source is not None
    opener: OpenSource = _load(transport, transport.source)
    return opener


def _load(transport: Transport, place: str) -> Any:
    module, _, function = place.partition(":")
    try:
        return getattr(importlib.import_module(module), function)
    except ImportError as error:
        raise VecError(
            Code.UNSUPPORTED,
            f"cannot load {module}: {error}",
            f"pip install 'vecd[{transport.extra}]', and vec daemon restart" if transport.extra else None,
        ) from error


def _schemes(transports: list[Transport]) -> str:
    return "use " + ", ".join(f"{scheme}://" for each in transports for scheme in each.schemes)
