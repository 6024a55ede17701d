"""Full-text search of 300,000 titles, real texts and chunks of 100 terms: the inverted index beside SQLite's FTS5 (as
tests/bench/fts5.py builds it) and tantivy, if it is installed.

Queries have three to eight words: one to three of the most common words, the others from one of the rows; k is 100.
Wanted of ours on an idle core: titles in a median of 1.5 ms and a p99 of 8 ms, chunks in a median of 5 ms; at most 10
µs for a row of twelve terms; 300,000 titles loaded in 1 s.

FTS5 also cuts texts into words and stems them. Ours and tantivy get lists of terms. tantivy's answers are addresses: it
need not look up what they stand for. Visible: from handing over one row until a search finds it.
"""

from __future__ import annotations

import importlib
import itertools
import re
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import apsw
import numpy as np
import orjson

from tests.bench import corpus, fts5
from tests.bench.measure import times_ms, told
from vecd.index.fulltext.inverted_index import InvertedIndex, TermQuery
from vecd.index.fulltext.segments import prepare

_ROWS, _BATCH, _K = 300_000, 500, 100
_QUERIES, _QUERIES_FTS5 = 500, 30
_VOCABULARY, _COMMON = 200_000, 6
_SINGLE_ROWS = 100

Rows = list[list[str]]


def main() -> None:
    _compare("generated titles", _generated(8))
    real = [re.findall(r"\w+", each.lower())[:60] for each in corpus.texts(_ROWS)]
    _compare("real texts", real)
    _compare("generated chunks", _generated(100))


def _generated(terms: int) -> Rows:
    """Rows of about so many terms, by Zipf's law with exponent 1: the most common is in every second title of eight."""
    random = np.random.default_rng(7)
    shares = np.cumsum(1 / np.arange(1, _VOCABULARY + 1))
    names = np.array([f"w{number}" for number in range(_VOCABULARY)], object)
    sizes = np.maximum(1, random.poisson(terms, _ROWS))
    rows: Rows = []
    for some in np.split(sizes, range(10_000, _ROWS, 10_000)):
        picks = np.searchsorted(shares, random.random(int(some.sum())) * shares[-1])
        rows += [each.tolist() for each in np.split(names[picks], np.cumsum(some)[:-1])]
    return rows


def _queries(rows: Rows) -> list[list[str]]:
    random = np.random.default_rng(8)
    frequent = [word for word, _ in Counter(itertools.chain.from_iterable(rows[:50_000])).most_common(_COMMON)]
    made = []
    for _ in range(_QUERIES):
        common = [frequent[each] for each in random.integers(0, _COMMON, int(random.integers(1, 4)))]
        row = rows[random.integers(len(rows))]
        others = [row[each] for each in random.integers(0, len(row), max(1, int(random.integers(3, 9)) - len(common)))]
        made.append([*common, *others])
    return made


def _compare(what: str, rows: Rows) -> None:
    terms = sum(map(len, rows))
    print(f"  {what}: {len(rows):,} rows, {terms / len(rows):.1f} terms each", flush=True)
    queries = _queries(rows)
    _inverted(rows, queries)
    _tantivy(rows, queries)
    _fts5(rows, queries[:_QUERIES_FTS5])


def _report(
    name: str, build_s: float, rows: int, size: float, search: Callable[[list[str]], Any], queries: Rows
) -> None:
    turn = itertools.cycle(queries)
    taken = times_ms(lambda: search(next(turn)), len(queries), 3)
    print(f"    {name:>8}: built in {build_s:.1f} s, {build_s / rows * 1e6:.1f} µs a row; {size / 2**20:,.0f} MiB;")
    print(f"              search {told(taken)}, longest {taken[-1]:.1f} ms", flush=True)


def _inverted(rows: Rows, queries: Rows) -> None:
    index, prepared_s, merged_s, longest_s = InvertedIndex(), 0.0, 0.0, 0.0
    begun = time.perf_counter()
    for start in range(0, len(rows), _BATCH):
        its = rows[start : start + _BATCH]
        began = time.perf_counter()
        batch = prepare([None] * len(its), its)
        prepared = time.perf_counter()
        prepared_s += prepared - began
        index.add(np.arange(start, start + len(its)), batch)
        longest_s = max(longest_s, time.perf_counter() - prepared)
        if (plan := index.merge_due()) is not None:
            began = time.perf_counter()
            plan.run()
            index.adopt(plan)
            merged_s += time.perf_counter() - began
    build_s = time.perf_counter() - begun
    aside = f"{prepared_s / len(rows) * 1e6:.1f} µs a row to prepare, {merged_s / len(rows) * 1e6:.1f} in plans"
    print(f"    inverted: {aside}; longest add {longest_s * 1e3:.1f} ms; {index.segments} segments")
    _report(
        "inverted", build_s, len(rows), index.memory_bytes, lambda words: index.search(TermQuery(words), _K), queries
    )
    began = time.perf_counter()
    arrays = index.arrays()
    saved_s = time.perf_counter() - began
    began = time.perf_counter()
    restored = InvertedIndex.restore(arrays)
    print(f"    inverted: arrays in {saved_s:.2f} s, restored in {time.perf_counter() - began:.2f} s")
    labels = itertools.count(len(rows))

    def one() -> None:
        label = next(labels)
        restored.add(np.array([label]), prepare([None], [["visible", *rows[label % len(rows)]]]))

    print(f"    inverted: one row visible after {told(times_ms(one, _SINGLE_ROWS, 3))}")


def _fts5(rows: Rows, queries: Rows) -> None:
    with tempfile.TemporaryDirectory() as folder:
        db = apsw.Connection(str(Path(folder) / "text.db"))
        db.execute("PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL")
        fts5.create(db, 1)
        begun = time.perf_counter()
        for start in range(0, len(rows), _BATCH):
            with db:
                its = [" ".join(each) for each in rows[start : start + _BATCH]]
                fts5.add(db, 1, start, orjson.dumps(its).decode())
        build_s = time.perf_counter() - begun
        size = sum(path.stat().st_size for path in Path(folder).iterdir())
        _report("fts5", build_s, len(rows), size, lambda words: fts5.search(db, 1, words, _K), queries)
        labels = itertools.count(len(rows))

        def one() -> None:
            label = next(labels)
            with db:
                fts5.add(db, 1, label, orjson.dumps([" ".join(["visible", *rows[label % len(rows)]])]).decode())

        print(f"        fts5: one row visible after {told(times_ms(one, _SINGLE_ROWS, 3))}", flush=True)
        db.close()


def _tantivy(rows: Rows, queries: Rows) -> None:
    try:
        tantivy = importlib.import_module("tantivy")
    except ImportError:
        print("     tantivy: is not installed (pip install tantivy)")
        return
    with tempfile.TemporaryDirectory() as folder:
        builder = tantivy.SchemaBuilder()
        builder.add_text_field("text", tokenizer_name="whitespace", index_option="freq")
        builder.add_integer_field("label", fast=True, indexed=True)
        schema = builder.build()
        index = tantivy.Index(schema, path=folder)
        writer = index.writer(128 << 20, 1)
        begun = time.perf_counter()
        for label, row in enumerate(rows):
            writer.add_document(tantivy.Document(text=" ".join(row), label=label))
        writer.commit()
        build_s = time.perf_counter() - begun
        index.reload()
        searcher = index.searcher()
        size = sum(path.stat().st_size for path in Path(folder).iterdir())

        def search(words: list[str]) -> Any:
            terms = [tantivy.TermQuery.term_query(schema, "text", word, "freq") for word in dict.fromkeys(words)]
            query = tantivy.TermQuery.boolean_query([(tantivy.Occur.Should, term) for term in terms])
            return searcher.search(query, _K, count=False)

        _report("tantivy", build_s, len(rows), size, search, queries)
        labels = itertools.count(len(rows))

        def one() -> None:
            label = next(labels)
            writer.add_document(tantivy.Document(text=" ".join(["visible", *rows[label % len(rows)]]), label=label))
            writer.commit()
            index.reload()
            index.searcher()

        print(f"     tantivy: one row visible after {told(times_ms(one, _SINGLE_ROWS, 3))}", flush=True)
        writer.wait_merging_threads()


if __name__ == "__main__":
    main()
