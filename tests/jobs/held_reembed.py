"""`vecd` whose reembeds stop within their switch while the file `$VEC_HOME/hold` is there, and before it while
`$VEC_HOME/hold-drafted` is: `python -m tests.jobs.held_reembed`. Each step replaces few documents."""

from __future__ import annotations

import os
import time
from collections.abc import Generator
from concurrent.futures import Future
from pathlib import Path
from typing import Any, Final

from vecd import limits
from vecd.daemon import main
from vecd.jobs.effects import EffectResult
from vecd.jobs.kinds import KINDS
from vecd.jobs.kinds.kind import Run, Step, Steps
from vecd.jobs.kinds.reembed import BeginSwitch, Reembed, ReplaceDocuments

#: Steps of a switch before it stops, and the chunks that each removes and adds.
STEPS: Final = 5
CHUNKS: Final = 20


class Held(Reembed):
    def steps(self, run: Run) -> Steps:
        hold = Path(os.environ["VEC_HOME"]) / "hold"
        switching = 0
        steps: Generator[Step, Future[EffectResult] | None, dict[str, Any]] = super().steps(run)
        step = next(steps)
        while True:
            switching += isinstance(step.effect, ReplaceDocuments)
            drafted = Path(os.environ["VEC_HOME"]) / "hold-drafted"
            while isinstance(step.effect, BeginSwitch) and drafted.exists() and not run.stopping():
                time.sleep(0.01)
            while switching == STEPS and hold.exists() and not run.stopping():
                time.sleep(0.01)
            reply = yield step
            try:
                step = steps.send(reply)
            except StopIteration as end:
                return dict(end.value)


if __name__ == "__main__":
    limits.REEMBED_SWITCH_CHUNKS = CHUNKS  # type: ignore[misc]
    KINDS["reembed"] = Held()
    main()
