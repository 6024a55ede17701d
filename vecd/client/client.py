"""The blocking client: one method for each op of the daemon. `connect` (connect.py) makes one.

with connect() as vec:
    vec.ingest([{"id": "a", "text": "rotate the logs every night"}])
    for hit in vec.search("log rotation", k=3):
        print(hit["score"], hit["document_id"])
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ..errors import Code, VecError
from .connectors import ConnectorMethods
from .syncs import SyncMethods

# What only some methods need, they import: each module slows the start of `vec`.
if TYPE_CHECKING:
    from ..wire.documents import Packed
    from .watch import Watch


class Client(ConnectorMethods, SyncMethods):
    """A connection with a method for each op. Use `connect`. One thread, one Client."""

    # --- daemon -----------------------------------------------------------------------------------------------------

    def ping(self) -> None:
        """Returns when the daemon has answered."""
        self.request("ping")

    def status(self) -> dict[str, Any]:
        """The daemon's state: `{"pid","version","data","seq","libraries","watchers",…}`; vec-protocol(7) lists all."""
        return self.request("status")

    def shutdown(self) -> None:
        """Asks the daemon to stop. It finishes what it was asked, then closes the connection."""
        self.request("shutdown")

    # --- libraries --------------------------------------------------------------------------------------------------

    def create_library(
        self,
        name: str,
        *,
        dimension: int | None = None,
        metric: str = "cosine",
        index: str | None = None,
        parameters: dict[str, Any] | None = None,
        embedder: str | None = None,
        embedder_parameters: dict[str, Any] | None = None,
        first_embedder: str | None = None,
        chunk_chars: int | None = None,
        chunk_overlap: int | None = None,
        recall: float | None = None,
        language: str | None = None,
    ) -> dict[str, Any]:
        """Creates a library and returns it, as `library` does. `dimension` is the length of its vectors (None: that of
        the first one, or the embedder's); `index` is a kind of index, `parameters` are that kind's; `recall` is the
        share of the nearest that a search promises to find. `first_embedder` finds documents until a slow embedder has
        embedded them; with `none`, writes wait for that. Raises VecError `exists`, `unsupported` and others."""
        return self.request(
            "library.create", library=name, dimension=dimension, metric=metric, index=index, parameters=parameters,
            embedder=embedder, embedder_parameters=embedder_parameters, first_embedder=first_embedder,
            chunk_chars=chunk_chars, chunk_overlap=chunk_overlap, recall=recall, language=language,
        )  # fmt: skip

    def libraries(self) -> list[dict[str, Any]]:
        """All libraries."""
        return list(self.request("library.list")["libraries"])

    def library(self, name: str) -> dict[str, Any]:
        """A library, its index, and the recall that was measured. Raises VecError `not_found`."""
        return self.request("library.show", library=name)

    def library_settings(self, name: str) -> dict[str, Any]:
        """What is set for a library, without measuring anything. Raises VecError `not_found`."""
        return self.request("library.settings", library=name)

    def set_library(self, name: str, *, mapping: Mapping[str, str] | None = None) -> dict[str, Any]:
        """Sets the rules by which `vec ingest`, sources and the gateway make documents of any JSON, as in
        vec-source(1); an empty map removes them. Returns the library, as `library` does. Raises VecError
        `not_found`."""
        return self.request("library.set", library=name, mapping=mapping)

    def rebuild_library(
        self,
        name: str,
        *,
        index: str | None = None,
        parameters: dict[str, Any] | None = None,
        recall: float | None = None,
    ) -> dict[str, Any]:
        """Rebuilds a library's index, perhaps as another kind, and returns the library with `vectors` and `seconds`.
        With `recall` alone it changes the promise and builds nothing: `seconds` is 0."""
        return self.request("library.rebuild", library=name, index=index, parameters=parameters, recall=recall)

    def rename_library(self, name: str, to: str) -> dict[str, Any]:
        """Renames a library, and returns it. Relays, sources, schedules and jobs of it go on; a watch by the former
        name does too. Raises VecError `not_found`, `exists`, or `busy` while a job works on it."""
        return self.request("library.rename", library=name, to=to)

    def delete_library(self, name: str) -> dict[str, Any]:
        """Deletes a library and its documents; returns `{"library","documents","seq",…}`."""
        return self.request("library.delete", library=name)

    # --- documents --------------------------------------------------------------------------------------------------

    def ingest(
        self,
        documents: Iterable[dict[str, Any]],
        library: str = "default",
        *,
        strict: bool = False,
        create: bool = False,
    ) -> dict[str, Any]:
        """Writes one batch; returns `{"added","updated","unchanged","deleted","failed","seq","errors"}` once it is
        durable and searchable. Documents are as on the command line; a vector may be a list or a numpy array.

        `errors` are the documents that were refused, by the client or the daemon, in their order:
        `{"index","code","message",…}`. The others are written; of a `strict` batch, nothing from the first refused
        document on is. With `create`, a library that does not exist is created, and `created` describes it: its
        embedder is `none` if the first document has a vector.
        """
        given = list(documents)
        batch = _packed(given, strict)
        fields = {"library": library, "strict": strict or None, "create": create or None}
        try:
            frame = self._frame("ingest", documents=batch.documents, **fields)
        except VecError as error:
            if error.code != Code.INVALID_REQUEST:
                raise
            batch = _packed(
                given, strict, texts=True
            )  # half a surrogate pair somewhere: looked for only if there is one
            frame = self._frame("ingest", documents=batch.documents, **fields)
        return batch.complete(self._submit(frame).result(), strict)

    def search(
        self,
        query: str | None = None,
        *,
        vector: Any = None,
        like: str | None = None,
        k: int = 10,
        offset: int = 0,
        library: str = "default",
        libraries: Sequence[str] | None = None,
        mode: str = "auto",
        where: str | Sequence[str] = (),
        since: str | None = None,
        ef: int | None = None,
        exact: bool = False,
        recall: float | None = None,
        group_by: str | None = None,
        min_score: float | None = None,
        explain: bool = False,
        passage_chars: int | None = None,
    ) -> Iterator[dict[str, Any]]:
        """The k best hits behind the first `offset`, best first: `{"rank","score","document_id","chunk_id","title",
        "text","metadata"}`.

        `like` is the id of a document, in place of a query or a vector: the hits are similar to it. `libraries` are
        searched together, `["*"]` all of them; their hits have `library`. `since` is a position as `watch` has it:
        only documents that were written after it. With `passage_chars` each hit has a `passage` of that length, with
        the places of the query's words: `{"text","marks","lines","title_marks"}`.

        `where` are filters, all of which must match; vec-search(1) describes their language. `recall` is the share of
        the nearest neighbours that an approximate search is to find; it overrides the library's promise. `ef` sets the
        effort of the search instead; `exact` compares the query with every vector. `group_by` is "document" or
        "chunk": what a hit is. With `explain` each hit has an `explain`: where it comes from, and how exact the answer
        is.
        """
        packed = None
        if vector is not None:
            from ..wire.vectors import pack_vector

            packed = pack_vector(vector)
        fields: dict[str, Any] = {
            "library": library, "query": query, "vector": packed, "k": k, "mode": mode, "where": _filters(where),
            "ef": ef, "exact": exact or None, "recall": recall, "group_by": group_by, "min_score": min_score,
            "explain": explain or None, "like": like, "offset": offset or None, "since": since,
            "libraries": None if libraries is None else list(libraries), "passage_chars": passage_chars,
        }  # fmt: skip
        return iter(explained(self.request("search", **fields))) if explain else self.items("search", "hits", **fields)

    def get(self, ids: list[str], library: str = "default", *, vectors: bool = False) -> list[dict[str, Any] | None]:
        """The documents with these ids, in their order; None for one that is not there."""
        return list(self.items("get", "documents", library=library, ids=ids, vectors=vectors or None))

    def delete(
        self, ids: list[str] | None = None, library: str = "default", *, where: str | Sequence[str] = ()
    ) -> dict[str, Any]:
        """Deletes documents by id or by filters; returns `{"deleted","missing","missing_ids","seq"}`."""
        return self.request("delete", library=library, ids=ids, where=_filters(where))

    def update(
        self,
        ids: list[str] | None = None,
        library: str = "default",
        *,
        where: str | Sequence[str] = (),
        set: dict[str, Any] | None = None,
        unset: Sequence[str] = (),
    ) -> dict[str, Any]:
        """Changes the metadata of documents, by id or by filters, without embedding them again. `set` maps fields to
        values, `unset` are fields to remove; they are written as in filters: `author.name`. Returns
        `{"updated","unchanged","missing","missing_ids","failed","errors","seq"}`; `errors` are
        `{"id","code","message",…}`."""
        return self.request(
            "update", library=library, ids=ids, where=_filters(where), set=set or None, unset=list(unset) or None
        )

    def documents(
        self,
        library: str = "default",
        *,
        where: str | Sequence[str] = (),
        sort: str | None = None,
        descending: bool = False,
        limit: int | None = None,
    ) -> Iterator[dict[str, Any]]:
        """The library's documents, or those that match the filters: `{"id","title","chunks","metadata"}`; by id, or by
        the field `sort`, `limit` of them at most. All of one state, however long the iteration takes."""
        return self.items(
            "list", "documents", library=library, where=_filters(where), sort=sort, descending=descending or None,
            limit=limit,
        )  # fmt: skip

    def count(self, library: str = "default", *, where: str | Sequence[str] = ()) -> dict[str, Any]:
        """`{"library","documents","chunks","seq"}`: all, or those that match the filters, as of event `seq`."""
        return self.request("count", library=library, where=_filters(where))

    # --- feed -------------------------------------------------------------------------------------------------------

    def watch(
        self,
        start: str = "now",
        *,
        libraries: Sequence[str] = (),
        types: Sequence[str] = (),
        where: str | Sequence[str] = (),
        follow: bool = True,
        until: str | None = None,
        limit: int | None = None,
        timeout_s: float | None = None,
        payload: bool = False,
        replaced: bool = True,
        vectors: bool = False,
        snapshot: bool = False,
        consumer: str | None = None,
        on_gap: str = "fail",
    ) -> Watch:
        """The events behind `start` (exclusive): `beginning`, `now`, a cursor, an RFC 3339 time, or a time ago: `-15m`.

        The subscription is active when it returns: it delivers everything written after that. Names and meanings are
        those of the op `watch` in vec-protocol(7); `until` is inclusive, vectors are packed (wire/vectors.py). Raises
        VecError `not_found`, `invalid_cursor`, `foreign_cursor`, `consumer_held` or `invalid_filter`. `compacted`, for
        a position that was trimmed away, is usually raised by the first read.
        """
        pending = self.submit(
            "watch", **{"from": start}, libraries=list(libraries) or None, types=list(types) or None,
            where=_filters(where), follow=follow, until=until, limit=limit, timeout_s=timeout_s,
            payload=payload or None, replaced=replaced, vectors=vectors or None, snapshot=snapshot or None,
            consumer=consumer, on_gap=on_gap,
        )  # fmt: skip
        from .watch import Watch

        return Watch(self, pending, consumer)

    def ack(self, consumer: str, cursor: str) -> None:
        """Moves a consumer to a cursor (inclusive), durably. A watch has an `ack` of its own, which does not wait."""
        self.request("ack", consumer=consumer, cursor=cursor)

    def flush(self, consumer: str | None = None, *, timeout_s: float | None = None) -> str:
        """Waits until every current watch was sent everything committed so far, or until a consumer has
        acknowledged it. Returns the cursor of that. Raises VecError `timeout`, or `not_found` for an unknown
        consumer."""
        return str(self.request("flush", consumer=consumer, timeout_s=timeout_s)["cursor"])

    def trim(
        self,
        *,
        keep_age_s: float | None = None,
        keep_count: int | None = None,
        keep_bytes: int | None = None,
        past_consumers: bool = False,
        wait: bool = False,
    ) -> dict[str, Any]:
        """Deletes the log's oldest events, as far as any of the limits allows and no consumer needs them:
        `{"trimmed","oldest","held_by","bytes","free_bytes"}`. With `wait` it returns when their space is free."""
        return self.request(
            "trim", keep_age_s=keep_age_s, keep_count=keep_count, keep_bytes=keep_bytes,
            past_consumers=past_consumers or None, wait=wait or None,
        )  # fmt: skip

    def consumers(self) -> list[dict[str, Any]]:
        """All consumers, by name: `{"name","cursor","seq","lag","holder","created_at","acked_at"}`; `lag` counts
        events."""
        return list(self.request("consumers.list")["consumers"])

    def reset_consumer(self, name: str, to: str) -> dict[str, Any]:
        """Moves a consumer to a position as `watch` has it in `start`; returns it. Raises VecError `consumer_held`."""
        return self.request("consumers.reset", consumer=name, to=to)

    def delete_consumer(self, name: str) -> dict[str, Any]:
        """Deletes a consumer and returns it. Raises VecError `not_found` or `consumer_held`."""
        return self.request("consumers.delete", consumer=name)

    # --- jobs -------------------------------------------------------------------------------------------------------

    def submit_job(
        self,
        kind: str,
        params: dict[str, Any] | None = None,
        *,
        library: str | None = None,
        priority: int | None = None,
        delay_s: float | None = None,
        after: Sequence[int] | None = None,
        unique: str | None = None,
        lock: str | None = None,
        timeout_s: float | None = None,
    ) -> dict[str, Any]:
        """Submits a background job and returns it, with `job_id` and `existing`.

        It runs after `delay_s` seconds, when the jobs `after` have completed and no other job with the same `lock`
        runs. If an unfinished job has the same key `unique`, that job is returned, and `existing` is true. `timeout_s`
        bounds its run.
        """
        return self.request(
            "jobs.submit", kind=kind, params=params, library=library, priority=priority, delay_s=delay_s,
            after=list(after or ()) or None, unique=unique, lock=lock, timeout_s=timeout_s,
        )  # fmt: skip

    def spool(self) -> dict[str, Any]:
        """Where the caller may put the input of an ingest job, and bounds: `{"path","bytes_max","free_bytes_min"}`."""
        return self.request("jobs.spool")

    def job(self, job_id: int) -> dict[str, Any]:
        """A job, with its attempts."""
        return self.request("jobs.show", job_id=job_id)

    def jobs(
        self,
        *,
        states: Sequence[str] | None = None,
        kinds: Sequence[str] | None = None,
        library: str | None = None,
        since_s: float | None = None,
        limit: int | None = None,
    ) -> Iterator[dict[str, Any]]:
        """Jobs, the newest first; `since_s` is how many seconds ago they were submitted at most."""
        return self.items(
            "jobs.list", "jobs", states=list(states or ()) or None, kinds=list(kinds or ()) or None, library=library,
            since_s=since_s, limit=limit,
        )  # fmt: skip

    def jobs_status(self) -> dict[str, Any]:
        """The queue and its workers: how many jobs are in each state, which run, which kinds are paused."""
        return self.request("jobs.status")

    def job_kinds(self) -> list[dict[str, Any]]:
        """The kinds of job: `{"kind","what","library","runs","params"}`; `library` is none, optional or required."""
        return list(self.request("jobs.kinds")["kinds"])

    def job_logs(self, job_id: int, after: int = 0) -> list[dict[str, Any]]:
        """A job's log lines behind line `after` (exclusive). Not all of them, if there are many: ask again."""
        return list(self.request("jobs.logs", job_id=job_id, after=after)["lines"])

    def wait_for_jobs(
        self,
        job_ids: Sequence[int],
        *,
        any: bool = False,
        timeout_s: float | None = None,
        every_s: float | None = None,
        on_change: Callable[[list[dict[str, Any]]], None] = lambda jobs: None,
    ) -> list[dict[str, Any]]:
        """Waits until all of these jobs (or `any` of them) have ended; returns them as they are then. `on_change` is
        given the jobs whenever one of them changes its state, and every `every_s` seconds.

        Raises VecError `timeout`, `not_found`, `shutting_down` or `connection_lost`.
        """
        last: list[dict[str, Any]] = []
        wanted = {"job_ids": list(job_ids), "any": any or None, "timeout_s": timeout_s, "every_s": every_s}
        with contextlib.closing(self.pages("jobs.wait", **wanted)) as pages:
            for reply in pages:
                if reply.kind == "items":
                    last = reply.body
                    on_change(last)
                elif reply.body.get("reason") == "timeout":
                    raise VecError(
                        Code.TIMEOUT, f"the jobs did not end within {timeout_s:g} s", "the jobs continue", jobs=last
                    )
                elif reply.body.get("reason") != "done":
                    raise VecError(Code.SHUTTING_DOWN, "the daemon is stopping", "the jobs resume when it is started")
        return last

    def cancel_jobs(self, job_ids: Sequence[int]) -> list[dict[str, Any]]:
        """Cancels jobs that have not ended; returns them as they are then."""
        return list(self.request("jobs.cancel", job_ids=list(job_ids))["jobs"])

    def retry_jobs(self, job_ids: Sequence[int]) -> list[dict[str, Any]]:
        """Restarts jobs that failed, died or were cancelled from their last checkpoint; returns them."""
        return list(self.request("jobs.retry", job_ids=list(job_ids))["jobs"])

    def drop_jobs(self, job_ids: Sequence[int]) -> list[dict[str, Any]]:
        """Deletes jobs that have ended, and returns them."""
        return list(self.request("jobs.drop", job_ids=list(job_ids))["jobs"])

    def pause_jobs(self, kinds: Sequence[str] = ()) -> dict[str, Any]:
        """Starts no more jobs of these kinds (of any kind, if none is given); returns what is paused."""
        return self.request("jobs.pause", kinds=list(kinds))

    def resume_jobs(self, kinds: Sequence[str] = ()) -> dict[str, Any]:
        """Undoes `pause_jobs` for these kinds (for all, if none is given); returns what is still paused."""
        return self.request("jobs.resume", kinds=list(kinds))

    # --- schedules --------------------------------------------------------------------------------------------------

    def add_schedule(
        self,
        name: str,
        cron: str,
        kind: str,
        params: dict[str, Any] | None = None,
        *,
        zone: str | None = None,
        missed: str = "once",
        library: str | None = None,
        priority: int | None = None,
        timeout_s: float | None = None,
        replace: bool = False,
    ) -> dict[str, Any]:
        """Submits a job at the times of `cron`, and returns the schedule. `zone` is a time zone (None: the daemon's);
        `missed` is "skip", "once" or "all": which jobs are submitted later for times at which the daemon did not run.
        Raises VecError `exists`, unless `replace` is true."""
        return self.request(
            "schedule.add", name=name, cron=cron, kind=kind, params=params, library=library, zone=zone, missed=missed,
            priority=priority, timeout_s=timeout_s, replace=replace or None,
        )  # fmt: skip

    def schedules(self) -> list[dict[str, Any]]:
        """All schedules, the daemon's own maintenance among them."""
        return list(self.request("schedule.list")["schedules"])

    def run_schedule(self, name: str) -> dict[str, Any]:
        """Submits a schedule's job now and returns it. Raises VecError `not_found`."""
        return self.request("schedule.run", name=name)

    def remove_schedule(self, name: str) -> dict[str, Any]:
        """Removes a schedule and returns it; its jobs stay. Raises VecError `not_found`."""
        return self.request("schedule.remove", name=name)

    # --- jobs: for a worker -----------------------------------------------------------------------------------------

    def claim_job(
        self,
        worker: str,
        kinds: Sequence[str],
        *,
        embedders: Sequence[str] = (),
        lease_s: float | None = None,
        wait_s: float | None = None,
    ) -> dict[str, Any] | None:
        """Begins an attempt at the next job of these kinds; waits up to `wait_s` for one. None if there is none.

        The answer has `job_id`, `attempt`, `params`, `checkpoint`, `steps` and more: see vec-protocol(7). With the
        kinds `embed` or `reembed`, it may be a task for one of `embedders`: `task_id`, `embedder`, `texts` and more.
        Either is the worker's for `lease_s` seconds after each call below. Raises VecError `unsupported`."""
        answer = self.request(
            "jobs.claim", worker=worker, kinds=list(kinds), embedders=list(embedders) or None, lease_s=lease_s,
            wait_s=wait_s,
        )  # fmt: skip
        found = answer["job"] or answer.get("task")
        return None if found is None else dict(found)

    def heartbeat_task(self, task_id: str) -> dict[str, Any]:
        """Extends the lease of a task: `{"lease_s"}`. Raises VecError `lease_lost`."""
        return self.request("tasks.heartbeat", task_id=task_id)

    def finish_task(self, task_id: str, *, vectors: bytes | None = None, error: dict[str, Any] | None = None) -> None:
        """Ends a task, with its vectors (little-endian float32, one per text, in order), with an error (`code`,
        `message`), or with neither: then the task is returned. Raises VecError `lease_lost` or `invalid_request`."""
        self.request("tasks.finish", task_id=task_id, vectors=vectors, error=error)

    def heartbeat_job(
        self, job_id: int, attempt: int, *, done: int | None = None, total: int | None = None
    ) -> dict[str, Any]:
        """Extends the lease: `{"stop","lease_s"}`; `stop` says why the worker is to stop, None if it is to go on.
        Raises VecError `lease_lost`."""
        return self.request("jobs.heartbeat", job_id=job_id, attempt=attempt, done=done, total=total)

    def checkpoint_job(
        self,
        job_id: int,
        attempt: int,
        step: int,
        checkpoint: Any,
        *,
        effect: dict[str, Any] | None = None,
        done: int | None = None,
        total: int | None = None,
        lines: Sequence[str] = (),
    ) -> dict[str, Any]:
        """Commits a step: `step` is how many checkpoints the job has had before. Returns what a heartbeat does, with
        `counts`, `refused` and `repeated`.

        An `effect` is written in the same transaction: `{"type":"documents","documents":[…]}` as `ingest` takes them,
        or `{"type":"delete","ids":[…]}`. `lines` are for the job's log. Safe to repeat.

        Raises VecError `lease_lost`, or `invalid_document` for a vector that cannot be packed.
        """
        if effect is not None and isinstance(effect.get("documents"), list):
            from ..wire.documents import pack_document

            effect = {**effect, "documents": [pack_document(each) for each in effect["documents"]]}
        return self.request(
            "jobs.checkpoint", job_id=job_id, attempt=attempt, step=step, checkpoint=checkpoint, effect=effect,
            done=done, total=total, lines=list(lines) or None,
        )  # fmt: skip

    def finish_job(
        self, job_id: int, attempt: int, *, result: dict[str, Any] | None = None, error: dict[str, Any] | None = None
    ) -> dict[str, Any]:
        """Ends an attempt, with a result or an error (`code`, `message`, `retryable`), or with neither: then the job is
        given back. Returns the job. Safe to repeat. Raises VecError `lease_lost`."""
        return self.request("jobs.finish", job_id=job_id, attempt=attempt, result=result, error=error)

    def workers(self) -> list[dict[str, Any]]:
        """Who works on which job: `{"worker","job_id","kind","library","attempt","started_at","lease_left_s","stop"}`.
        Threads of the daemon have no lease, tasks no attempt, and a worker that waits for work has no kind."""
        return list(self.request("jobs.workers")["workers"])


def explained(answer: dict[str, Any]) -> list[dict[str, Any]]:
    """The hits of a search with `explain`, each with the explanation of the hit and of the answer as a whole."""
    whole = answer.get("explain") or {}
    of_libraries = whole.get("libraries") or {}

    def about(hit: dict[str, Any]) -> dict[str, Any]:
        return {**of_libraries.get(hit.get("library"), whole), **(hit.get("explain") or {})}

    return [{**hit, "explain": about(hit)} for hit in answer["hits"]]


def _packed(documents: list[dict[str, Any]], strict: bool, *, texts: bool = False) -> Packed:
    """The documents as they travel; of a strict batch, those before the first that cannot."""
    from ..wire.documents import pack_all

    batch = pack_all(documents, texts=texts)
    return batch.before_refused() if strict else batch


def _filters(where: str | Sequence[str]) -> list[str] | None:
    return ([where] if isinstance(where, str) else list(where)) or None
