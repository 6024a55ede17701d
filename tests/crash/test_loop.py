"""A short crash loop (`make crash` runs a long one); and a test that the daemon dies at each crash point."""

from __future__ import annotations

import os
import random
import signal
from pathlib import Path

import pytest

from tests.support.instance import Instance
from vecd.errors import VecError

from . import loop, points

pytestmark = pytest.mark.skipif(not points.AVAILABLE, reason="needs LD_PRELOAD and a C compiler")

_KILLS = 6


def test_after_every_kill_all_that_was_acked_is_there_and_nothing_happened_twice(tmp_path: Path) -> None:
    seed = int(os.environ.get("SEED", random.randrange(2**32)))
    print(f"seed {seed}")
    tally = loop.Tally()
    loop.run(_KILLS, seed, points.build(tmp_path), tmp_path, _KILLS, lambda _: None, tally)
    assert tally.total >= _KILLS
    assert tally.acked > 20, "too little was written to mean anything"


@pytest.mark.parametrize(("point", "stands"), [("begin", False), ("commit.torn", False), ("commit.synced", True)])
def test_the_daemon_dies_at_the_point_that_is_armed_and_a_commit_stands_from_its_sync_on(
    point: str, stands: bool, tmp_path: Path
) -> None:
    control = points.Control(tmp_path / "control")
    preloaded = {"LD_PRELOAD": str(points.build(tmp_path)), "VEC_CRASH": str(control.path)}
    stood = []
    with Instance({"VEC_EMBEDDER": "hash", **preloaded}) as instance:
        for number in range(5):
            daemon = instance.start(module=loop.MODULE)
            with instance.connect() as client:
                client.ingest([{"id": "before", "text": f"acknowledged {number}"}])
                control.arm(point, 1)
                with pytest.raises(VecError) as lost:
                    client.ingest([{"id": f"after{number}", "text": "never acknowledged"}])
                assert lost.value.code == "connection_lost"
            assert daemon.wait(30) == -signal.SIGKILL
            assert not control.armed
            daemon = instance.start(module=loop.MODULE)
            with instance.connect() as client:
                before, after = client.get(["before", f"after{number}"])
                assert before is not None
                assert before["chunks"][0]["text"] == f"acknowledged {number}"
                stood.append(after is not None)
            daemon.kill()
            daemon.wait()
            if stood[-1] == stands:
                break  # otherwise the commit was another one: the daemon's schedules write, too
    assert stood[-1] == stands
    assert stands or not any(stood)
    control.close()
