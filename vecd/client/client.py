"""The blocking client: one method for each op of the daemon. `connect` (connect.py) makes one.

with connect() as vec:
    vec.ingest([{"id": "a", "text": "rotate the logs every night"}])
    for hit in vec.search("log rotation", k=3):
        print(hit["score"], hit["document_id"])
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from ..errors import Code, VecError
from ..wire.documents import pack_all, pack_document
from ..wire.vectors import pack_vector
from .connection import Connection
from .subscription import Watch


class Client(Connection):
    """A connection with a method for each op. Use `connect`. One thread, one Client."""

    # --- the nouns --------------------------------------------------------------------------------------------------

    def ping(self) -> None:
        self.request("ping")

    def status(self) -> dict[str, Any]:
        return self.request("status")

    def ingest(self, documents: Iterable[dict[str, Any]], library: str = "default") -> dict[str, Any]:
        """Writes one batch; returns `{"added","updated","unchanged","deleted","failed","seq","errors"}` once it is
        durable and searchable. Documents are as on the command line; a vector may be a list or a numpy array.

        `errors` are the documents that were refused, here or by the daemon, in their order:
        `{"index","code","message",…}`. They cost no other.
        """
        given = list(documents)
        batch = pack_all(given)
        try:
            frame = self._frame("ingest", library=library, documents=batch.documents)
        except VecError as error:
            if error.code != Code.INVALID_REQUEST:
                raise
            batch = pack_all(given, texts=True)  # half a surrogate pair somewhere: looked for only if there is one
            frame = self._frame("ingest", library=library, documents=batch.documents)
        answer = self._submit(frame).result()
        if batch.refused:
            told = [{**error, "index": batch.places[error["index"]]} for error in answer["errors"]]
            told += [{"index": place, **error.to_wire()} for place, error in batch.refused]
            answer["errors"] = sorted(told, key=lambda error: error["index"])
            answer["failed"] += len(batch.refused)
        return answer

    def search(
        self,
        query: str | None = None,
        *,
        vector: Any = None,
        k: int = 10,
        library: str = "default",
        mode: str = "auto",
        where: str | Sequence[str] = (),
        ef: int | None = None,
        exact: bool = False,
        recall: float | None = None,
        group_by: str | None = None,
        min_score: float | None = None,
        explain: bool = False,
    ) -> Iterator[dict[str, Any]]:
        """The k best, best first: `{"rank","score","document_id","chunk_id","title","text","metadata"}`.

        `where` are filters, all of which must hold; their language is in vec-search(1). `recall` is the share of the
        nearest that an approximate search is to find, instead of what the library promises; `ef` is its effort, set by
        hand; `exact` makes it none. `group_by` is "document" or "chunk": what a hit is. With `explain` each hit has an
        `explain` as well: where it comes from, and how sure the answer is.
        """
        packed = None if vector is None else pack_vector(vector)
        fields: dict[str, Any] = {
            "library": library, "query": query, "vector": packed, "k": k, "mode": mode, "where": _filters(where),
            "ef": ef, "exact": exact or None, "recall": recall, "group_by": group_by, "min_score": min_score,
            "explain": explain or None,
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

    def count(self, library: str = "default", *, where: str | Sequence[str] = ()) -> dict[str, Any]:
        """`{"library","documents","chunks","seq"}`: all, or those that match the filters; `seq` is the state's."""
        return self.request("count", library=library, where=_filters(where))

    # --- the log ----------------------------------------------------------------------------------------------------

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

        When it returns, the subscription stands: what is written from then on is in it. Names and meanings are those
        of the op `watch` in vec-protocol(7); `until` is inclusive, vectors are packed (wire/vectors.py). Raises
        VecError `not_found`, `invalid_cursor`, `foreign_cursor`, `consumer_held` or `invalid_filter`; that a position
        was trimmed away (`compacted`) is mostly found, and raised, with the first events.
        """
        pending = self.submit(
            "watch", **{"from": start}, libraries=list(libraries) or None, types=list(types) or None,
            where=_filters(where), follow=follow, until=until, limit=limit, timeout_s=timeout_s,
            payload=payload or None, replaced=replaced, vectors=vectors or None, snapshot=snapshot or None,
            consumer=consumer, on_gap=on_gap,
        )  # fmt: skip
        return Watch(self, pending, consumer)

    def flush(self, consumer: str | None = None, *, timeout_s: float | None = None) -> str:
        """Waits until all that is committed now has been handed to all who watch now, or acknowledged by a consumer.
        Returns the cursor of that. Raises VecError `timeout`, or `not_found` for a consumer that is not there."""
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
        """Lets go of the log's oldest events, as far as any of the limits says and no consumer holds them:
        `{"trimmed","oldest","held_by","bytes","free_bytes"}`. With `wait` it returns when their space is free."""
        return self.request(
            "trim", keep_age_s=keep_age_s, keep_count=keep_count, keep_bytes=keep_bytes,
            past_consumers=past_consumers or None, wait=wait or None,
        )  # fmt: skip

    def consumers(self) -> list[dict[str, Any]]:
        """All, by name: `{"name","cursor","seq","lag","holder","created_at","acked_at"}`; `lag` is in events."""
        return list(self.request("consumers.list")["consumers"])

    def reset_consumer(self, name: str, to: str) -> dict[str, Any]:
        """Moves a consumer to a position as `watch` has it in `start`; returns it. Raises VecError `consumer_held`."""
        return self.request("consumers.reset", consumer=name, to=to)

    def delete_consumer(self, name: str) -> dict[str, Any]:
        """Forgets a consumer; returns what it was. Raises VecError `not_found` or `consumer_held`."""
        return self.request("consumers.delete", consumer=name)

    # --- jobs -------------------------------------------------------------------------------------------------------

    def submit_job(self, kind: str, params: dict[str, Any] | None = None, **fields: Any) -> dict[str, Any]:
        """Submits a background job and returns it, with `job_id` and `existing`; `fields` are those of the op
        `jobs.submit`: library, priority, delay_s, after, unique, lock, timeout_s."""
        return self.request("jobs.submit", kind=kind, params=params, **fields)

    def job(self, job_id: int) -> dict[str, Any]:
        """All that is known of a job, with its attempts."""
        return self.request("jobs.show", job_id=job_id)

    def jobs(self, **fields: Any) -> Iterator[dict[str, Any]]:
        """Jobs, the newest first; `fields` are those of the op `jobs.list`: states, kinds, library, since_s, limit."""
        return self.items("jobs.list", "jobs", **fields)

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
                        Code.TIMEOUT, f"the jobs have not ended within {timeout_s:g} s", "they go on", jobs=last
                    )
                elif reply.body.get("reason") != "done":
                    raise VecError(Code.SHUTTING_DOWN, "the daemon is stopping", "the jobs go on when it is back")
        return last

    def cancel_jobs(self, job_ids: Sequence[int]) -> list[dict[str, Any]]:
        """Cancels jobs that have not ended; returns them as they are then."""
        return list(self.request("jobs.cancel", job_ids=list(job_ids))["jobs"])

    def retry_jobs(self, job_ids: Sequence[int]) -> list[dict[str, Any]]:
        """Lets jobs that failed, died or were cancelled go on from where they were."""
        return list(self.request("jobs.retry", job_ids=list(job_ids))["jobs"])

    def drop_jobs(self, job_ids: Sequence[int]) -> list[dict[str, Any]]:
        """Forgets jobs that have ended."""
        return list(self.request("jobs.drop", job_ids=list(job_ids))["jobs"])

    # --- jobs: for a worker -----------------------------------------------------------------------------------------

    def claim_job(
        self, worker: str, kinds: Sequence[str], *, lease_s: float | None = None, wait_s: float | None = None
    ) -> dict[str, Any] | None:
        """Begins an attempt at the next job of these kinds; waits up to `wait_s` for one. None if there is none.

        The answer has `job_id`, `attempt`, `params`, `checkpoint`, `steps` and more: see vec-protocol(7). The job is
        the worker's for `lease_s` seconds after each call below. Raises VecError `unsupported`."""
        job = self.request("jobs.claim", worker=worker, kinds=list(kinds), lease_s=lease_s, wait_s=wait_s)["job"]
        return None if job is None else dict(job)

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
        Threads of the daemon have no lease; a worker that waits for a job has no job."""
        return list(self.request("jobs.workers")["workers"])


def explained(answer: dict[str, Any]) -> list[dict[str, Any]]:
    """The hits of a search that explains them, each with what is said of it and of the answer as a whole."""
    whole = answer.get("explain") or {}
    return [{**hit, "explain": {**whole, **(hit.get("explain") or {})}} for hit in answer["hits"]]


def _filters(where: str | Sequence[str]) -> list[str] | None:
    return ([where] if isinstance(where, str) else list(where)) or None
