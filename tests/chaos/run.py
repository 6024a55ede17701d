"""One run: a relay to a broker and a source back from it into a second library, while everything fails at random."""

from __future__ import annotations

import random
import subprocess
import time
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support.brokers import Broker
from tests.support.instance import Instance
from tests.support.proxy import Proxy

from . import scenarios
from .checks import Broken, check
from .scenarios import Scenario
from .troubles import TROUBLES, TROUBLES_OF_BROKER
from .writing import LIBRARY, Writer

_COPY = "copy"
#: How long it may take, when all is well again, until something more has arrived. How long it takes until everything
#: has depends on the machine, and on how long the broker was away.
_CALM_S = 120.0


@dataclass(frozen=True)
class Report:
    """What a run has done."""

    events: int  # in the log
    messages: int  # at the broker
    troubles: dict[str, int]
    ack_p50_ms: float
    ack_p99_ms: float
    calm_s: float  # from the last trouble until everything had arrived

    def __str__(self) -> str:
        happened = ", ".join(f"{count} × {name}" for name, count in sorted(self.troubles.items()))
        return (
            f"{self.events:,} events, {self.messages:,} messages; ack median {self.ack_p50_ms:.1f} ms, p99"
            f" {self.ack_p99_ms:.1f} ms; complete after {self.calm_s:.1f} s; {happened}"
        )


class Run:
    """What the troubles act on."""

    def __init__(self, instance: Instance, broker: Broker, network: Proxy, chance: random.Random) -> None:
        self.instance = instance
        self.broker = broker
        self.network = network
        self.chance = chance
        self.daemon: subprocess.Popen[bytes]
        self.start()
        self.writer = Writer(instance, random.Random(chance.getrandbits(32)))

    def start(self) -> None:
        """Starts the daemon."""
        self.daemon = self.instance.start()


def run(scenario: Scenario, seconds: float, seed: int, folder: Path, shared: Broker | None = None) -> Report:
    """`shared` is a broker that others use too, so that nothing happens to it. Raises Broken."""
    chance = random.Random(seed)
    unharmed = TROUBLES_OF_BROKER if shared is not None else frozenset()
    troubles = sorted(TROUBLES.keys() - scenario.without - unharmed)
    happened: Counter[str] = Counter()
    with ExitStack() as stack:
        instance = stack.enter_context(Instance({"VEC_EMBEDDER": "hash"}))
        broker = shared or stack.enter_context(scenario.make(folder))
        network = stack.enter_context(scenario.network(broker))
        its = Run(instance, broker, network, chance)
        scenario.prepare(broker)
        for library in (LIBRARY, _COPY):
            instance.vec("library", "create", library)
        relay, source = (make(network.address, folder) for make in (scenario.relay, scenario.source))
        instance.vec("source", "add", _COPY, *source, "--library", _COPY)
        instance.vec("relay", "add", "out", *relay, "--library", LIBRARY, "--payload", "--from", "beginning")
        began = time.monotonic()
        with its.writer:
            while time.monotonic() - began < seconds:
                name = chance.choice(troubles)
                happened[name] += 1
                TROUBLES[name](its)
                acks = its.writer.acks + chance.randint(0, 30)  # a while without trouble
                while its.writer.acks < acks and time.monotonic() - began < seconds:
                    time.sleep(0.01)
        network.heal()
        began = time.monotonic()
        _wait(lambda: _relayed(instance), lambda: _state(instance))
        logged = instance.objects("watch", "--library", LIBRARY, "--from", "beginning", "--payload", "--no-follow")
        received = scenarios.events(scenario.read(broker))
        check(logged, received, scenario.promise)
        _wait(lambda: _copied(instance), lambda: _state(instance))
        calm_s = time.monotonic() - began
        if dead := [*instance.objects("relay", "dead", "out"), *instance.objects("source", "dead", _COPY)]:
            raise Broken(f"{len(dead)} dead letters: {dead[:3]}")
    acks_ms = sorted(1000 * each for each in its.writer.acks_s)
    p50_ms, p99_ms = acks_ms[len(acks_ms) // 2], acks_ms[int(0.99 * len(acks_ms))]
    return Report(len(logged), len(received), dict(happened), p50_ms, p99_ms, calm_s)


def _wait(arrived: Callable[[], tuple[bool, object]], state: Callable[[], object]) -> None:
    """Waits until all has arrived. `arrived` returns whether it has, and what has. Raises Broken with the state."""
    before: object = None
    deadline = 0.0
    while True:
        complete, now = arrived()
        if complete:
            return
        if now != before:
            before, deadline = now, time.monotonic() + _CALM_S
        if time.monotonic() > deadline:
            raise Broken(f"nothing more arrives within {_CALM_S:g} s: {state()}")
        time.sleep(0.1)


def _relayed(instance: Instance) -> tuple[bool, object]:
    (relay,) = instance.objects("relay", "list")
    return relay["lag"] == 0, relay["cursor"]


def _copied(instance: Instance) -> tuple[bool, object]:
    copy = _contents(instance, _COPY)
    return copy == _contents(instance, LIBRARY), copy


def _state(instance: Instance) -> object:
    return [*instance.objects("relay", "list"), *instance.objects("source", "list")]


def _contents(instance: Instance, library: str) -> dict[str, Any]:
    with instance.connect() as client:
        ids = [each["id"] for each in client.documents(library)]
        found = client.get(ids, library)
    return {each["id"]: [chunk["text"] for chunk in each["chunks"]] for each in found if each is not None}
