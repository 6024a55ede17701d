"""`python -m tests.soak`: runs the load for some time, and says whether anything grew. Linux only."""

from __future__ import annotations

import argparse
import json
import random
import signal
import sys
import tempfile
import time
from pathlib import Path

from tests.support.instance import Instance

from . import chart, sampling, verdict
from .load import Load

#: Lives of the daemon: long enough, in an hour, to see it grow.
_LIVES = 3
_SAMPLES = 600
_STOP_S = 60


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description="Mixed load; nothing may grow.")
    parser.add_argument("--minutes", type=float, default=60.0, help="how long (default: 60)")
    parser.add_argument("--seed", type=int, help="repeat the choices of an earlier run")
    parser.add_argument("--out", type=Path, default=Path(), help="folder for soak.json and soak.svg (default: here)")
    arguments = parser.parse_args()
    seed = arguments.seed if arguments.seed is not None else random.randrange(2**32)
    print(f"seed {seed}, {arguments.minutes:g} minutes", flush=True)
    samples, done = run(60 * arguments.minutes, seed)
    judged = verdict.judge(samples)
    passed = bool(judged) and all(each.passed for each in judged)
    title = f"vecd under mixed load, {arguments.minutes:g} minutes, {_LIVES} lives: {'passed' if passed else 'FAILED'}"
    arguments.out.mkdir(parents=True, exist_ok=True)
    (arguments.out / "soak.svg").write_text(chart.svg(samples, title))
    told = {
        "seed": seed,
        "minutes": arguments.minutes,
        "passed": passed,
        "done": done,
        "judged": [
            {"name": each.name, "level": each.level, "growth": each.growth, "allowed": each.allowed} for each in judged
        ],
        "samples": [sample.as_json() for sample in samples],
    }
    (arguments.out / "soak.json").write_text(json.dumps(told, indent=1) + "\n")
    print(f"\n{'series':28} {'level':>10} {'growth':>10} {'allowed':>10}")
    for each in judged:
        mark = "" if each.passed else "  GREW"
        print(f"{each.name:28} {each.level:10.2f} {each.growth:10.2f} {each.allowed:10.2f}{mark}")
    print("\n" + ", ".join(f"{count:,} × {name}" for name, count in sorted(done.items())))
    print("passed" if passed else "FAILED")
    return 0 if passed else 1


def run(seconds: float, seed: int) -> tuple[list[sampling.Sample], dict[str, int]]:
    """The samples, and how often each thing was done. Raises what went wrong."""
    samples: list[sampling.Sample] = []
    every_s = max(0.5, seconds / _SAMPLES)
    with tempfile.TemporaryDirectory(prefix="vec-soak-") as folder, Instance({"VEC_EMBEDDER": "hash"}) as instance:
        daemon = instance.start()
        load = Load(instance, Path(folder), seed)
        load.begin()
        begun = time.monotonic()
        try:
            for life in range(_LIVES):
                if life:
                    load.pause()
                    daemon.send_signal(signal.SIGTERM)
                    assert daemon.wait(_STOP_S) == 0
                    daemon = instance.start()
                    load.resume()
                load.latencies()  # what a restart took is no latency
                with instance.connect() as client:
                    while (at_s := time.monotonic() - begun) < seconds * (life + 1) / _LIVES:
                        time.sleep(every_s)  # the sampling interval
                        load.check()
                        documents = sum(each["documents"] for each in client.status()["libraries"])
                        took = load.latencies()
                        samples.append(sampling.take(at_s, life, daemon.pid, instance.home, documents, took))
                        if len(samples) % max(1, _SAMPLES // 20) == 0:
                            last = samples[-1]
                            print(
                                f"{at_s:7.0f} s  {last.memory_bytes / 2**20:7.1f} MiB  {last.descriptors:3} descriptors"
                                f"  {last.disk_bytes / 2**20:7.1f} MiB in {last.files} files",
                                flush=True,
                            )
        finally:
            load.end()
        daemon.send_signal(signal.SIGTERM)
        assert daemon.wait(_STOP_S) == 0
        text = instance.settings.log.read_text("utf-8", "replace")
        assert "Traceback" not in text, text[text.index("Traceback") :][:3000]
        assert "level=error" not in text, text[text.index("level=error") - 200 :][:3000]
    return samples, dict(load.done)


if __name__ == "__main__":
    sys.exit(main())
