"""Completion of names that only the daemon knows: libraries, consumers, relays, sources, syncs, schedules, jobs, kinds.

Rules: somebody waits with a finger on the TAB key. A daemon that runs is asked, over its socket or through a gateway,
and none is started; what takes longer than COMPLETE_S, and what fails in any way, completes nothing. A name comes with
a few words about it, which zsh and fish show.
"""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, Final

from .output import one_line, plural

if TYPE_CHECKING:
    from vecd.client import Client

#: The longest wait for names.
COMPLETE_S: Final = 1.0
#: Jobs that are offered, the newest.
_JOBS_MAX: Final = 100

Name = tuple[str, str]

#: The types of events. Only the daemon's store has them as a table; tests/cli/test_completion.py compares them.
EVENT_TYPES: Final = (
    "library.created", "library.renamed", "library.deleted", "library.embedded", "index.rebuilt", "index.recall",
    "document.added", "document.updated", "document.deleted", "chunk.added", "chunk.deleted",
    "job.submitted", "job.started", "job.completed", "job.failed", "job.cancelled",
)  # fmt: skip


def libraries(client: Client) -> Iterator[Name]:
    for each in client.libraries():
        yield each["name"], plural(each["documents"], "document")


def consumers(client: Client) -> Iterator[Name]:
    for each in client.consumers():
        if not each["name"].startswith("relay."):  # a relay's position
            yield each["name"], f"{plural(each['lag'], 'event')} behind"


def relays(client: Client) -> Iterator[Name]:
    for each in client.relays():
        yield each["name"], f"{each['state']}, to {each['url']}"


def sources(client: Client) -> Iterator[Name]:
    for each in client.sources():
        yield each["name"], f"{each['state']}, from {each['url']}"


def syncs(client: Client) -> Iterator[Name]:
    for each in client.syncs():
        yield each["name"], f"{each['state']}, of {each['path']}"


def schedules(client: Client) -> Iterator[Name]:
    for each in client.schedules():
        yield each["name"], f"{each['cron']} {each['kind']}"


def jobs(client: Client) -> Iterator[Name]:
    for each in client.jobs(limit=_JOBS_MAX):
        yield str(each["job_id"]), f"{each['kind']} {each['library'] or ''} {each['state']}".replace("  ", " ")


def kinds(client: Client) -> Iterator[Name]:
    for each in client.job_kinds():
        yield each["kind"], each["what"]


def types(client: Client) -> Iterator[Name]:
    for group in sorted({each.partition(".")[0] for each in EVENT_TYPES}):
        yield f"{group}.*", f"all of {group}"
    for each in EVENT_TYPES:
        yield each, ""


#: What an option or an argument names -> the names that there are.
NAMES: Final[dict[str, Callable[[Client], Iterable[Name]]]] = {
    "library": libraries,
    "consumer": consumers,
    "relay": relays,
    "source": sources,
    "sync": syncs,
    "schedule": schedules,
    "job": jobs,
    "kind": kinds,
    "type": types,
}


def names(what: str, ctx: Any, incomplete: str) -> list[Name]:
    """The names of a kind of thing that begin with `incomplete`, each with its description. Never raises."""
    if ctx.info_name in ("add", "create") and ctx.parent is not None and ctx.parent.info_name == what:
        return []  # a new name
    try:
        with _bounded(), _running(ctx) as client:
            found = [(name, one_line(about)) for name, about in NAMES[what](client) if name.startswith(incomplete)]
    except Exception:
        return []
    given = {str(each) for value in ctx.params.values() if isinstance(value, (list, tuple)) for each in value}
    return [each for each in found if each[0] not in given]


def _running(ctx: Any) -> Client:
    """A connection to the daemon that runs. Raises VecError."""
    from vecd.client import connect

    os.environ["VEC_NO_SPAWN"] = "1"
    root = ctx.find_root().params  # no callback is called while a shell completes
    for option, variable in (("connect", "VEC_CONNECT"), ("key_file", "VEC_KEY_FILE"), ("ca_file", "VEC_CA_FILE")):
        if root.get(option):
            os.environ[variable] = root[option]
    return connect(ctx.params.get("socket"), spawn=False, timeout_s=COMPLETE_S)


@contextlib.contextmanager
def _bounded() -> Iterator[None]:
    """Ends what takes longer than COMPLETE_S with a TimeoutError: a daemon that is stopped, a gateway far away."""

    def end(*_: object) -> None:
        raise TimeoutError

    signal.signal(signal.SIGALRM, end)
    signal.setitimer(signal.ITIMER_REAL, COMPLETE_S)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
