"""What is deleted and trimmed is gone from the store's files, and not only from what can be found."""

from __future__ import annotations

from pathlib import Path

from tests.support import history
from tests.support.instance import Instance
from tests.support.waiting import until

SECRET = b"correct-horse-battery-staple"


def held(instance: Instance) -> int:
    """How often the secret stands in the store's files."""
    store = instance.settings.store
    return sum(Path(f"{store}{suffix}").read_bytes().count(SECRET) for suffix in ("", "-wal"))


def test_deleted_texts_are_gone_from_the_store_and_its_log_behind_a_trim() -> None:
    with Instance({"VEC_EMBEDDER": "hash"}) as instance:
        daemon = instance.start()
        texts = [f"{'some words before it ' * (n % 50)} {SECRET.decode()} number {n}" for n in range(300)]
        with instance.connect() as client:
            client.ingest([{"id": f"kept{n}", "text": f"this stays {n}"} for n in range(300)])
            client.ingest([{"id": f"d{n}", "text": text, "metadata": {"key": SECRET.decode()}}
                           for n, text in enumerate(texts)])  # fmt: skip
            client.ingest([{"id": f"d{n}", "text": f"another text {n}"} for n in range(100)])
            client.delete([f"d{n}" for n in range(100, 300)])
            assert held(instance) >= 300, "the log still refers to them"
            instance.vec("trim", "--keep-count", "0", "--wait")
            until(lambda: held(instance) == 0, "the vacuum")
            assert len(history.tables(client)["default"]) == 400
            client.request("shutdown")
        assert daemon.wait(30) == 0
        assert SECRET not in instance.settings.store.read_bytes()
