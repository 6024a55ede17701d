"""Quality of search by mode on a judged collection: nDCG@10 and recall@100.

    python -m tests.bench.quality FOLDER

FOLDER holds docs.ndjson (as `vec ingest` reads it), queries.ndjson (`id`, `query`) and qrels.tsv (query id, document
id, grade); many public test collections are easily brought into that form.
"""

from __future__ import annotations

import json
import math
import os
import sys
from collections import defaultdict
from pathlib import Path

from tests.support.instance import Instance


def main() -> None:
    folder = sys.argv[1] if len(sys.argv) > 1 and Path(sys.argv[1]).is_dir() else os.environ.get("VEC_BENCH_COLLECTION")
    if not folder:
        print("  no collection: python -m tests.bench.quality FOLDER, or set VEC_BENCH_COLLECTION")
        return
    grades: dict[str, dict[str, int]] = defaultdict(dict)
    for line in (Path(folder) / "qrels.tsv").read_text().splitlines():
        query_id, document_id, grade = line.split("\t")
        grades[query_id][document_id] = int(grade)
    queries = [json.loads(line) for line in (Path(folder) / "queries.ndjson").read_text().splitlines()]
    with Instance() as instance:
        instance.start()
        instance.vec("ingest", str(Path(folder) / "docs.ndjson"), timeout_s=600)
        with instance.connect() as client:
            for mode in ("vector", "text", "hybrid"):
                gain = recall = 0.0
                for query in queries:
                    wanted = grades[query["id"]]
                    hits = client.search(query["query"], k=100, mode=mode)
                    found = list(dict.fromkeys(hit["document_id"] for hit in hits))
                    gain += _ndcg([wanted.get(each, 0) for each in found[:10]], list(wanted.values()))
                    recall += len(wanted.keys() & set(found)) / len(wanted)
                print(
                    f"  {mode:>6}: nDCG@10 {gain / len(queries):.3f}, recall@100 {recall / len(queries):.3f}",
                    flush=True,
                )


def _ndcg(found: list[int], wanted: list[int]) -> float:
    def gain(grades: list[int]) -> float:
        return sum(grade / math.log2(place + 2) for place, grade in enumerate(grades[:10]))

    ideal = gain(sorted(wanted, reverse=True))
    return gain(found) / ideal if ideal else 0.0


if __name__ == "__main__":
    main()
