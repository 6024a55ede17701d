"""What the tests of syncs share: folders, and what a library has of them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from tests.support.instance import Instance
from vecd.client import Client
from vecd.connectors.folder import url_of
from vecd.connectors.stopping import Stopping
from vecd.sync.session import Session, Told, options_of


def write(folder: Path, **files: str | bytes) -> None:
    """Writes files: `a_md="…"` is a.md."""
    for name, content in files.items():
        put(folder / name.replace("_", "."), content)


def put(path: Path, content: str | bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)


def texts(instance: Instance, library: str) -> dict[str, str]:
    """The text of each document of a library, by id; none if the library does not exist."""
    with instance.connect() as client:
        return texts_by(client, library)


def texts_by(client: Client, library: str) -> dict[str, str]:
    if library not in {each["name"] for each in client.libraries()}:
        return {}
    ids = [each["id"] for each in client.documents(library)]
    found = client.get(ids, library) if ids else []
    return {each["id"]: "\n".join(chunk["text"] or "" for chunk in each["chunks"]) for each in found if each}


def counts(summary: dict[str, Any]) -> dict[str, int]:
    """The counts of a summary that are not 0."""
    what = ("new", "changed", "moved", "deleted", "unchanged", "failed")
    return {each: summary[each] for each in what if summary[each]}


def events(instance: Instance, library: str, after: str) -> list[tuple[str, str]]:
    """The type and the document of each event behind a cursor."""
    found = instance.objects("watch", "-l", library, "--from", after, "--no-follow", "--type", "document.*", "--json")
    return [(each["type"], each["data"]["id"]) for each in found]


def cursor(instance: Instance) -> str:
    """The log's head."""
    with instance.connect() as client:
        return client.flush()


def run_once(client: Client, name: str) -> Told:
    """One run of a sync, in this process."""
    stop = Stopping()
    try:
        with Session(client, name, stop) as session:
            options = options_of(session.definition)
            return session.run(session.plan(options), options)
    finally:
        stop.close()


def add_by_hand(client: Client, name: str, folder: Path, library: str) -> None:
    client.add_sync(name, url_of(os.path.realpath(folder)), library=library, follow=False)
