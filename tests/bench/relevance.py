"""Relevance of search, by mode: judged collections, and questions about manual pages.

    python -m tests.bench.relevance [--data FOLDER]… [--embedder NAME]

A FOLDER holds docs.ndjson (as `vec ingest` reads it), queries.ndjson (`id`, `query`) and qrels.tsv (query id, document
id, grade); many public test collections are easily brought into that form. Measured are nDCG@10 and recall@100.

The questions (questions.py) are asked about the manual pages of this project, and about those of the system: sections 1
and 8, without families of more than a hundred pages. Measured is how often a right page is among the first three.
"""

from __future__ import annotations

import argparse
import json
import math
import re
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from tests.bench.questions import OWN, SYSTEM, Question
from tests.support.instance import Instance
from vecd.client import Client
from vecd.files.documents import documents_of
from vecd.files.entry import FileSkipped
from vecd.files.walk import walk

_PAGES = Path("/usr/share/man")
_OWN_PAGES = Path(__file__).resolve().parents[2] / "man"
_SECTIONS = ("1", "8")
#: Larger families of pages that begin alike, as git-add and git-rm do, are left out: they would be most of the pages.
_FAMILY_MAX = 100
_BATCH = 200
_FIRST = 3
_MODES = ("vector", "text", "hybrid")
#: How long a second embedder may take for a collection.
_EMBEDDED_S = 3_600.0
#: How long its process may take to start.
_STARTED_S = 60.0


def main(arguments: Sequence[str] = ()) -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.relevance")
    parser.add_argument("--data", action="append", type=Path, default=[], help="a judged collection")
    parser.add_argument("--embedder", default="wordllama")
    parser.add_argument("--only-data", action="store_true", help="without the questions")
    given = parser.parse_args(arguments)
    with Instance() as instance:
        instance.start()
        with instance.connect(timeout_s=None) as client:
            for folder in given.data:
                _judged(client, folder, given.embedder)
            if not given.only_data:
                _asked(client, "pages of vec", _pages(_OWN_PAGES), OWN, given.embedder)
                installed = (page for section in _SECTIONS for page in _pages(_PAGES / f"man{section}"))
                _asked(client, "pages of the system", installed, SYSTEM, given.embedder)


# --- judged collections ---------------------------------------------------------------------------------------------


class _Means(NamedTuple):
    ndcg: float
    recall: float


def _judged(client: Client, folder: Path, embedder: str) -> None:
    grades: dict[str, dict[str, int]] = defaultdict(dict)
    for line in (folder / "qrels.tsv").read_text().splitlines():
        query_id, document_id, grade = line.split("\t")
        grades[query_id][document_id] = int(grade)
    queries = [json.loads(line) for line in (folder / "queries.ndjson").read_text().splitlines()]
    documents = map(json.loads, (folder / "docs.ndjson").read_text().splitlines())
    library = _library(client, folder.name, documents, embedder)
    for mode in _MODES:
        means = _means(client, library, mode, queries, grades)
        print(f"  {mode:>6}: nDCG@10 {means.ndcg:.3f}, recall@100 {means.recall:.3f}", flush=True)


def _means(
    client: Client, library: str, mode: str, queries: list[dict[str, str]], grades: dict[str, dict[str, int]]
) -> _Means:
    gain = recall = 0.0
    for query in queries:
        wanted = grades[query["id"]]
        found = _found(client, library, query["query"], 100, mode)
        gain += ndcg([wanted.get(each, 0) for each in found[:10]], list(wanted.values()))
        recall += len(wanted.keys() & set(found)) / len(wanted)
    return _Means(gain / len(queries), recall / len(queries))


def ndcg(found: list[int], wanted: list[int]) -> float:
    """nDCG@10 of the grades of what was found, in its order, where these are the grades of all that is relevant."""

    def gain(grades: list[int]) -> float:
        return sum(grade / math.log2(place + 2) for place, grade in enumerate(grades[:10]))

    ideal = gain(sorted(wanted, reverse=True))
    return gain(found) / ideal if ideal else 0.0


# --- questions ------------------------------------------------------------------------------------------------------


def _asked(
    client: Client, what: str, pages: Iterable[tuple[str, dict[str, Any]]], questions: Sequence[Question], embedder: str
) -> None:
    named = list(pages)
    families = Counter(_family(name) for name, _ in named)
    documents = {name: page for name, page in named if families[_family(name)] <= _FAMILY_MAX}
    asked = [question for question in questions if documents.keys() & set(question.pages)]
    if missing := len(questions) - len(asked):
        print(f"  {what}: {missing} of {len(questions)} questions are about pages that are not installed", flush=True)
    if not asked:
        return
    library = _library(
        client, what.replace(" ", "-"), ({**page, "id": name} for name, page in documents.items()), embedder
    )
    for mode in (*_MODES, "auto"):
        ranks = {question: _rank(_found(client, library, question.text, 50, mode), question) for question in asked}
        right = sum(rank <= _FIRST for rank in ranks.values())
        reciprocal = sum(1 / rank for rank in ranks.values()) / len(asked)
        missed = ", ".join(f"{question.text!r} {rank:g}" for question, rank in ranks.items() if rank > _FIRST)
        told = f"{right} of {len(asked)} in the first {_FIRST}, MRR {reciprocal:.3f}; not: {missed or 'none'}"
        print(f"  {mode:>6}: {told}", flush=True)


def _rank(found: list[str], question: Question) -> float:
    """From 1; infinite if none of the pages was found."""
    return next((rank for rank, each in enumerate(found, 1) if each in question.pages), math.inf)


def _pages(folder: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """The manual pages of a folder, by name, as documents."""
    if not folder.is_dir():
        return
    for entry in walk(str(folder)):
        name = re.sub(r"\.\w+(\.gz)?\Z", "", Path(entry.path).name)
        try:
            for document in documents_of(entry):
                yield name, document
        except FileSkipped:
            continue


def _family(name: str) -> str:
    return re.split(r"[-_]", name)[0]


# --- libraries ------------------------------------------------------------------------------------------------------


def _library(client: Client, name: str, documents: Iterable[dict[str, Any]], embedder: str) -> str:
    client.create_library(name, embedder=embedder)
    began = time.perf_counter()
    for batch in _batches(documents):
        client.ingest(batch, name)
    ingested_s = time.perf_counter() - began
    shown = client.library(name)
    while (stage := shown["second_stage"]) is not None and stage["embedded"] < shown["chunks"]:
        if time.perf_counter() - began > _EMBEDDED_S:
            raise TimeoutError(f"{stage['embedded']:,} of {shown['chunks']:,} chunks are embedded")
        time.sleep(1)
        shown = client.library(name)
    _wait_for_queries(client, name)
    told = f"{shown['documents']:,} documents, {shown['chunks']:,} chunks, written in {ingested_s:.1f} s"
    if shown["second_stage"] is not None:
        told += f", embedded in {time.perf_counter() - began:.0f} s"
    print(f"  {name}, {embedder}: {told}", flush=True)
    return name


def _wait_for_queries(client: Client, library: str) -> None:
    """Until a search is answered without a warning: while its embedder starts, the first embedder answers."""
    deadline = time.perf_counter() + _STARTED_S
    while client.request("search", library=library, query="ready", mode="vector", k=1).get("warnings"):
        if time.perf_counter() > deadline:
            raise TimeoutError("the embedder does not embed queries")
        time.sleep(0.5)


def _batches(documents: Iterable[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    left = iter(documents)
    while batch := list(islice(left, _BATCH)):
        yield batch


def _found(client: Client, library: str, query: str, k: int, mode: str) -> list[str]:
    """The ids of the documents that are found, best first."""
    hits = client.search(query, library=library, k=k, mode=mode, group_by="document")
    return [str(hit["document_id"]) for hit in hits]


if __name__ == "__main__":
    import sys

    main(sys.argv[1:])
