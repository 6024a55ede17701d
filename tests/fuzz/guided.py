"""One target, guided by coverage: `python -m tests.fuzz.guided TARGET SECONDS SEED FOLDER`; needs atheris.

libFuzzer prints what it does, stops at the first fault with the input in FOLDER, and with status 0 when the time is up.
"""

from __future__ import annotations

import sys
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["vecd"]):
    from tests.fuzz.targets import TARGETS, seeds


def main(name: str, seconds: str, seed: str, folder: str) -> None:
    corpus = Path(folder) / name
    corpus.mkdir(parents=True, exist_ok=True)
    for number, data in enumerate(seeds(name)):
        (corpus / f"seed-{number}").write_bytes(data)
    options = [f"-max_total_time={seconds}", f"-seed={seed}", f"-artifact_prefix={folder}/", "-max_len=4096"]
    atheris.Setup([sys.argv[0], str(corpus), *options, "-rss_limit_mb=4096", "-print_final_stats=1"], TARGETS[name])
    atheris.Fuzz()


if __name__ == "__main__":
    main(*sys.argv[1:])
