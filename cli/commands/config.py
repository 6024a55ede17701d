"""vec config: the paths and settings of the instance, and where each value comes from."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Annotated, Any, NamedTuple

import typer

from vecd.errors import Code, VecError, nearest

from .. import options
from ..output import Output, one_line

app = options.command()


class Value(NamedTuple):
    """A setting. `origin` is an environment variable, an option, the configuration file, or `default`."""

    setting: str
    value: Any
    origin: str


@app.command(
    epilog="A running daemon uses the values that it read when it started. Exit status: 2 invalid settings."
    " See vec-config(1)."
)
def config(
    names: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[SETTING]...", help="Only these, as embedder or http.listen.", autocompletion=lambda: _names()
        ),
    ] = None,
    json: options.Json = False,
    socket: options.Socket = None,
) -> None:
    """Show the paths and settings of the instance, and where each value comes from."""
    output = Output(json)
    found = {each.setting: each for each in values(socket)}
    for name in names or ():
        if name not in found:
            close = nearest(name, found)
            hint = f"did you mean {close!r}?" if close else "`vec config` lists them"
            raise VecError(Code.INVALID_REQUEST, f"unknown setting {name!r:.60}", hint)
    chosen = [found[name] for name in names or found]
    if output.json:
        output.objects({"setting": each.setting, "value": each.value, "from": each.origin} for each in chosen)
        return
    output.table(("setting", "value", "from"), [(each.setting, _shown(each.value), each.origin) for each in chosen])


def _shown(value: Any) -> str:
    if value is None:
        return "–"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "–"
    return one_line(f"{value:,g}" if isinstance(value, (int, float)) else str(value)) or "–"


def _names() -> list[str]:
    return [each.setting for each in values(None)]


def values(socket: str | None) -> Iterator[Value]:
    """All paths and settings, in the order in which vec(1) and vecd(8) have them. Raises VecError
    `invalid_settings`."""
    from vecd import settings

    loaded = settings.load(socket=socket)
    yield from _paths(loaded, socket)
    table = settings.config_table(loaded.config)
    for name in settings.TUNABLES:
        yield Value(name, getattr(loaded, name), _origin(name, table, loaded.config, "VEC_"))
    yield from _http(loaded, table)
    yield from _jobs(loaded, table)


def _paths(loaded: Any, socket: str | None) -> Iterator[Value]:
    yield Value("home", None if loaded.home is None else str(loaded.home), "VEC_HOME" if loaded.home else "default")
    folders = {"data": "XDG_DATA_HOME", "config": "XDG_CONFIG_HOME", "log": "XDG_STATE_HOME"}
    for name, variable in folders.items():
        origin = variable if os.environ.get(variable, "").startswith("/") else "default"
        yield Value(name, str(getattr(loaded, name)), "VEC_HOME" if loaded.home else origin)
    named = "--socket" if socket else "VEC_SOCKET" if loaded.named else "VEC_HOME" if loaded.home else None
    if named is None:
        named = "XDG_RUNTIME_DIR" if os.environ.get("XDG_RUNTIME_DIR", "").startswith("/") else "default"
    yield Value("socket", str(loaded.socket), named)
    if (url := os.environ.get("VEC_CONNECT")) and socket is None:
        yield Value("connect", url, "VEC_CONNECT")


def _origin(name: str, table: dict[str, Any], config: Any, prefix: str) -> str:
    variable = f"{prefix}{name.upper()}"
    return variable if os.environ.get(variable) else str(config) if name in table else "default"


def _http(loaded: Any, table: dict[str, Any]) -> Iterator[Value]:
    from dataclasses import fields

    from vecd.http import settings as http

    found = http.load(loaded)
    for each in fields(found):
        value = getattr(found, each.name)
        if each.name == "listen":
            value = [address.url().removeprefix("http://") for address in value]
        elif isinstance(value, tuple):
            value = list(value)
        yield Value(f"http.{each.name}", value, _origin(each.name, table.get("http", {}), loaded.config, "VEC_HTTP_"))


def _jobs(loaded: Any, table: dict[str, Any]) -> Iterator[Value]:
    from dataclasses import fields

    from vecd.workers import executor_settings as jobs

    found = jobs.load(loaded)
    for each in fields(found):
        value = getattr(found, each.name)
        if each.name == "executor_url" and value:
            value = jobs.shown(value)  # it may hold a password
        yield Value(f"jobs.{each.name}", value, _origin(each.name, table.get("jobs", {}), loaded.config, "VEC_JOBS_"))
