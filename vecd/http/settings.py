"""Configuration of the gateway: the table [http] of config.toml, and VEC_HTTP_<NAME> in the environment, which
overrides it. Standard library only: the daemon reads it too, to know whether it runs a gateway."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

from ..errors import Code, VecError, nearest
from ..settings import Settings, absolute, config_table

DEFAULT_LISTEN = "127.0.0.1:8000"
_LOOPBACK = ("localhost", "::1")


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
            text = raw if key.startswith("tls_") else [each.strip() for each in raw.split(",") if each.strip()]
            values[key] = _typed(key, text, f"VEC_HTTP_{key.upper()}")
    if listen:
        values["listen"] = _typed("listen", list(listen), "--listen")
    return replace(HttpSettings(), **values)


def _typed(key: str, value: Any, where: str) -> Any:
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
