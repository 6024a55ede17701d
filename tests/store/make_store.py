"""Makes the store of the newest schema that test_old_stores.py is to keep: `python -m tests.store.make_store`."""

from __future__ import annotations

import gzip
from pathlib import Path

from tests.support.instance import Instance
from vecd.store.schema import MIGRATIONS


def main() -> None:
    with Instance() as instance:
        daemon = instance.start()
        with instance.connect() as client:
            client.request("library.create", library="words", embedder="hash", index="flat", language="german")
            client.request("library.create", library="points", embedder="none", metric="l2", index="flat", recall=0.9)
            logs = {"id": "a", "title": "Logs", "metadata": {"lang": "en", "year": 2026}}
            two = {"id": "b", "texts": ["one chunk", "another chunk"]}
            gone = {"id": "gone", "text": "this one is deleted"}
            client.ingest([{**logs, "text": "rotate the logs every night"}, two, gone], "words")
            client.ingest([{**logs, "text": "rotate the logs every week"}, {"op": "delete", "id": "gone"}], "words")
            client.ingest([{"id": f"p{n}", "vector": [float(n), 1.0, -0.5]} for n in range(5)], "points")
            client.request("library.create", library="dropped", embedder="hash", index="flat")
            client.request("library.delete", library="dropped")
            client.request("library.rebuild", library="points", index="kdtree", parameters={"leaf_size": 8})
            client.add_relay("kept", "file:///nowhere/events.ndjson", types=["document.*"], paused=True)
            client.request("shutdown")
        daemon.wait()
        path = Path(__file__).with_name("data") / f"schema-{len(MIGRATIONS)}.db.gz"
        path.write_bytes(gzip.compress(instance.settings.store.read_bytes(), mtime=0))
        print(path)


if __name__ == "__main__":
    main()
