"""vec watch on a terminal: a line for each change, in local time; with -v what changed; --since and -f."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.instance import Instance, ndjson
from tests.support.running import line_of, running

from .terminal import on_a_terminal

TIME = r"[A-Z][a-z]{2} \d\d \d\d:\d\d:\d\d"


@pytest.fixture(scope="module")
def instance() -> Iterator[Instance]:
    with Instance({"VEC_EMBEDDER": "hash"}) as made:
        long_line = "A line that is the same for long enough that its beginning need not be shown, and then"
        first: list[dict[str, Any]] = [
            {"id": "a", "title": "One", "text": f"same\n{long_line} ends", "metadata": {"n": 1, "gone": True}},
            {"id": "many", "texts": ["x", "y", "z"]},
        ]
        second: list[dict[str, Any]] = [
            {"id": "a", "title": "Two", "text": f"same\n{long_line} stops", "metadata": {"n": 2, "new": [1]}},
            {"id": "many", "texts": ["x", "z"]},
        ]
        made.vec("ingest", stdin=ndjson(first))
        made.vec("ingest", stdin=ndjson(second))
        made.vec("ingest", "-l", "other", stdin='{"id": "o", "title": "\u65e5\u672c\u8a9e", "text": "t"}\n')
        made.vec("delete", "many")
        yield made


def seen(instance: Instance, *arguments: str, **options: Any) -> list[str]:
    """The lines of a watch, without their times."""
    out = on_a_terminal(instance, "watch", *arguments, **{"NO_COLOR": "1", **options}).out
    return [re.sub(rf"^{TIME}  ", "", line) for line in out.splitlines()]


CHANGES = [
    "library.created  default",
    "added     default  a  One",
    "added     default  many  3 chunks",
    "updated   default  a  Two",
    "updated   default  many  2 chunks, 3 before",
    "library.created  other",
    "added     other  o  日本語",
    "deleted   default  many  2 chunks",
]


def test_each_change_is_one_line_and_chunks_are_part_of_it(instance: Instance) -> None:
    assert seen(instance, "--since", "beginning") == CHANGES
    assert seen(instance, "--from", "beginning", "--no-follow") == CHANGES
    assert seen(instance, "--from", "beginning", "-n", "3") == CHANGES[:3]
    chunks = seen(instance, "--since", "beginning", "--type", "chunk.*", "-l", "other")
    assert chunks == ["chunk.added  o#0"]


def test_a_watch_of_one_library_does_not_repeat_its_name(instance: Instance) -> None:
    assert seen(instance, "--since", "beginning", "-l", "other") == ["library.created  other", "added     o  日本語"]


def test_verbose_shows_texts_and_what_an_update_changed(instance: Instance) -> None:
    lines = seen(instance, "-v", "--since", "beginning", "-w", "document_id = a", columns=70)
    added, updated = (at for at, line in enumerate(lines) if not line.startswith(" "))
    assert re.fullmatch(r"added     default  a  One  seq \d+", lines[added])
    assert lines[added + 1].startswith("    same A line that is the same")
    assert all(len(line) <= 70 for line in lines)
    assert lines[updated + 1 :] == [
        "    title: One → Two",
        "    n: 1 → 2",
        "    new: – → [1]",
        "    gone: true → –",
        "    - …g need not be shown, and then ends",
        "    + …g need not be shown, and then stops",
    ]
    (deleted,) = seen(instance, "-v", "--since", "beginning", "--type", "document.deleted")[1:]
    assert deleted == "    x z"


def test_times_are_those_of_the_machines_zone(instance: Instance) -> None:
    first = instance.objects("watch", "--since", "beginning", "-n", "1")[0]["time"]
    (utc,) = on_a_terminal(instance, "watch", "--from", "beginning", "-n", "1", TZ="UTC", NO_COLOR="1").out.splitlines()
    (east,) = on_a_terminal(
        instance, "watch", "--from", "beginning", "-n", "1", TZ="EAST-05:30", NO_COLOR="1"
    ).out.splitlines()
    assert utc[7:15] == first[11:19]
    minutes = [int(line[7:9]) * 60 + int(line[10:12]) for line in (utc, east)]
    assert (minutes[1] - minutes[0]) % (24 * 60) == 5 * 60 + 30


@pytest.mark.parametrize("columns", [60, 80, 200])
def test_a_title_is_cut_to_the_width_and_an_id_is_not(instance: Instance, columns: int) -> None:
    long_id = "an-id-that-is-longer-than-the-terminal-" * 3
    library = f"wide-{columns}"
    documents = [{"id": "i", "title": "日本語 " * 100, "text": "t"}, {"id": long_id, "title": "T", "text": "t"}]
    instance.vec("ingest", "-l", library, stdin=ndjson(documents))
    out = on_a_terminal(
        instance, "watch", "--since", "beginning", "-l", library, columns=columns, NO_COLOR="1"
    ).out.splitlines()
    titled = out[1]
    assert columns - 2 <= len(titled) + len(re.findall("[\u3000-\u9fff]", titled)) <= columns
    assert titled.endswith("…")
    assert long_id in out[2]


def test_since_ends_at_the_head_in_a_pipe_too_and_with_f_it_follows(instance: Instance) -> None:
    known = instance.objects("watch", "--since", "-1h", "-l", "other")
    assert [event["type"] for event in known] == ["library.created", "document.added", "chunk.added"]
    assert known == instance.objects("watch", "--from", "-1h", "--no-follow", "-l", "other")
    with running(instance, "watch", "--since", "-1h", "-f", "-l", "other", "--type", "document.*") as process:
        assert line_of(process.stdout)["data"]["id"] == "o"
        instance.vec("ingest", "-l", "other", stdin='{"id": "later", "text": "t"}\n')
        assert line_of(process.stdout)["data"]["id"] == "later"
    instance.vec("delete", "-l", "other", "later")


def test_what_contradicts_itself_is_a_usage_error(instance: Instance) -> None:
    for arguments, told in (
        (["-f", "--no-follow"], "--follow cannot be combined with --no-follow"),
        (["--since", "-1h", "--from", "beginning"], "--since cannot be combined with --from"),
        (["--since", "yesterday"], "not a position in the log"),
        (["--type", "!*"], "the types exclude every event"),
        (["--type", "!chnk.*"], "no event type matches '!chnk.*'"),
    ):
        assert told in instance.vec("watch", *arguments, status=2).stderr


def test_types_after_an_exclamation_mark_are_left_out(instance: Instance) -> None:
    def types(*patterns: str) -> set[str]:
        given = [each for pattern in patterns for each in ("--type", pattern)]
        return {event["type"] for event in instance.objects("watch", "--since", "beginning", *given)}

    everything = types()
    assert types("!chunk.*") == {each for each in everything if not each.startswith("chunk.")}
    assert types("document.*", "!document.deleted") == {"document.added", "document.updated"}
    assert json.dumps(sorted(types("!document.*", "!library.*"))) == '["chunk.added", "chunk.deleted"]'
