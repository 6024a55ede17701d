"""Every example of the README and of the man pages runs as printed, on a fresh instance."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.support.instance import Instance

from .examples import NOT_RUN, Block, World, block_of
from .test_man import PAGES, ROOT, literals

#: The tutorial is one long example; test_tutorial.py runs it.
TUTORIAL = "vec-tutorial.7"


def texts(name: str) -> Iterator[str]:
    """The blocks of literal text of a page."""
    if name != "README.md":
        yield from literals(name)
        return
    for match in re.finditer(r"(?:^    .*\n|^\n(?=    ))+", (ROOT / name).read_text("utf-8"), re.M):
        yield from re.split(r"\n\n(?=    (?:\$|vec|cat) )", match[0])


def blocks(name: str) -> list[Block]:
    found = [block_of(text) for text in texts(name) if "$ " in text or name == "README.md"]
    return [each for each in found if each.commands]


EXAMPLES = {name: blocks(name) for name in ("README.md", *PAGES) if name != TUTORIAL}


def runs(block: Block) -> bool:
    return not any(part in block.script for part in NOT_RUN)


@pytest.mark.parametrize("name", [name for name, found in EXAMPLES.items() if any(map(runs, found))])
def test_every_example_runs_as_printed(name: str, tmp_path: Path) -> None:
    found = [block for block in EXAMPLES[name] if runs(block)]
    for program in ("bash", "jq", "curl"):
        if shutil.which(program) is None and any(program in block.script for block in found):
            pytest.skip(f"{program} is not installed")
    folder = tmp_path / "home"
    folder.mkdir()
    with Instance({"VEC_EMBEDDER": "hash"}) as instance:
        failed = []
        with closing(World(instance, folder, "\n".join(block.script for block in found))) as world:
            for block in found:
                try:
                    world.run(block)
                except AssertionError as error:
                    failed.append(str(error))
        assert not failed, "\n\n".join(failed)


def test_what_is_not_run_is_printed_somewhere() -> None:
    everything = "\n".join(block.script for found in EXAMPLES.values() for block in found)
    assert {part for part in NOT_RUN if part not in everything} == set()
