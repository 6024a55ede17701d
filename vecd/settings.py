"""Configuration: reads environment variables and the configuration file into one immutable Settings.

Knows the environment and the file system layout; opens only the configuration file. With VEC_HOME set, one folder holds
the whole instance; otherwise the XDG folders do. The order of precedence for a tunable is: environment (VEC_NAME),
configuration file (name), default.
"""

from __future__ import annotations

import errno
import os
import stat
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from . import limits
from .durable_files import printable_path, read_small
from .errors import Code, VecError, nearest
from .units import duration_s, size_bytes

#: sockaddr_un.sun_path, less its closing NUL.
SOCKET_PATH_BYTES_MAX = 103 if sys.platform == "darwin" else 107

#: The tunables: the keys of config.toml and, as VEC_<NAME>, of the environment.
TUNABLES: dict[str, type] = {
    "embedder": str,
    "chunk_chars": int,
    "stall_s": float,
    "drain_s": float,
    "heartbeat_s": float,
    "keep_age": float,
    "keep_count": int,
    "keep_bytes": int,
    "log_level": str,
    "workers": int,
    "recall": float,
    "language": str,
    "create": bool,
}


#: The tables of the configuration file, and who reads each: http/settings.py, workers/executor_settings.py.
HTTP_TABLE, JOBS_TABLE = "http", "jobs"
_TABLES = (HTTP_TABLE, JOBS_TABLE)

#: Tunables whose values may have a unit.
_UNITS: dict[str, Callable[[str], float]] = {"keep_age": duration_s, "keep_bytes": size_bytes}


class Settings(NamedTuple):
    """The paths of an instance, and its tunables. (Not a dataclass, because those slow the start of `vec`.)"""

    home: Path | None  # VEC_HOME, or None for the XDG layout
    socket: Path  # where vecd listens
    data: Path  # folder of the store and of the instance's lock
    config: Path  # config.toml; need not exist
    log: Path  # where a vecd started by vec writes its log
    runtime: Path  # folder of the socket and of the start-up lock
    named: bool = False  # whether --socket or VEC_SOCKET names the socket
    keep_age: float = 0.0  # seconds of the log that are kept; 0: all
    keep_count: int = 0  # events of the log that are kept; 0: all
    keep_bytes: int = 0  # bytes of the log that are kept; 0: all
    embedder: str = "wordllama"  # default for new libraries
    chunk_chars: int = limits.CHUNK_CHARS  # characters of a chunk; default for new libraries
    stall_s: float = limits.STALL_S  # timeout for a peer that does not read, write or answer
    drain_s: float = limits.DRAIN_S  # timeout for requests in flight at a stop
    heartbeat_s: float = limits.HEARTBEAT_S  # longest silence of a watch
    log_level: str = "info"  # debug, info, warning or error
    workers: int = limits.WORKERS  # threads for background jobs
    recall: float = limits.RECALL  # target recall of approximate searches; default for new libraries
    language: str = "english"  # of full-text search; default for new libraries
    create: bool = True  # whether an ingest that asks for it creates a library that does not exist

    @property
    def store(self) -> Path:
        """The SQLite file."""
        return self.data / "vec.db"

    @property
    def lock(self) -> Path:
        """The file that the daemon of the data folder locks (flock); contains its pid and socket."""
        return self.data / "vecd.lock"


def load(environ: Mapping[str, str] | None = None, *, socket: str | None = None) -> Settings:
    """Reads the environment and the configuration file. `socket` is --socket, and overrides VEC_SOCKET.

    Raises VecError `invalid_settings`, naming the file or variable, for an invalid value.
    """
    located = locate(environ, socket=socket)
    return located._replace(**_tunables(os.environ if environ is None else environ, located.config))


def locate(environ: Mapping[str, str] | None = None, *, socket: str | None = None) -> Settings:
    """The paths of an instance, with default tunables: enough to connect to a running daemon, even if the configuration
    file is invalid. Raises VecError `invalid_settings`."""
    env = os.environ if environ is None else environ
    named = socket or env.get("VEC_SOCKET")
    if vec_home := env.get("VEC_HOME"):
        home = absolute(vec_home, "VEC_HOME")
        paths = {"data": home / "data", "config": home / "config.toml", "log": home / "vecd.log", "runtime": home}
    else:
        home = None
        paths = {
            "data": _xdg(env, "XDG_DATA_HOME", ".local/share") / "vec",
            "config": _xdg(env, "XDG_CONFIG_HOME", ".config") / "vec" / "config.toml",
            "log": _xdg(env, "XDG_STATE_HOME", ".local/state") / "vec" / "vecd.log",
            "runtime": _runtime_folder(env),
        }
    path = absolute(named, "--socket" if socket else "VEC_SOCKET") if named else paths["runtime"] / _socket_name(paths)
    if len(os.fsencode(path)) > SOCKET_PATH_BYTES_MAX:
        raise VecError(
            Code.SETTINGS,
            f"the socket's path has {len(os.fsencode(path))} bytes; the limit for a Unix socket is "
            f"{SOCKET_PATH_BYTES_MAX}: {path}",
            "set a shorter path with VEC_SOCKET or --socket, or a shorter VEC_HOME",
        )
    for each in (path, *paths.values()):
        if not _is_utf8(each):
            shown = printable_path(each)
            raise VecError(
                Code.SETTINGS,
                f"the path {shown} is not UTF-8, and cannot contain a store",
                "set VEC_HOME to a folder whose path is UTF-8",
            )
    folders = paths["data"], paths["config"], paths["log"], paths["runtime"]
    return Settings(home, path, *folders, named=bool(named))


def absolute(text: str, where: str) -> Path:
    """The absolute path. `where` names the source of `text` in errors. Raises VecError `invalid_settings`."""
    try:
        return Path(text).expanduser().absolute()
    except RuntimeError as error:
        raise VecError(
            Code.SETTINGS, f"{where} is {text!r}, whose home folder is unknown", "use an absolute path"
        ) from error
    except OSError as error:
        raise VecError(
            Code.SETTINGS,
            f"{where} is the relative path {text!r}, but the working folder no longer exists ({error.strerror})",
            "change to another folder, or use an absolute path",
        ) from error


def _is_utf8(path: Path) -> bool:
    try:
        os.fspath(path).encode()
    except UnicodeEncodeError:
        return False
    return True


def private_folder(path: Path) -> None:
    """Creates the folder if it is missing; refuses one that belongs to another user, or is writable by everyone.

    Does not change an existing folder. Raises VecError `invalid_settings`.
    """
    try:
        make_folder(path)
    except OSError as error:
        raise VecError(Code.SETTINGS, f"cannot create the folder {path} ({error.strerror})") from error
    check_folder(path)


def make_folder(path: Path) -> None:
    """Creates the folder and its missing parents, all with mode 0700 regardless of the umask. Raises OSError."""
    missing = []
    while not os.path.exists(path):
        missing.append(path)
        path = path.parent
    for each in reversed(missing):
        try:
            os.mkdir(each, 0o700)
            os.chmod(each, 0o700)
        except FileExistsError:  # another process was faster
            continue
    last = missing[0] if missing else path
    if not os.path.isdir(last):
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), os.fspath(last))


def check_folder(path: Path) -> None:
    """Raises VecError `invalid_settings` for a folder that belongs to another user, or is writable by everyone."""
    try:
        uids, mode = {path.lstat().st_uid, path.stat().st_uid}, path.stat().st_mode
    except FileNotFoundError:
        return
    except OSError as error:
        raise VecError(
            Code.SETTINGS,
            f"cannot access the folder {path} ({error.strerror})",
            "set VEC_HOME to a folder of your own, or XDG_RUNTIME_DIR to yours",
        ) from error
    if not stat.S_ISDIR(mode):
        raise VecError(Code.SETTINGS, f"{path} is not a folder", "set VEC_HOME to a folder of your own")
    for uid in uids - {os.getuid()}:
        raise VecError(
            Code.SETTINGS,
            f"the folder {path} belongs to user {uid}, not to you ({os.getuid()})",
            "remove it, or set VEC_HOME to a folder of your own",
        )
    if mode & stat.S_IWOTH:
        raise VecError(Code.SETTINGS, f"the folder is writable by everyone: {path}", f"chmod o-w {path}")


def _xdg(env: Mapping[str, str], name: str, default: str) -> Path:
    value = env.get(name, "")
    # The XDG specification: a relative path is invalid and counts as unset.
    return Path(value) if value.startswith("/") else absolute(env.get("HOME") or "~", "HOME") / default


def _runtime_folder(env: Mapping[str, str]) -> Path:
    """$XDG_RUNTIME_DIR/vec. Without the variable, as under cron, its usual value is tried before /tmp."""
    if (value := env.get("XDG_RUNTIME_DIR", "")).startswith("/"):
        return Path(value) / "vec"
    usual = Path(f"/run/user/{os.getuid()}")
    try:
        if usual.stat().st_uid == os.getuid():
            return usual / "vec"
    except OSError:
        pass
    return Path(f"/tmp/vec-{os.getuid()}")


def _socket_name(paths: Mapping[str, Path]) -> str:
    """`vecd.sock`. In /tmp/vec-UID, which all instances of a user share, the name depends on the data folder."""
    if paths["runtime"] != Path(f"/tmp/vec-{os.getuid()}"):
        return "vecd.sock"
    import zlib

    return f"vecd-{zlib.crc32(os.fsencode(os.path.realpath(paths['data']))):08x}.sock"


def config_table(config: Path) -> dict[str, Any]:
    """The configuration file, parsed; empty if there is none. Raises VecError `invalid_settings`."""
    try:
        text = read_small(config, limits.MIB).decode()
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError) as error:
        if not (os.path.exists(config) and os.path.samefile(config, os.devnull)):  # /dev/null means: no settings
            why = error.strerror if isinstance(error, OSError) else f"it is not UTF-8, at byte {error.start}"
            raise VecError(Code.SETTINGS, f"cannot read the configuration file {config} ({why})") from error
        return {}
    if not text:
        return {}
    import tomllib

    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise VecError(Code.SETTINGS, f"{config} is not valid TOML: {error}") from error
    for name in _TABLES:
        if not isinstance(table.get(name, {}), dict):
            raise VecError(Code.SETTINGS, f"{config}: {name} must be a table", f"write it as [{name}]")
    return table


def _tunables(env: Mapping[str, str], config: Path) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for key, value in config_table(config).items():
        if key in _TABLES:
            continue
        if key not in TUNABLES:
            close = nearest(key, TUNABLES)
            hint = f"did you mean {close!r}?" if close else f"known settings: {', '.join(TUNABLES)}"
            raise VecError(Code.SETTINGS, f"{config}: unknown setting {key!r}", hint)
        values[key] = _typed(key, value, f"{config}: {key}")
    for key in TUNABLES:
        if raw := env.get(f"VEC_{key.upper()}"):
            values[key] = _typed(key, raw, f"VEC_{key.upper()}")
    return values


def _typed(key: str, value: Any, where: str) -> Any:
    wanted = TUNABLES[key]
    if key in _UNITS and isinstance(value, str):
        try:
            value = _UNITS[key](value)
        except VecError as error:
            raise VecError(Code.SETTINGS, f"{where}: {error.message}", error.hint) from error
    if wanted is bool:
        return _flag(value, where)
    try:
        if isinstance(value, bool) or (wanted is str and not isinstance(value, str)):
            raise ValueError
        if wanted is int and isinstance(value, float):
            raise ValueError
        typed = wanted(value)
    except (TypeError, ValueError):
        kind = {str: "a string", int: "a whole number", float: "a number"}[wanted]
        raise VecError(Code.SETTINGS, f"{where} must be {kind}, not {value!r}") from None
    if key == "log_level" and typed not in ("debug", "info", "warning", "error"):
        raise VecError(Code.SETTINGS, f"{where} must be debug, info, warning or error, not {value!r}")
    if key == "chunk_chars" and not 50 <= typed <= limits.CHUNK_CHARS_MAX:
        raise VecError(Code.SETTINGS, f"{where} must be from 50 to {limits.CHUNK_CHARS_MAX}, not {value!r}")
    if key == "recall" and not limits.RECALL_MIN <= typed <= 1:
        raise VecError(Code.SETTINGS, f"{where} must be from {limits.RECALL_MIN} to 1, not {value!r}")
    if key == "workers" and not 1 <= typed <= limits.WORKERS_MAX:
        raise VecError(Code.SETTINGS, f"{where} must be from 1 to {limits.WORKERS_MAX}, not {value!r}")
    if key.startswith("keep_"):
        if not 0 <= typed < 2**62:
            raise VecError(Code.SETTINGS, f"{where} must be 0 or greater, not {value!r}", "0 keeps everything")
    elif wanted is float and key != "recall" and not 0 < typed < 86_400:
        raise VecError(Code.SETTINGS, f"{where} must be a number of seconds between 0 and a day, not {value!r}")
    return typed


def _flag(value: Any, where: str) -> bool:
    flag = {"true": True, "false": False}.get(value) if isinstance(value, str) else value
    if not isinstance(flag, bool):
        raise VecError(Code.SETTINGS, f"{where} must be true or false, not {value!r}")
    return flag


assert set(TUNABLES) <= set(Settings._fields)
