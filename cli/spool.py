"""`vec ingest --background`: submits an ingest job, and copies pipes to the spool, where the daemon can read them
(vecd/client/spool.py). A pipe is copied without parsing."""

from __future__ import annotations

import contextlib
import os
import stat
import sys
from typing import TYPE_CHECKING, Any

from vecd import limits
from vecd.client.spool import SpoolFile
from vecd.durable_files import check_regular, resolve
from vecd.errors import Code, VecError

from .jobs import absolute

if TYPE_CHECKING:
    from collections.abc import Mapping

    from vecd.client import Client

_PIECE_BYTES = 256 * limits.KIB


def submit(
    client: Client,
    paths: list[str],
    library: str,
    strict: bool,
    form: str | None = None,
    rules: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Submits the job that ingests these files (`-`, or none at all, is stdin). `form` is their format (None: what the
    name of each says), `rules` those of a mapping (None: the library's). Raises VecError."""
    from vecd.wire.records import format_of

    files, names, forms = [], [], []
    with contextlib.ExitStack() as copies:
        for path in paths or ["-"]:
            name = "stdin" if path == "-" else path
            names.append(name)
            forms.append(form or format_of(name))
            if path != "-" and _is_shared(absolute(path)):
                files.append(absolute(path))
                continue
            copy = copies.enter_context(SpoolFile(client.spool(), name))
            _copy(path, copy)
            files.append(copy.path)
        params = {"files": files, "names": names, "strict": strict or None, "create": True}
        if any(each != "ndjson" for each in forms):
            params["formats"] = forms
        if rules is not None:
            params["map"] = [f"{name}={rule}" for name, rule in rules.items()]
        return client.submit_job("ingest", params, library=library)


def _is_shared(path: str) -> bool:
    """Whether a path names a regular file, the same one in the daemon as here. /dev/stdin and /dev/fd/3 do not."""
    try:
        return check_regular(resolve(path)) is not None
    except OSError:
        return False  # it is copied, and opening it reports the error


def _copy(path: str, copy: SpoolFile) -> None:
    """Copies a pipe; the copy is on disk when it returns."""
    source = -1
    try:
        source = sys.stdin.fileno() if path == "-" else os.open(path, os.O_RDONLY)
        if stat.S_ISDIR(os.fstat(source).st_mode):
            raise VecError(Code.INVALID_REQUEST, f"cannot read {path} (it is a folder)", file=path)
        while piece := os.read(source, _PIECE_BYTES):
            copy.write(piece)
        copy.sync()
    except OSError as error:
        raise VecError(Code.INVALID_REQUEST, f"cannot read {path} ({error.strerror})", file=path) from error
    finally:
        if path != "-" and source >= 0:
            os.close(source)
