"""What surrounds `vec` and `vecd` does not change what they promise: the state of the parent process, homes, sockets,
umask, and who owns what. Each case goes through the real binary."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.instance import BIN, Instance, ndjson
from tests.support.running import alive, fresh, line_of, rest_of, running
from tests.support.waiting import PATIENCE_S, until
from vecd import limits
from vecd.client.spawn import spawn_daemon
from vecd.errors import Code, VecError

from .watching import head, put, watching

HASH = {"VEC_EMBEDDER": "hash"}
NOBODY = 65534

linux_only = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
root_only = pytest.mark.skipif(os.getuid() != 0, reason="only root can become somebody else")


def under(state: str, *command: str | Path) -> list[str]:
    """A command in a process state that these lines of Python have made."""
    script = f"import fcntl, os, resource, signal, sys\n{state}\nos.execv(sys.argv[1], sys.argv[1:])"
    return [sys.executable, "-c", script, *map(str, command)]


def run(instance: Instance, state: str, *arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    """`vec` in that state, to its end."""
    return subprocess.run(
        under(state, BIN / "vec", *arguments),
        env=instance.environment, input=stdin, capture_output=True, text=True, timeout=PATIENCE_S, check=False,
    )  # fmt: skip


# --- what a command inherits ------------------------------------------------------------------------------------------

#: Process states that a parent may leave behind. `vec` works in all of them.
STATES = {
    "children-ignored": "signal.signal(signal.SIGCHLD, signal.SIG_IGN)",
    "all-ignored": "for n in signal.valid_signals() - {9, 19}: signal.signal(n, signal.SIG_IGN)",
    "all-blocked": "signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())",
    "broken-pipes-kill": "signal.signal(signal.SIGPIPE, signal.SIG_DFL)",
    "no-stdin": "os.close(0)",
    "no-stderr": "os.close(2)",
    "one-core-low-priority": "os.nice(19)",
    "small-stack": "resource.setrlimit(resource.RLIMIT_STACK, (256 * 1024, resource.getrlimit(3)[1]))",
    "open-to-all": "os.umask(0)",
    "closed-to-all": "os.umask(0o777)",
}


@pytest.mark.parametrize("state", STATES)
def test_a_handler_that_fails_is_seen_to_fail_whatever_the_parent_left_behind(instance: Instance, state: str) -> None:
    start = head(instance)
    put(instance, fresh(instance), [{"id": "a", "text": "x"}])
    watch = ["watch", "--no-follow", "--from", start, "--retries", "1", "--on-failure", "stop", "--exec"]
    assert run(instance, STATES[state], *watch, "cat > /dev/null; exit 7").returncode == 1
    assert run(instance, STATES[state], *watch, "cat > /dev/null").returncode == 0


@pytest.mark.parametrize("state", ["all-ignored", "no-stdin", "no-stderr", "closed-to-all"])
def test_a_command_answers_whatever_the_parent_left_behind(instance: Instance, state: str) -> None:
    done = run(instance, STATES[state], "get", "-l", (library := fresh(instance)), "a")
    assert (done.returncode, done.stdout) == (4, ""), done.stderr
    put(instance, library, [{"id": "a", "text": "x"}])
    done = run(instance, STATES[state], "get", "-l", library, "a")
    assert (done.returncode, json.loads(done.stdout)["id"]) == (0, "a")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_that_the_parent_blocked_still_ends_a_watch(instance: Instance, number: signal.Signals) -> None:
    process = subprocess.Popen(
        under(STATES["all-blocked"], BIN / "vec", "watch"),
        env=instance.environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        watching(instance, 1)
        process.send_signal(number)
        process.wait(PATIENCE_S)
    finally:
        process.kill()
        process.wait()
    until(lambda: instance.objects("status")[0]["watchers"] == 0, "its end")


@pytest.mark.parametrize(("command", "status"), [("./typo", 127), ("no-such-command", 127), ("/etc/passwd", 126)])
def test_a_handler_that_cannot_be_run_ends_the_watch_before_the_batch(
    instance: Instance, tmp_path: Path, command: str, status: int
) -> None:
    start, file, dead = head(instance), tmp_path / "cursor", tmp_path / "dead"
    put(instance, fresh(instance), [{"id": "a", "text": "x"}])
    file.write_text(start)
    watch = ["watch", "--no-follow", "--cursor-file", str(file), "--dead-letter", str(dead)]
    done = instance.vec(*watch, "--exec", command, status=1)
    assert f"the command cannot be run: it {'was not found' if status == 127 else 'cannot be executed'}" in done.stderr
    assert "(handler_failed)" in done.stderr
    assert f"exit status {status}" in done.stderr
    assert "attempt 1" not in done.stderr
    assert file.read_text().strip() == start
    assert not dead.exists()


# --- what a daemon inherits -------------------------------------------------------------------------------------------

#: All at once, and a descriptor that is left open.
CROOKED = """
for n in signal.valid_signals() - {9, 19}: signal.signal(n, signal.SIG_IGN)
signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
for n in (resource.RLIMIT_CPU, resource.RLIMIT_FSIZE, resource.RLIMIT_DATA, resource.RLIMIT_AS):
    resource.setrlimit(n, (2**33, resource.getrlimit(n)[1]))
resource.setrlimit(resource.RLIMIT_STACK, (256 * 1024, resource.getrlimit(resource.RLIMIT_STACK)[1]))
resource.setrlimit(resource.RLIMIT_NOFILE, (256, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
open("/proc/self/oom_score_adj", "w").write("500")
os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
os.nice(7)
os.umask(0)
os.dup2(os.open("/etc/hostname", os.O_RDONLY), 77)
os.environ |= {"LD_DEBUG": "statistics", "LD_DEBUG_OUTPUT": os.devnull, "PYTHONWARNINGS": "error"}
os.environ |= {"PYTHONPATH": "modules", "PYTHONINSPECT": "1", "PYTHONASYNCIODEBUG": "1"}
os.environ |= {"NOTIFY_SOCKET": "/nowhere", "LISTEN_FDS": "1"}
os.chdir("/usr")
"""


class Process:
    """What /proc says of a process."""

    def __init__(self, pid: int) -> None:
        self._folder = Path(f"/proc/{pid}")
        lines = self.read("status").splitlines()
        self.status = {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}
        fields = self.read("stat").rpartition(")")[2].split()
        self.nice, self.policy = int(fields[16]), int(fields[38])
        self.environment = dict(each.split("=", 1) for each in self.read("environ").split("\0") if "=" in each)
        self.limits = {line[:26].strip(): line[26:].split()[:2] for line in self.read("limits").splitlines()}

    def read(self, name: str) -> str:
        return (self._folder / name).read_text().strip()

    def link(self, name: str) -> str:
        return os.readlink(self._folder / name)

    def descriptors(self) -> set[int]:
        return {int(each) for each in os.listdir(self._folder / "fd")}

    def signals(self, field: str) -> set[int]:
        bits = int(self.status[field], 16)
        return {number + 1 for number in range(64) if bits >> number & 1}


@pytest.fixture(scope="module")
def crooked() -> Iterator[Process]:
    """A daemon that a `vec` in the worst of states has started."""
    with Instance(HASH) as own:
        done = run(own, CROOKED, "ingest", stdin=ndjson([{"id": "a", "text": "x"}]))
        assert json.loads(done.stdout)["added"] == 1, done.stderr
        pid = own.pid()
        assert pid is not None
        yield Process(pid)


#: What the daemon's state is to be, and what it is.
CLEAN: dict[str, tuple[object, Callable[[Process], object]]] = {
    "no signal is blocked": (set(), lambda daemon: daemon.signals("SigBlk")),
    "only broken pipes and file sizes are ignored": (
        {signal.SIGPIPE, signal.SIGXFSZ}, lambda daemon: daemon.signals("SigIgn"),
    ),
    "what it makes is its user's alone": ("0077", lambda daemon: daemon.status["Umask"]),
    "the folder is the root": ("/", lambda daemon: daemon.link("cwd")),
    "stdin is empty": (os.devnull, lambda daemon: daemon.link("fd/0")),
    "no descriptor is inherited": (False, lambda daemon: 77 in daemon.descriptors()),
    "no variable of the parent's own is left": (
        set(),
        lambda daemon: {
            name for name in daemon.environment
            if name.startswith(("LD_D", "PYTHONW", "PYTHONI", "PYTHONA", "NOTIFY", "LISTEN"))
        },
    ),
    "modules are looked for where the command would": (
        "/usr/modules", lambda daemon: daemon.environment["PYTHONPATH"],
    ),
    "it is out of memory like any other": ("0", lambda daemon: daemon.read("oom_score_adj")),
    "the scheduler treats it like any other": (os.SCHED_OTHER, lambda daemon: daemon.policy),
    "CPU time is limited by the hard limit only": (1, lambda daemon: len(set(daemon.limits["Max cpu time"]))),
    "files are limited by the hard limit only": (1, lambda daemon: len(set(daemon.limits["Max file size"]))),
    "memory is limited by the hard limit only": (1, lambda daemon: len(set(daemon.limits["Max address space"]))),
    "a stack has the usual size": (True, lambda daemon: int(daemon.limits["Max stack size"][0]) >= 2**23),
    "it has descriptors for many connections": (True, lambda daemon: int(daemon.limits["Max open files"][0]) >= 4096),
}  # fmt: skip


@linux_only
@pytest.mark.parametrize("what", CLEAN)
def test_a_daemon_starts_clean_of_the_state_of_the_command_that_started_it(crooked: Process, what: str) -> None:
    wanted, found = CLEAN[what]
    value = found(crooked)
    if isinstance(value, set):
        value -= {32, 33}  # the C library's own, which no program can change
    assert value == wanted


@linux_only
@root_only
def test_a_daemon_has_the_usual_priority_where_it_may(crooked: Process) -> None:
    assert crooked.nice == 0


@linux_only
def test_limits_that_cannot_be_raised_are_logged() -> None:
    with Instance(HASH) as own:
        done = run(own, "resource.setrlimit(resource.RLIMIT_CPU, (5000, 5000))", "status")
        assert done.returncode == 0
        assert "cannot be raised" in own.log()
        assert "limit_cpu=5000" in own.log()


# --- homes ------------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def two_homes(**environment: str) -> Iterator[tuple[Instance, Instance]]:
    """Two homes of one user without VEC_HOME, as `HOME=/other vec …` makes them."""
    with Instance(HASH) as one, Instance(HASH) as other:
        for each in (one, other):
            del each.environment["VEC_HOME"]
            each.environment |= {"HOME": str(each.home), **environment}
        yield one, other


@pytest.mark.skipif(os.path.exists(f"/run/user/{os.getuid()}"), reason="there is a runtime folder")
def test_without_a_runtime_folder_each_home_has_a_daemon_of_its_own() -> None:
    with two_homes() as (one, other):
        assert one.objects("ingest", stdin=ndjson([{"id": "a", "text": "x"}]))[0]["added"] == 1
        assert other.objects("count")[0]["documents"] == 0
        assert one.objects("count")[0]["documents"] == 1
        assert one.pid() != other.pid()
        for each in (one, other):
            each.vec("daemon", "stop")


def test_a_daemon_of_another_home_is_not_written_to(tmp_path: Path) -> None:
    with two_homes(XDG_RUNTIME_DIR=str(tmp_path)) as (one, other):
        one.vec("ingest", stdin=ndjson([{"id": "a", "text": "x"}]))
        for command in (["count"], ["ingest"], ["daemon", "start"]):
            done = other.vec(*command, stdin=ndjson([{"id": "b", "text": "y"}]), status=2)
            assert f"serves the data in {one.settings.data}" in done.stderr
            assert "(invalid_settings)" in done.stderr
        assert one.objects("count")[0]["documents"] == 1
        # Whoever names the socket knows which daemon is meant.
        assert other.objects("count", "--socket", str(one.settings.socket))[0]["documents"] == 1


# --- the socket's file ------------------------------------------------------------------------------------------------


def _dead_socket(path: Path) -> None:
    path.unlink()
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(path))


@pytest.mark.parametrize(
    "spoil",
    [Path.unlink, _dead_socket, lambda path: path.rename(path.with_name("away"))],
    ids=["gone", "dead", "moved"],
)
def test_a_daemon_whose_socket_is_gone_is_found_again(spoil: Callable[[Path], object]) -> None:
    with Instance(HASH) as own, contextlib.ExitStack() as stack:
        own.vec("status")
        pid = own.pid()
        early = stack.enter_context(own.connect())
        spoil(own.settings.socket)
        assert own.objects("status", "--no-spawn")[0]["pid"] == pid
        assert stat.S_IMODE(own.settings.socket.stat().st_mode) == 0o600
        assert early.status()["pid"] == pid  # a connection goes on
        own.vec("daemon", "stop")
        assert not own.settings.socket.exists()


def test_a_daemon_that_listens_elsewhere_is_found_by_its_lock(tmp_path: Path) -> None:
    """As from cron, which lacks the variables of the session that started the daemon."""
    with two_homes(XDG_RUNTIME_DIR=str(tmp_path / "session")) as (own, _):
        own.vec("ingest", stdin=ndjson([{"id": "a", "text": "x"}]))
        pid = own.pid()
        own.environment["XDG_RUNTIME_DIR"] = str(tmp_path / "cron")
        assert own.objects("count", "--no-spawn")[0]["documents"] == 1
        assert own.objects("daemon", "start")[0]["pid"] == pid
        assert own.objects("daemon", "stop") == [{"stopped": True, "pid": pid}]


def test_a_socket_in_a_folder_that_was_removed_comes_back() -> None:
    with Instance(HASH) as own, tempfile.TemporaryDirectory() as folder:
        own.environment["VEC_SOCKET"] = f"{folder}/deep/vecd.sock"
        pid = own.objects("status")[0]["pid"]
        shutil.rmtree(f"{folder}/deep")
        assert own.objects("status")[0]["pid"] == pid


@pytest.mark.parametrize("command", ["stop", "restart"])
def test_a_daemon_without_a_socket_is_stopped_by_its_lock(command: str) -> None:
    """A stopped process does not bind again, so there is only the lock."""
    with Instance(HASH) as own:
        own.vec("ingest", stdin=ndjson([{"id": "a", "text": "x"}]))
        pid = own.pid()
        assert pid is not None
        os.kill(pid, signal.SIGSTOP)
        own.settings.socket.unlink()
        (body,) = own.objects("daemon", command)
        assert body == ({"stopped": True, "pid": pid} if command == "stop" else {**body, "started": True})
        until(lambda: not alive(pid), "its end")
        assert "event=stopped" in own.log()
        assert own.objects("count")[0]["documents"] == 1


# --- a daemon that does not answer ------------------------------------------------------------------------------------


def test_every_command_reports_a_stopped_daemon_within_seconds() -> None:
    """Those that connect, and those that wait for an answer or for events already."""
    with Instance(HASH) as own, contextlib.ExitStack() as stack:
        own.vec("ingest", stdin=ndjson([{"id": "a", "text": "x"}]))
        pid = own.pid()
        assert pid is not None
        job = own.objects("jobs", "submit", "prune", "--delay", "1h")[0]["job_id"]
        early = [["watch", "--no-reconnect"], ["watch", "--no-reconnect", "--exec", "true"], ["jobs", "wait", str(job)]]
        processes = [stack.enter_context(running(own, *command)) for command in early]
        patient = stack.enter_context(running(own, "watch", "--type", "document.added"))
        until(lambda: own.objects("status")[0]["connections"] == 5, "their connections")
        watching(own, 3)
        os.kill(pid, signal.SIGSTOP)
        began = time.monotonic()
        late = [["status"], ["count"], ["search", "x"], ["ingest"], ["watch"], ["library", "list"], ["daemon", "start"]]
        processes += [stack.enter_context(running(own, *command)) for command in late]
        for command, process in zip(early + late, processes, strict=True):
            assert process.wait(PATIENCE_S) == 75, command
            assert f"the daemon, process {pid}, is stopped (stalled)" in rest_of(process.stderr), command
        assert time.monotonic() - began < PATIENCE_S / 2
        assert patient.stderr is not None
        assert f"the daemon, process {pid}, is stopped; resuming from" in patient.stderr.readline().decode()
        os.kill(pid, signal.SIGCONT)
        assert own.objects("count")[0]["documents"] == 1
        own.vec("ingest", stdin=ndjson([{"id": "b", "text": "y"}]))
        assert line_of(patient.stdout)["data"]["id"] == "b"


def test_a_daemon_that_accepts_nothing_and_one_that_says_nothing_are_reported() -> None:
    """A full queue of connections, where a blocking connect would wait; and a queue with room, that nobody serves."""
    with Instance(HASH) as full, Instance(HASH) as mute, contextlib.ExitStack() as stack:
        for own, backlog in ((full, 0), (mute, 10)):
            listener = stack.enter_context(socket.socket(socket.AF_UNIX))
            listener.bind(str(own.settings.socket))
            listener.listen(backlog)
        for _ in range(2):
            waiting = stack.enter_context(socket.socket(socket.AF_UNIX))
            waiting.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                waiting.connect(str(full.settings.socket))
        processes = [stack.enter_context(running(own, "status")) for own in (full, mute)]
        for process in processes:
            assert process.wait(PATIENCE_S) == 75
            assert "has not answered for" in rest_of(process.stderr)


def test_a_long_answer_of_a_daemon_at_work_is_waited_for(instance: Instance, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "SILENCE_S", 0.05)
    with instance.connect(timeout_s=None) as client:
        job = client.submit_job("prune", delay_s=3600)
        with pytest.raises(VecError) as caught:
            client.wait_for_jobs([job["job_id"]], timeout_s=0.5)
        assert caught.value.code == Code.TIMEOUT
        assert "the jobs did not end" in caught.value.message
        client.cancel_jobs([job["job_id"]])


# --- who owns what ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("umask", [0, 0o022, 0o777])
def test_all_that_is_made_is_the_users_alone_whatever_the_umask(umask: int) -> None:
    with Instance(HASH) as own:
        own.environment["VEC_HOME"] = str(own.home / "above" / "home")
        assert run(own, f"os.umask({umask})", "ingest", stdin=ndjson([{"id": "a", "text": "x"}])).returncode == 0
        run(own, f"os.umask({umask})", "daemon", "stop")
        found = [own.home / "above", *(own.home / "above").rglob("*")]
        assert {path.name for path in found} >= {
            "above",
            "home",
            "data",
            "vec.db",
            "vecd.lock",
            "launch.lock",
            "vecd.log",
        }
        open_ones = {path: oct(path.stat().st_mode) for path in found if path.stat().st_mode & 0o077}
        assert open_ones == {}
        assert all(path.stat().st_mode & 0o700 == 0o700 for path in found if path.is_dir())
        assert own.settings.log.stat().st_mode & 0o777 == 0o600


def test_a_lock_that_others_could_open_is_closed_to_them() -> None:
    with Instance(HASH) as own:
        own.settings.data.mkdir(mode=0o700)
        for lock in (own.home / "launch.lock", own.settings.lock):
            lock.touch()
            lock.chmod(0o644)
        own.vec("status")
        for lock in (own.home / "launch.lock", own.settings.lock):
            assert stat.S_IMODE(lock.stat().st_mode) == 0o600


@pytest.mark.parametrize("runs", [False, True], ids=["no-daemon", "daemon"])
def test_a_home_that_others_may_write_to_is_refused(runs: bool) -> None:
    with Instance(HASH) as own:
        if runs:
            own.vec("status")
        own.home.chmod(0o777)
        done = own.vec("ingest", stdin=ndjson([{"id": "a", "text": "x"}]), status=2)
        assert f"the folder is writable by everyone: {own.home}" in done.stderr
        own.home.chmod(0o700)


@root_only
def test_a_home_of_somebody_else_is_refused() -> None:
    with Instance(HASH) as own:
        os.chown(own.home, NOBODY, NOBODY)
        done = own.vec("ingest", stdin=ndjson([{"id": "a", "text": "x"}]), status=2)
        assert f"belongs to user {NOBODY}" in done.stderr
        os.chown(own.home, os.getuid(), os.getgid())


#: `vec` as another user than root, whom modes do not stop; what it imports is loaded before, as that user may not
#: be able to read it.
AS_NOBODY = """
import os, sys
from vec_cli.commands import status
from vec_cli.main import main
from vec_cli.output import printable
import vecd.client
os.setgroups([]); os.setgid({uid}); os.setuid({uid})
main()
"""


@root_only
def test_a_lock_of_somebody_else_that_cannot_be_opened_is_an_error_with_its_name() -> None:
    with Instance(HASH) as own:
        lock = own.home / "launch.lock"
        lock.touch(mode=0o600)
        os.chown(own.home, NOBODY, NOBODY)
        done = subprocess.run(
            [sys.executable, "-c", AS_NOBODY.format(uid=NOBODY), "status"],
            env=own.environment, capture_output=True, text=True, timeout=PATIENCE_S, check=False,
        )  # fmt: skip
        os.chown(own.home, os.getuid(), os.getgid())
        assert done.returncode == 2, done.stderr
        assert f"vec: cannot open the lock {lock} (Permission denied) (invalid_settings)" in done.stderr


#: A daemon's place, taken by another user: it accepts one connection and prints what it is sent.
TRAP = """
import socket, sys
sock = socket.socket(socket.AF_UNIX)
sock.bind(sys.argv[1])
import os
os.chmod(sys.argv[1], 0o777)
os.setgroups([]); os.setgid({uid}); os.setuid({uid})
sock.listen()
print("ready", flush=True)
peer, _ = sock.accept()
print(len(peer.recv(1000)), flush=True)
"""


@root_only
def test_nothing_is_sent_to_a_daemon_of_another_user() -> None:
    with Instance(HASH) as own, tempfile.TemporaryDirectory() as folder:
        path = f"{folder}/vecd.sock"
        command = [sys.executable, "-c", TRAP.format(uid=NOBODY), path]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as trap:
            try:
                assert trap.stdout is not None
                assert trap.stdout.readline() == "ready\n"
                done = own.vec("ingest", "--socket", path, stdin=ndjson([{"id": "a", "text": "secret"}]), status=1)
                assert f"the daemon on {path} belongs to user {NOBODY}" in done.stderr
                assert "(forbidden)" in done.stderr
                assert trap.stdout.readline() == "0\n"
            finally:
                trap.kill()


# --- waiting for another process --------------------------------------------------------------------------------------


def test_a_wait_for_the_start_up_lock_is_reported_and_ends_when_it_is_free() -> None:
    with Instance(HASH) as own, open(own.home / "launch.lock", "w", encoding="utf-8") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with running(own, "status") as process:
            assert process.stderr is not None
            line = process.stderr.readline().decode()
            assert line == f"vec: waiting for another vec that has locked {own.home / 'launch.lock'}\n"
            fcntl.flock(lock, fcntl.LOCK_UN)
            assert process.wait(PATIENCE_S) == 0


def test_a_wait_for_the_start_up_lock_has_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "LAUNCH_S", 0.1)
    monkeypatch.setattr(limits, "START_S", 0.1)
    with Instance(HASH) as own, open(own.home / "launch.lock", "w", encoding="utf-8") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(VecError) as caught:
            spawn_daemon(own.settings)
        assert caught.value.code == Code.BUSY
        assert str(own.home / "launch.lock") in caught.value.message
