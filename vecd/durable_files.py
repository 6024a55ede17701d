"""Writing and reading files at places that somebody names, safely: whole or not at all, and never another file.

Rules:
- A file is made under another name in the same folder, synced, and renamed. The other name is random, new
  (O_EXCL), not followed if it is a symlink, and only its user may read the file.
- A symlink at the place stays: the file that it points to is replaced, as an editor or `>` does it. Devices, FIFOs,
  sockets and folders are refused, never opened for reading or writing in a way that may block.
- Errors are OSErrors whose `strerror` says why, so that each caller translates one type.
"""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

#: As many symlinks are followed as Linux follows.
_LINKS_MAX = 40
#: What these stand for depends on the process that opens them.
_OF_A_PROCESS = frozenset(("/proc", "/dev/fd", "/dev/stdin", "/dev/stdout", "/dev/stderr"))
#: What fsync says of a folder where the file system has no such thing (as PostgreSQL's fsync_fname takes it).
_NO_FOLDER_SYNC = frozenset((errno.EINVAL, errno.EBADF, errno.ENOTSUP, errno.ENOSYS))


def resolve(path: str, *, write: bool = False) -> Path:
    """The file that an absolute path leads to through all symlinks; the last part need not exist.

    Raises OSError: for a path that means another file in each process (/dev/stdin, /dev/fd/3, /proc/self/...), for one
    with a NUL or names that are too long, and with `write` for one through a symlink that another user has put into a
    folder that everybody may write to.
    """
    if "\0" in path:
        raise OSError(errno.EINVAL, "a path cannot hold a NUL character")
    try:
        os.fsencode(path)
    except UnicodeError:
        raise OSError(errno.EINVAL, "the path is not valid text") from None
    place, parts, links = "/", path.split("/")[::-1], 0
    while parts:
        part = parts.pop()
        if part in ("", "."):
            continue
        if part == "..":
            place = os.path.dirname(place)
            continue
        here = os.path.join(place, part)
        if here in _OF_A_PROCESS:
            raise OSError(errno.EINVAL, "it means another file in each process")
        try:
            status = os.lstat(here)
        except FileNotFoundError:
            if any(parts):
                raise
            return Path(here)
        if not stat.S_ISLNK(status.st_mode):
            place = here
            continue
        links += 1
        if links > _LINKS_MAX:
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
        if write:
            _check_link(here, status, os.stat(place))
        target = os.readlink(here)
        place = "/" if target.startswith("/") else place
        parts += target.split("/")[::-1]
    return Path(place)


def _check_link(path: str, link: os.stat_result, folder: os.stat_result) -> None:
    """The rule of Linux's fs.protected_symlinks, which holds for open(2) and not for us."""
    if folder.st_mode & stat.S_IWOTH and link.st_uid not in (os.geteuid(), folder.st_uid):
        raise OSError(errno.EACCES, f"{path} is a symlink of another user, in a folder that everybody may write to")


def check_regular(path: Path) -> os.stat_result | None:
    """The status of a regular file; None if nothing is there. Raises OSError for anything else."""
    try:
        status = os.lstat(path)
    except FileNotFoundError:
        return None
    if stat.S_ISDIR(status.st_mode):
        raise OSError(errno.EISDIR, "it is a folder")
    if not stat.S_ISREG(status.st_mode):
        raise OSError(errno.EINVAL, "it is not a regular file")
    return status


def open_regular(path: str | Path, flags: int = os.O_RDONLY, mode: int = 0o600) -> int:
    """Opens a file, through symlinks. Raises OSError, also for what is not a regular file; never waits for a peer."""
    _check_path(path)
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):  # a device is not even opened
            raise OSError(errno.EINVAL, "it is not a regular file")
    except FileNotFoundError:
        if not flags & os.O_CREAT:
            raise
    fd = os.open(path, flags | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC, mode)
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise OSError(errno.EINVAL, "it is not a regular file")
    return fd


def read_small(path: str | Path, bytes_max: int) -> bytes:
    """The content of a file that is no longer than that. Raises OSError, also for what is not a regular file."""
    with open(open_regular(path), "rb") as file:
        data = file.read(bytes_max + 1)
    if len(data) > bytes_max:
        raise OSError(errno.EFBIG, f"it is over the limit of {bytes_max:,} bytes")
    return data


def _check_path(path: str | Path) -> None:
    if "\0" in str(path):
        raise OSError(errno.EINVAL, "a path cannot hold a NUL character")


def new_name(folder: Path, what: str) -> Path:
    """A name that nobody can guess, for a file that is to be renamed to its place in the folder."""
    return folder / f".vec-{what}-{os.urandom(8).hex()}"


def create(path: Path) -> int:
    """A new file, open for writing, that only its user may read. Raises OSError."""
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)


def reopen(path: Path) -> int | None:
    """A file that `create` made earlier, open for writing; None if it is not there, or something else is."""
    try:
        fd = os.open(path, os.O_WRONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return None
    status = os.fstat(fd)
    if stat.S_ISREG(status.st_mode) and status.st_uid == os.geteuid() and status.st_nlink == 1:
        return fd
    os.close(fd)
    return None


def replace(path: str | Path, data: bytes) -> None:
    """Puts a file with this content in its place: all of it, on disk, or nothing. A file of the user's own that was
    there keeps its permissions. Raises OSError."""
    place = resolve(os.path.abspath(path), write=True)
    before = check_regular(place)
    made = new_name(place.parent, "new")
    fd = create(made)
    try:
        with open(fd, "wb") as file:
            if before is not None and before.st_uid == os.geteuid():
                os.fchmod(fd, before.st_mode & 0o777)
            file.write(data)
            file.flush()
            os.fsync(fd)
        os.replace(made, place)
    except BaseException:
        made.unlink(missing_ok=True)
        raise
    sync_folder(place.parent)


def sync_folder(folder: Path) -> None:
    """Makes the renames in a folder durable. Where the file system cannot sync folders, or the folder may be written to
    and not be read, a rename counts as done. Raises OSError."""
    try:
        fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except PermissionError:
        return
    try:
        os.fsync(fd)
    except OSError as error:
        if error.errno not in _NO_FOLDER_SYNC:
            raise
    finally:
        os.close(fd)
