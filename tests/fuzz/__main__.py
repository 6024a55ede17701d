"""`python -m tests.fuzz [--minutes N] [--seed N] [--only targets|daemon|store|crowd]`: strangers, for longer.

- Bytes (targets.py): guided by coverage if atheris is there (the extra `fuzz`; it has wheels for Linux and CPython up
  to 3.13), and otherwise drawn by hypothesis.
- The daemon: requests of every op, damaged and whole, at a real daemon, while bystanders work; their latencies and the
  daemon's largest size are printed.
- The store: daemons that start on damaged files.
- A crowd: 10,000 connections at once.

Ends with status 1 at the first fault; the seed that is printed repeats it.
"""

from __future__ import annotations

import argparse
import importlib.util
import random
import re
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st

from tests.fuzz import conversations
from tests.fuzz.attacks import Bystanders, resident_mib, share
from tests.fuzz.ops import requests
from tests.fuzz.targets import TARGETS, seeds
from tests.fuzz.test_targets import damaged
from tests.support.instance import Instance
from vecd.wire.messages import encode

_AT_ONCE = settings(
    max_examples=200, deadline=None, database=None, derandomize=False, suppress_health_check=list(HealthCheck)
)
CROWD = 10_000


def bytes_guided(name: str, seconds: float, first: int) -> None:
    """One target with atheris, in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "tests.fuzz.guided", name, str(int(seconds)), str(first), folder]
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
        if done.returncode != 0:
            print(done.stderr[-6_000:])
            raise AssertionError(f"{name}: a fault")
        runs = re.search(r"number_of_executed_units: (\d+)", done.stderr)
        size = sum(path.stat().st_size for path in Path(folder, name).iterdir())
        print(f"{name:10} {seconds / 60:6.1f} min, {runs[1] if runs else '?'} runs, corpus of {size:,} bytes (atheris)")


def bytes_drawn(name: str, seconds: float, first: int) -> None:
    """One target with hypothesis."""
    until, count, sizes = time.monotonic() + seconds, 0, Counter[str]()
    while time.monotonic() < until:
        count += 1

        @seed(first + count)
        @_AT_ONCE
        @given(data=st.one_of(st.binary(max_size=500), st.tuples(st.sampled_from(seeds(name)), st.integers(0, 2**63))))
        def run(data: bytes | tuple[bytes, int]) -> None:
            given_ = data if isinstance(data, bytes) else damaged(*data)
            sizes["bytes"] += len(given_)
            TARGETS[name](given_)

        run()
    print(f"{name:10} {seconds / 60:6.1f} min, {sizes['bytes']:,} bytes (hypothesis)")


def fuzz_daemon(seconds: float, first: int) -> None:
    until, count, sizes = time.monotonic() + seconds, 0, Counter[str]()
    with Instance({"VEC_EMBEDDER": "hash"}) as instance:
        daemon = instance.start()
        conversations.prepare(instance)
        with instance.connect() as client:
            client.request("library.create", library="theirs")
            client.ingest([{"id": "first", "text": "first bystander"}], library="theirs")
        sound = conversations.Sound(instance)
        with Bystanders(instance) as bystanders:
            while time.monotonic() < until:
                count += 1
                print(f"daemon: seed {first + count}", end="\r", flush=True)

                @seed(first + count)
                @_AT_ONCE
                @given(
                    asked=st.lists(requests(), min_size=1, max_size=8),
                    numbers=st.lists(st.integers(-1, 6), min_size=8, max_size=8),
                    how=st.integers(0, 9),
                    noise=st.integers(0, 2**63),
                )
                def run(asked: list[dict[str, Any]], numbers: list[int], how: int, noise: int) -> None:
                    if time.monotonic() > until + 30:
                        return
                    if how < 6:
                        sizes["bytes"] += conversations.converse(sound, asked, list(range(1, len(asked) + 1)))
                    elif how < 8:
                        sizes["bytes"] += conversations.converse(sound, asked, numbers[: len(asked)], greeted=how == 6)
                    else:
                        data = damaged(b"".join(conversations.encoded(each, n) for n, each in enumerate(asked)), noise)
                        sizes["bytes"] += len(data)
                        conversations.raw(sound, data)

                run()
        felt = bystanders.felt.requests_s
        assert daemon.poll() is None
        took_ms = [1e3 * share(felt, of) for of in (0.5, 0.99)]
        print(
            f"daemon     {seconds / 60:6.1f} min, {sizes['bytes']:,} bytes;"
            f" the daemon had {resident_mib(daemon.pid):.0f} MiB at most;"
            f" {len(felt)} requests of bystanders: p50 {took_ms[0]:.0f} ms, p99 {took_ms[1]:.0f} ms"
        )


def fuzz_store(seconds: float, first: int) -> None:
    until, count, outcomes = time.monotonic() + seconds, 0, Counter[str]()
    with tempfile.TemporaryDirectory() as folder:
        kept = Path(folder) / "data"
        conversations.keep_store(kept)
        names = [str(path.relative_to(kept)) for path in sorted(kept.rglob("*")) if path.is_file()]
        while time.monotonic() < until:
            count += 1
            print(f"store: seed {first + count}", end="\r", flush=True)
            chance = random.Random(first + count)
            name = chance.choice([*names, "vec.db", "vec.db", "vec.db"])
            data = bytearray((kept / name).read_bytes())
            for _ in range(chance.choice([1, 10, 100, 1_000])):
                if data:
                    data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
            if chance.random() < 0.3:
                del data[chance.randrange(len(data) + 1) :]
            if data and chance.random() < 0.2:
                page = 4096 * chance.randrange(-(-len(data) // 4096))
                data[page : page + 4096] = bytes(len(data[page : page + 4096]))
            outcomes[f"{name} {conversations.start_damaged(kept, name, bytes(data))}"] += 1
    told = ", ".join(f"{what} {times}" for what, times in sorted(outcomes.items()))
    print(f"store      {seconds / 60:6.1f} min: {told}")


def fuzz_crowd(seconds: float, first: int) -> None:
    with conversations.descriptors(CROWD + 200) as there, Instance({"VEC_EMBEDDER": "hash"}) as instance:
        daemon = instance.start()
        count = min(CROWD, there - 150)
        admitted, refused, took_s = conversations.crowd(instance, count)
        print(
            f"crowd      {count:,} connections: {admitted:,} admitted, {refused:,} refused; the daemon had"
            f" {resident_mib(daemon.pid):.0f} MiB at most; ping p99 {1e3 * share(took_s, 0.99):.0f} ms"
        )


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz")
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**9))
    parser.add_argument("--only", choices=["targets", "daemon", "store", "crowd"])
    chosen = parser.parse_args()
    print(f"seed {chosen.seed}", flush=True)
    seconds = 60 * chosen.minutes
    guided = importlib.util.find_spec("atheris") is not None
    shares = {"targets": 0.4, "daemon": 0.4, "store": 0.2} if chosen.only is None else {chosen.only: 1.0}
    for name in TARGETS if "targets" in shares else ():
        (bytes_guided if guided else bytes_drawn)(name, shares["targets"] * seconds / len(TARGETS), chosen.seed)
    if "daemon" in shares:
        fuzz_daemon(shares["daemon"] * seconds, chosen.seed)
    if "store" in shares:
        fuzz_store(shares["store"] * seconds, chosen.seed)
    if chosen.only in (None, "crowd"):
        fuzz_crowd(seconds, chosen.seed)


if __name__ == "__main__":
    assert encode({})  # the wire is there
    try:
        main()
    except AssertionError as error:
        print(f"\nFAULT: {error}")
        raise SystemExit(1) from error
