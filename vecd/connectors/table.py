"""The table of transports. Adding one is one file and one entry here. It imports no broker's library."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Mapping
from typing import Any, Final

from ..errors import Code, VecError, nearest
from ..parameters import Parameter, check_parameters
from .definition import Definition, Direction
from .parameters import PASSWORD, TIMEOUT, TLS, check_paths
from .secrets import check_secret
from .transport import OpenSink, OpenSource, Transport
from .url import Url, parse

#: Bytes of a name in AMQP.
_AMQP_NAME_BYTES_MAX: Final = 255


def _check_file(direction: Direction, url: Url, parameters: Mapping[str, Any]) -> None:
    if url.hosts[0].name or url.user or url.query or not url.path or len(url.hosts) > 1:
        raise VecError(
            Code.INVALID_REQUEST,
            f"{url.text!r:.200} names no file",
            "use file:///PATH, with three slashes",
            field="url",
        )


def _check_rabbitmq(direction: Direction, url: Url, parameters: Mapping[str, Any]) -> None:
    check_secret(parameters, "password")
    if not url.path or url.query:
        raise VecError(
            Code.INVALID_REQUEST,
            f"{url.text!r:.200} names no exchange",
            "use amqp://HOST/EXCHANGE; a virtual host is a parameter: -p vhost=NAME",
            field="url",
        )
    if len(url.path.encode()) > _AMQP_NAME_BYTES_MAX:
        raise VecError(Code.INVALID_REQUEST, f"the exchange's name exceeds {_AMQP_NAME_BYTES_MAX} bytes", field="url")


TRANSPORTS: Final[dict[str, Transport]] = {
    "file": Transport(
        name="file",
        schemes=("file",),
        what="a file, with one JSON object a line",
        url="file:///PATH",
        sink="vecd.connectors.file_lines:open_sink",
        check=_check_file,
    ),
    "rabbitmq": Transport(
        name="rabbitmq",
        schemes=("amqp", "amqps"),
        what="an exchange of RabbitMQ",
        url="amqp://[USER@]HOST[:PORT]/EXCHANGE",
        sink="vecd.connectors.rabbitmq:open_sink",
        extra="rabbitmq",
        requires="aio_pika",
        parameters={
            "vhost": Parameter("the virtual host", str, default="/"),
            "create": Parameter(
                "declare the exchange, as a durable topic exchange, if there is none", bool, default=True
            ),
            "mandatory": Parameter("messages for which no queue is bound are refused", bool, default=True),
            **TIMEOUT,
            **PASSWORD,
            **TLS,
        },
        check=_check_rabbitmq,
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
        raise VecError(Code.UNSUPPORTED, f"{url.scheme}:// can be no {direction}", _schemes(usable), field="url")
    schemes = [scheme for each in usable for scheme in each.schemes]
    close = nearest(url.scheme, schemes)
    hint = f"did you mean {close}://?" if close else _schemes(usable)
    raise VecError(Code.UNSUPPORTED, f"unknown scheme {url.scheme!r:.40} of a {direction}'s URL", hint, field="url")


def check(direction: Direction, url_text: str, parameters: Mapping[str, Any]) -> tuple[Transport, dict[str, Any]]:
    """The transport, and the parameters as they are stored. Raises VecError `invalid_request` or `unsupported`, also if
    a package that the transport needs is not installed."""
    url = parse(url_text)
    transport = find(url, direction)
    given = check_parameters(f"the transport {transport.name}", "parameter", transport.parameters, parameters)
    check_paths(given)
    transport.check(direction, url, {**defaults(transport), **given})
    check_installed(transport)
    return transport, given


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
    return "there are " + ", ".join(f"{scheme}://" for each in transports for scheme in each.schemes)
