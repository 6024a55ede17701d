"""vec library rename: the name changes, and all that was set up for the library goes on with it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.support.instance import Instance, ndjson
from tests.support.running import fresh, line_of, running
from tests.support.waiting import until


@pytest.fixture
def renamed(instance: Instance, library: str) -> tuple[str, str]:
    """A library with one document that was renamed: its former name, and its name."""
    instance.vec("ingest", "-l", library, stdin=ndjson([{"id": "a", "text": "rotate the logs"}]))
    (answer,) = instance.objects("library", "rename", library, f"{library}-new")
    assert (answer["name"], answer["former"], answer["documents"]) == (f"{library}-new", library, 1)
    return library, f"{library}-new"


def test_the_library_is_found_by_its_new_name_and_the_old_one_names_it(
    instance: Instance, renamed: tuple[str, str]
) -> None:
    former, name = renamed
    (hit,) = instance.objects("search", "logs", "-l", name)
    assert hit["document_id"] == "a"
    refused = instance.vec("search", "logs", "-l", former, status=4).stderr
    assert f"it was renamed to '{name}'" in refused
    written = instance.vec("ingest", "-l", former, stdin='{"text": "x"}', status=4).stderr
    assert f"was renamed to '{name}'" in written
    instance.vec("library", "rename", name, former)
    assert instance.objects("count", "-l", former)[0]["documents"] == 1


def test_events_show_the_present_name_and_a_watch_by_the_former_one_goes_on(
    instance: Instance, library: str, renamed: tuple[str, str]
) -> None:
    former, name = renamed
    events = instance.objects("watch", "-l", former, "--from", "beginning", "--no-follow")
    assert {each["library"] for each in events} == {name}
    assert [each["type"] for each in events][-1] == "library.renamed"
    assert events[-1]["data"] == {"name": name, "former": former}
    options = ("--consumer", f"c-{name}", "--from", "beginning", "--type", "document.*")
    with running(instance, "watch", "-l", name, *options) as watch:
        assert line_of(watch.stdout)["data"]["id"] == "a"
        instance.vec("ingest", "-l", name, stdin='{"id": "b", "text": "one"}')
        assert line_of(watch.stdout)["data"]["id"] == "b"
        instance.vec("library", "rename", name, f"{name}er")
        instance.vec("ingest", "-l", f"{name}er", stdin='{"id": "c", "text": "two"}')
        event = line_of(watch.stdout)
    assert (event["library"], event["data"]["id"]) == (f"{name}er", "c")
    # As it would after a restart, by the name that it was begun with.
    again = instance.objects("watch", "-l", name, *options, "--no-follow")
    assert again == []
    # Once there is another library of that name, the name is that one's only.
    instance.vec("library", "create", name)
    assert instance.objects("watch", "-l", name, "--from", "beginning", "--no-follow")[-1]["type"] == "library.created"
    assert len(instance.objects("watch", "-l", name, "--from", "beginning", "--no-follow")) == 1


def test_relays_sources_schedules_and_waiting_jobs_go_on(instance: Instance, library: str, tmp_path: Path) -> None:
    out, incoming = tmp_path / "out.ndjson", tmp_path / "in.ndjson"
    incoming.touch()
    other, new = fresh(instance), f"{library}-new"
    instance.vec("relay", "add", f"to-{library}", f"file://{out}", "-l", library, "-l", other, "--payload")
    instance.vec("source", "add", f"from-{library}", f"file://{incoming}", "-l", library)
    with instance.connect() as client:
        client.add_schedule(f"nightly-{library}", "0 3 * * *", "rebuild", library=library)
    (job,) = instance.objects("jobs", "submit", "rebuild", "-l", library, "--delay", "1h")
    instance.vec("library", "rename", library, new)
    with incoming.open("a") as file:
        file.write('{"id": "m", "text": "from the source"}\n')
    until(lambda: out.exists() and '"document.added"' in out.read_text(), "the relay")
    written = [json.loads(line) for line in out.read_text().splitlines()]
    added = next(each for each in written if each["type"] == "document.added")
    assert (added["library"], added["data"]["id"]) == (new, "m")
    with instance.connect() as client:
        assert client.relay(f"to-{library}")["libraries"] == [new, other]
        assert client.source(f"from-{library}")["library"] == new
        assert {each["name"]: each["library"] for each in client.schedules()}[f"nightly-{library}"] == new
        assert client.job(job["job_id"])["library"] == new
        client.cancel_jobs([job["job_id"]])
        client.remove_relay(f"to-{library}")
        client.remove_source(f"from-{library}")


def test_a_name_that_is_taken_or_not_valid_is_refused(instance: Instance, library: str) -> None:
    other = fresh(instance)
    assert "already exists" in instance.vec("library", "rename", library, other, status=1).stderr
    assert "not a valid name" in instance.vec("library", "rename", library, "a/b", status=2).stderr
    assert "does not exist" in instance.vec("library", "rename", "no-such", "x", status=4).stderr
    assert instance.objects("library", "show", library)[0]["name"] == library


def test_the_names_are_the_same_after_a_restart(renamed: tuple[str, str], instance: Instance) -> None:
    former, name = renamed
    instance.vec("daemon", "stop")
    assert instance.objects("count", "-l", name)[0]["documents"] == 1
    assert f"renamed to '{name}'" in instance.vec("count", "-l", former, status=4).stderr
