"""Imports go one way, as `vecd/__init__.py` lists the layers; also inside functions, and for type checking only."""

from __future__ import annotations

import ast
import graphlib
import subprocess
import sys
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest

import vecd

ROOT = Path(vecd.__file__).parent.parent
SHARED = {
    "backoff",
    "credentials",
    "durable_files",
    "errors",
    "limits",
    "parameters",
    "resources",
    "settings",
    "units",
    "json_values",
}

#: A layer of vecd (a module or a package) -> the other layers that it may import from, also for type checking only.
#: `vecd` itself (its version numbers) is open to all.
MAY_IMPORT: dict[str, set[str]] = {
    "limits": set(),
    "errors": {"limits"},
    "durable_files": set(),
    "backoff": set(),
    "credentials": {"durable_files", "errors", "limits"},
    "units": {"errors"},
    "json_values": {"errors", "limits"},
    "parameters": {"errors", "limits"},
    "resources": {"errors", "limits"},
    "settings": {"durable_files", "errors", "limits", "units"},
    "logs": set(),
    "fair_queue": set(),
    "write_order": set(),
    "process": set(),
    "unixsocket": set(),
    "data_lock": SHARED,
    "wire": {"errors", "limits", "json_values"},
    "files": {*SHARED, "wire"},
    "client": {*SHARED, "process", "unixsocket", "data_lock", "wire"},
    "store": {*SHARED, "fair_queue"},
    "index": SHARED,
    "filters": SHARED,
    "text": SHARED,
    "feed": {*SHARED, "store", "filters"},
    "delivery": SHARED,
    "workers": {*SHARED, "fair_queue", "client", "index", "text"},
    "engine": {*SHARED, "fair_queue", "write_order", "store", "index", "filters", "text", "feed", "workers"},
    "jobs": {*SHARED, "write_order", "wire", "store", "index", "filters", "text", "feed", "engine", "workers"},
    "connectors": {*SHARED, "logs", "process", "wire", "client", "delivery"},
    "sync": {*SHARED, "files", "client", "connectors"},
    "ops": {*SHARED, "write_order", "wire", "store", "feed", "engine", "jobs", "connectors"},
    "server": {*SHARED, "wire", "unixsocket", "ops"},
    "daemon": {*SHARED, "logs", "process", "data_lock", "unixsocket", "feed", "engine", "jobs", "ops", "server"}
    | {"child_process", "connector_process", "http", "workers"},
    "child_process": {*SHARED, "process"},
    "connector_process": {*SHARED, "child_process"},
    "http": {*SHARED, "logs", "process", "unixsocket", "data_lock", "wire", "client", "connectors"},
    "restore": {*SHARED, "data_lock", "store"},
    "__main__": {"daemon"},
}

#: What the command line may know of vecd.
CLI_MAY_IMPORT = {
    *SHARED,
    "process",
    "unixsocket",
    "data_lock",
    "wire",
    "files",
    "client",
    "sync",
    "delivery",
    "http",
    "workers",
}
#: Tables of names that its options list; they load nothing that they name (tests/cli/test_startup.py).
CLI_MAY_LIST = {"vecd.index.kinds", "vecd.text.embedders", "vecd.connectors.parameters", "vecd.connectors.folder"}

#: Modules that only some layers may import.
ONLY_IN: dict[str, set[str]] = {
    "apsw": {"store"},
    "apsw.unicode": {"text"},
    "Stemmer": {"text"},
    "sqlite3": set(),
    "socket": {"unixsocket", "client", "connectors", "workers", "server", "daemon", "http"},
    "asyncio": {"client", "connectors", "write_order", "feed", "engine", "jobs", "ops", "server", "daemon", "http"}
    | {"child_process", "connector_process"},
    "uvloop": {"daemon", "http"},
    "starlette": {"http"},
    "uvicorn": {"http"},
    "websockets": {"client", "http"},
    "redis": {"connectors", "workers"},
    "confluent_kafka": {"connectors"},
    "aio_pika": {"connectors"},
    "nats": {"connectors"},
    "pyarrow": {"wire"},
    "numpy": {"store", "index", "filters", "text", "feed", "engine", "jobs", "workers"},
    "faiss": {"index"},
    "scipy": {"index"},
    "tokenizers": {"text"},
    "semantic_text_splitter": {"files", "text"},
    "pathspec": {"files"},
    "watchfiles": {"sync"},
    "kreuzberg": {"files"},
    "wordllama": {"text"},
    "onnxruntime": {"text"},
    "msgpack": {"wire", "feed", "engine", "connectors", "workers"},
    "cronsim": {"jobs"},
    "re2": {"filters"},
    "celery": {"workers"},
    "kombu": {"workers"},
    "rq": {"workers"},
    "dramatiq": {"workers"},
    "pika": {"workers"},
    "typer": set(),
    "rich": set(),
    "pickle": set(),
}


class Import(NamedTuple):
    """One import: where it stands, and the full name of the module that it names."""

    where: str  # module
    line: int
    what: str
    types_only: bool = False  # under `if TYPE_CHECKING`

    def __str__(self) -> str:
        return f"{self.where}:{self.line} imports {self.what}"


class _Imports(ast.NodeVisitor):
    """The imports of one module, wherever they stand in it."""

    def __init__(self, module: str, package: str) -> None:
        self._module, self._package = module, package
        self._types_only = False
        self.found: list[Import] = []

    def visit_If(self, node: ast.If) -> None:
        before = self._types_only
        self._types_only = before or (isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING")
        for each in node.body:
            self.visit(each)
        self._types_only = before
        for each in node.orelse:
            self.visit(each)

    def visit_Import(self, node: ast.Import) -> None:
        self.found += [Import(self._module, node.lineno, alias.name, self._types_only) for alias in node.names]

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        if node.module == "__future__":
            return
        base = node.module or ""
        if node.level:
            above = self._package.split(".")
            above = above[: len(above) - node.level + 1]
            base = ".".join([*above, base] if base else above)
        # `from package import name` names a module if there is one of that name, and else something inside the package.
        names = (f"{base}.{alias.name}" for alias in node.names)
        names = (name if name in modules() else base for name in names)
        self.found += [Import(self._module, node.lineno, name, self._types_only) for name in names]

    def visit_Call(self, node: ast.Call) -> None:
        called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        if called in ("import_module", "__import__") and node.args and isinstance(node.args[0], ast.Constant):
            self.found.append(Import(self._module, node.lineno, str(node.args[0].value)))
        self.generic_visit(node)


@cache
def modules() -> dict[str, Path]:
    """All our modules, by their full names; `cli` under the name that it is installed as."""
    found = {}
    for folder, name in (("vecd", "vecd"), ("cli", "vec_cli")):
        for path in sorted((ROOT / folder).rglob("*.py")):
            parts = [name, *path.relative_to(ROOT / folder).with_suffix("").parts]
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


@cache
def imports() -> tuple[Import, ...]:
    """All imports of all our modules."""
    found: list[Import] = []
    for module, path in modules().items():
        package = module if path.name == "__init__.py" else module.rpartition(".")[0]
        visitor = _Imports(module, package)
        visitor.visit(ast.parse(path.read_text("utf-8"), str(path)))
        found += visitor.found
    return tuple(found)


def layer(module: str) -> str:
    """The layer of a module of vecd: its part behind `vecd.`; empty for the package itself."""
    return module.split(".")[1] if "." in module else ""


def inside(module: str, package: str) -> bool:
    return module == package or module.startswith(f"{package}.")


def test_the_imports_are_found() -> None:
    """So that a change of style does not leave the other tests here with nothing to look at."""
    found = {(each.where, each.what) for each in imports()}
    for where, what in [
        ("vecd.client.connection", "vecd.errors"),  # from ..errors import …
        ("vecd.client.connection", "vecd.limits"),  # from .. import limits
        ("vecd.client.greeting", "vecd"),  # from .. import __version__
        ("vecd.ops.handlers.get", "vecd.engine.documents"),  # from ...engine import documents as verbs
        ("vecd.daemon", "vecd.engine.engine"),  # inside a function
        ("vecd.daemon", "uvloop"),  # import_module
        ("vec_cli.options", "vecd.client"),  # under TYPE_CHECKING
        ("vec_cli.commands.get", "vec_cli.output"),
        ("vecd.store.database", "apsw"),
    ]:
        assert (where, what) in found, f"{where} imports {what}"


def test_every_layer_has_its_place_in_the_table() -> None:
    layers = {layer(module) for module in modules() if inside(module, "vecd")} - {""}
    assert layers == MAY_IMPORT.keys()


def test_imports_go_one_way() -> None:
    def wrong(each: Import) -> bool:
        here, there = layer(each.where), layer(each.what)
        return bool(there) and here != there and there not in MAY_IMPORT.get(here, set())

    ours = [each for each in imports() if inside(each.where, "vecd") and inside(each.what, "vecd")]
    assert [str(each) for each in ours if wrong(each)] == []
    assert [str(each) for each in imports() if inside(each.where, "vecd") and inside(each.what, "vec_cli")] == []


def test_the_table_itself_has_no_circle() -> None:
    assert circles(MAY_IMPORT) == []


def test_the_package_itself_imports_nothing() -> None:
    assert [str(each) for each in imports() if each.where == "vecd"] == []


def test_no_modules_import_each_other_in_a_circle() -> None:
    graph = {
        module: {each.what for each in imports() if each.where == module and each.what in modules()} - {module}
        for module in modules()
    }
    assert [" -> ".join(circle) for circle in circles(graph)] == []


def circles(graph: Mapping[str, set[str]]) -> list[list[str]]:
    """Circles that, cut open at one import each, leave none; each begins and ends with the same node."""
    rest = {node: sorted(graph[node]) for node in sorted(graph)}
    found: list[list[str]] = []
    while True:
        try:
            graphlib.TopologicalSorter(rest).prepare()
        except graphlib.CycleError as error:
            circle: list[str] = error.args[1][::-1]  # graphlib puts what is imported first
            found.append(circle)
            rest[circle[0]].remove(circle[1])
        else:
            return found


def test_circles_are_found() -> None:
    assert circles({"a": {"b"}, "b": {"c"}, "c": set()}) == []
    (one,) = circles({"a": {"b", "d"}, "b": {"c"}, "c": {"a"}, "d": {"b"}})[:1]
    assert one[0] == one[-1]
    assert set(one) in ({"a", "b", "c"}, {"a", "b", "c", "d"})


@pytest.mark.parametrize("what", ONLY_IN)
def test_a_library_is_known_only_where_it_belongs(what: str) -> None:
    users = [each for each in imports() if inside(each.where, "vecd") and owner(each.what) == what]
    users = [each for each in users if not each.types_only]  # which loads nothing
    assert [str(each) for each in users if layer(each.where) not in ONLY_IN[what]] == []


def owner(module: str) -> str:
    """The longest name in ONLY_IN that the module is or is inside of; empty if there is none."""
    return max((name for name in ONLY_IN if inside(module, name)), key=len, default="")


def test_the_command_line_knows_only_what_it_shares_with_the_daemon() -> None:
    known = [each for each in imports() if inside(each.where, "vec_cli") and inside(each.what, "vecd")]
    assert known
    wrong = [each for each in known if layer(each.what) not in {"", *CLI_MAY_IMPORT}]
    assert [str(each) for each in wrong if each.what not in CLI_MAY_LIST] == []


def test_the_command_line_brings_no_databases_and_no_vectors() -> None:
    heavy = ("apsw", "sqlite3", "numpy", "faiss", "asyncio", "uvloop", "tokenizers", "wordllama")
    users = [each for each in imports() if inside(each.where, "vec_cli") and not each.types_only]
    assert [str(each) for each in users if any(inside(each.what, one) for one in heavy)] == []


def loaded_by(statement: str) -> Iterator[str]:
    """The modules that a fresh interpreter loads for this statement."""
    script = f"import sys; before = set(sys.modules); {statement}; print(*set(sys.modules) - before, sep='\\n')"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True)
    yield from done.stdout.split()


def test_the_client_needs_the_standard_library_and_msgpack_only() -> None:
    loaded = {name.partition(".")[0] for name in loaded_by("import vecd.client")}
    assert {"vecd", "msgpack", "socket"} <= loaded
    compiled = {name for name in loaded if name.startswith(("_cython", "cython_runtime"))}  # msgpack's own
    assert loaded - compiled - set(sys.stdlib_module_names) == {"vecd", "msgpack"}
    assert loaded & {"asyncio", "tomllib", "subprocess", "logging", "json", "dataclasses"} == set()


def test_the_client_loads_nothing_of_the_daemon() -> None:
    loaded = {layer(name) for name in loaded_by("import vecd.client") if inside(name, "vecd")}
    assert loaded <= {"", *CLI_MAY_IMPORT}
