"""One conformance suite for every kind and every metric: whatever happened before, a LiveIndex answers as a dict would.

The exact kinds, and every exact search, give what brute force gives. The approximate ones give as many hits as there
are to find, each of them alive, let through by the filter, there once, and with its own score; best first.
"""

from __future__ import annotations

import tempfile
from concurrent.futures import Future
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from tests.support.index_source import COMBINATIONS, KINDS, REFUSED, WAIT_S, Driven, Filter, MemorySource, check, spec
from vecd.index.local import kdtree
from vecd.index.policy import Tuning
from vecd.index.requests import SearchOptions
from vecd.index.rows import Floats
from vecd.index.source import Rebuilt
from vecd.index.structure import Spec

_DIMENSION = 3
_COMPONENT = st.sampled_from((-2.0, -1.0, 0.0, 0.5, 3.0))  # few, so that equal scores and zeros happen
_VECTOR = st.tuples(*(_COMPONENT,) * _DIMENSION)
_VECTORS = st.lists(_VECTOR, min_size=1, max_size=12)
_WHICH = st.lists(st.integers(0, 1_000), min_size=1, max_size=8)  # of those that are there, modulo how many
_ASKED = st.lists(st.tuples(_VECTOR, st.sampled_from((1, 3, 3, 3, 200))), min_size=1, max_size=6)
_EF = st.sampled_from((None, 1, 4, 64))

#: So small that every mechanism is met with few vectors.
_TUNING = Tuning(
    rows_min=8, slice_s=0.001, quiet_slice_s=0.001, quiet_s=0, tail_pressing=8, save_rows_min=1, save_rows_at_stop=1,
    retry_s=0,
)  # fmt: skip
_EXACT = ("flat", "kdtree")


class AgainstADict(RuleBasedStateMachine):
    """A LiveIndex and its source, beginning with one kind; the source's dict is what is right."""

    name: str
    metric: str

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        # A tree of few vectors is worth asking here.
        self.patch = mock.patch.object(kdtree, "_ASK_SHARE_MAX", 1.0)
        self.patch.start()
        self.source = MemorySource(
            spec(self.name, self.metric, _DIMENSION), Path(self.folder.name, "snapshot"), page_rows=5
        )
        self.basis = object()
        self.documents: dict[int, int] = {}  # label -> number of its document
        self.next_document = 0
        self.begin()

    def begin(self) -> None:
        self.driven = Driven(self.source, _TUNING)
        self.rebuilding: list[tuple[Spec, Future[Rebuilt]]] = []

    def teardown(self) -> None:
        self.driven.stop()
        self.patch.stop()
        self.folder.cleanup()

    @property
    def there(self) -> dict[int, Floats]:
        return self.source.vectors

    def specs(self) -> list[Spec]:
        """Of all structures that may answer now."""
        self.rebuilding = [pair for pair in self.rebuilding if not pair[1].done()]
        return [self.source.spec, *(pair[0] for pair in self.rebuilding)]

    def chosen(self, which: list[int]) -> list[int]:
        labels = list(self.there)
        return sorted({labels[each % len(labels)] for each in which})

    # --- what happens -----------------------------------------------------------------------------------------------

    @rule(vectors=_VECTORS)
    def add(self, vectors: list[tuple[float, ...]]) -> None:
        for label in self.driven.write(vectors):
            self.documents[label] = self.next_document
        self.next_document += 1

    @precondition(lambda self: self.there)
    @rule(which=_WHICH, vectors=_VECTORS)
    def update(self, which: list[int], vectors: list[tuple[float, ...]]) -> None:
        removed = self.chosen(which)
        document = self.documents[removed[0]]
        for label in self.driven.write(vectors, removed):
            self.documents[label] = document

    @precondition(lambda self: self.there)
    @rule(which=_WHICH)
    def delete(self, which: list[int]) -> None:
        self.driven.write(removed=self.chosen(which))

    @precondition(lambda self: len(self.there) > 10)
    @rule()
    def delete_nearly_all(self) -> None:
        self.driven.write(removed=list(self.there)[1:-1])

    @rule()
    def settle(self) -> None:
        described = self.driven.settle()
        assert described["vectors"] == len(self.there)
        assert described["maintenance"] is None
        if described["structure"]:
            grows = self.source.spec.kind != "kdtree"
            assert described["tail"] <= (0 if grows else max(8, described["structure"]))

    @rule(name=st.sampled_from(sorted(KINDS)), wait=st.booleans())
    def rebuild(self, name: str, wait: bool) -> None:
        if (name, self.metric) in REFUSED:
            return
        wanted = spec(name, self.metric, _DIMENSION)
        future = self.driven.live.rebuild(wanted)
        self.rebuilding.append((wanted, future))
        if wait:
            report = future.result(WAIT_S)
            assert report in self.source.reports
            assert (report.spec, report.reason, report.vectors) == (wanted, "requested", len(self.there))

    @rule()
    def rebuild_as_it_is(self) -> None:
        specs = self.specs()
        future = self.driven.live.rebuild()
        if len(specs) == 1:
            assert future.result(WAIT_S).spec == self.source.spec == specs[0]
        self.rebuilding += [(each, future) for each in specs]

    @rule(save=st.booleans(), snapshot=st.booleans(), load=st.booleans())
    def stop_and_load(self, save: bool, snapshot: bool, load: bool) -> None:
        """In order, or by a crash; with the snapshot there was, or without."""
        self.driven.stop(save=save)
        assert self.source.path is not None
        if not snapshot:
            self.source.path.unlink(missing_ok=True)
        self.begin()
        if load:
            assert self.driven.settle()["vectors"] == len(self.there)
            assert "damage" not in self.driven.live.describe()

    @rule()
    def renumber_the_documents(self) -> None:
        self.basis = object()
        used = sorted({self.documents[label] for label in self.there})
        numbers = {number: place for place, number in enumerate(reversed(used))}
        self.documents = {label: numbers[self.documents[label]] for label in self.there}
        self.next_document = len(used)

    # --- what is asked ----------------------------------------------------------------------------------------------

    @rule(asked=_ASKED, ef=_EF, exact=st.booleans())
    def search(self, asked: list[tuple[tuple[float, ...], int]], ef: int | None, exact: bool) -> None:
        self.check(asked, {"ef": ef, "exact": exact}, self.there)

    @rule(query=_VECTOR, ef=_EF, exact=st.booleans())
    def search_on_this_thread(self, query: tuple[float, ...], ef: int | None, exact: bool) -> None:
        self.check([(query, 3)], {"here": True, "ef": ef, "exact": exact}, self.there)

    @rule(asked=_ASKED, ef=_EF, exact=st.booleans(), modulus=st.sampled_from((1, 2, 2, 5)), rest=st.integers(0, 5))
    def search_with_a_filter(
        self, asked: list[tuple[tuple[float, ...], int]], ef: int | None, exact: bool, modulus: int, rest: int
    ) -> None:
        mask = np.arange(self.next_document) % modulus == rest
        selection = Filter(
            self.basis, {label: self.documents[label] for label in self.there}, mask, self.source.last_label
        )
        matching = {label: vector for label, vector in self.there.items() if mask[self.documents[label]]}
        self.check(asked, {"ef": ef, "exact": exact, "select": lambda: selection}, matching)

    def check(
        self, asked: list[tuple[tuple[float, ...], int]], options: dict[str, Any], matching: dict[int, Floats]
    ) -> None:
        specs = self.specs()
        searches = [(np.array(query, np.float32), k) for query, k in asked]
        if len(searches) == 1:
            answers = [self.driven.search(searches[0][0], searches[0][1], **options)]
        else:
            answers = self.driven.together([(query, SearchOptions(k, **options)) for query, k in searches])
        exact = options["exact"] or all(each.kind in _EXACT for each in specs)
        half = any(each.parameters.get("vectors") == "float16" for each in specs)
        for (query, k), answer in zip(searches, answers, strict=True):
            check(answer, query, k, matching, self.metric, exact=exact, half=half)

    @invariant()
    def nothing_has_failed(self) -> None:
        assert not self.driven.failed, self.driven.live.failure


@pytest.mark.parametrize(("name", "metric"), COMBINATIONS)
def test_whatever_happened_before_an_index_answers_as_a_dict_would(name: str, metric: str) -> None:
    run_state_machine_as_test(
        type("ItAgainstADict", (AgainstADict,), {"name": name, "metric": metric}),
        settings=settings(
            max_examples=30, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck)
        ),
    )
