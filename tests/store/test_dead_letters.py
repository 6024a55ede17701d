"""Dead letters in the store: bounded for each connector, and one for each message."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from vecd import limits
from vecd.errors import Code, VecError
from vecd.store import connectors
from vecd.store.connectors import NewLetter
from vecd.store.database import Database


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    made = Database(tmp_path / "vec.db", lambda commit: None, lambda failure: None, lambda: None)
    made.open()
    made.submit(lambda tx: connectors.add(tx, "relay", "out", {"url": "file:///x"})).result()
    yield made
    made.close()


def letter(position: str, reason: str = "refused", body: bytes = b"body") -> NewLetter:
    return NewLetter(position, "refused", reason, 1, {"type": "document.added"}, body)


def positions(database: Database) -> list[tuple[str, str, int]]:
    with database.read_transaction() as db:
        found = connectors.letters(db, "relay", "out", count_max=100, bytes_max=10_000)
    return [(each.position, each.reason, each.attempts) for each in found]


def test_a_message_that_is_refused_again_has_one_dead_letter_with_the_last_reason(database: Database) -> None:
    database.submit(lambda tx: connectors.add_letters(tx, "relay", "out", [letter("a:1"), letter("a:2")])).result()
    database.submit(lambda tx: connectors.add_letters(tx, "relay", "out", [letter("a:1", "again")])).result()
    assert positions(database) == [("a:1", "again", 2), ("a:2", "refused", 1)]


def test_more_dead_letters_than_the_limit_are_refused_and_none_of_them_is_kept(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "DEAD_LETTERS_MAX", 2)
    database.submit(lambda tx: connectors.add_letters(tx, "relay", "out", [letter("a:1")])).result()
    with pytest.raises(VecError) as caught:
        database.submit(lambda tx: connectors.add_letters(tx, "relay", "out", [letter("a:2"), letter("a:3")])).result()
    assert caught.value.code == Code.BUSY
    assert caught.value.hint == "retry or drop them: vec relay dead out"
    assert positions(database) == [("a:1", "refused", 1)]
    database.submit(lambda tx: connectors.drop_letters(tx, "relay", "out", None)).result()
    database.submit(lambda tx: connectors.add_letters(tx, "relay", "out", [letter("a:2"), letter("a:3")])).result()
    assert len(positions(database)) == 2


def test_a_page_has_a_bounded_size_and_at_least_one_letter(database: Database) -> None:
    many = [letter(f"a:{n}", body=bytes(400)) for n in range(5)]
    database.submit(lambda tx: connectors.add_letters(tx, "relay", "out", many)).result()
    with database.read_transaction() as db:
        first = connectors.letters(db, "relay", "out", count_max=100, bytes_max=900)
        rest = connectors.letters(db, "relay", "out", after=first[-1].letter_id, count_max=100, bytes_max=1)
    assert [each.position for each in first] == ["a:0", "a:1"]
    assert [each.position for each in rest] == ["a:2"]


def test_a_removed_connector_leaves_no_dead_letters_to_one_of_its_name(database: Database) -> None:
    database.submit(lambda tx: connectors.add_letters(tx, "relay", "out", [letter("a:1")])).result()
    database.submit(lambda tx: connectors.remove(tx, "relay", "out")).result()
    database.submit(lambda tx: connectors.add(tx, "relay", "out", {"url": "file:///x"})).result()
    assert positions(database) == []
