"""The saved mapping of a library: whoever brings objects of any form, they become the same documents."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.connectors.test_source import caught_up
from tests.support.gateway import Gateway
from tests.support.instance import Instance, ndjson
from tests.support.running import fresh
from tests.support.waiting import PATIENCE_S

RULES = {"id": "url", "title": "subject", "text": "body.text"}
PAGES = [
    {"url": "/a", "subject": "Boats", "body": {"text": "the harbour"}, "year": 2020},
    {"url": 7, "subject": "Cats", "body": {"text": "a cat"}, "year": 2021},
]
WANTED = {"/a": ("Boats", "the harbour", {"year": 2020}), "7": ("Cats", "a cat", {"year": 2021})}


@pytest.fixture
def pages(instance: Instance) -> str:
    """A library with a mapping."""
    return fresh(instance, mapping=RULES)


def contents(instance: Instance, library: str) -> dict[str, tuple[Any, ...]]:
    with instance.connect() as client:
        found = client.get([each["id"] for each in client.documents(library=library)], library)
    return {
        each["id"]: (each["title"], "|".join(chunk["text"] or "" for chunk in each["chunks"]), each["metadata"])
        for each in found
        if each is not None
    }


@pytest.mark.parametrize("form", ["ndjson", "json", "background"])
def test_ingest_makes_documents_by_the_mapping_of_the_library(instance: Instance, pages: str, form: str) -> None:
    text = json.dumps(PAGES, indent=1) if form == "json" else ndjson(PAGES)
    done = instance.objects("ingest", "-l", pages, *["--background"] * (form == "background"), stdin=text)[-1]
    if form == "background":
        instance.vec("jobs", "wait", str(done["job_id"]))
    assert contents(instance, pages) == WANTED


def test_rules_of_a_run_replace_those_of_the_library_and_no_map_takes_documents_as_they_are(
    instance: Instance, pages: str
) -> None:
    instance.vec("ingest", "-l", pages, "--id", "k", "--text", "t", stdin='{"k": "x", "t": "one"}')
    for background in ([], ["--background"]):
        native = ndjson([{"id": f"own{len(background)}", "text": "two"}])
        done = instance.objects("ingest", "-l", pages, "--no-map", *background, stdin=native)[-1]
        if background:
            instance.vec("jobs", "wait", str(done["job_id"]))
    assert contents(instance, pages) == {"x": (None, "one", {}), "own0": (None, "two", {}), "own1": (None, "two", {})}
    assert "cannot be combined" in instance.vec("ingest", "--no-map", "--id", "k", stdin="", status=2).stderr


def test_a_delete_is_one_with_any_mapping(instance: Instance, pages: str) -> None:
    instance.vec("ingest", "-l", pages, stdin=ndjson(PAGES))
    instance.vec("ingest", "-l", pages, stdin='{"op": "delete", "id": 7}')
    assert contents(instance, pages).keys() == {"/a"}


def test_mail_is_not_mapped(instance: Instance, pages: str, tmp_path: Path) -> None:
    path = tmp_path / "one.eml"
    path.write_bytes(b"Message-ID: <m@x>\nSubject: Hello\n\nyou")
    instance.vec("ingest", "-l", pages, str(path))
    assert contents(instance, pages) == {"m@x": ("Hello", "you", {})}


def test_an_object_that_does_not_fit_names_the_mapping_of_the_library(instance: Instance, pages: str) -> None:
    done = instance.vec("ingest", "-l", pages, stdin='{"id": "a", "text": "x"}\n{"id": "b", "text": "x"}', status=3)
    first, *others = done.stderr.splitlines()
    assert "the id at url is missing" in first
    assert f"the mapping of library {pages!r}" in first
    assert "--no-map" in first
    assert all("--no-map" not in line for line in others)


def test_set_replaces_the_mapping_shows_it_and_survives_a_restart() -> None:
    with Instance({"VEC_EMBEDDER": "hash"}) as own:
        own.start()
        (made,) = own.objects("library", "create", "pages", "--map", "id=url", "--map", "text=body")
        assert made["mapping"] == {"id": "url", "text": "body"}
        (changed,) = own.objects("library", "set", "pages", "--map", "id=key", "--map", "text=t")
        assert changed["mapping"] == {"id": "key", "text": "t"}
        assert "no rule" not in own.vec("library", "set", "pages", status=2).stderr
        assert "unknown field 'txt'" in own.vec("library", "set", "pages", "--map", "txt=a", status=2).stderr
        assert "does not exist" in own.vec("library", "set", "no-such", "--map", "text=a", status=4).stderr
        own.vec("daemon", "stop")
        own.start()
        (shown,) = own.objects("library", "show", "pages")
        assert shown["mapping"] == {"id": "key", "text": "t"}
        own.vec("ingest", "-l", "pages", stdin='{"key": "a", "t": "x"}')
        (cleared,) = own.objects("library", "set", "pages", "--no-map")
        assert cleared["mapping"] == {}
        own.vec("ingest", "-l", "pages", stdin='{"id": "b", "text": "x"}')
        assert contents(own, "pages").keys() == {"a", "b"}


def test_a_source_without_rules_follows_the_library_and_a_change_at_once(instance: Instance, tmp_path: Path) -> None:
    library, path = fresh(instance, mapping=RULES), tmp_path / "in.ndjson"
    path.write_text(ndjson(PAGES))
    name = f"source-{library}"
    instance.vec("source", "add", name, f"file://{path}", "-l", library)
    caught_up(instance, path, name)
    assert contents(instance, library) == WANTED
    instance.vec("library", "set", library, "--map", "id=k", "--map", "text=t")
    with path.open("a") as file:
        file.write('{"k": "new", "t": "by the new rules"}\n')
    caught_up(instance, path, name)
    assert contents(instance, library) == {**WANTED, "new": (None, "by the new rules", {})}
    assert instance.objects("source", "dead", name) == []
    instance.vec("source", "remove", name)


def test_the_gateway_makes_documents_by_the_mapping_and_can_be_told_not_to(instance: Instance) -> None:
    with Gateway(instance) as gateway, httpx.Client(base_url=gateway.url, timeout=PATIENCE_S) as http:
        library = fresh(instance)
        place = f"/v1/libraries/{library}"
        answer = http.post(f"{place}/settings", json={"mapping": RULES})
        assert (answer.status_code, answer.json()["mapping"]) == (200, RULES)
        assert http.post(f"{place}/settings", json={"mapping": {"txt": "a"}}).status_code == 400

        first, second = PAGES
        answer = http.post(f"{place}/documents", json={"documents": [first, {"url": "/b"}, 5]})
        assert [each["index"] for each in answer.json()["errors"]] == [1, 2]
        assert "there is no text" in answer.json()["errors"][0]["message"]
        told = http.post(f"{place}/documents/stream", content=ndjson([second]), headers={"content-type": "x-ndjson"})
        assert json.loads(told.text.splitlines()[0])["id"] == "7"
        assert contents(instance, library) == WANTED

        job = http.post(f"{place}/documents/batch-async", json={"documents": [{**first, "url": "/job"}]}).json()
        instance.vec("jobs", "wait", str(job["job_id"]))
        own = {"id": "own", "text": "as it is"}
        http.post(f"{place}/documents", params={"mapping": "none"}, json={"documents": [own]})
        http.post(f"{place}/documents/stream", params={"mapping": "none"}, content=ndjson([{**own, "id": "own2"}]))
        http.put(f"{place}/documents/own3", json={"text": "as it is"})
        assert contents(instance, library).keys() == {*WANTED, "/job", "own", "own2", "own3"}
        assert http.post(f"{place}/documents", params={"mapping": "x"}, json={"documents": []}).status_code == 400
