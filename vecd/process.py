"""Process state that a child inherits (signals, umask, descriptors): how `vec` and `vecd` reset it.

Rules: the state that a parent leaves behind is arbitrary. A parent may ignore SIGCHLD (then the exit status of every
child is lost), block signals, close stdin, or run at a low priority under a limit of CPU time. `vec` corrects what its
own work depends on. `vecd` outlives the command that starts it, so `vec` starts it with a state of its own.
Standard library only.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

#: Not for a daemon that outlives its parent: they trace, profile or replace what it calls, or change what Python does.
#: Where programs and modules are found stays: without that the daemon may not start at all. So does the encoding of
#: file names, which command and daemon must agree on.
_DROPPED = ("LD_", "DYLD_INSERT_", "PYTHON", "LISTEN_", "NOTIFY_SOCKET", "VEC_CURSOR", "VEC_EVENTS", "VEC_ATTEMPT")
_KEPT = {"LD_LIBRARY_PATH", "PYTHONHOME", "PYTHONPATH", "PYTHONUSERBASE", "PYTHONNOUSERSITE", "PYTHONPLATLIBDIR",
         "PYTHONPYCACHEPREFIX", "PYTHONDONTWRITEBYTECODE", "PYTHONUTF8", "PYTHONCOERCECLOCALE"}  # fmt: skip

#: A thread's stack has this size if the limit permits; less is too little for numeric libraries.
_STACK_BYTES = 8 * 1024 * 1024

#: Python ignores these itself, so that a write fails with an error instead of ending the process.
_PYTHON_IGNORES = {"SIGPIPE", "SIGXFZ", "SIGXFSZ"}


def open_standard_streams() -> None:
    """A closed stdin reads as empty, and output to a closed stdout or stderr is discarded. Python has None there,
    and a file or socket of ours must not get its number."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: SIM115 - it gets the lowest free number


def reset_signals(*, ignored: bool = False) -> None:
    """Unblocks all signals, and lets the exit status of children be waited for.

    With `ignored`, all other ignored signals get their default action back too. A command leaves those ignored,
    because `nohup` and a shell's `&` rely on it.
    """
    for number in signal.valid_signals() if ignored else {signal.SIGCHLD}:
        name = number.name if isinstance(number, signal.Signals) else ""
        if name not in _PYTHON_IGNORES and signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())


def reset_priority_and_limits() -> dict[str, Any]:
    """Gives this process the usual priority and raises its soft limits as far as they go.

    Returns what it could not change, by name, for the log.
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


@contextlib.contextmanager
def roomy_stack() -> Iterator[None]:
    """A process that is started in this block has a stack of the usual size: what its threads get is read at its very
    start, so it cannot raise that limit itself."""
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
    """The environment without what was meant for the command only. Folders of modules become absolute: the daemon works
    in `/`."""
    kept = {key: value for key, value in environ.items() if key in _KEPT or not key.startswith(_DROPPED)}
    for key in ("PYTHONPATH", "LD_LIBRARY_PATH"):
        if kept.get(key):
            kept[key] = os.pathsep.join(os.path.abspath(each) for each in kept[key].split(os.pathsep) if each)
    return kept


def detach(ready_fd: int | None) -> int:
    """Continues in a child process, and returns the descriptor to which that child writes `ready`.

    The process that calls this copies what is written there to `ready_fd` and exits with 0. If the child exits before
    that, it exits with the child's status (128 + N for signal N). So a daemon is never a child of the `vec` that starts
    it: one that runs for long would keep a zombie of each daemon that died. Call it before there are any threads.
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
    """Whether a process is stopped by a signal or a debugger. False where the system does not say (not Linux)."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
            return file.read().rpartition(")")[2].split()[0] in ("T", "t")
    except (OSError, IndexError):
        return False
