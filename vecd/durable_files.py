"""Write and read files safely at paths that a user names: durable, whole or not at all, and never another file.

Rules:
- A file is written under another name in the same folder, synced, and renamed; then the folder is synced. The other
  name is new (O_EXCL), so that a symlink of that name is not followed, and only its user may read the file.
- A symlink at the place stays: the file that it points to is replaced, as an editor or `>` does it. Devices, FIFOs,
  sockets and folders are refused, never opened for reading or writing in a way that may block.
- Errors are OSErrors whose `strerror` says why, so that each caller translates one type.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

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


def printable_path(path: str | bytes | os.PathLike[str]) -> str:
    """A path as text that can travel in a message; bytes that are not UTF-8 are escaped."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def new_name(folder: Path, what: str) -> Path:
    """A name that nobody can guess, for a file that is to be renamed to its place in the folder."""
    return folder / f".vec-{what}-{os.urandom(8).hex()}"


def file_id(path: str | Path) -> tuple[int, int] | None:
    """What identifies a file or folder, whatever its name: device and inode. None if it cannot be seen."""
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_dev, status.st_ino


def identity(status: os.stat_result) -> list[int]:
    """Identifies a file with its content, across a rename; JSON."""
    return [status.st_ino, status.st_size, status.st_mtime_ns]


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
    with writing(place, new_name(place.parent, "new")) as file:
        if before is not None and before.st_uid == os.geteuid():
            os.fchmod(file.fileno(), before.st_mode & 0o777)
        file.write(data)


@contextlib.contextmanager
def writing(place: Path, unfinished: Path) -> Iterator[BinaryIO]:
    """A new file, named `unfinished` in the folder of `place`. When the block ends, the file is at its place, on disk;
    if the block raises, nothing is there that was not before. Raises OSError."""
    fd = create(unfinished)
    try:
        with open(fd, "wb") as file:
            yield file
            file.flush()
            os.fsync(fd)
        os.replace(unfinished, place)
    except BaseException:
        unfinished.unlink(missing_ok=True)
        raise
    sync_folder(place.parent)


def rename(made: Path, place: Path) -> None:
    """Renames a file that is on disk within its folder; the rename is on disk when it returns. Raises OSError."""
    os.replace(made, place)
    sync_folder(place.parent)


def sync_file(path: Path) -> None:
    """Returns when the file's content is on disk. Raises OSError."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def append(path: Path, data: bytes) -> None:
    """Adds to the end of a regular file, which it makes if there is none: on disk when it returns. Other processes that
    append do so before or after, never in between. Raises OSError; part of the data may be in the file then."""
    fd = open_regular(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    with open(fd, "ab", buffering=0) as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        left = memoryview(data)
        while left:
            left = left[file.write(left) :]
        os.fsync(fd)
    sync_folder(path.parent)


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
