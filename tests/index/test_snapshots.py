"""A snapshot saves time and never costs a right answer: what is wrong with it is noticed, told, and set aside.

Damage is done to every part of the file, at offsets that hypothesis chooses; the vectors are all in the store.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.support.index_source import COMBINATIONS, WAIT_S, Driven, MemorySource, check, spec
from tests.support.instance import ROOT
from vecd.index import builder, snapshot_file
from vecd.index.builder import Loaded
from vecd.index.policy import Tuning
from vecd.index.pools import Pools, make_pools
from vecd.index.structure import Spec

_DIMENSION = 4
_SPEC = spec("hnsw float32", "l2", _DIMENSION)
_COUNT = 60
#: A structure is made and saved at once, and one that is there is left as it is.
_TUNING = Tuning(rows_min=20, dead_share_max=1, save_rows_min=1, save_rows_at_stop=1, quiet_s=0, retry_s=0)
#: No structure is made of what is in the tail.
_AS_LOADED = Tuning(rows_min=1_000, dead_share_max=1, save_rows_min=1_000)


@pytest.fixture(scope="module")
def pools() -> Iterator[Pools]:
    made = make_pools()
    yield made
    made.close()


def filled(path: Path, its_spec: Spec = _SPEC, seed: int = 1) -> MemorySource:
    source = MemorySource(its_spec, path)
    source.commit(np.random.default_rng(seed).standard_normal((_COUNT, its_spec.dimension), np.float32))
    return source


@cache
def saved(name: str = "hnsw float32", metric: str = "l2") -> bytes:
    """A snapshot of what `filled` has, compared in that way."""
    with tempfile.TemporaryDirectory() as folder:
        driven = Driven(filled(Path(folder, "snapshot"), spec(name, metric, _DIMENSION)), _TUNING)
        assert driven.settle()["structure"] == _COUNT
        driven.stop()
        return Path(folder, "snapshot").read_bytes()


def load(source: MemorySource) -> Loaded:
    return builder.load(source.spec, source, lambda: False)


def arrays_of(loaded: Loaded) -> dict[str, npt.NDArray[Any]]:
    assert loaded.structure is not None
    return {name: array.copy() for name, array in (loaded.structure.arrays() or {}).items()}


def sizes(source: MemorySource) -> tuple[int, int]:
    """Of what is loaded: how many vectors the structure has, and how many are beside it."""
    loaded = load(source)
    return 0 if loaded.structure is None else len(loaded.structure.rows), len(loaded.tail)


def check_answers(pools: Pools, source: MemorySource, tuning: Tuning = _AS_LOADED) -> dict[str, Any]:
    """Searches are right; how things stand."""
    driven = Driven(source, tuning, pools)
    query = np.array([0.5, -1, 0, 2], np.float32)
    half = source.spec.parameters.get("vectors") == "float16"
    for k, exact in ((5, True), (1_000, False), (5, False)):
        answer = driven.search(query, k, ef=100, exact=exact)
        check(answer, query, k, source.vectors, source.spec.metric, exact=exact or k == 1_000, half=half)
    driven.stop()
    return driven.live.describe()


def check_refused(pools: Pools, content: bytes, why: str, source: MemorySource | None = None) -> None:
    """It is told and set aside, and all is answered from the tail."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "snapshot")
        path.write_bytes(content)
        source = source or filled(path)
        source.path = path
        loaded = load(source)
        assert loaded.structure is None
        assert loaded.damage is not None
        assert why in loaded.damage
        assert str(path) + ".damaged" in loaded.damage
        assert len(loaded.tail) == len(source.vectors)
        assert [each.name for each in Path(folder).iterdir()] == ["snapshot.damaged"]
        assert path.with_name("snapshot.damaged").read_bytes() == content
        assert load(source).damage is None, "it is told once"
        path.write_bytes(content)
        described = check_answers(pools, source)
        assert why in described["damage"]
        assert described["structure"] == 0


# --- as it should be ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "metric"), [each for each in COMBINATIONS if each[0].startswith("hnsw")])
def test_a_structure_comes_back_as_it_was_saved(pools: Pools, name: str, metric: str, tmp_path: Path) -> None:
    source = filled(tmp_path / "snapshot", spec(name, metric, _DIMENSION))
    (tmp_path / "snapshot").write_bytes(saved(name, metric))
    loaded = load(source)
    assert (loaded.damage, len(loaded.tail)) == (None, 0)
    arrays = arrays_of(loaded)
    assert arrays["labels"].tolist() == list(source.vectors)
    again = tmp_path / "again"
    about, _ = snapshot_file.load(tmp_path / "snapshot")
    snapshot_file.save(again, about, arrays)
    assert again.read_bytes() == saved(name, metric)
    described = check_answers(pools, source)
    assert (described["structure"], described["tail"]) == (_COUNT, 0)


def test_what_came_and_went_after_it_was_saved_is_right(pools: Pools, tmp_path: Path) -> None:
    source = filled(tmp_path / "snapshot")
    (tmp_path / "snapshot").write_bytes(saved())
    source.commit(np.ones((7, _DIMENSION), np.float32), [1, 5, _COUNT])
    source.commit(np.zeros((2, _DIMENSION), np.float32), [_COUNT + 1])
    assert sizes(source) == (_COUNT - 3, 8)
    check_answers(pools, source)
    source.commit(removed=list(source.vectors))
    assert sizes(source) == (0, 0)
    check_answers(pools, source)


def test_a_restored_structure_goes_on_growing_and_is_saved_again(pools: Pools, tmp_path: Path) -> None:
    source = filled(tmp_path / "snapshot")
    (tmp_path / "snapshot").write_bytes(saved())
    driven = Driven(source, _TUNING, pools)
    driven.write(np.random.default_rng(2).standard_normal((30, _DIMENSION)), [3, 4])
    assert driven.settle()["structure"] == _COUNT + 28
    assert source.reports == [], "it need not be built"
    driven.stop()
    assert (tmp_path / "snapshot").read_bytes() != saved()
    assert sizes(source) == (_COUNT + 28, 0)
    check_answers(pools, source)


def test_what_is_restored_is_not_saved_again_and_what_is_built_anew_is(pools: Pools, tmp_path: Path) -> None:
    path = tmp_path / "snapshot"
    source = filled(path)
    path.write_bytes(saved())
    before = path.stat().st_ino
    driven = Driven(source, _TUNING, pools)
    driven.write(removed=[1, 2, 3])
    driven.settle()
    assert path.stat().st_ino == before, "there is nothing new in it"
    driven.live.rebuild().result(WAIT_S)
    driven.settle()
    driven.stop()
    loaded = load(source)
    assert loaded.structure is not None
    assert loaded.structure.rows.count == _COUNT - 3, "the dead are in the old one"


def test_a_snapshot_of_other_parameters_is_removed_without_a_word(tmp_path: Path) -> None:
    other = spec("hnsw float32", "l2", _DIMENSION, m=8)
    for wanted in (other, Spec(_DIMENSION, "cosine", "hnsw", _SPEC.parameters)):
        (tmp_path / "snapshot").write_bytes(saved())
        loaded = load(filled(tmp_path / "snapshot", wanted))
        assert (loaded.structure, loaded.damage) == (None, None)
        assert list(tmp_path.iterdir()) == []


def test_kinds_that_are_made_as_fast_as_they_are_read_keep_no_snapshot(pools: Pools, tmp_path: Path) -> None:
    for name in ("flat", "lsh", "kdtree"):
        driven = Driven(filled(tmp_path / "snapshot"), _TUNING, pools)
        driven.settle()
        assert [each.name for each in tmp_path.iterdir()] == ["snapshot"]
        driven.live.rebuild(spec(name, "l2", _DIMENSION)).result(WAIT_S)
        driven.settle()
        assert list(tmp_path.iterdir()) == [], "the one of the structure before"
        driven.stop()


# --- damaged --------------------------------------------------------------------------------------------------------


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_a_file_of_which_any_byte_is_another_is_refused_or_as_good(data: st.DataObject) -> None:
    content = bytearray(saved())
    offset = data.draw(st.one_of(st.integers(0, len(content) - 1), st.integers(0, 600)))
    content[offset] ^= data.draw(st.integers(1, 255))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "snapshot")
        path.write_bytes(content)
        check_loaded(load(filled(path)), path)


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 20_000))
@example(0)
@example(11)
def test_a_file_that_is_cut_anywhere_is_refused_or_as_good(length: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "snapshot")
        path.write_bytes(saved()[:length])
        check_loaded(load(filled(path)), path)


def check_loaded(loaded: Loaded, path: Path) -> None:
    """Either it is refused, or what it holds is what was saved."""
    aside = path.with_name(path.name + ".damaged")
    if loaded.structure is None:
        assert loaded.damage is not None
        assert str(aside) in loaded.damage
        assert aside.exists()
        assert not path.exists()
        assert len(loaded.tail) == _COUNT
        return
    assert loaded.damage is None
    assert not aside.exists()
    path.write_bytes(saved())
    was = arrays_of(load(filled(path)))
    assert {name: array.tobytes() for name, array in arrays_of(loaded).items()} == {
        name: array.tobytes() for name, array in was.items()
    }


def test_what_stands_behind_the_end_of_the_file_does_no_harm(pools: Pools, tmp_path: Path) -> None:
    (tmp_path / "snapshot").write_bytes(saved() + b"garbage" * 1_000)
    assert check_answers(pools, filled(tmp_path / "snapshot"))["structure"] == _COUNT


@pytest.mark.parametrize(
    ("damage", "why"),
    [
        (lambda content: b"", "is not a snapshot of vecd"),
        (lambda content: bytes(len(content)), "is not a snapshot of vecd"),
        (lambda content: b"SQLite format 3\x00" + content, "is not a snapshot of vecd"),
        (lambda content: content[:7] + b"\x02" + content[8:], "has format 2; this vecd supports formats up to 1"),
        (lambda content: content[:7] + b"\xff" + content[8:], "has format 255"),
        (lambda content: content[:8] + b"\xff\xff\xff\xff" + content[12:], "its header is too long"),
        (lambda content: content[:8] + b"\x00\x0f\xff\xff" + content[12:], "checksum of its header"),
        (lambda content: content[:40] + b"!" + content[41:], "checksum of its header"),
        (lambda content: content[:-400] + bytes([content[-400] ^ 1]) + content[-399:], "the checksum of neighbors"),
        (lambda content: content[:-400], "is truncated"),
        (lambda content: content[: len(content) // 2] + bytes(len(content) - len(content) // 2), "checksum of"),
    ],
)
def test_damage_is_told_and_set_aside_and_answers_are_right(
    pools: Pools, damage: Callable[[bytes], bytes], why: str
) -> None:
    check_refused(pools, damage(saved()), why)


def test_after_damage_a_structure_is_built_anew_and_the_word_of_it_is_gone(pools: Pools, tmp_path: Path) -> None:
    (tmp_path / "snapshot").write_bytes(b"what is this")
    source = filled(tmp_path / "snapshot")
    driven = Driven(source, _TUNING, pools)
    described = driven.settle()
    assert [report.reason for report in source.reports] == ["damaged"]
    assert described["structure"] == _COUNT
    assert "damage" not in described
    driven.stop()
    assert check_answers(pools, source)["structure"] == _COUNT


def test_the_snapshot_of_another_library_is_refused(pools: Pools, tmp_path: Path) -> None:
    source = filled(tmp_path / "elsewhere")
    source.identity = {"library": 2}
    check_refused(pools, saved(), "belongs to another library", source)


def test_the_snapshot_of_a_store_that_was_put_back_and_went_on_otherwise_is_refused(pools: Pools) -> None:
    """Labels are given again, to other vectors; also if it is the last one only."""
    for kept in (0, _COUNT // 2, _COUNT - 1):
        source = MemorySource(_SPEC)
        source.commit(np.stack(list(filled(Path()).vectors.values()))[:kept])
        source.commit(np.random.default_rng(9).standard_normal((_COUNT - kept, _DIMENSION), np.float32))
        check_refused(pools, saved(), "its vectors differ", source)


def test_the_snapshot_of_a_store_that_was_put_back_is_as_good(pools: Pools, tmp_path: Path) -> None:
    source = MemorySource(_SPEC, tmp_path / "snapshot")
    source.commit(np.stack(list(filled(Path()).vectors.values()))[:40])
    (tmp_path / "snapshot").write_bytes(saved())
    assert check_answers(pools, source)["structure"] == 40


def test_a_snapshot_that_lacks_vectors_is_refused(pools: Pools, tmp_path: Path) -> None:
    source = filled(tmp_path / "snapshot")
    source.vectors = {3 * label: vector for label, vector in source.vectors.items()}
    source.last_label = 3 * _COUNT
    driven = Driven(source, _TUNING, pools)
    driven.settle()
    driven.stop()
    content = (tmp_path / "snapshot").read_bytes()
    source.vectors = dict(sorted({**source.vectors, 100: np.ones(_DIMENSION, np.float32)}.items()))
    check_refused(pools, content, "it lacks vectors", source)


# --- that could not be written --------------------------------------------------------------------------------------


def refuse(_: int) -> None:
    raise OSError(28, "No space left on device")


def test_a_save_that_fails_leaves_the_snapshot_before_it(
    pools: Pools, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = filled(tmp_path / "snapshot")
    (tmp_path / "snapshot").write_bytes(saved())
    monkeypatch.setattr(os, "fsync", refuse)
    driven = Driven(source, Tuning(rows_min=20, save_rows_min=1, save_rows_at_stop=1, quiet_s=0), pools)
    driven.write(np.random.default_rng(2).standard_normal((30, _DIMENSION)))
    described = driven.settle()
    assert (described["state"], described["structure"]) == ("ready", _COUNT + 30)
    driven.stop()
    with pytest.raises(OSError, match="No space left"):
        driven.live.save()
    assert [each.name for each in tmp_path.iterdir()] == ["snapshot"]
    assert (tmp_path / "snapshot").read_bytes() == saved()
    assert sizes(source) == (_COUNT, 30)
    check_answers(pools, source)


def test_an_array_of_nothing_and_a_folder_that_is_not_there_are_no_matter(tmp_path: Path) -> None:
    arrays: dict[str, npt.NDArray[Any]]
    arrays = {"some": np.arange(5, dtype=np.int64), "none": np.empty(0, np.int32), "last": np.ones(3, np.uint8)}
    path = tmp_path / "one" / "two" / "snapshot"
    size = snapshot_file.save(path, {"of": "it"}, arrays)
    assert path.stat().st_size == size
    assert path.stat().st_mode & 0o777 == 0o600
    about, again = snapshot_file.load(path)
    assert about == {"of": "it"}
    assert {name: array.tolist() for name, array in again.items()} == {
        name: array.tolist() for name, array in arrays.items()
    }


_PEAK = """
import sys
from pathlib import Path
from tests.support.index_source import spec
from vecd.index import kinds, snapshot_file

def resident(what):
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * int(next(line for line in lines if line.startswith(what)).split()[1])

its = spec("hnsw float32", "l2", 256)
kinds.KINDS["hnsw"].make(its)  # what faiss takes
before = resident("VmRSS")
with snapshot_file.opened(Path(sys.argv[1])) as (_, arrays):
    structure = kinds.KINDS["hnsw"].restore(its, arrays)
assert structure.rows.count == 40_000
print(resident("VmHWM") - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_loading_a_snapshot_takes_little_more_memory_than_its_file(tmp_path: Path) -> None:
    count, links = 40_000, 8  # a graph without links, which is soon made
    arrays: dict[str, npt.NDArray[Any]] = {
        "labels": np.arange(count, dtype=np.int64),
        "nodes": np.arange(count, dtype=np.int32),
        "centre": np.zeros(256, np.float32),
        "codes": np.random.default_rng(3).standard_normal(count * 256, np.float32).view(np.uint8),
        "levels": np.ones(count, np.int32),
        "offsets": links * np.arange(count + 1, dtype=np.uint64),
        "neighbors": np.full(links * count, -1, np.int32),
        "entry": np.zeros(2, np.int64),
    }
    size = snapshot_file.save(tmp_path / "snapshot", {}, arrays)
    command = [sys.executable, "-c", _PEAK, str(tmp_path / "snapshot")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True, cwd=ROOT)
    assert int(done.stdout) < 1.6 * size  # it was over 3
