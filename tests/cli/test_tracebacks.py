"""What the environment can do to `vec` and `vecd`: each case ends with one message, a stable code and its exit status.

One process a case, and no daemon but where a command has something to print.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.support.instance import BIN, ROOT, Instance

NOBODY, STRANGER = 65_534, 4_242
#: A name that is no UTF-8.
ODD = os.fsdecode(b"odd-\xff")


class Case(NamedTuple):
    """What is run, and what comes of it."""

    arguments: Sequence[str]
    status: int | tuple[int, ...]
    told: str  # a regular expression for the first line of stderr
    make: Callable[[Path], Mapping[str, str | None]]  # prepares a folder; the variables that the command gets
    command: str = "vec"
    nobody: bool = False  # it is run by another user than the one who made the folder
    inside: str | None = None  # the working folder, if it is another; it is removed while the command is in it


def home(folder: Path) -> dict[str, str]:
    """A private home."""
    made = folder / "home"
    made.mkdir(mode=0o700, exist_ok=True)
    return {"VEC_HOME": str(made), "VEC_NO_SPAWN": "1"}


def variables(**given: str | None) -> Callable[[Path], Mapping[str, str | None]]:
    return lambda folder: {**home(folder), **given}


def configured(text: str | bytes) -> Callable[[Path], Mapping[str, str | None]]:
    """A home with this config.toml."""

    def make(folder: Path) -> dict[str, str]:
        found = home(folder)
        data = text if isinstance(text, bytes) else text.encode()
        (folder / "home" / "config.toml").write_bytes(data)
        return found

    return make


def theirs(folder: Path) -> dict[str, str | None]:
    """A home of nobody's, in which the locks are ours."""
    found = home(folder)
    (folder / "home" / "data").mkdir(mode=0o700)
    for name in ("launch.lock", "data/vecd.lock"):
        path = folder / "home" / name
        path.touch(mode=0o600)
    for path in (folder / "home", folder / "home" / "data"):
        os.chown(path, NOBODY, NOBODY)
    return {**found, "VEC_NO_SPAWN": None}


def read_only(folder: Path) -> dict[str, str | None]:
    """A home of nobody's that nobody may not write to."""
    found = home(folder)
    os.chown(folder / "home", NOBODY, NOBODY)
    (folder / "home").chmod(0o500)
    return {**found, "VEC_NO_SPAWN": None}


def closed(folder: Path) -> dict[str, str | None]:
    """A home in a folder that only root may enter."""
    (folder / "root").mkdir(mode=0o700)
    return {"VEC_HOME": str(folder / "root" / "home")}


def unreadable(folder: Path) -> dict[str, str]:
    found = configured("workers = 2")(folder)
    (folder / "home").chmod(0o755)
    (folder / "home" / "config.toml").chmod(0o600)
    os.chown(folder / "home", NOBODY, NOBODY)  # the folder, and not the file in it
    return {key: value for key, value in found.items() if value is not None}


def no_folder(folder: Path) -> dict[str, str]:
    found = home(folder)
    (folder / "home" / "config.toml").mkdir()
    return found


def runtime(name: str) -> Callable[[Path], Mapping[str, str | None]]:
    """XDG folders; that for sockets is `name`, in which only root may look."""

    def make(folder: Path) -> dict[str, str | None]:
        (folder / "ours").mkdir(mode=0o700)
        (folder / "file").touch()
        user = folder / "user"
        user.mkdir(mode=0o755)
        return {"VEC_HOME": None, "HOME": str(user), "XDG_RUNTIME_DIR": str(folder / name)}

    return make


GONE = "working folder no longer exists"
CASES = {
    # homes
    "the lock of another user": Case(["status"], 2, r"Permission denied.*\(invalid_settings\)", theirs, nobody=True),
    "a home that is read-only": Case(
        ["status"],
        2,
        r"cannot create the folder .*home/data \(Permission denied\) \(invalid_settings\)",
        read_only,
        nobody=True,
    ),
    "a home that cannot be reached": Case(
        ["status"], 2, r"cannot access the folder .* \(Permission denied\) \(invalid_settings\)", closed, nobody=True
    ),
    "a runtime folder that cannot be looked into": Case(
        ["status"],
        2,
        r"cannot access the folder .*ours/vec \(Permission denied\) \(invalid_settings\)",
        runtime("ours"),
        nobody=True,
    ),
    "a runtime folder that is a file": Case(
        ["status"], 2, r"cannot access the folder .*file/vec \(Not a directory\) \(invalid_settings\)", runtime("file")
    ),
    "a home that is a file": Case(
        ["status"],
        2,
        r"/dev/null is not a folder \(invalid_settings\)",
        variables(VEC_HOME="/dev/null"),
    ),
    "a home of a user that is not there": Case(
        ["status"],
        2,
        r"VEC_HOME is '~nosuch', whose home folder is unknown.*\(invalid_settings\)",
        variables(VEC_HOME="~nosuch"),
    ),
    "vecd: a home of a user that is not there": Case(
        [], 78, r"VEC_HOME is '~nosuch', whose home folder is unknown", variables(VEC_HOME="~nosuch"), command="vecd"
    ),
    "a socket of a user that is not there": Case(
        ["status", "--socket", "~nosuch/s"], 2, r"--socket is '~nosuch/s'.*\(invalid_settings\)", home
    ),
    "VEC_SOCKET of a user that is not there": Case(
        ["status"], 2, r"VEC_SOCKET is '~nosuch/s'.*\(invalid_settings\)", variables(VEC_SOCKET="~nosuch/s")
    ),
    "a home that is not UTF-8": Case(
        ["status"],
        2,
        r"the path .*odd-\\xff.* is not UTF-8.*\(invalid_settings\)",
        lambda folder: {"VEC_HOME": str(folder / ODD)},
    ),
    "vecd: a home that is not UTF-8": Case(
        [], 78, r"the path .*odd-\\xff.* is not UTF-8", lambda folder: {"VEC_HOME": str(folder / ODD)}, command="vecd"
    ),
    "a socket that is not UTF-8": Case(
        ["status", "--socket", f"/tmp/{ODD}"], 2, r"the path .*odd-\\xff.*\(invalid_settings\)", home
    ),
    "no HOME, and a user without a name": Case(
        ["status"],
        2,
        r"HOME is '~', whose home folder is unknown.*\(invalid_settings\)",
        variables(VEC_HOME=None, HOME=None, XDG_RUNTIME_DIR="/nowhere"),
        nobody=True,
    ),
    # the working folder is gone
    "a relative home": Case(
        ["status"], 2, rf"VEC_HOME is .*'rel'.*{GONE}.*\(invalid_settings\)", variables(VEC_HOME="rel"), inside="gone"
    ),
    "vecd: a relative home": Case(
        [], 78, rf"VEC_HOME is .*'rel'.*{GONE}", variables(VEC_HOME="rel"), command="vecd", inside="gone"
    ),
    "a relative socket": Case(
        ["status", "--socket", "s"], 2, rf"--socket is .*'s'.*{GONE}.*\(invalid_settings\)", home, inside="gone"
    ),
    "a relative backup": Case(
        ["backup", "b.db"], 2, rf"'b.db' is relative.*{GONE}.*\(invalid_request\)", home, inside="gone"
    ),
    "a relative param": Case(
        ["jobs", "submit", "export", "-p", "path=x"],
        2,
        rf"'x' is relative.*{GONE}.*\(invalid_request\)",
        home,
        inside="gone",
    ),
    "an absolute home": Case(["status"], 69, r"no daemon listens on .*\(no_daemon\)", home, inside="gone"),
    # the configuration file
    "a configuration file that cannot be read": Case(
        ["status"],
        2,
        r"cannot read the configuration file .*\(Permission denied\) \(invalid_settings\)",
        unreadable,
        nobody=True,
    ),
    "a configuration file that is a folder": Case(
        ["status"],
        2,
        r"cannot read the configuration file .*\(it is not a regular file\) \(invalid_settings\)",
        no_folder,
    ),
    "a configuration file that is not UTF-8": Case(
        ["status"], 2, r"cannot read .*not UTF-8, at byte 12\) \(invalid_settings\)", configured(b"embedder = '\xff'")
    ),
    "a configuration file that is no TOML": Case(
        ["status"], 2, r"config.toml is not valid TOML: .*\(invalid_settings\)", configured("workers")
    ),
    **{
        f"the setting {text}": Case(["status"], 2, rf"config.toml: .*{told}.*\(invalid_settings\)", configured(text))
        for text, told in {
            "keep_age = 1979-05-27": "keep_age must be a number",
            "workers = [1]": "workers must be a whole number",
            "workers = 9999999999999999999999": "workers must be from 1",
            "embedder = {a = 1}": "embedder must be a string",
            "stall_s = inf": "stall_s must be a number of seconds",
            '"\\u0000" = 1': "unknown setting",
        }.items()
    },
    "a variable of another type": Case(
        ["status"],
        2,
        r"VEC_WORKERS must be a whole number, not 'many' \(invalid_settings\)",
        variables(VEC_WORKERS="many"),
    ),
    # names that are not UTF-8
    "a backup": Case(["backup", f"/tmp/{ODD}"], 2, r"the path /tmp/odd-\\xff is not UTF-8.*\(invalid_request\)", home),
    "an id": Case(["jobs", "show", ODD], 2, r"'odd-\\.*' is not a whole number", home),
    "a command": Case([ODD], 2, r"no such command: vec odd-\\xff", home),
    "a duration": Case(["trim", "--keep-age", ODD], 2, r"'odd-\\.*' is not a duration \(invalid_request\)", home),
    "a vector": Case(["search", "--vector", ODD], 69, r"no daemon", home),
}


@pytest.fixture
def folder() -> Iterator[Path]:
    """One that other users can enter, which those of pytest are not."""
    with tempfile.TemporaryDirectory(prefix="vec-test-") as name:
        os.chmod(name, 0o755)
        yield Path(name)


def run(
    arguments: Sequence[str],
    environment: Mapping[str, str],
    command: Sequence[str] = (str(BIN / "vec"),),
    **options: Any,
) -> subprocess.CompletedProcess[bytes]:
    defaults: dict[str, Any] = {"stdin": subprocess.DEVNULL, "capture_output": True, "timeout": 60}
    return subprocess.run([*command, *arguments], env=environment, check=False, **{**defaults, **options})


@pytest.mark.parametrize("name", CASES)
def test_what_the_environment_does_is_told_in_one_line_with_a_code(name: str, folder: Path) -> None:
    case = CASES[name]
    if case.nobody and os.getuid() != 0:
        pytest.skip("needs root, to be somebody else")
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("VEC_", "XDG_"))}
    for key, value in case.make(folder).items():
        environment.pop(key, None)
        if value is not None:
            environment[key] = value
    if case.nobody:
        # One without HOME is a user without an entry in the list of users.
        uid = NOBODY if "HOME" in environment else STRANGER
        started = [sys.executable, "-m", "tests.cli.as_nobody", str(uid), *case.arguments]
        done = run([], environment, started, cwd=ROOT)
    elif case.inside is not None:
        gone = folder / case.inside
        gone.mkdir()
        remove = f'cd "{gone}" && rmdir "{gone}" && exec "$@"'
        done = run([], environment, ["/bin/sh", "-c", remove, "sh", str(BIN / case.command), *case.arguments])
    else:
        done = run(case.arguments, environment, [str(BIN / case.command)])
    said = done.stderr.decode()
    assert "Traceback" not in said
    assert done.returncode in (case.status if isinstance(case.status, tuple) else (case.status,)), said
    first = said.splitlines()[0]
    assert re.search(case.told, first), said
    assert first.startswith(f"{case.command}: ")


# --- output that cannot be written ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def instance() -> Iterator[Instance]:
    with Instance({"VEC_EMBEDDER": "hash"}) as made:
        made.start()
        made.vec("ingest", stdin='{"id": "é", "title": "日本", "text": "words"}\n')
        yield made


PRINTING = [
    ["--help"],
    ["--version"],
    ["jobs", "submit", "-h"],
    ["--show-completion", "bash"],
    ["status"],
    ["search", "words"],
    ["get", "é"],
    ["watch", "--from", "beginning", "--no-follow"],
    ["daemon", "logs"],
    ["ingest", "--ack"],
]


@pytest.mark.parametrize("arguments", PRINTING, ids=" ".join)
def test_stdout_that_is_full_or_has_no_reader_is_told_by_the_exit_status(
    instance: Instance, arguments: list[str]
) -> None:
    with open("/dev/full", "wb") as full:
        done = run(arguments, instance.environment, capture_output=False, stdout=full, stderr=subprocess.PIPE)
    assert (done.returncode, done.stderr.decode()) == (
        1, "vec: cannot write the output (No space left on device) (system_refused)\n",
    )  # fmt: skip
    read_end, write_end = os.pipe()
    os.close(read_end)
    with open(write_end, "wb") as pipe:
        done = run(arguments, instance.environment, capture_output=False, stdout=pipe, stderr=subprocess.PIPE)
    assert (done.returncode, done.stderr) == (141, b"")


@pytest.mark.parametrize(
    ("arguments", "status"),
    [(["get", "nothing"], 4), (["jobs", "show", "999"], 4), (["--nosuch"], 2), ([], 2), (["delete", "nothing"], 0)],
    ids=str,
)
def test_whether_stderr_can_be_written_changes_no_exit_status(
    instance: Instance, arguments: list[str], status: int
) -> None:
    with open("/dev/full", "wb") as full:
        done = run(arguments, instance.environment, capture_output=False, stdout=subprocess.PIPE, stderr=full)
    assert done.returncode == status
    closed = run(arguments, instance.environment, preexec_fn=lambda: os.close(2))
    assert (closed.returncode, closed.stdout) == (status, done.stdout)


LOCALES = [
    {"PYTHONIOENCODING": "ascii"},
    {"PYTHONIOENCODING": "latin-1"},
    {"PYTHONIOENCODING": "utf-16"},
    {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
    {"LC_ALL": "nosuch"},
    {"COLUMNS": "x", "LINES": "x", "TERM": "nosuch"},
]


def test_output_is_the_same_in_every_locale(instance: Instance) -> None:
    for arguments in (["--help"], ["library", "show", "default"]):
        usual = run(arguments, {**instance.environment, "LC_ALL": "C.UTF-8"})
        for locale in LOCALES:
            odd = run(arguments, {**instance.environment, **locale})
            assert (odd.returncode, odd.stdout, odd.stderr) == (0, usual.stdout, usual.stderr), locale


def test_files_whose_names_are_not_utf_8_are_read_and_named(instance: Instance, tmp_path: Path) -> None:
    good, bad = tmp_path / f"{ODD}.good", tmp_path / f"{ODD}.bad"
    good.write_text('{"id": "odd", "text": "odd"}\n')
    bad.write_text("{\n")
    done = run(["ingest", "--ack", str(good), str(bad)], instance.environment)
    assert done.returncode == 3, done.stderr
    assert b"odd-\\xff.bad:1: not JSON" in done.stderr
    lines = done.stdout.decode().splitlines()
    assert len(lines) == 3
    assert "odd-\\\\xff.good" in lines[0]
    missing = run(["ingest", ODD], instance.environment)
    assert missing.returncode == 2
    assert b"vec: cannot read odd-\\xff (No such file or directory) (invalid_request)" in missing.stderr
    background = run(["ingest", "--background", str(good)], instance.environment)
    assert background.returncode == 2
    assert b"odd-\\xff.good is not UTF-8" in background.stderr


def test_a_command_that_is_not_utf_8_is_run_and_set_aside(instance: Instance, tmp_path: Path) -> None:
    made = tmp_path / ODD
    watch = ["watch", "--from", "beginning", "--no-follow", "-n", "1"]
    done = run([*watch, "--exec", f"cat > {made}"], instance.environment)
    assert (done.returncode, made.exists()) == (0, True)
    dead = tmp_path / f"{ODD}.dead"
    failed = run(
        [*watch, "--retries", "1", "--exec", f"exit 9 # {made}", "--dead-letter", str(dead)], instance.environment
    )
    assert "Traceback" not in failed.stderr.decode()
    assert failed.returncode == 3, failed.stderr
    assert b'"status":9' in dead.read_bytes()
