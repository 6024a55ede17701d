"""What goes wrong. Each function returns when it is over. Those in which the broker cannot be reached last until some
batches were acknowledged meanwhile: an ack waits for no broker."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Final

from tests.connectors.test_relay import connector_pids
from tests.support.waiting import until

if TYPE_CHECKING:
    from .run import Run

#: Acks that an outage lasts for, at least and at most.
_ACKS: Final = (3, 40)


def daemon_killed(run: Run) -> None:
    os.kill(run.daemon.pid, signal.SIGKILL)
    run.daemon.wait()
    run.start()


def daemon_restarted(run: Run) -> None:
    run.daemon.send_signal(signal.SIGTERM)
    run.daemon.wait(60)
    run.start()


def connectors_killed(run: Run) -> None:
    for pid in until(lambda: connector_pids(run.instance), "the process of the connectors"):
        os.kill(pid, signal.SIGKILL)


def connectors_stopped(run: Run) -> None:
    """Stopped, not ended: SIGSTOP."""
    pids = until(lambda: connector_pids(run.instance), "the process of the connectors")
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    _outlast(run)
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):  # the daemon may have replaced it
            os.kill(pid, signal.SIGCONT)


def broker_killed(run: Run) -> None:
    run.broker.kill()
    _outlast(run)
    run.broker.start()


def broker_restarted(run: Run) -> None:
    run.broker.restart()


def broker_stopped(run: Run) -> None:
    """Stopped, not ended: its connections stay open, and nothing answers."""
    run.broker.pause()
    _outlast(run)
    run.broker.resume()


def connections_cut(run: Run) -> None:
    run.network.cut()


def cut_within_a_message(run: Run) -> None:
    run.network.cut_after(run.chance.randrange(1, 3_000))
    _outlast(run)


def replies_lost(run: Run) -> None:
    """The broker gets what is sent, and nobody hears of it."""
    with _healed(run):
        run.network.black_hole("replies")
        _outlast(run)
        run.network.cut()


def network_down(run: Run) -> None:
    with _healed(run):
        run.network.down()
        _outlast(run)


def network_silent(run: Run) -> None:
    """Connections stay open, and nothing arrives; later everything does."""
    with _healed(run):
        run.network.black_hole()
        _outlast(run)


def network_slow(run: Run) -> None:
    with _healed(run):
        run.network.delay_s = run.chance.uniform(0.01, 0.3)
        _outlast(run)


@contextlib.contextmanager
def _healed(run: Run) -> Iterator[None]:
    yield
    run.network.heal()


def _outlast(run: Run) -> None:
    acks = run.writer.acks + run.chance.randint(*_ACKS)
    until(lambda: run.writer.acks >= acks, "acks while the broker cannot be reached")


TROUBLES: Final[Mapping[str, Callable[[Run], None]]] = {
    each.__name__: each
    for each in (
        daemon_killed,
        daemon_restarted,
        connectors_killed,
        connectors_stopped,
        broker_killed,
        broker_restarted,
        broker_stopped,
        connections_cut,
        cut_within_a_message,
        replies_lost,
        network_down,
        network_silent,
        network_slow,
    )
}

#: Those of the server itself.
TROUBLES_OF_BROKER: Final = frozenset(("broker_killed", "broker_restarted", "broker_stopped"))
