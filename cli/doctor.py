"""The checks of `vec doctor`: each looks at one thing on this machine, or in the status of the daemon that runs.

Rules: nothing is changed and no daemon is started. A check that cannot look says why as a finding; a bug in one check
does not end the others. Adding a check is one function and one entry in CHECKS.
"""

from __future__ import annotations

import os
import shutil
import stat
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple

from vecd.errors import VecError, nearest

from .output import plural, size

#: Free space of the disk of the store under which a write may soon fail.
DISK_FREE_BYTES: Final = 1 << 30
#: Descriptors that the daemon may need: connections, files of the store, indexes.
FILES_MIN: Final = 1_024
#: How long the daemon may take for an answer.
ANSWER_S: Final = 5.0

State = Literal["ok", "warn", "fail", "info"]


class Finding(NamedTuple):
    """What a check has found; `info` is neither good nor bad."""

    check: str
    state: State
    message: str
    hint: str | None = None


class Instance(NamedTuple):
    """What checks look at. Without `status` no daemon answered."""

    settings: Any
    status: dict[str, Any] | None
    libraries: list[dict[str, Any]]


def findings(socket: str | None) -> Iterator[Finding]:
    """All findings, as the checks make them."""
    yield from versions()
    yield from locale()
    try:
        settings = _settings(socket)
    except VecError as error:
        yield Finding("settings", "fail", error.message, error.hint)
        return
    status, found = _ask(settings)
    yield found
    instance = Instance(settings, status, (status or {}).get("libraries", []))
    for name, check in CHECKS.items():
        try:
            yield from check(instance)
        except VecError as error:
            yield Finding(name, "fail", error.message, error.hint)
        except OSError as error:
            yield Finding(name, "fail", f"{error.strerror or error}: {error.filename or ''}".rstrip(": "))


def _settings(socket: str | None) -> Any:
    """The settings, all tables checked. Raises VecError `invalid_settings`."""
    from vecd.http import settings as http
    from vecd.settings import load
    from vecd.workers import executor_settings as jobs

    settings = load(socket=socket)
    http.load(settings)
    jobs.load(settings)
    return settings


def _ask(settings: Any) -> tuple[dict[str, Any] | None, Finding]:
    """The status of the daemon that runs, and a finding about it."""
    from vecd import __version__
    from vecd.client import Client
    from vecd.client.connect import data_of
    from vecd.client.discovery import find_daemon

    try:
        sock = find_daemon(settings)
        if sock is None:
            return None, Finding("daemon", "info", "no daemon is running", "commands start one; or: vec daemon start")
        with Client(sock, timeout_s=ANSWER_S, data=data_of(settings)) as client:
            status = client.status()
    except VecError as error:
        return None, Finding("daemon", "fail", error.message, error.hint)
    if status["version"] != __version__:
        message = f"vecd {status['version']} is running, and vec is {__version__}"
        return status, Finding("daemon", "warn", message, "vec daemon restart")
    memory = size(status["memory_bytes"])
    return status, Finding("daemon", "ok", f"vecd {status['version']}, pid {status['pid']}, {memory} of memory")


# --- the machine ----------------------------------------------------------------------------------------------------


def versions() -> Iterator[Finding]:
    """Python, and the packages that vecd needs."""
    import importlib.metadata as metadata

    from vecd import __version__

    python = ".".join(map(str, sys.version_info[:3]))
    try:
        needed = [each for each in metadata.requires("vecd") or () if "extra ==" not in each]
    except metadata.PackageNotFoundError:
        yield Finding("versions", "warn", f"vecd {__version__}, Python {python}; the package vecd is not installed")
        return
    found, missing = [], []
    for each in needed:
        name = each.split(";")[0].split("[")[0].split("=")[0].split("<")[0].split(">")[0].split("!")[0].strip()
        try:
            found.append(f"{name} {metadata.version(name)}")
        except metadata.PackageNotFoundError:
            if "implementation_name" not in each:  # of another platform
                missing.append(name)
    if missing:
        what = f"packages are missing: {', '.join(missing)}"
        yield Finding("versions", "fail", what, "pip install --force-reinstall vecd")
    else:
        yield Finding("versions", "ok", f"vecd {__version__}, Python {python}, {', '.join(found)}")


def locale() -> Iterator[Finding]:
    """Whether file names and the terminal are UTF-8."""
    names, terminal = sys.getfilesystemencoding(), sys.stdout.encoding or "none"
    shown = os.environ.get("LC_ALL") or os.environ.get("LC_CTYPE") or os.environ.get("LANG") or "not set"
    if {names.lower(), terminal.lower()} <= {"utf-8", "utf8"}:
        yield Finding("locale", "ok", f"UTF-8 (locale {shown})")
    else:
        what = f"the locale is {shown}: file names are {names}, the terminal is {terminal}"
        yield Finding("locale", "warn", what, "export LC_ALL=C.UTF-8, or characters beyond ASCII are escaped")


def variables(instance: Instance) -> Iterator[Finding]:
    """Variables that look like settings and are none."""
    from .commands.config import values

    yield Finding("settings", "ok", f"configuration file {instance.settings.config}" + _absent(instance))
    known = {f"VEC_{each.setting.upper().replace('.', '_')}" for each in values(None)}
    known |= {
        "VEC_HOME", "VEC_SOCKET", "VEC_CONNECT", "VEC_KEY", "VEC_KEY_FILE", "VEC_CA_FILE", "VEC_NO_SPAWN",
        "VEC_CURSOR", "VEC_EVENTS", "VEC_ATTEMPT",
    }  # fmt: skip
    for name in sorted(os.environ):
        if name.startswith("VEC_") and name not in known and (close := nearest(name, sorted(known))) is not None:
            yield Finding("settings", "warn", f"{name} is not a variable of vec", f"did you mean {close}?")


def _absent(instance: Instance) -> str:
    return "" if os.path.exists(instance.settings.config) else ", which does not exist: all defaults"


def folders(instance: Instance) -> Iterator[Finding]:
    """Who may read and write the folders and the store."""
    from vecd.settings import check_folder

    settings = instance.settings
    for folder in sorted({settings.data, settings.runtime, settings.log.parent}):
        if not folder.exists():
            yield Finding("folders", "info", f"{folder} does not exist yet")
            continue
        check_folder(folder)
        if not os.access(folder, os.R_OK | os.W_OK | os.X_OK):
            yield Finding("folders", "fail", f"you cannot write to {folder}", f"chmod u+rwx {folder}")
        else:
            yield Finding("folders", "ok", f"{folder}")
    for path in (settings.store, settings.lock):
        yield from _private(path)


def _private(path: Path) -> Iterator[Finding]:
    try:
        about = path.stat()
    except FileNotFoundError:
        return
    if about.st_uid != os.getuid():
        yield Finding("folders", "fail", f"{path} belongs to user {about.st_uid}", f"chown {os.getuid()} {path}")
    elif stat.S_IMODE(about.st_mode) & 0o022:
        yield Finding("folders", "warn", f"others may write to {path}", f"chmod go-w {path}")


def disk(instance: Instance) -> Iterator[Finding]:
    """Free space where the store is, and its size."""
    place = instance.settings.data
    while not place.exists():
        place = place.parent
    free = shutil.disk_usage(place).free
    store = sum(each.stat().st_size for each in place.glob("vec.db*"))
    what = f"{size(free)} free where the store is, which has {size(store)}"
    if free < DISK_FREE_BYTES:
        yield Finding("disk", "warn", what, "free some space: writes fail when the disk is full, and nothing is lost")
    elif free < store:
        yield Finding("disk", "warn", what, "a backup or a vacuum on the same disk needs as much as the store has")
    else:
        yield Finding("disk", "ok", what)


def socket_path(instance: Instance) -> Iterator[Finding]:
    """The socket's file, and who may connect."""
    path = instance.settings.socket
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        if instance.status is not None:
            what = f"the daemon listens on {instance.status['socket']}, and not on {path}"
            yield Finding("socket", "warn", what, "set VEC_SOCKET for all, or for none")
        return
    if not stat.S_ISSOCK(mode):
        yield Finding("socket", "fail", f"{path} is not a socket", "remove it, or set VEC_SOCKET")
    elif instance.status is None:
        yield Finding("socket", "info", f"{path} is left over; the next daemon replaces it")
    else:
        yield Finding("socket", "ok", f"{path}")


def limits_of_process(instance: Instance) -> Iterator[Finding]:
    """Limits that the daemon inherits from the shell that starts it."""
    import resource

    files = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    if files != resource.RLIM_INFINITY and files < FILES_MIN:
        yield Finding("limits", "warn", f"a process may open {files:,} files", f"ulimit -n {FILES_MIN}")
    else:
        shown = "any number of" if files == resource.RLIM_INFINITY else f"{files:,}"
        yield Finding("limits", "ok", f"a process may open {shown} files")


def extras(instance: Instance) -> Iterator[Finding]:
    """Optional packages: which features work here."""
    import importlib.metadata as metadata
    import re

    try:
        required = metadata.requires("vecd") or ()
    except metadata.PackageNotFoundError:
        return
    wanted: dict[str, list[str]] = {}
    for each in required:
        if found := re.search(r"extra == ['\"]([\w-]+)['\"]", each):
            wanted.setdefault(found[1], []).append(each)
    there: list[str] = []
    absent: list[str] = []
    for extra, packages in wanted.items():
        if extra in ("test", "dev", "bench", "fuzz"):
            continue
        names = [found[0] for each in packages if (found := re.match(r"[\w.-]+", each))]
        (there if all(map(_installed, names)) else absent).append(extra)
    yield Finding("extras", "info", f"installed: {', '.join(there) or 'none'}")
    if absent:
        yield Finding("extras", "info", f"not installed: {', '.join(absent)}", f"pip install 'vecd[{absent[0]}]'")


def _installed(package: str) -> bool:
    import importlib.metadata as metadata

    if package == "backports.zstd" and sys.version_info >= (3, 14):
        return True
    try:
        metadata.version(package)
    except metadata.PackageNotFoundError:
        return False
    return True


# --- the daemon -----------------------------------------------------------------------------------------------------


def indexes(instance: Instance) -> Iterator[Finding]:
    """Indexes that could not be loaded, and promises of recall that are not met."""
    from . import recall

    bad = False
    for each in instance.libraries:
        name, memory, about = each["name"], each["memory"], each["recall"]
        if memory["state"] == "failed":
            bad = True
            why = memory.get("failure") or "its index could not be loaded"
            yield Finding("indexes", "fail", f"library {name}: {why}", f"vec library rebuild {name}; vec verify")
        if about["met"] is False:
            bad = True
            told = recall.report(about["own"]) if about["own"] else f"promise {about['promise']:g} not met"
            yield Finding("recall", "warn", f"library {name}: {told}", f"vec library rebuild {name}, or search --exact")
    if instance.status is not None and not bad:
        yield Finding("indexes", "ok", plural(len(instance.libraries), "library"))


def embedders(instance: Instance) -> Iterator[Finding]:
    """Embedders that fail, and chunks that they have refused."""
    if instance.status is None:
        return
    failing = instance.status["jobs"]["executor"].get("here_failing", [])
    bad = False
    for each in instance.libraries:
        name, stage = each["name"], each.get("second_stage") or {}
        its = (each["embedder"], each.get("embedder_parameters", {}))
        last = next((one for one in failing if (one["embedder"], one["embedder_parameters"]) == its), None)
        hint = f"correct the embedder {its[0]}; vec library show {name}; vec daemon logs"
        if stage.get("error"):
            bad = True
            yield Finding("embedders", "fail", f"library {name}: the second stage waits: {stage['error']}", hint)
        elif last is not None:
            bad = True
            yield Finding("embedders", "fail", f"library {name}: at {last['at']}: {last['error']}", hint)
        if stage.get("refused"):
            bad = True
            what = f"library {name}: the embedder {its[0]} has refused {plural(stage['refused'], 'chunk')}"
            hint = "vec daemon logs -n 100000 | grep 'no second vector'"
            yield Finding("embedders", "warn", what, hint)
    if not bad:
        yield Finding("embedders", "ok", "no embedder has failed")


def work(instance: Instance) -> Iterator[Finding]:
    """Jobs that failed, relays and sources that fail."""
    if instance.status is None:
        return
    jobs = instance.status["jobs"]
    failed = jobs["failed"] + jobs["dead"]
    if failed:
        hint = "vec jobs list --state failed --state dead; vec jobs retry ID, or vec jobs drop ID"
        yield Finding("jobs", "warn", f"{plural(failed, 'job')} failed", hint)
    else:
        yield Finding("jobs", "ok", "no job has failed")
    for direction in ("relay", "source", "sync"):
        failing = (instance.status.get(f"{direction}s") or {}).get("failing", [])
        for name in failing:
            yield Finding(f"{direction}s", "fail", f"{direction} {name} is failing", f"vec {direction} show {name}")


#: Name -> check, in the order of the output.
CHECKS: Final[dict[str, Callable[[Instance], Iterator[Finding]]]] = {
    "settings": variables,
    "folders": folders,
    "disk": disk,
    "socket": socket_path,
    "limits": limits_of_process,
    "extras": extras,
    "indexes": indexes,
    "embedders": embedders,
    "jobs": work,
}
