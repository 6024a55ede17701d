"""The keys of the gateway: their file, and `vec keys`."""

from __future__ import annotations

import os
import stat
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.instance import Instance
from vecd.errors import Code, VecError
from vecd.http import keys
from vecd.http.keys import KeyFile


@pytest.fixture
def instance() -> Iterator[Instance]:
    with Instance() as made:
        yield made


@pytest.fixture
def file(tmp_path: Path) -> KeyFile:
    return KeyFile(tmp_path / "keys.json")


def refused(file: KeyFile, secret: str, now: float = 0.0) -> str:
    ring = file.ring()
    assert ring is not None
    with pytest.raises(VecError) as caught:
        ring.find(secret, now)
    assert not secret or secret not in str(caught.value)
    return caught.value.code


def test_a_key_is_shown_once_and_kept_only_as_a_hash(instance: Instance) -> None:
    (made,) = instance.objects("keys", "create", "ops", "--scope", "admin")
    secret = made["key"]
    assert keys.PATTERN.fullmatch(secret)
    path = instance.home / "keys.json"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert secret not in path.read_text()
    assert secret[4:36] not in path.read_text()
    (listed,) = instance.objects("keys", "list")
    assert listed == {name: value for name, value in made.items() if name != "key"}
    assert (listed["name"], listed["scope"], listed["libraries"], listed["expires_at"]) == ("ops", "admin", None, None)


def test_a_scope_includes_those_below_it(file: KeyFile) -> None:
    for scope, wanted in (("read", {"read"}), ("write", {"read", "write"}), ("admin", {"read", "write", "admin"})):
        key, _ = file.create(scope, scope)
        assert key.scopes == wanted


def test_a_key_is_found_until_it_expires(file: KeyFile) -> None:
    key, secret = file.create("brief", "read", ["notes"], expires_s=60)
    ring = file.ring()
    assert ring is not None
    assert ring.find(secret, key.created_at + 59) == key
    assert key.libraries == frozenset(("notes",))
    assert refused(file, secret, key.created_at + 60) == Code.UNAUTHORIZED


def test_a_key_that_was_copied_badly_is_recognised_without_the_file(file: KeyFile) -> None:
    _, secret = file.create("a", "read")
    assert keys.well_formed(secret)
    swapped = secret[:10] + secret[11] + secret[10] + secret[12:]
    for bad in (secret[:-1], secret + "x", swapped if swapped != secret else secret[:-1], secret.lower(), ""):
        assert not keys.well_formed(bad)
        assert refused(file, bad) == Code.UNAUTHORIZED
    assert refused(file, keys.generate()) == Code.UNAUTHORIZED


def test_a_change_of_the_file_is_seen_by_whoever_has_read_it(file: KeyFile) -> None:
    other = KeyFile(file.path)
    assert other.ring() is None
    key, secret = file.create("a", "read")
    ring = other.ring()
    assert ring is not None
    assert ring.find(secret, key.created_at) == key
    assert other.ring() is ring  # not read again
    file.revoke("a")
    ring = other.ring()
    assert ring is not None
    assert ring.keys == ()


def test_processes_that_create_keys_at_the_same_time_lose_none(instance: Instance) -> None:
    names = [f"key-{number}" for number in range(6)]
    started = [instance.spawn("keys", "create", name) for name in names]
    for each in started:
        each.communicate()
        assert each.returncode == 0
    assert sorted(each["name"] for each in instance.objects("keys", "list")) == names


def test_threads_that_change_keys_at_the_same_time_lose_nothing(file: KeyFile) -> None:
    for number in range(10):
        file.create(f"old-{number}", "read")
    work: list[Any] = [lambda n=n: file.revoke(f"old-{n}") for n in range(10)]
    work += [lambda n=n: KeyFile(file.path).create(f"new-{n}", "read") for n in range(10)]
    threads = [threading.Thread(target=each) for each in work]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert sorted(key.name for key in file.entries()) == [f"new-{n}" for n in range(10)]


def test_revoking_the_last_key_does_not_open_the_gateway(instance: Instance) -> None:
    instance.vec("keys", "create", "only")
    said = instance.vec("keys", "revoke", "only")
    assert "requests are refused" in said.stderr
    ring = KeyFile(instance.home / "keys.json").ring()
    assert ring is not None  # the file is there: keys are required
    assert ring.keys == ()


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (("create", "ops"), 1, "exists"),
        (("create", "-1"), 2, ""),
        (("create", "a b"), 2, "cannot be the name"),
        (("create", "x" * 65), 2, "cannot be the name"),
        (("create", "new", "--expires", "soon"), 2, "is not a duration"),
        (("create", "new", "--expires", "0s"), 2, "in the future"),
        (("create", "new", "--scope", "root"), 2, "root"),
        (("create", "new", "--library", "a/b"), 2, "cannot be the name of a library"),
        (("revoke", "opps"), 4, "there is no key 'opps'"),
    ],
)
def test_what_cannot_be_done_is_said(instance: Instance, arguments: tuple[str, ...], status: int, said: str) -> None:
    instance.vec("keys", "create", "ops")
    assert said in instance.vec("keys", *arguments, status=status).stderr
    assert [each["name"] for each in instance.objects("keys", "list")] == ["ops"]


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b'{"version": 1, "keys": [{}]}', b'{"version": 2, "keys": []}', b"\xff", b"[" * 100_000],
)
def test_a_damaged_file_is_refused_and_not_overwritten(file: KeyFile, content: bytes) -> None:
    file.path.write_bytes(content)
    file.path.chmod(0o600)
    actions: tuple[Any, ...] = (file.ring, lambda: file.create("a", "read"), lambda: file.revoke("a"))
    for action in actions:
        with pytest.raises(VecError) as caught:
            action()
        assert caught.value.code == Code.SETTINGS
        assert str(file.path) in caught.value.message
    assert file.path.read_bytes() == content


def test_a_file_that_others_can_write_to_is_refused(file: KeyFile) -> None:
    file.create("a", "read")
    os.chmod(file.path, 0o620)
    with pytest.raises(VecError, match="others can write"):
        KeyFile(file.path).ring()
