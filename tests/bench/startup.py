"""`vec status` and `vec search` on a running daemon as whole processes, beside a Typer program with one empty command,
in turns. Wanted: at most 1.2 times.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.support.instance import BIN, Instance

_EMPTY = """\
import typer
app = typer.Typer()
@app.command()
def main() -> None: pass
app()
"""


def main() -> None:
    with Instance() as instance, tempfile.TemporaryDirectory() as folder:
        program = Path(folder) / "empty.py"
        program.write_text(_EMPTY)
        instance.start()
        instance.vec("ingest", stdin='{"id": "a", "text": "rotate the logs"}\n')
        commands: dict[str, list[str]] = {
            "empty": [sys.executable, str(program)],
            "status": [str(BIN / "vec"), "status"],
            "search": [str(BIN / "vec"), "search", "log rotation"],
        }
        taken: dict[str, list[float]] = {name: [] for name in commands}
        for turn in range(41):
            for name, command in commands.items():
                started = time.perf_counter()
                subprocess.run(command, env=instance.environment, stdout=subprocess.DEVNULL, check=True)
                if turn:
                    taken[name].append(time.perf_counter() - started)
        for name, each in taken.items():
            ratios = [ours / empty for ours, empty in zip(each, taken["empty"], strict=True)]
            print(
                f"  {name:>6}: median {statistics.median(each) * 1e3:.1f} ms,"
                f" {statistics.median(ratios):.2f} times the empty program, pair by pair"
            )


if __name__ == "__main__":
    main()
