"""What `vec` imports before it does anything: scripts call it thousands of times, so each module must be worth it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator, Mapping
from functools import cache

import pytest

from tests.support.instance import Instance

#: Never without need, whoever brings them.
HEAVY = {
    "apsw",
    "asyncio",
    "faiss",
    "multiprocessing",
    "numpy",
    "orjson",
    "pydantic",
    "rich",
    "sqlite3",
    "tokenizers",
    "tomllib",
    "uvloop",
    "vecd.daemon",
    "vecd.engine",
    "vecd.index",
    "vecd.server",
    "vecd.store",
    "vecd.text",
}
#: May come, where they are not there already by `import typer`. Names with an underscore are their owners' affair.
STATUS_STDLIB = {"array", "gc", "json", "select", "selectors", "socket", "struct"}
STATUS_MODULES = {
    "vec_cli",
    "vec_cli.commands",
    "vec_cli.commands.status",
    "vec_cli.main",
    "vec_cli.options",
    "vec_cli.output",
    "vecd",
    "vecd.client",
    "vecd.client.connectors",
    "vecd.client.syncs",
    "vecd.client.client",
    "vecd.client.connect",
    "vecd.client.connection",
    "vecd.client.discovery",
    "vecd.client.greeting",
    "vecd.client.transport",
    "vecd.data_lock",
    "vecd.durable_files",
    "vecd.errors",
    "vecd.limits",
    "vecd.process",
    "vecd.settings",
    "vecd.units",
    "vecd.unixsocket",
    "vecd.wire",
    "vecd.wire.frames",
    "vecd.wire.messages",
}
#: What `vec search` in a pipe needs besides: the module of the command, and orjson with what that imports.
SEARCH_MODULES = {"vec_cli.commands.search", "orjson", "dataclasses"}
#: `vec --help` loads every command for its line of help; what a command works with, it must not load yet.
HELP_STDLIB = {"bisect", "dataclasses", "gc", "json", "random", "sysconfig", "tempfile"}
HELP_VECD = {"vecd", "vecd.errors", "vecd.json_values", "vecd.limits", "vecd.process"}
#: The tables of index kinds and embedders, whose names options list. They load no kind and no embedder.
TABLES = {
    "vecd.index",
    "vecd.index.kinds",
    "vecd.text",
    "vecd.text.embedders",
    "vecd.text.embedders.embedder",
    "vecd.parameters",
}

RUN = """
import sys
sys.argv = {arguments!r}
from vec_cli.main import main
try:
    main()
except SystemExit as end:
    assert not end.code, end.code
"""


def loaded(code: str, environment: Mapping[str, str] | None = None) -> set[str]:
    """The modules that a fresh interpreter holds after it has run this."""
    script = f"{code}\nimport sys\nsys.stdout.flush()\nsys.stderr.write('\\n'.join(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", script],
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert done.stdout or "main" not in code, done.stderr
    return set(done.stderr.split("\n"))


@cache
def by_typer() -> frozenset[str]:
    """What typer brings by itself, whatever we do."""
    return frozenset(loaded("import typer"))


def added_by(*arguments: str, environment: Mapping[str, str] | None = None) -> set[str]:
    """What a run of `vec` loads beyond typer: our own modules, and the top names of all others."""
    run = RUN.format(arguments=["vec", *arguments])
    added = loaded(run, environment) - by_typer()
    names = {name if name.startswith(("vecd", "vec_cli")) else name.partition(".")[0] for name in added}
    return {name for name in names if not name.startswith("_") and name != "cython_runtime"}


def heavy(names: set[str]) -> set[str]:
    return {name for name in names - TABLES if any(name == one or name.startswith(f"{one}.") for one in HEAVY)}


@pytest.fixture(scope="module")
def instance() -> Iterator[Instance]:
    with Instance({"VEC_EMBEDDER": "hash"}) as instance:
        instance.start()
        yield instance


def test_typer_itself_stays_light() -> None:
    """Why its version is bounded in pyproject.toml: later ones import pydantic, which doubles the start."""
    assert "typer" in by_typer()
    assert heavy(set(by_typer())) == set()


def test_help_loads_no_more_than_it_shows() -> None:
    added = added_by("--help")
    assert heavy(added) == set()
    assert {name for name in added if not name.startswith("vec_cli")} <= {"typer", *HELP_STDLIB, *HELP_VECD, *TABLES}


def test_help_of_a_command_loads_that_command_only() -> None:
    added = added_by("status", "--help")
    assert heavy(added) == set()
    assert added - STATUS_STDLIB <= {"typer", *STATUS_MODULES}


def test_status_loads_no_more_than_the_client_and_itself(instance: Instance) -> None:
    added = added_by("status", environment=instance.environment)
    assert "vecd.client" in added
    assert heavy(added) == set()
    assert added - STATUS_STDLIB <= {"typer", "msgpack", *STATUS_MODULES}


def test_a_search_in_a_pipe_loads_no_more_than_status_and_orjson(instance: Instance) -> None:
    instance.vec("ingest", stdin='{"id": "a", "text": "rotate the logs"}\n')
    added = added_by("search", "logs", environment=instance.environment)
    assert heavy(added) == {"orjson"}
    assert added - STATUS_STDLIB <= {"typer", "msgpack", *STATUS_MODULES, *SEARCH_MODULES}


def test_a_failed_connection_loads_nothing_more(instance: Instance) -> None:
    nobody = {**instance.environment, "VEC_SOCKET": str(instance.home / "nobody.sock"), "VEC_NO_SPAWN": "1"}
    run = RUN.format(arguments=["vec", "status"]).replace("assert not end.code", "assert end.code == 69")
    added = loaded(run + "\nprint('done')", nobody) - by_typer()
    assert heavy(added) == set()
