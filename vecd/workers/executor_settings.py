"""Configuration of what embeds for the daemon: the table [jobs] of config.toml, and VEC_JOBS_<NAME> in the environment,
which overrides it. Workers on other machines read the same.

The broker's URL holds a password: it comes from a file or from the environment, never from config.toml, and is never
logged.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any
from urllib.parse import SplitResult, urlsplit

from .. import limits
from ..durable_files import read_small
from ..errors import Code, VecError, nearest
from ..settings import JOBS_TABLE, Settings, absolute, config_table, locate
from .executor_table import FRAMEWORKS

LOCAL = "local"
_CHOICES = {"executor": (LOCAL, *FRAMEWORKS), "offload": ("slow", "all")}
_URL_FORM = "a URL is redis://[:PASSWORD@]HOST[:PORT][/DB] or amqp://[USER:PASSWORD@]HOST[:PORT][/VHOST]"


@dataclass(frozen=True, slots=True)
class ExecutorSettings:
    """The table [jobs]."""

    executor: str = LOCAL  # who embeds: local, celery, rq or dramatiq
    executor_url: str = ""  # of the broker
    executor_url_file: str = ""  # a file with this URL, read at each connect
    executor_timeout_s: float = limits.EXECUTOR_TIMEOUT_S  # how long a batch may wait for an answer
    executor_processes: int = 1  # child processes that embed in batches with slow embedders
    offload: str = "slow"  # which embedders: slow ones, or all

    @property
    def remote(self) -> bool:
        return self.executor != LOCAL

    def broker_url(self) -> str:
        """The URL, with its password. Raises VecError `invalid_settings`."""
        if not self.executor_url_file:
            return self.executor_url
        try:
            url = read_small(Path(self.executor_url_file), limits.URL_BYTES_MAX).decode().strip()
        except (OSError, UnicodeDecodeError) as error:
            why = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
            raise VecError(
                Code.SETTINGS, f"cannot read the broker's URL from {self.executor_url_file} ({why})"
            ) from error
        _check_url(url, self.executor, self.executor_url_file)
        return url


def load(
    settings: Settings, environ: Mapping[str, str] | None = None, *, executor: str | None = None
) -> ExecutorSettings:
    """The table of this machine. `executor` overrides the setting: a worker knows its framework. Raises VecError
    `invalid_settings`, naming the file or variable."""
    env = os.environ if environ is None else environ
    known = [each.name for each in fields(ExecutorSettings)]
    values: dict[str, Any] = {}
    for key, value in config_table(settings.config).get(JOBS_TABLE, {}).items():
        where = f"{settings.config}: {JOBS_TABLE}.{key}"
        if key not in known:
            close = nearest(key, known)
            hint = f"did you mean {close!r}?" if close else f"known settings of [{JOBS_TABLE}]: {', '.join(known)}"
            raise VecError(Code.SETTINGS, f"{settings.config}: unknown setting '{JOBS_TABLE}.{key}'", hint)
        values[key] = _typed(key, value, where)
        if key == "executor_url" and _split(values[key]).password:
            raise VecError(
                Code.SETTINGS,
                f"{where} holds a password",
                f"put the URL into a file and set executor_url_file, or set {_variable(key)}",
            )
    for key in known:
        if raw := env.get(_variable(key)):
            values[key] = _typed(key, raw, _variable(key))
            if key.startswith("executor_url"):  # one of the two, and the environment's goes first
                values["executor_url_file" if key == "executor_url" else "executor_url"] = ""
    if executor is not None:
        values["executor"] = executor
    found = replace(ExecutorSettings(), **values)
    if found.remote and not (found.executor_url or found.executor_url_file):
        raise VecError(
            Code.SETTINGS,
            f"jobs.executor is {found.executor!r}, and no URL of a broker is set",
            f"set {_variable('executor_url')}, or executor_url_file in [{JOBS_TABLE}]",
        )
    if found.remote:
        _check_url(found.broker_url(), found.executor, "the broker's URL")
    return found


def of_worker(executor: str) -> ExecutorSettings:
    """The settings of a worker process of this framework. Raises VecError `invalid_settings`."""
    return load(locate(), executor=executor)


def shown(url: str) -> str:
    """A URL without user, password and parameters, for people."""
    parts = _split(url)
    host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname or ""
    port = f":{parts.port}" if parts.port else ""
    return f"{parts.scheme}://{host}{port}{parts.path}"


def without_secrets(text: str, url: str) -> str:
    """A text of a library, such as an error, without the URL's password."""
    password = _split(url).password
    return text.replace(url, shown(url)).replace(password, "***") if password else text


def _variable(key: str) -> str:
    return f"VEC_{JOBS_TABLE.upper()}_{key.upper()}"


def _split(url: str) -> SplitResult:
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:
        return urlsplit("")
    return parts


def _check_url(url: str, executor: str, where: str) -> None:
    """Never quotes the URL."""
    parts, schemes = _split(url), FRAMEWORKS[executor].schemes
    if parts.scheme in schemes and parts.hostname:
        return
    usable = " or ".join(f"{each}://" for each in schemes)
    others = [name for name, each in FRAMEWORKS.items() if parts.scheme in each.schemes]
    if parts.hostname and others:
        raise VecError(
            Code.SETTINGS,
            f"{where} is {parts.scheme}://, which {FRAMEWORKS[executor].what} cannot use as its broker",
            f"name a broker with {usable}, or set jobs.executor to {' or '.join(others)}",
        )
    raise VecError(Code.SETTINGS, f"{where} is not the URL of a broker", f"it begins with {usable}; {_URL_FORM}")


def _typed(key: str, value: Any, where: str) -> Any:
    if key in ("executor_timeout_s", "executor_processes"):
        kind = int if key == "executor_processes" else float
        low, high = (1, limits.EXECUTOR_PROCESSES_MAX) if kind is int else (1, limits.EXECUTOR_TIMEOUT_S_MAX)
        try:
            if isinstance(value, bool) or (kind is int and isinstance(value, float)):
                raise ValueError
            number = kind(value)
            if not low <= number <= high:
                raise ValueError
        except (TypeError, ValueError):
            what = "a whole number" if kind is int else "a number of seconds"
            raise VecError(Code.SETTINGS, f"{where} must be {what} from {low} to {high:,}, not {value!r:.80}") from None
        return number
    if not isinstance(value, str):
        raise VecError(Code.SETTINGS, f"{where} must be a string")
    if key in _CHOICES and value not in _CHOICES[key]:
        raise VecError(Code.SETTINGS, f"{where} must be one of {', '.join(_CHOICES[key])}, not {value!r:.80}")
    return str(absolute(value, where)) if key == "executor_url_file" else value
