"""The table of ops: a name, its handler, and whether it writes or streams. A handler reads the request's fields, calls
the engine or jobs, and returns the reply's body."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Final

from .call import Call
from .handlers import (
    connectors,
    consumers,
    count,
    daemon,
    delete,
    get,
    ingest,
    jobs,
    library,
    relay,
    schedule,
    search,
    source,
    status,
    sync,
    trim,
    update,
    watch,
    workers,
)
from .handlers import list as list_

Body = dict[str, Any]
Handler = Callable[[Call], Awaitable[Body]]


@dataclass(frozen=True, slots=True)
class Immediate:
    """Answered at once, on the event loop: it neither blocks nor waits."""

    handler: Callable[[Call], Body]


@dataclass(frozen=True, slots=True)
class Op:
    """Answered by a task."""

    handler: Handler
    write: bool = False  # takes effect in the order of its sender's other writes
    makes_libraries: bool = False  # a write that creates or deletes a library
    stream: bool = False  # a subscription: may be cancelled, and does not count as unanswered


OPS: Final[dict[str, Op | Immediate]] = {
    "ping": Immediate(status.ping),
    "status": Immediate(status.status),
    "shutdown": Immediate(daemon.shutdown),
    "cancel": Immediate(watch.cancel),
    "library.create": Op(library.create, write=True, makes_libraries=True),
    "library.list": Op(library.list_),
    "library.show": Op(library.show),
    "library.settings": Op(library.settings),
    "library.set": Op(library.set_, write=True),
    "library.rebuild": Op(library.rebuild),
    "library.rename": Op(library.rename, write=True, makes_libraries=True),
    "library.delete": Op(library.delete, write=True, makes_libraries=True),
    "ingest": Op(ingest.ingest, write=True),
    "delete": Op(delete.delete, write=True),
    "update": Op(update.update, write=True),
    "get": Op(get.get),
    "list": Op(list_.list_),
    "count": Op(count.count),
    "search": Op(search.search),
    "watch": Op(watch.watch, stream=True),
    "ack": Op(watch.ack),
    "flush": Op(watch.flush, stream=True),
    "trim": Op(trim.trim),
    "consumers.list": Op(consumers.list_),
    "consumers.reset": Op(consumers.reset),
    "consumers.delete": Op(consumers.delete),
    "jobs.spool": Op(jobs.spool),
    "jobs.submit": Op(jobs.submit, write=True),
    "jobs.status": Op(jobs.status),
    "jobs.kinds": Immediate(jobs.kinds),
    "jobs.list": Op(jobs.list_),
    "jobs.show": Op(jobs.show),
    "jobs.logs": Op(jobs.logs),
    "jobs.wait": Op(jobs.wait, stream=True),
    "jobs.cancel": Op(jobs.cancel),
    "jobs.retry": Op(jobs.retry),
    "jobs.drop": Op(jobs.drop),
    "jobs.pause": Op(jobs.pause),
    "jobs.resume": Op(jobs.resume),
    "jobs.claim": Op(workers.claim, stream=True),
    "jobs.heartbeat": Op(workers.heartbeat),
    "jobs.checkpoint": Op(workers.checkpoint),
    "jobs.finish": Op(workers.finish),
    "jobs.workers": Immediate(workers.workers),
    "tasks.heartbeat": Op(workers.heartbeat_task),
    "tasks.finish": Op(workers.finish_task),
    "schedule.add": Op(schedule.add),
    "schedule.list": Op(schedule.list_),
    "schedule.run": Op(schedule.run),
    "schedule.remove": Op(schedule.remove),
    "relay.add": Op(relay.add),
    "relay.list": Op(connectors.list_("relay")),
    "relay.show": Op(connectors.show("relay")),
    "relay.pause": Op(connectors.pause("relay", True)),
    "relay.resume": Op(connectors.pause("relay", False)),
    "relay.reset": Op(relay.reset),
    "relay.remove": Op(connectors.remove("relay")),
    "relay.dead": Op(connectors.dead("relay")),
    "relay.retry": Op(connectors.retry("relay")),
    "relay.drop": Op(connectors.drop("relay")),
    "relay.watch": Op(relay.watch, stream=True),
    "relay.commit": Op(relay.commit),
    "source.add": Op(source.add),
    "source.list": Op(connectors.list_("source")),
    "source.show": Op(connectors.show("source")),
    "source.pause": Op(connectors.pause("source", True)),
    "source.resume": Op(connectors.pause("source", False)),
    "source.reset": Op(source.reset),
    "source.remove": Op(connectors.remove("source")),
    "source.dead": Op(connectors.dead("source")),
    "source.retry": Op(connectors.retry("source")),
    "source.drop": Op(connectors.drop("source")),
    "source.offsets": Op(source.offsets),
    "source.commit": Op(source.commit, write=True),
    "sync.add": Op(sync.add),
    "sync.list": Op(connectors.list_("sync")),
    "sync.show": Op(connectors.show("sync")),
    "sync.pause": Op(connectors.pause("sync", True)),
    "sync.resume": Op(connectors.pause("sync", False)),
    "sync.remove": Op(connectors.remove("sync")),
    "sync.hold": Op(sync.hold, stream=True),
    "sync.files": Op(sync.files),
    "sync.commit": Op(sync.commit, write=True),
    "connectors.watch": Op(connectors.watch, stream=True),
    "connectors.report": Op(connectors.report),
}
