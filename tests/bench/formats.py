"""Formats of input: documents/s of the same documents, with vectors of 384 dimensions, as Parquet, Arrow and CSV,
beside NDJSON in the same run; and messages/s of mail, beside NDJSON with the same texts.

The formats take turns, each in a library of its own. What `vec ingest` prints as elapsed is the time.
"""

from __future__ import annotations

import json
import mailbox
import random
import statistics
import tempfile
from pathlib import Path
from typing import Any, Final

from tests.bench.measure import sentences
from tests.support.instance import Instance

_DOCUMENTS: Final = 5_000
_MESSAGES: Final = 3_000
_DIMENSION: Final = 384
_ROUNDS: Final = 3


def main() -> None:
    import pyarrow
    import pyarrow.feather
    import pyarrow.parquet

    numbers = random.Random(7)
    texts = sentences(_DOCUMENTS)
    rows = [
        {"id": str(n), "text": text, "vector": [numbers.random() for _ in range(_DIMENSION)], "year": n}
        for n, text in enumerate(texts)
    ]
    with tempfile.TemporaryDirectory() as folder, Instance() as instance:
        instance.start()
        place = Path(folder)
        table = pyarrow.Table.from_pylist(rows)
        pyarrow.parquet.write_table(table, place / "rows.parquet")
        pyarrow.feather.write_feather(table, place / "rows.feather")
        (place / "rows.ndjson").write_text(
            "".join(
                json.dumps({**{key: row[key] for key in ("id", "text", "vector")}, "metadata": {"year": row["year"]}})
                + "\n"
                for row in rows
            )
        )
        cells = ["id,text,vector,year"]
        cells += [f'{row["id"]},"{row["text"]}","{row["vector"]}",{row["year"]}' for row in rows]
        (place / "rows.csv").write_text("\n".join(cells) + "\n")
        _compare(instance, [place / f"rows.{form}" for form in ("ndjson", "parquet", "feather", "csv")], "none")
        box = mailbox.mbox(place / "mail.mbox")
        for n, text in enumerate(texts[:_MESSAGES]):
            box.add(f"Message-ID: <{n}@x>\nFrom: a@x\nTo: b@x\nSubject: Message {n}\n\n{text}\n")
        box.close()
        (place / "mail.ndjson").write_text(
            "".join(
                json.dumps({"id": str(n), "title": f"Message {n}", "text": text, "metadata": {"from": "a@x"}}) + "\n"
                for n, text in enumerate(texts[:_MESSAGES])
            )
        )
        _compare(instance, [place / "mail.ndjson", place / "mail.mbox"], "wordllama")


def _compare(instance: Instance, paths: list[Path], embedder: str) -> None:
    rates: dict[Path, list[float]] = {path: [] for path in paths}
    for number in range(_ROUNDS):
        for path in paths:
            library = f"{path.stem}-{path.suffix[1:]}-{number}"
            instance.vec("library", "create", library, "--embedder", embedder)
            done: Any = instance.objects("ingest", "-l", library, str(path))[-1]
            assert not done["failed"]
            rates[path].append(done["added"] / done["elapsed_s"])
    base = statistics.median(rates[paths[0]])
    for path, found in rates.items():
        rate = statistics.median(found)
        size = path.stat().st_size / 1e6
        print(f"{path.name:14} {rate:10,.0f}/s   {rate / base:5.2f} of NDJSON   {size:6.1f} MB", flush=True)


if __name__ == "__main__":
    main()
