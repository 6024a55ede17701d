"""vec watch --format ingest: what it prints makes another library equal, whoever writes and whatever is killed."""

from __future__ import annotations

import contextlib
import json
import os
import random
import shlex
import signal
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.instance import BIN, Instance
from tests.support.running import fresh, ids_in, line_of, rest_of, running
from tests.support.waiting import until
from vecd import limits

from .watching import head, put, watching


@pytest.fixture(scope="module")
def instance() -> Iterator[Instance]:
    with Instance({"VEC_EMBEDDER": "hash", "VEC_RETRY_S": "0.01"}) as made:
        made.environment["PATH"] = f"{BIN}:{made.environment['PATH']}"
        made.vec("status")
        yield made


def lines_of(instance: Instance, *arguments: str, status: int = 0) -> list[Any]:
    return instance.objects("watch", "--format", "ingest", "--no-follow", *arguments, status=status)


def contents(instance: Instance, library: str) -> dict[str, Any]:
    """Everything of a library: id -> the document with its chunks' texts and packed vectors."""
    with instance.connect() as client:
        ids = [each["id"] for each in client.items("list", "documents", library=library)]
        found: dict[str, Any] = {}
        for start in range(0, len(ids), 500):
            for document in client.get(ids[start : start + 500], library, vectors=True):
                assert document is not None
                found[document["id"]] = document
        return found


def mirrored(instance: Instance, source: str, *arguments: str) -> str:
    """A new library, made by one pipe."""
    mirror = fresh(instance)
    command = f"vec watch --format ingest --snapshot --no-follow -l {source} {shlex.join(arguments)}"
    pipe(instance, f"{command} | vec ingest -l {mirror}")
    return mirror


def pipe(instance: Instance, command: str) -> None:
    subprocess.run(
        ["bash", "-o", "pipefail", "-c", command], env=instance.environment, check=True, capture_output=True, timeout=60
    )


# --- the lines ------------------------------------------------------------------------------------------------------


def test_a_snapshot_through_a_pipe_makes_an_equal_library_exact_to_the_bit(instance: Instance) -> None:
    source = fresh(instance)
    numbers = random.Random(7)
    put(
        instance,
        source,
        [
            {"id": "plain", "text": "one"},
            {"id": "all", "title": "Títle", "texts": ["a", "b", "c"], "metadata": {"n": 1, "deep": {"x": [None, 2.5]}}},
            {"id": "vector", "vector": [numbers.uniform(-1, 1) for _ in range(256)]},
            {"id": "both", "texts": ["x", "y"], "vectors": [[numbers.random() for _ in range(256)] for _ in "xy"]},
            {"id": "long", "text": "word " * 2_000},
            {"id": 'odd "\t id', "text": "\u2028 \U0001f600 \\"},
        ],
    )  # fmt: skip
    mirror = mirrored(instance, source)
    assert contents(instance, mirror) == contents(instance, source)
    assert len(contents(instance, source)) == 6


@pytest.mark.parametrize("background", [False, True])
@pytest.mark.parametrize("documents", [[], [{"id": "a", "text": "Guten Tag"}, {"id": "b", "vector": [0.5] * 256}]])
def test_a_mirror_that_does_not_exist_is_made_with_the_settings_of_the_source(
    instance: Instance, documents: list[dict[str, Any]], background: bool
) -> None:
    settings = {"metric": "l2", "index": "flat", "chunk_chars": 300, "recall": 0.9, "language": "german"}
    source = fresh(instance, **settings)
    put(instance, source, documents)
    mirror = f"{source}-mirror"
    watch = f"vec watch --format ingest --snapshot --no-follow -l {source}"
    pipe(instance, f"{watch} | vec ingest -l {mirror} {'--background' if background else ''}")
    with instance.connect() as client:
        if background:
            client.wait_for_jobs([next(client.jobs(limit=1))["job_id"]], timeout_s=60)
        shown = client.library(mirror)
    assert {key: shown[key] for key in settings if key != "recall"} | {"recall": shown["recall"]["promise"]} == settings
    assert (shown["embedder"], shown["dimension"]) == ("hash", 256)
    assert contents(instance, mirror) == contents(instance, source)
    # Again, into the library that is there now.
    pipe(instance, f"{watch} | vec ingest -l {mirror}")
    assert contents(instance, mirror) == contents(instance, source)


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ('{"metrc": "l2"}', "no setting 'metrc'"),
        ('{"metric": 5}', "'metric' must be a string"),
        ('{"metric": "l3"}', "l3"),
        ('{"parameters": []}', None),
        ('{"parameters": 5}', "'parameters' must be an object"),
        ('{"dimension": 7}', "256-dimension"),
    ],
)
def test_settings_that_no_library_can_have_are_refused(instance: Instance, settings: str, told: str | None) -> None:
    lines = f'{{"op": "create", "settings": {settings}}}\n{{"id": "a", "text": "x"}}\n'
    done = instance.vec("ingest", "-l", "wrong-settings", stdin=lines, status=0 if told is None else 2)
    assert told is None or told in done.stderr
    with instance.connect() as client:
        there = "wrong-settings" in {each["name"] for each in client.libraries()}
        assert there == (told is None)
        if there:
            client.delete_library("wrong-settings")


def test_the_log_from_the_beginning_gives_the_same(instance: Instance) -> None:
    start, source, mirror = head(instance), fresh(instance), fresh(instance)
    put(instance, source, [{"id": f"d{number}", "text": f"text {number}"} for number in range(20)])
    put(instance, source, [{"id": "d1", "text": "changed"}, {"op": "delete", "id": "d2"}, {"op": "delete", "id": "d3"}])
    put(instance, source, [{"id": "d3", "text": "back"}])
    pipe(instance, f"vec watch --format ingest --no-follow --from {start} -l {source} | vec ingest -l {mirror}")
    assert contents(instance, mirror) == contents(instance, source)
    assert "d2" not in contents(instance, mirror)


def test_a_line_has_no_more_than_there_is(instance: Instance) -> None:
    source = fresh(instance)
    put(instance, source, [{"id": "a", "text": "one"}, {"id": "b", "vector": [1.0] + [0.0] * 255}])
    create, plain, bare = lines_of(instance, "--snapshot", "-l", source)
    assert list(create) == ["op", "settings"]
    assert list(plain) == ["id", "texts", "vectors"]
    assert bare == {"id": "b", "vectors": [[1.0] + [0.0] * 255]}


def test_without_vectors_texts_are_all_and_what_has_none_is_told(instance: Instance) -> None:
    source = fresh(instance)
    put(instance, source, [{"id": "a", "text": "one"}, {"id": "b", "vector": [1.0] * 256}])
    done = instance.vec(
        "watch", "--format", "ingest", "--no-follow", "--snapshot", "-l", source, "--no-vectors", status=3
    )
    assert [json.loads(line) for line in done.stdout.splitlines()[1:]] == [{"id": "a", "texts": ["one"]}]
    assert "document 'b'" in done.stderr


def test_what_leaves_the_filter_is_deleted(instance: Instance) -> None:
    source, mirror, start = fresh(instance), fresh(instance), head(instance)
    put(instance, source, [{"id": name, "text": name, "metadata": {"keep": name != "c"}} for name in "abc"])
    put(instance, source, [{"id": "a", "text": "a", "metadata": {"keep": False}}])
    put(instance, source, [{"id": "c", "text": "c", "metadata": {"keep": True}}])
    watch = f"vec watch --format ingest --no-follow --from {start} -l {source} --where 'keep = true'"
    pipe(instance, f"{watch} | vec ingest -l {mirror}")
    assert ids_in(instance, mirror) == ["b", "c"]


def test_a_document_whose_line_would_be_too_long_goes_without_its_vectors(instance: Instance) -> None:
    """2,500 chunks of 256 numbers each make more than 8 MiB of JSON."""
    source = fresh(instance)
    numbers = random.Random(3)
    vectors = [[numbers.random() for _ in range(256)] for _ in range(2_500)]
    with instance.connect() as client:
        client.ingest([{"id": "big", "texts": [f"t{n}" for n in range(2_500)], "vectors": vectors}], source)
    put(instance, source, [{"id": "small", "text": "one"}])
    done = instance.vec("watch", "--format", "ingest", "--no-follow", "--snapshot", "-l", source)
    _, big, small = done.stdout.splitlines()
    assert len(big) <= limits.LINE_BYTES_MAX
    assert (list(json.loads(big)), json.loads(small)["id"]) == (["id", "texts"], "small")
    assert "document 'big'" in done.stderr
    assert "vectors are omitted" in done.stderr


def test_a_document_that_fits_no_line_is_told_and_the_others_go_on(instance: Instance) -> None:
    source = fresh(instance, embedder="none", dimension=3)
    with instance.connect() as client:
        client.ingest(
            [{"id": "big", "texts": ["x" * 5_000_000, "y" * 5_000_000], "vectors": [[1, 2, 3], [4, 5, 6]]}], source
        )
    put(instance, source, [{"id": "small", "vector": [1, 2, 3]}])
    done = instance.vec("watch", "--format", "ingest", "--no-follow", "--snapshot", "-l", source, status=3)
    assert [json.loads(line)["id"] for line in done.stdout.splitlines()[1:]] == ["small"]
    assert "document 'big'" in done.stderr
    assert "(too_large)" in done.stderr


@pytest.mark.parametrize("filtered", [[], ["--where", "n = 1"]])
def test_the_end_of_the_library_ends_it_and_says_so(instance: Instance, tmp_path: Path, filtered: list[str]) -> None:
    source, file = fresh(instance), tmp_path / "cursor"
    watch = ["watch", "--format", "ingest", "-l", source, "--cursor-file", str(file), *filtered]
    with running(instance, *watch) as watcher:
        watching(instance, 1)
        put(instance, source, [{"id": "a", "text": "one", "metadata": {"n": 1}}])
        assert line_of(watcher.stdout)["id"] == "a"
        instance.vec("library", "delete", source)
        assert watcher.wait() == 4
        assert f"library '{source}' was deleted" in rest_of(watcher.stderr)
    assert f"library '{source}' was deleted" in instance.vec(*watch, "--no-follow", status=4).stderr
    assert source in instance.vec(*watch, status=4).stderr, "nor is it waited for"


def test_types_are_not_for_lines_of_ingest(instance: Instance) -> None:
    assert "--type" in instance.vec("watch", "--format", "ingest", "--type", "document.*", status=2).stderr


# --- mirrors that live ----------------------------------------------------------------------------------------------


class Again:
    """Ids for many writes of few documents."""

    pause_s = 0.005

    def __init__(self, numbers: random.Random) -> None:
        self._numbers = numbers

    def written(self) -> str:
        return f"d{self._numbers.randrange(300)}"

    deleted = written


class Once:
    """Ids that are written once, and deleted once at most: no later write hides that one was lost."""

    pause_s = 0.03

    def __init__(self, seed: int, numbers: random.Random) -> None:
        self._seed, self._numbers = seed, numbers
        self._count = 0
        self._there: list[str] = []

    def written(self) -> str:
        self._count += 1
        self._there.append(f"d{self._seed}-{self._count}")
        return self._there[-1]

    def deleted(self) -> str:
        """One of those that are there, if any."""
        if not self._there:
            return "none"
        return self._there.pop(self._numbers.randrange(len(self._there)))


class Writers:
    """Writes and deletes in a library during the block, in two threads, from a seed. `once`: no id is written twice.

    `ahead`: how many batches they write before somebody waits for them. Without it, the snapshot of a slow mirror grows
    as fast as it is read, on a busy machine.
    """

    def __init__(self, instance: Instance, library: str, seed: int, *, once: bool = False, ahead: int = 10**9) -> None:
        self._instance, self._library, self._once = instance, library, once
        self._ahead = self._allowed = ahead
        self._stop = threading.Event()
        self._failures: list[BaseException] = []
        self._threads = [threading.Thread(target=self._run, args=(seed * 10 + number,)) for number in range(2)]
        self.batches = 0

    def _run(self, seed: int) -> None:
        numbers = random.Random(seed)
        try:
            with self._instance.connect() as client:
                ids = Once(seed, numbers) if self._once else Again(numbers)
                while not self._stop.wait(ids.pause_s):
                    if self.batches >= self._allowed:
                        continue
                    lines = [self._line(numbers, ids) for _ in range(numbers.randrange(1, 30))]
                    client.ingest(lines, self._library)
                    self.batches += 1
        except BaseException as failure:
            self._failures.append(failure)

    def _line(self, numbers: random.Random, ids: Again | Once) -> dict[str, Any]:
        if numbers.random() < 0.3:
            return {"op": "delete", "id": ids.deleted()}
        its_id = ids.written()
        texts = [f"text {numbers.randrange(10**6)}" for _ in range(numbers.randrange(1, 4))]
        return {"id": its_id, "texts": texts, "metadata": {"n": numbers.randrange(100)}}

    def __enter__(self) -> Writers:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()
        for failure in self._failures:
            raise failure

    def wait_for_more(self, count: int) -> None:
        wanted = self.batches + count
        self._allowed = wanted + self._ahead
        until(lambda: self.batches >= wanted or self._failures, "more writes")


def seed_of(test: str) -> int:
    """From VEC_TEST_SEED, or random; printed, so that a failure can be run again."""
    seed = int(os.environ.get("VEC_TEST_SEED") or random.randrange(10**6))
    print(f"{test}: VEC_TEST_SEED={seed}")
    return seed


def kill_all(session: int) -> None:
    """Every process of a session, also those in groups of their own."""
    for _ in range(3):  # one may just have been made
        for entry in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError, IndexError, ValueError):
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
                if int(fields[3]) == session and fields[0] != "Z":
                    os.kill(int(entry.name), signal.SIGKILL)


def test_a_mirror_of_slices_killed_at_random_ends_up_equal(instance: Instance, tmp_path: Path) -> None:
    """`vec watch --cursor-file`, killed; what it had printed is ingested, and it goes on from its file."""
    seed = seed_of("slices")
    numbers = random.Random(seed)
    source, mirror, file = fresh(instance), fresh(instance), tmp_path / "cursor"
    watch = ["watch", "--format", "ingest", "--snapshot", "-l", source, "--cursor-file", str(file)]
    with Writers(instance, source, seed) as writers:
        writers.wait_for_more(10)
        for _ in range(6):
            with running(instance, *watch) as watcher:
                lines = [json.dumps(line_of(watcher.stdout)) for _ in range(numbers.randrange(1, 400))]
                watcher.kill()
                rest = rest_of(watcher.stdout).splitlines(keepends=True)
            whole = [line for line in rest if line.endswith("\n")]
            put_lines(instance, mirror, "\n".join(lines) + "\n" + "".join(whole))
            writers.wait_for_more(numbers.randrange(1, 10))
    put_lines(instance, mirror, instance.vec(*watch, "--no-follow").stdout)
    assert contents(instance, mirror) == contents(instance, source), f"seed {seed}"


def put_lines(instance: Instance, library: str, lines: str) -> None:
    instance.vec("ingest", "-l", library, stdin=lines)


def is_past_snapshot(instance: Instance, consumer: str) -> bool:
    with instance.connect() as client:
        cursors = {each["name"]: each["cursor"] for each in client.consumers()}
    return "@" not in cursors.get(consumer, "@")


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="finds the processes of a session in /proc")
def test_a_mirror_by_command_killed_as_a_whole_at_random_ends_up_equal(instance: Instance) -> None:
    """Nothing of the pipe outlives a kill: neither the watch nor the ingest that it ran. It is killed in the snapshot,
    which begins again, and then in the events, where a batch that was committed too early would be missing."""
    seed = seed_of("command")
    numbers = random.Random(seed)
    source, mirror = fresh(instance), fresh(instance)
    watch = ["watch", "--format", "ingest", "--snapshot", "-l", source, "--consumer", f"to-{mirror}", "--batch", "50",
             "--exec", f"vec ingest -l {mirror} --no-spawn > /dev/null"]  # fmt: skip
    with Writers(instance, source, seed, once=True, ahead=30) as writers:
        writers.wait_for_more(10)
        for turn in range(6):
            with running(instance, *watch, start_new_session=True) as watcher:
                watching(instance, 1)
                if turn >= 2:
                    until(lambda: is_past_snapshot(instance, f"to-{mirror}"), "the end of the snapshot")
                writers.wait_for_more(numbers.randrange(1, 20))
                kill_all(watcher.pid)
                watcher.wait()
            watching(instance, 0)
    instance.vec(*watch, "--no-follow")
    assert contents(instance, mirror) == contents(instance, source), f"seed {seed}"
    (consumer,) = instance.objects("consumers", "list")
    assert consumer["cursor"].partition("@")[1] == ""
    instance.vec("consumers", "delete", f"to-{mirror}")


def test_a_pipe_that_lives_keeps_up_with_its_source(instance: Instance) -> None:
    source, mirror = fresh(instance), fresh(instance)
    watch = ["watch", "--format", "ingest", "--snapshot", "-l", source]
    with (
        running(instance, *watch) as watcher,
        running(instance, "ingest", "-l", mirror, stdin=watcher.stdout) as ingest,
    ):
        with Writers(instance, source, seed_of("pipe")) as writers:
            writers.wait_for_more(20)
        wanted = contents(instance, source)
        until(lambda: contents(instance, mirror) == wanted, "the mirror's being equal")
        assert (watcher.poll(), ingest.poll()) == (None, None)
