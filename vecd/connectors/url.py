"""The URL of a connector: a scheme, one or more hosts, a path; never a password."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final, NamedTuple
from urllib.parse import unquote

from ..errors import Code, VecError

_URL: Final = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://([^/?#]*)(?:/([^?#]*))?(?:\?([^#]*))?(?:#(.*))?", re.DOTALL)
_HOST: Final = re.compile(r"(\[[0-9A-Fa-f:.%]+\]|[^\[\]:@\s]*)(?::([0-9]{1,5}))?")
_CHARS_MAX: Final = 2_000


class Host(NamedTuple):
    """One server. `port` is None if the URL names none."""

    name: str  # without the brackets of an IPv6 address
    port: int | None = None


class Url(NamedTuple):
    """A parsed URL. `text` is as it was given, and safe to show: it has no password."""

    text: str
    scheme: str
    user: str | None
    hosts: tuple[Host, ...]  # at least one; its name may be empty, as in file:///path
    path: str  # without the leading slash, percent-decoded
    query: str  # as given, without the question mark

    @property
    def host(self) -> str:
        """The name of the first host; localhost if it is empty."""
        return self.hosts[0].name or "localhost"

    def port(self, default: int) -> int:
        """The port of the first host."""
        return self.hosts[0].port or default

    @property
    def is_loopback(self) -> bool:
        return self.host.lower() in ("localhost", "::1") or self.host.startswith("127.")

    def addresses(self, default_port: int) -> Sequence[str]:
        """All hosts as `name:port`."""
        return [
            f"[{each.name}]:{each.port or default_port}"
            if ":" in each.name
            else f"{each.name or 'localhost'}:{each.port or default_port}"
            for each in self.hosts
        ]


def parse(text: str) -> Url:
    """Raises VecError `invalid_request`; the error never quotes a password."""
    if len(text) > _CHARS_MAX:
        raise _refused(f"the URL has {len(text):,} characters; the limit is {_CHARS_MAX:,}")
    if not text.isprintable():
        raise _refused("the URL has a control character")
    match = _URL.fullmatch(text)
    if match is None:
        raise _refused(f"{_without_secret(text)!r:.200} is not a URL", _example(text))
    scheme, place, path, query, fragment = match.groups()
    user, _, hosts = place.rpartition("@")
    if ":" in user:
        raise _refused(
            "the URL has a password, which would be stored and shown",
            "leave it out, and name where it is: -p password_file=PATH or -p password_env=NAME",
        )
    if fragment is not None:
        raise _refused("the URL has a fragment (#…)", "remove it, or write %23 for a # in a name")
    return Url(
        text=text,
        scheme=scheme.lower(),
        user=unquote(user) if user else None,
        hosts=tuple(_host(each) for each in hosts.split(",")),
        path=unquote(path or ""),
        query=query or "",
    )


def _host(text: str) -> Host:
    match = _HOST.fullmatch(text)
    port = int(match[2]) if match is not None and match[2] else None
    if match is None or (port is not None and not 0 < port < 65536):
        raise _refused(f"{text!r:.200} is not a host, or a host and a port, as localhost:6379")
    return Host(match[1].strip("[]"), port)


def _example(text: str) -> str:
    """What was probably meant by a text that is not a URL."""
    path = text[len("file:") :] if text.startswith("file:") else text if "/" in text and ":" not in text else ""
    if path.startswith("/"):
        return f"a file is file:///PATH: file:///{path.lstrip('/')}"
    if path or text.startswith("file:"):
        return "a file is file:///PATH, with its whole path"
    return "for example redis://localhost/events, or file:///PATH"


def _without_secret(text: str) -> str:
    return re.sub(r"[^/]*@", "…@", text)


def _refused(message: str, hint: str | None = None) -> VecError:
    return VecError(Code.INVALID_REQUEST, message, hint, field="url")
