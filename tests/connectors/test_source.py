"""vec source, through the real door: the command, the daemon, the process of the connectors, a file as the broker."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.connectors.test_relay import connector_pids
from tests.support.instance import Instance
from tests.support.waiting import until
from vecd import limits
from vecd.errors import Code, VecError


@pytest.fixture
def instance() -> Iterator[Instance]:
    with Instance({"VEC_EMBEDDER": "hash"}) as made:
        made.start()
        yield made


def write(path: Path, *objects: Any) -> None:
    with path.open("ab") as file:
        for each in objects:
            file.write((each if isinstance(each, bytes) else json.dumps(each).encode()) + b"\n")


def source(instance: Instance, name: str = "in") -> Any:
    (found,) = [each for each in instance.objects("source", "list") if each["name"] == name]
    return found


def texts(instance: Instance, library: str = "default") -> dict[str, str]:
    """The text of each document, by id."""
    with instance.connect() as client:
        if library not in {each["name"] for each in client.libraries()}:
            return {}
        ids = [each["id"] for each in client.documents(library=library)]
        found = client.get(ids, library=library)
    return {each["id"]: "|".join(chunk["text"] or "" for chunk in each["chunks"]) for each in found if each}


def caught_up(instance: Instance, path: Path, name: str = "in") -> Any:
    """Waits until the source has applied the whole file; returns it."""
    size = str(path.stat().st_size)
    return until(lambda: (found := source(instance, name))["offsets"].get("") == size and found, "all lines applied")


def dead(instance: Instance, name: str = "in") -> list[Any]:
    return list(instance.objects("source", "dead", name))


def test_a_source_writes_documents_and_deletes_as_they_arrive(instance: Instance, tmp_path: Path) -> None:
    path = tmp_path / "in.ndjson"
    write(path, {"id": "a", "text": "one"}, {"id": "b", "text": "two"})
    instance.vec("source", "add", "in", f"file://{path}")
    caught_up(instance, path)
    assert texts(instance) == {"a": "one", "b": "two"}
    write(path, {"id": "a", "text": "changed"}, {"op": "delete", "id": "b"}, {"id": "c", "text": "three"})
    shown = until(lambda: (found := caught_up(instance, path))["delivered"] == 5 and found, "the report")
    assert texts(instance) == {"a": "changed", "c": "three"}
    assert (shown["state"], shown["error"], shown["dead_letters"], shown["lag"]) == ("running", None, 0, 0)


def test_a_mapping_makes_documents_of_any_json(instance: Instance, tmp_path: Path) -> None:
    path = tmp_path / "in.ndjson"
    write(path, {"key": 7, "page": {"body": "text", "head": "T"}, "lang": "en"}, {"key": 7, "op": "d"})
    write(path, {"key": 8, "page": {"body": "other"}, "lang": "de"})
    instance.vec(
        "source", "add", "in", f"file://{path}", "--library", "pages", "--map", "id=key", "--map", "title=page.head",
        "--map", "text=page.body", "--map", "delete=op=d",
    )  # fmt: skip
    caught_up(instance, path)
    with instance.connect() as client:
        (found,) = client.get(["8"], library="pages")
    assert found is not None
    assert (found["title"], found["metadata"]) == (None, {"lang": "de"})
    assert texts(instance, "pages") == {"8": "other"}


def test_bad_messages_become_dead_letters_and_the_others_are_applied(instance: Instance, tmp_path: Path) -> None:
    path = tmp_path / "in.ndjson"
    write(path, {"id": "a", "text": "one"}, b"{", {"id": "b"}, {"id": "", "text": "x"}, {"id": "c", "text": "three"})
    instance.vec("source", "add", "in", f"file://{path}")
    caught_up(instance, path)
    assert texts(instance) == {"a": "one", "c": "three"}
    letters = dead(instance)
    assert [each["body"] for each in letters] == ["{", '{"id": "b"}', '{"id": "", "text": "x"}']
    assert [each["code"] for each in letters] == ["invalid_document"] * 3
    assert "not JSON" in letters[0]["reason"]
    assert "needs a 'text'" in letters[1]["reason"]
    assert source(instance)["dead_letters"] == 3


def test_dead_letters_are_applied_once_what_was_wrong_is_corrected(instance: Instance, tmp_path: Path) -> None:
    path = tmp_path / "in.ndjson"
    instance.vec("library", "create", "v", "--embedder", "none", "--dimension", "2")
    write(path, {"id": "a", "vector": [1, 2, 3]}, {"id": "b", "vector": [1, 2]}, b"{")
    instance.vec("source", "add", "in", f"file://{path}", "--library", "v")
    caught_up(instance, path)
    assert set(texts(instance, "v")) == {"b"}
    assert {each["code"] for each in dead(instance)} == {"dimension_mismatch", "invalid_document"}
    instance.vec("library", "delete", "v")
    instance.vec("library", "create", "v", "--embedder", "none", "--dimension", "3")
    instance.vec("source", "retry", "in", "--all")
    until(lambda: [each["retrying"] for each in dead(instance)] == [False], "one letter that is left")
    (letter,) = dead(instance)
    assert (letter["body"], letter["attempts"]) == ("{", 2)
    assert set(texts(instance, "v")) == {"a"}
    instance.vec("source", "drop", "in", str(letter["letter_id"]))
    assert dead(instance) == []


def test_each_message_is_applied_once_whatever_is_killed(instance: Instance, tmp_path: Path) -> None:
    path = tmp_path / "in.ndjson"
    path.touch()
    instance.vec("source", "add", "in", f"file://{path}")
    wanted = {}
    for turn in range(6):
        for number in range(150):
            wanted[f"{turn}-{number}"] = f"text {turn} {number}"
            write(path, {"id": f"{turn}-{number}", "text": wanted[f"{turn}-{number}"]})
        if turn % 2:
            for pid in until(lambda: connector_pids(instance), "the process"):
                os.kill(pid, signal.SIGKILL)
        else:
            daemon = instance.pid()
            assert daemon is not None
            os.kill(daemon, signal.SIGKILL)
            until(lambda: not connector_pids(instance), "the end of the process of a daemon that was killed")
            instance.start()
    caught_up(instance, path)
    assert texts(instance) == wanted
    added = instance.objects("watch", "--from", "beginning", "--no-follow", "--type", "document.*")
    assert [each["type"] for each in added] == ["document.added"] * len(wanted)
    assert dead(instance) == []


def test_a_paused_source_applies_nothing_and_goes_on_where_it_was(instance: Instance, tmp_path: Path) -> None:
    path = tmp_path / "in.ndjson"
    write(path, {"id": "a", "text": "one"})
    instance.vec("source", "add", "in", f"file://{path}")
    caught_up(instance, path)
    instance.vec("source", "pause", "in")
    until(lambda: source(instance)["state"] == "paused", "the pause")
    write(path, {"id": "b", "text": "two"})
    instance.vec("source", "add", "other", f"file://{path}", "--library", "other")
    caught_up(instance, path, "other")  # by now the first one would have seen it
    assert texts(instance) == {"a": "one"}
    instance.vec("source", "resume", "in")
    caught_up(instance, path)
    assert texts(instance) == {"a": "one", "b": "two"}


def test_a_reset_source_applies_all_messages_again(instance: Instance, tmp_path: Path) -> None:
    path = tmp_path / "in.ndjson"
    write(path, {"id": "a", "text": "one"}, {"id": "b", "text": "two"})
    instance.vec("source", "add", "in", f"file://{path}")
    caught_up(instance, path)
    with instance.connect() as client:
        client.delete(["a", "b"])
    first_line = len(json.dumps({"id": "a", "text": "one"})) + 1
    instance.vec("source", "reset", "in", "--offset", f"={first_line}")
    caught_up(instance, path)
    until(lambda: texts(instance) == {"b": "two"}, "the second message")
    instance.vec("source", "reset", "in")
    until(lambda: texts(instance) == {"a": "one", "b": "two"}, "both messages")
    instance.vec("source", "reset", "in", "--to", "latest")
    assert source(instance)["parameters"]["start"] == "latest"


def test_a_second_runner_can_apply_nothing(instance: Instance, tmp_path: Path) -> None:
    path = tmp_path / "in.ndjson"
    path.touch()
    instance.vec("source", "add", "in", f"file://{path}")
    instance.vec("source", "pause", "in")
    document = {"id": "a", "text": "one"}
    now = source(instance)["generation"]
    with instance.connect() as client:
        first = client.commit_source("in", now, offsets={"": "5"}, expected={"": None}, documents=[document]).result()
        assert (first["added"], first["refused"]) == (1, [])
        for generation, expected in ((now, None), (now, "4"), (now + 1, "5"), (now - 1, "5")):
            with pytest.raises(VecError) as caught:
                client.commit_source(
                    "in", generation, offsets={"": "9"}, expected={"": expected}, documents=[{"id": "b", "text": "two"}]
                ).result()
            assert caught.value.code == Code.LEASE_LOST
        assert client.source_offsets("in", now) == {"": "5"}
    assert texts(instance) == {"a": "one"}


def test_what_cannot_be_a_source_is_refused_before_it_is_stored(instance: Instance, tmp_path: Path) -> None:
    for status, *arguments in (
        (2, "in", "file://relative"), (2, "a b", f"file://{tmp_path}/x"), (2, "in", f"file://{tmp_path}/x", "-m", "id"),
        (2, "in", f"file://{tmp_path}/x", "-m", "id=a"), (2, "in", f"file://{tmp_path}/x", "-m", "text=a..b"),
        (2, "in", f"file://{tmp_path}/x", "--library", "a b"), (2, "in", f"file://{tmp_path}/x", "-p", "start=now"),
        (2, "in", f"file://{tmp_path}/x", "-m", "text=a", "--from-library", "b"),
        (2, "in", "https://localhost/x"), (2, "in", f"file://{tmp_path}/x", "-g", ""),
    ):  # fmt: skip
        instance.vec("source", "add", *map(str, arguments), status=int(status))
    assert instance.objects("source", "list") == []
    assert "did you mean 'in'" in (
        instance.vec("source", "add", "in", f"file://{tmp_path}/x").stdout
        + instance.vec("source", "show", "inn", status=4).stderr
    )


def test_a_source_that_cannot_read_says_why_and_goes_on_when_it_can(instance: Instance, tmp_path: Path) -> None:
    path = tmp_path / "in.ndjson"
    instance.vec("source", "add", "in", f"file://{path}")
    shown = until(lambda: (found := source(instance))["error"] and found, "an error")
    assert (shown["state"], f"cannot read {path}" in shown["error"]["message"]) == ("failing", True)
    write(path, {"id": "a", "text": "one"})
    caught_up(instance, path)
    assert texts(instance) == {"a": "one"}


def test_a_source_stops_at_too_many_dead_letters_and_goes_on_when_they_are_dropped(
    instance: Instance, tmp_path: Path
) -> None:
    path = tmp_path / "in.ndjson"
    with path.open("wb") as file:
        file.write(b"{\n" * (limits.DEAD_LETTERS_MAX + 150))
    write(path, {"id": "a", "text": "one"})
    instance.vec("source", "add", "in", f"file://{path}")
    shown = until(lambda: (found := source(instance))["error"] and found, "the stop")
    assert "has as many dead letters as it may" in shown["error"]["message"]
    kept = shown["dead_letters"]
    assert limits.DEAD_LETTERS_MAX - limits.DEAD_LETTERS_PAGE <= kept <= limits.DEAD_LETTERS_MAX
    instance.vec("source", "drop", "in", "--all")
    caught_up(instance, path)
    assert texts(instance) == {"a": "one"}
    assert source(instance)["dead_letters"] == limits.DEAD_LETTERS_MAX + 150 - kept


def test_offsets_of_another_form_are_refused_by_reset(instance: Instance, tmp_path: Path) -> None:
    path = tmp_path / "in.ndjson"
    write(path, {"id": "a", "text": "one"})
    skipped = path.stat().st_size
    write(path, {"id": "b", "text": "two"})
    instance.vec("source", "add", "in", f"file://{path}", "--paused")
    for offset in ("=abc", "foo=1"):
        done = instance.vec("source", "reset", "in", "--offset", offset, status=2)
        assert "it has the form =BYTES" in done.stderr
    instance.vec("source", "reset", "in", "--offset", f"={skipped}")
    instance.vec("source", "resume", "in")
    caught_up(instance, path)
    assert texts(instance) == {"b": "two"}
