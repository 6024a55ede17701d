"""`vec status` on a running daemon as a whole process, beside a Typer program with one empty command, in turns.

Wanted: at most 1.3 times.
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
        commands: dict[str, list[str]] = {
            "empty": [sys.executable, str(program)],
            "status": [str(BIN / "vec"), "status"],
        }
        taken: dict[str, list[float]] = {name: [] for name in commands}
        for turn in range(41):
            for name, command in commands.items():
                started = time.perf_counter()
                subprocess.run(command, env=instance.environment, stdout=subprocess.DEVNULL, check=True)
                if turn:
                    taken[name].append(time.perf_counter() - started)
        pairs = [ours / empty for ours, empty in zip(taken["status"], taken["empty"], strict=True)]
        for name, each in taken.items():
            print(f"  {name:>6}: median {statistics.median(each) * 1e3:.1f} ms")
        print(f"  ratio, pair by pair: median {statistics.median(pairs):.2f}")


if __name__ == "__main__":
    main()
