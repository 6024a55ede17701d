"""Which host names, origins and proxies the gateway trusts: pure checks on the headers of a request.

Against DNS rebinding: a web page may let its own name point to 127.0.0.1, and then is, for the browser, of the same
origin as the gateway. It cannot change the Host header, which has its name. So only `localhost`, literal addresses,
which no one can rebind, and the names in `allow_hosts` are answered.

Against other sites' pages: a browser sends WebSocket handshakes, and simple POSTs, to any address, and says in Origin
whose page it is. A request with an Origin that is neither our own nor in `allow_origins` is refused, before it does
anything. Clients that are not browsers send no Origin.

Behind a proxy: X-Forwarded-For, -Proto and -Host count only if the peer is in `trusted_proxies`; anybody can send them.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple
from urllib.parse import urlsplit

from .. import limits
from ..errors import Code, VecError

Headers = Sequence[tuple[bytes, bytes]]
Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

#: Hosts as RFC 3986 has them: a name, an IPv4 address, or an IPv6 address in brackets; and a port.
_HOST = re.compile(r"(\[[0-9a-f:.]+\]|[a-z0-9_.-]+)(?::(\d{1,5}))?")
_PORTS = {"http": "80", "ws": "80", "https": "443", "wss": "443"}
#: The headers that say who the client of a proxy is.
_FORWARDED: Final = frozenset((b"x-forwarded-for", b"x-forwarded-host", b"x-real-ip", b"forwarded"))


class Peer(NamedTuple):
    """Who sent a request, as far as the gateway trusts what it was told."""

    address: str | None  # of the client; None for a Unix socket
    scheme: str  # http or https, or ws or wss
    host: str  # the Host header, or what a trusted proxy says it was
    local: bool  # whether the request comes from this machine, and no proxy says that it only forwards it


class Hosts:
    """The checks, as configured. Raises VecError `invalid_settings` for what cannot be one of the settings' values."""

    def __init__(
        self, allow_hosts: Iterable[str] = (), allow_origins: Iterable[str] = (), trusted_proxies: Iterable[str] = ()
    ) -> None:
        self._names = {_host_setting(each) for each in allow_hosts}
        self.any_host = "*" in self._names
        self._origins = {_origin_setting(each) for each in allow_origins}
        self._proxies = [_network(each) for each in trusted_proxies if each != "unix"]
        self._unix_is_proxy = "unix" in trusted_proxies

    # --- the proxy ----------------------------------------------------------------------------------------------------

    def trusts(self, address: str | None) -> bool:
        """Whether the peer is a trusted proxy; None is a Unix socket."""
        if address is None:
            return self._unix_is_proxy
        if not self._proxies:
            return False
        parsed = parse_address(address)
        return parsed is not None and any(parsed in each for each in self._proxies)

    def peer(self, address: str | None, scheme: str, headers: Headers) -> Peer:
        """Who sent the request. `address` is that of the connection. Raises VecError `invalid_request`."""
        host = _host_header(headers)
        forwarded = [(name, value) for name, value in headers if name in _FORWARDED]
        local = address is None or is_loopback(address)
        if not self.trusts(address):
            return Peer(address, scheme, host, local and not forwarded)
        client = self._forwarded_client(headers)
        if client is not None:
            address, local = client, is_loopback(client)
        elif forwarded:
            local = False
        if (proto := _last(headers, b"x-forwarded-proto")) in ("http", "https"):
            secure = proto == "https"
            scheme = ("wss" if secure else "ws") if scheme.startswith("ws") else ("https" if secure else "http")
        return Peer(address, scheme, _last(headers, b"x-forwarded-host") or host, local)

    def _forwarded_client(self, headers: Headers) -> str | None:
        """The last address that no trusted proxy has: each proxy appends whom it was asked by, and what stands before
        that may be invented. None if there is no such header, or no address where one should be."""
        said = ",".join(value.decode("latin-1") for name, value in headers if name == b"x-forwarded-for")
        names = [each.strip() for each in said.rsplit(",", limits.FORWARDED_MAX)][-limits.FORWARDED_MAX :]
        for name in reversed(names):
            parsed = parse_address(name)
            if parsed is None:
                return None
            if not any(parsed in each for each in self._proxies):
                return str(parsed)
        return None

    # --- the host -----------------------------------------------------------------------------------------------------

    def check_host(self, host: str) -> None:
        """Raises VecError `invalid_request` or `forbidden`."""
        found = _HOST.fullmatch(host.lower())
        if found is None or int(found[2] or 0) > 65_535:
            raise VecError(Code.INVALID_REQUEST, f"the Host header is not a host: {host!r:.100}")
        name = found[1].rstrip(".")
        if self.any_host or name == "localhost" or name in self._names or parse_address(name) is not None:
            return
        labels = name.split(".")
        if any(f"*.{'.'.join(labels[start:])}" in self._names for start in range(1, len(labels))):
            return
        raise VecError(
            Code.FORBIDDEN,
            f"the gateway does not answer for the host {name!r:.100}",
            f"use localhost or the address; or add the name to allow_hosts under [http] in config.toml: "
            f'allow_hosts = ["{name:.100}"]',
        )

    # --- the origin ---------------------------------------------------------------------------------------------------

    def check_origin(self, headers: Headers, peer: Peer) -> str | None:
        """The allowed foreign origin that the request comes from; None if it comes from our own page, or from no page.

        Raises VecError `forbidden`.
        """
        said = [value for name, value in headers if name == b"origin"]
        if not said:
            return None
        origin = said[0].decode("latin-1").lower()
        if len(said) == 1:
            if origin in self._origins:
                return origin
            if _same_host(origin, peer):
                return None
        raise VecError(
            Code.FORBIDDEN,
            f"pages of {origin!r:.100} may not use the gateway",
            f"if they should, add the origin to allow_origins under [http] in config.toml: "
            f'allow_origins = ["{origin:.100}"]',
        )


def is_loopback(address: str) -> bool:
    parsed = parse_address(address)
    return parsed is not None and parsed.is_loopback


def parse_address(text: str) -> Address | None:
    """A literal address, with or without brackets, port or zone; None for a name. IPv4 in IPv6 is IPv4."""
    text = text.partition("]")[0].removeprefix("[") if text.startswith("[") else text
    if text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        parsed = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None
    return getattr(parsed, "ipv4_mapped", None) or parsed


def _host_header(headers: Headers) -> str:
    said = [value for name, value in headers if name == b"host"]
    if len(said) != 1:
        raise VecError(Code.INVALID_REQUEST, f"the request has {len(said)} Host headers; HTTP/1.1 requires one")
    return said[0].decode("latin-1")


def _last(headers: Headers, wanted: bytes) -> str | None:
    """The last item of a header that proxies append to: the one that the nearest, trusted proxy has written."""
    for name, value in reversed(headers):
        if name == wanted:
            return value.decode("latin-1").rpartition(",")[2].strip().lower()
    return None


def _same_host(origin: str, peer: Peer) -> bool:
    """Whether an origin has the host and the port of the request. The scheme may differ: a proxy that ends TLS and is
    not trusted leaves us with http."""
    try:
        parts = urlsplit(origin)
    except ValueError:
        return False
    host = peer.host.lower()
    if parts.scheme not in ("http", "https") or f"{parts.scheme}://{parts.netloc}" != origin:
        return False
    if parts.netloc == host:
        return True
    ports = {_PORTS[parts.scheme], _PORTS[peer.scheme]}
    return len(ports) == 1 and _with_port(parts.netloc, ports) == _with_port(host, ports)


def _with_port(host: str, ports: set[str]) -> str:
    found = _HOST.fullmatch(host)
    return f"{found[1]}:{found[2] or min(ports)}" if found is not None else host


def _host_setting(text: str) -> str:
    name = text.lower().rstrip(".")
    if name != "*" and _HOST.fullmatch(name.removeprefix("*.")) is None:
        raise VecError(
            Code.SETTINGS,
            f"[http] allow_hosts: {text!r:.100} is not a host name",
            "write names as they stand in URLs, without scheme and port: vec.example.org, or *.example.org",
        )
    if name.partition(":")[2].isdigit():
        raise VecError(
            Code.SETTINGS, f"[http] allow_hosts: {text!r:.100} has a port", "write the name without the port"
        )
    return name


def _origin_setting(text: str) -> str:
    origin = text.lower().rstrip("/")
    try:
        parts = urlsplit(origin)
        good = parts.scheme in ("http", "https") and f"{parts.scheme}://{parts.netloc}" == origin
        good = good and _HOST.fullmatch(parts.netloc) is not None
    except ValueError:
        good = False
    if not good:
        raise VecError(
            Code.SETTINGS,
            f"[http] allow_origins: {text!r:.100} is not an origin",
            "write scheme, host and port as the browser has them: https://app.example.org, http://localhost:5173",
        )
    scheme, _, host = origin.partition("://")
    return f"{scheme}://{host.removesuffix(':' + _PORTS[scheme])}"  # as browsers write it


def _network(text: str) -> Network:
    try:
        return ipaddress.ip_network(text)
    except ValueError:
        raise VecError(
            Code.SETTINGS,
            f"[http] trusted_proxies: {text!r:.100} is not an address or a network",
            "write addresses, networks, or unix: 127.0.0.1, 10.0.0.0/8, ::1",
        ) from None
