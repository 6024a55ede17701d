"""vec keys: creates, lists and revokes the keys of the HTTP gateway. Works on their file; needs no daemon."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from .. import options
from ..output import Output, plural

if TYPE_CHECKING:
    from vecd.http.keys import KeyFile

app = options.command()

Name = Annotated[str, typer.Argument(metavar="NAME", help="The key's name.")]


def _file() -> KeyFile:
    from vecd.http.keys import KeyFile
    from vecd.settings import locate

    return KeyFile.of(locate())


class Scope(StrEnum):
    """What a key allows."""

    READ = "read"
    WRITE = "write"
    ADMIN = "admin"


@app.callback()
def keys() -> None:
    """Create, list and revoke keys of the HTTP gateway."""


@app.command(epilog="Exit status: 1 the key exists, 2 an invalid name or file of keys. See vec-keys(1).")
def create(
    name: Name,
    scope: Annotated[
        Scope, typer.Option("--scope", help="What it allows; write includes read, and admin includes both.")
    ] = Scope.READ,
    library: Annotated[
        list[str] | None,
        typer.Option(
            "--library",
            "-l",
            help="Only this library. Can be repeated.",
            metavar="NAME",
            autocompletion=options.names("library"),
        ),
    ] = None,
    expires: Annotated[
        str | None, typer.Option("--expires", help="How long it is valid, as 12h or 90d.", metavar="DURATION")
    ] = None,
    json: options.Json = False,
) -> None:
    """Create a key and print it, once."""
    from vecd.units import duration_s

    expires_s = duration_s(expires) if expires is not None else None
    key, secret = _file().create(name, scope.value, library or None, expires_s)
    Output(json).one({"key": secret, **key.to_json()}, secret)
    options.say(f"the key {name} is shown only now; send it as 'Authorization: Bearer KEY'")


@app.command("list")
def list_(json: options.Json = False) -> None:
    """List the keys, without their secrets."""
    output = Output(json)
    found = [key.to_json() for key in _file().entries()]
    if output.json:
        output.objects(found)
        return
    columns = ("key", "scope", "libraries", "created", "expires")
    output.table(
        columns,
        [
            (
                each["name"],
                each["scope"],
                "all" if each["libraries"] is None else ", ".join(each["libraries"]),
                each["created_at"],
                f"{each['expires_at']} (expired)" if each["expired"] else each["expires_at"] or "never",
            )
            for each in found
        ],
    )


@app.command(epilog="Exit status: 4 no such key. See vec-keys(1).")
def revoke(name: Name, json: options.Json = False) -> None:
    """Revoke a key; what it has open ends within seconds."""
    file = _file()
    key, left = file.revoke(name)
    Output(json).one({"revoked": key.name, "keys": left}, f"key {name} revoked; {plural(left, 'key')} left")
    if not left:
        options.say(f"no key is left, so requests are refused; to allow requests without keys, delete {file.path}")
