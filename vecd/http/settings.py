"""Configuration of the gateway: the table [http] of config.toml, and VEC_HTTP_<NAME> in the environment, which
overrides it. Standard library only: the daemon reads it too, to know whether it runs a gateway."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

from .. import limits
from ..errors import Code, VecError, nearest
from ..settings import Settings, absolute, config_table

DEFAULT_LISTEN = "127.0.0.1:8000"
_LOOPBACK = ("localhost", "::1")
_NUMBERS: dict[str, type] = {
    "connections": int,
    "connections_per_address": int,
    "requests_per_key": int,
    "head_s": float,
}


@dataclass(frozen=True, slots=True)
class Address:
    """Where the gateway listens: a host and a port (0: any free one), or the path of a Unix socket."""

    host: str = ""
    port: int = 0
    path: str = ""

    @property
    def loopback(self) -> bool:
        """Whether only this machine can reach it."""
        return bool(self.path) or self.host in _LOOPBACK or self.host.startswith("127.")

    def url(self, scheme: str = "http") -> str:
        if self.path:
            return f"unix:{self.path}"
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{scheme}://{host}:{self.port}"


@dataclass(frozen=True, slots=True)
class HttpSettings:
    """The settings of the gateway."""

    listen: tuple[Address, ...] = ()  # empty: not configured
    allow_hosts: tuple[str, ...] = ()  # names in the Host header, besides those of loopback
    allow_origins: tuple[str, ...] = ()  # origins of pages that may use the gateway, besides its own
    tls_cert: str = ""  # PEM file with the certificate and its chain
    tls_key: str = ""  # PEM file with the private key
    trusted_proxies: tuple[str, ...] = ()  # addresses whose X-Forwarded-* headers count
    connections: int = limits.HTTP_CONNECTIONS_MAX  # TCP connections at once
    connections_per_address: int = limits.CONNECTIONS_OF_ADDRESS_MAX  # the same of one address of another machine
    requests_per_key: int = limits.OPEN_OF_KEY_MAX  # requests, streams and WebSockets of one key at once
    head_s: float = limits.HEAD_S  # how long a client may take for the headers of a request


def parse_address(text: str, where: str) -> Address:
    """`127.0.0.1:8000`, `[::1]:8000`, `localhost:0`, `:8000` (loopback) or `unix:/path`. Raises VecError
    `invalid_settings`; `where` names the source of the text."""
    if text.startswith("unix:"):
        return Address(path=str(absolute(text.removeprefix("unix:"), where)))
    host, _, port = text.rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        host = port = ""
    if not (port.isdecimal() and int(port) < 65_536):
        raise VecError(
            Code.SETTINGS,
            f"{where}: {text!r} is not an address",
            "an address is HOST:PORT, [IPV6]:PORT or unix:PATH; for example 127.0.0.1:8000",
        )
    return Address(host or "127.0.0.1", int(port))


def load(settings: Settings, listen: Sequence[str] = (), environ: Mapping[str, str] | None = None) -> HttpSettings:
    """The gateway's settings. `listen` are the addresses of --listen, which override the others.

    Raises VecError `invalid_settings`, naming the file, variable or option.
    """
    env = os.environ if environ is None else environ
    values: dict[str, Any] = {}
    table = config_table(settings.config).get("http", {})
    known = [each.name for each in fields(HttpSettings)]
    for key, value in table.items():
        where = f"{settings.config}: http.{key}"
        if key not in known:
            close = nearest(key, known)
            hint = f"did you mean {close!r}?" if close else f"known settings of [http]: {', '.join(known)}"
            raise VecError(Code.SETTINGS, f"{settings.config}: unknown setting 'http.{key}'", hint)
        values[key] = _typed(key, value, where)
    for key in known:
        if raw := env.get(f"VEC_HTTP_{key.upper()}"):
            where = f"VEC_HTTP_{key.upper()}"
            if key in _NUMBERS:
                values[key] = _typed(key, _parsed_number(raw, where), where)
                continue
            text = raw if key.startswith("tls_") else [each.strip() for each in raw.split(",") if each.strip()]
            values[key] = _typed(key, text, where)
    if listen:
        values["listen"] = _typed("listen", list(listen), "--listen")
    return replace(HttpSettings(), **values)


def _parsed_number(text: str, where: str) -> float:
    try:
        return int(text) if text.isdecimal() else float(text)
    except ValueError:
        raise VecError(Code.SETTINGS, f"{where} must be a number, not {text!r:.80}") from None


def _typed(key: str, value: Any, where: str) -> Any:
    if key in _NUMBERS:
        kind = _NUMBERS[key]
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        if not number or not 0 < value <= limits.HTTP_NUMBER_MAX or (kind is int and value != int(value)):
            what = "a whole number" if kind is int else "a number of seconds"
            raise VecError(
                Code.SETTINGS, f"{where} must be {what} above 0, up to {limits.HTTP_NUMBER_MAX:,}, not {value!r:.80}"
            )
        return kind(value)
    if key.startswith("tls_"):
        if not isinstance(value, str):
            raise VecError(Code.SETTINGS, f"{where} must be a path, not {value!r}")
        return str(absolute(value, where)) if value else ""
    items = [value] if isinstance(value, str) else value
    if not isinstance(items, list) or not all(isinstance(each, str) and each for each in items):
        raise VecError(Code.SETTINGS, f"{where} must be a string or a list of strings, not {value!r}")
    if key == "listen":
        return tuple(parse_address(each, where) for each in items)
    return tuple(items)
