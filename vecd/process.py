"""Resets the process state inherited from a parent: signals, standard streams, priority, limits, environment.

Rules: the state inherited from a parent is arbitrary. A parent may ignore SIGCHLD (then the exit status of every child
is lost), block signals, close stdin, or run at a low priority under a limit of CPU time. `vec` resets only what it
depends on. `vecd` outlives the command that starts it, so `vec` starts it with a fresh state. Standard library only.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

#: Prefixes of variables that a daemon does not inherit: they trace, profile or replace what it calls, or change what
#: Python does. Exceptions: the search paths of programs and modules, without which the daemon may not start; and the
#: encoding of file names, on which command and daemon must agree.
_DROPPED = ("LD_", "DYLD_INSERT_", "PYTHON", "LISTEN_", "NOTIFY_SOCKET", "VEC_CURSOR", "VEC_EVENTS", "VEC_ATTEMPT")
_KEPT = {"LD_LIBRARY_PATH", "PYTHONHOME", "PYTHONPATH", "PYTHONUSERBASE", "PYTHONNOUSERSITE", "PYTHONPLATLIBDIR",
         "PYTHONPYCACHEPREFIX", "PYTHONDONTWRITEBYTECODE", "PYTHONUTF8", "PYTHONCOERCECLOCALE"}  # fmt: skip

#: Size of a thread's stack, if the limit permits; numeric libraries need this much.
_STACK_BYTES = 8 * 1024 * 1024

#: Signals that Python ignores itself, so that a write fails with an error instead of ending the process.
_PYTHON_IGNORES = {"SIGPIPE", "SIGXFZ", "SIGXFSZ"}


def open_standard_streams() -> None:
    """Opens /dev/null in place of closed standard streams. Python sets a closed one to None, and no other file may
    get its descriptor number."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: SIM115 - it gets the lowest free number


def reset_signals(*, ignored: bool = False) -> None:
    """Unblocks all signals, and stops ignoring SIGCHLD, so that the exit status of children can be waited for.

    With `ignored`, resets all other ignored signals to their default action too. A command leaves them ignored, because
    `nohup` and a shell's `&` rely on that.
    """
    for number in signal.valid_signals() if ignored else {signal.SIGCHLD}:
        name = number.name if isinstance(number, signal.Signals) else ""
        if name not in _PYTHON_IGNORES and signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())


def reset_priority_and_limits() -> dict[str, Any]:
    """Sets the default priority and raises the soft limits to the hard limits.

    Returns what could not be changed, by name, for the log.
    """
    import resource

    left: dict[str, Any] = {}
    with contextlib.suppress(AttributeError, OSError):  # from SCHED_IDLE, SCHED_BATCH or a real-time class
        if os.sched_getscheduler(0) != os.SCHED_OTHER:
            os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
    if nice := os.getpriority(os.PRIO_PROCESS, 0):
        try:
            os.setpriority(os.PRIO_PROCESS, 0, 0)
        except OSError:
            left["nice"] = nice
    with contextlib.suppress(OSError):
        score = Path("/proc/self/oom_score_adj")
        if score.read_text().strip() != "0":
            score.write_text("0")
    for name in ("CPU", "FSIZE", "DATA", "AS", "NPROC"):
        number = getattr(resource, f"RLIMIT_{name}", None)
        if number is None:
            continue
        _, hard = resource.getrlimit(number)
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(number, (hard, hard))
        if hard != resource.RLIM_INFINITY and name != "NPROC":
            left[f"limit_{name.lower()}"] = hard
    return left


def lower_priority(nice: int) -> None:
    """Gives way to other processes, the daemon first. Linux schedules sessions (autogroups) before processes, and a
    nice value counts within a session only: a process that leads one lowers that too."""
    with contextlib.suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, 0, nice)
    if os.getsid(0) == os.getpid():
        with contextlib.suppress(OSError):
            Path("/proc/self/autogroup").write_text(str(nice))


@contextlib.contextmanager
def default_stack_size() -> Iterator[None]:
    """Raises the stack limit to the usual size for a process that is started in this block. The process could not do
    so itself: the stack size of its threads is set when it starts."""
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_STACK)
    wanted = _STACK_BYTES if hard == resource.RLIM_INFINITY else min(_STACK_BYTES, hard)
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        yield
        return
    resource.setrlimit(resource.RLIMIT_STACK, (wanted, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_STACK, (soft, hard))


def environment_for_daemon(environ: Mapping[str, str]) -> dict[str, str]:
    """The environment without variables that are meant for the command only. Search paths become absolute, because the
    daemon's working folder is `/`."""
    kept = {key: value for key, value in environ.items() if key in _KEPT or not key.startswith(_DROPPED)}
    for key in ("PYTHONPATH", "LD_LIBRARY_PATH"):
        if kept.get(key):
            kept[key] = os.pathsep.join(os.path.abspath(each) for each in kept[key].split(os.pathsep) if each)
    return kept


def detach(ready_fd: int | None) -> int:
    """Forks, and returns in the child: the descriptor to which it writes `ready`.

    The parent copies what the child writes there to `ready_fd` and exits with 0. If the child exits before that, the
    parent exits with the child's status (128 + N for signal N). So a daemon is never a child of the `vec` that starts
    it: a long-running `vec` would keep a zombie of each daemon that died. Call it before any thread starts.
    """
    read_end, write_end = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(read_end)
        if ready_fd is not None:
            os.close(ready_fd)
        return write_end
    os.close(write_end)
    if said := os.read(read_end, 64):
        if ready_fd is not None:
            with contextlib.suppress(BrokenPipeError):
                os.write(ready_fd, said)
        os._exit(0)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    os._exit(status if status >= 0 else 128 - status)


def is_stopped(pid: int) -> bool:
    """Whether a process is stopped by a signal or a debugger. False on systems other than Linux."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
            return file.read().rpartition(")")[2].split()[0] in ("T", "t")
    except (OSError, IndexError):
        return False
