"""The folder of a sync: its URL, and the parameters that say which of its files are taken. Pure: it reads nothing."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final
from urllib.parse import unquote_to_bytes

from .. import limits
from ..durable_files import printable_path
from ..errors import Code, VecError
from ..parameters import Parameter, check_parameters

_SCHEME: Final = "file://"

#: Their defaults are those of vecd/files/options.py.
PARAMETERS: Final[Mapping[str, Parameter]] = {
    "hidden": Parameter("also files whose name begins with a dot", bool),
    "links": Parameter("also what symbolic links point to", bool),
    "ignore_files": Parameter("respect .gitignore and .vecignore", bool),
    "exclude": Parameter("patterns of files to leave out, as in .gitignore", list),
    "bytes_max": Parameter("skip larger files", int, low=1, high=limits.FRAME_BYTES_MAX),
}


def url_of(folder: str) -> str:
    """The URL of an absolute path. A path that is not UTF-8 has one, too."""
    return Path(folder).as_uri()


def path_of(url: str) -> str:
    """The path that a URL names. Raises VecError `invalid_request`."""
    path = os.fsdecode(unquote_to_bytes(url.removeprefix(_SCHEME)))
    if not url.startswith(_SCHEME) or not path.startswith("/") or "\0" in path:
        raise VecError(
            Code.INVALID_REQUEST,
            f"{url!r:.200} names no folder",
            "use file:///PATH, with three slashes; write other characters than letters and digits as %HH",
            field="url",
        )
    return path


def shown_path(url: str) -> str:
    """The path as text, with bytes that are not UTF-8 escaped."""
    return printable_path(path_of(url))


def check(url: str, parameters: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """The URL in the one form that is stored, and the parameters that are given. Raises VecError `invalid_request`."""
    url = url_of(os.path.normpath(path_of(url)))
    return url, check_parameters("a sync", "parameter", PARAMETERS, parameters)
