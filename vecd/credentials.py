"""Secrets that connectors and embedders send to servers: read from a file or the environment at each use, never stored,
logged or shown.

A secret `password` has two parameters, of which one may be given: `password_file` and `password_env`.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, Final

from .durable_files import read_small
from .errors import Code, VecError

_BYTES_MAX: Final = 64 * 1024


def read_secret(parameters: Mapping[str, Any], name: str) -> str | None:
    """The secret; None if neither parameter is given. One newline at the end of a file is not part of it.

    Raises VecError `invalid_settings`, which names the file or the variable.
    """
    path, variable = parameters.get(f"{name}_file"), parameters.get(f"{name}_env")
    if path is not None:
        try:
            text = read_small(path, _BYTES_MAX).decode()
        except (OSError, UnicodeDecodeError) as error:
            why = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
            raise VecError(
                Code.SETTINGS, f"cannot read the {name} from the file {path} ({why})", "correct the file, or its path"
            ) from error
        secret = text.removesuffix("\n").removesuffix("\r")
        if not secret:
            raise VecError(Code.SETTINGS, f"the file {path} is empty", f"write the {name} into it")
        return secret
    if variable is not None:
        if not os.environ.get(variable):
            raise VecError(
                Code.SETTINGS,
                f"the variable {variable} is not set in the daemon's environment",
                f"start the daemon with it, or use {name}_file",
            )
        return os.environ[variable]
    return None


def check_secret(parameters: Mapping[str, Any], name: str) -> None:
    """Raises VecError `invalid_request` if both parameters are given, or a path is relative."""
    path = parameters.get(f"{name}_file")
    if path is not None and parameters.get(f"{name}_env") is not None:
        raise VecError(
            Code.INVALID_REQUEST, f"{name}_file and {name}_env are both given", "give one of them", field=f"{name}_env"
        )
