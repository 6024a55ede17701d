"""A store of every schema there has been still opens, with all that it holds. (data/schema-N.db.gz; never edited.)"""

from __future__ import annotations

import gzip
from pathlib import Path

import apsw
import pytest

from tests.support import history
from tests.support.instance import Instance
from vecd.store.schema import MIGRATIONS, migrate

DATA = Path(__file__).with_name("data")
#: Up to this schema full text was kept in the store, in tables of its own for each library.
LAST_WITH_TEXT = 4


def text_tables(path: Path) -> list[str]:
    db = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READONLY)
    try:
        rows = db.execute("SELECT name FROM sqlite_schema WHERE name LIKE 'text\\_%' ESCAPE '\\' ORDER BY name")
        return [name for (name,) in rows]
    finally:
        db.close()


def number_of(path: Path) -> int:
    return int(path.name.removeprefix("schema-").removesuffix(".db.gz"))


def test_there_is_a_store_of_every_schema() -> None:
    assert {path.name for path in DATA.iterdir()} == {f"schema-{n}.db.gz" for n in range(1, len(MIGRATIONS) + 1)}


@pytest.mark.parametrize("path", sorted(DATA.iterdir()), ids=lambda path: path.name)
def test_an_old_store_opens_with_all_that_it_holds(path: Path) -> None:
    with Instance() as instance:
        instance.settings.data.mkdir(mode=0o700)
        instance.settings.store.write_bytes(gzip.decompress(path.read_bytes()))
        assert ("text_1" in text_tables(instance.settings.store)) == (number_of(path) <= LAST_WITH_TEXT)
        daemon = instance.start()
        with instance.connect() as client:
            assert history.check(client) == {"words": {"a": 1, "b": 2}, "points": {f"p{n}": 1 for n in range(5)}}
            a, b, gone = client.get(["a", "b", "gone"], "words")
            assert a == {
                "id": "a",
                "title": "Logs",
                "metadata": {"lang": "en", "year": 2026},
                "chunks": [{"chunk_id": "a#0", "text": "rotate the logs every week"}],
            }
            assert b is not None
            assert [chunk["text"] for chunk in b["chunks"]] == ["one chunk", "another chunk"]
            assert gone is None
            for mode in ("text", "vector", "hybrid"):
                assert next(client.search("logs", library="words", mode=mode))["document_id"] == "a"
            english = number_of(path) <= LAST_WITH_TEXT  # the newer one is German, which does not stem "rotating"
            for words, found in (
                ("week", ["a#0"]), ("another", ["b#1"]), ("chunk", ["b#0", "b#1"]), ("deleted", []), ("night", []),
                ("rotating", ["a#0"] if english else []),
            ):  # fmt: skip
                hits = client.search(words, library="words", mode="text")
                assert sorted(hit["chunk_id"] for hit in hits) == found, words
            nearest = client.search(vector=[3.2, 1.0, -0.5], library="points", k=2)
            assert [hit["document_id"] for hit in nearest] == ["p3", "p4"]
            kept = {each["name"]: each for each in client.request("library.list")["libraries"]}
            old = number_of(path) < 5
            assert kept["points"]["recall"]["promise"] == (0.98 if old else 0.9)
            assert kept["words"]["language"] == ("english" if old else "german")
            assert client.ingest([{"id": "new", "text": "still takes writes"}], "words")["added"] == 1
            (hit,) = client.search("takes", library="words", mode="text")
            assert hit["document_id"] == "new"
            history.check(client)
            client.request("shutdown")
        assert daemon.wait(30) == 0
        assert text_tables(instance.settings.store) == []


def test_an_old_store_with_a_schedule_of_a_name_that_came_later_opens_and_keeps_it(tmp_path: Path) -> None:
    path = tmp_path / "vec.db"
    path.write_bytes(gzip.decompress((DATA / "schema-5.db.gz").read_bytes()))
    db = apsw.Connection(str(path))
    db.execute("INSERT INTO schedules VALUES ('upkeep.verify', '@daily', '', 'once', '{}', 1, 1, NULL, NULL)")
    migrate(db, str(path))
    assert db.execute("SELECT cron FROM schedules WHERE name = 'upkeep.verify'").fetchall() == [("@daily",)]
    db.close()
