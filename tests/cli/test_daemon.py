"""vec starts vecd when none answers, one of it, and says why when it cannot; vec daemon and vec status."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tests.support.instance import BIN, Instance, ndjson
from tests.support.running import alive, line_of, running
from tests.support.waiting import until
from vecd.data_lock import STARTING, STOPPING, holder

HASH = {"VEC_EMBEDDER": "hash"}

linux_only = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")


def logged(instance: Instance, event: str) -> int:
    """How many lines of the log tell this event."""
    return sum(f"event={event} " in line or line.endswith(f"event={event}") for line in instance.log().splitlines())


def kill(instance: Instance) -> int:
    """kill -9; returns the pid that was."""
    pid = instance.pid()
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    until(lambda: not alive(pid), "its end")
    return pid


# --- a daemon when one is needed ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments",
    [
        ["status"], ["count"], ["list"], ["ingest"], ["search", "x"], ["library", "list"],
        ["watch", "--no-follow"], ["delete", "x"], ["daemon", "start"], ["daemon", "restart"],
    ],
    ids=" ".join,
)  # fmt: skip
def test_any_command_starts_a_daemon_if_none_answers(arguments: list[str]) -> None:
    with Instance(HASH) as own:
        assert own.pid() is None
        own.vec(*arguments)
        pid = own.pid()
        assert pid is not None
        assert own.objects("status", "--no-spawn")[0]["pid"] == pid
        assert logged(own, "ready") == 1


@pytest.mark.parametrize(
    "arguments", [["--help"], ["--version"], ["ingest", "--help"], ["daemon", "stop"], ["nonsense"]]
)
def test_what_needs_no_daemon_starts_none_and_leaves_no_trace(arguments: list[str]) -> None:
    with Instance(HASH) as own:
        own.vec(*arguments, status=None)
        assert list(own.home.iterdir()) == []


def test_a_daemon_that_was_started_goes_on_when_the_command_has_ended() -> None:
    """Also after a Ctrl-C, which a terminal sends to all processes of its foreground: the daemon is none of them."""
    with Instance(HASH) as own:
        with running(own, "watch", start_new_session=True) as process:
            until(own.pid, "a daemon")
            until(lambda: logged(own, "ready"), "its being ready")
            until(lambda: own.objects("status", "--no-spawn")[0]["watchers"] == 1, "its watcher")
            os.killpg(process.pid, signal.SIGINT)
            assert process.wait() == 130
        pid = own.pid()
        assert pid is not None
        assert os.getsid(pid) not in (os.getsid(0), process.pid)
        assert own.objects("status", "--no-spawn")[0]["pid"] == pid


def test_twenty_at_once_start_one_daemon() -> None:
    with Instance(HASH) as own:
        processes = [own.spawn("status", stdin=subprocess.DEVNULL) for _ in range(20)]
        answers = [process.communicate(timeout=60) for process in processes]
        assert [process.returncode for process in processes] == [0] * 20, answers
        assert {json.loads(out)["pid"] for out, _ in answers} == {own.pid()}
        assert [err for _, err in answers] == [b""] * 20
        assert logged(own, "ready") == 1


def test_twenty_writers_at_once_in_an_empty_home_lose_nothing() -> None:
    with Instance(HASH) as own:
        processes = [own.spawn("ingest") for _ in range(20)]
        for number, process in enumerate(processes):
            out, err = process.communicate(ndjson([{"id": f"d{number}", "text": "x"}]).encode(), timeout=60)
            assert (process.returncode, json.loads(out)["added"]) == (0, 1), err
        assert own.objects("count")[0]["documents"] == 20
        assert logged(own, "ready") == 1


@pytest.mark.parametrize("forbidden_by", ["--no-spawn", "VEC_NO_SPAWN"])
def test_no_daemon_is_exit_69_and_names_the_socket(forbidden_by: str) -> None:
    with Instance({**HASH, **({"VEC_NO_SPAWN": "1"} if forbidden_by == "VEC_NO_SPAWN" else {})}) as own:
        options = ["--no-spawn"] if forbidden_by == "--no-spawn" else []
        for command in (["status"], ["count"], ["search", "x"], ["get", "x"], ["watch"], ["library", "list"]):
            done = own.vec(*command, *options, status=69)
            assert done.stdout == ""
            assert f"no daemon listens on {own.settings.socket}" in done.stderr
            assert "vec daemon start" in done.stderr
        # An ingest always ends with its summary.
        done = own.vec("ingest", *options, stdin=ndjson([{"id": "a", "text": "x"}]), status=69)
        assert json.loads(done.stdout)["added"] == 0
        assert list(own.home.iterdir()) == []


def test_a_spawn_that_is_forbidden_by_0_is_not_forbidden() -> None:
    with Instance({**HASH, "VEC_NO_SPAWN": "0"}) as own:
        own.vec("status")


def test_a_socket_of_ones_own_can_be_named() -> None:
    with Instance(HASH) as own, tempfile.TemporaryDirectory() as folder:
        path = f"{folder}/deep/own.sock"
        (status,) = own.objects("status", "--socket", path)
        assert status["socket"] == path
        assert own.objects("count", "--socket", path)[0]["documents"] == 0
        # Who names no socket means the daemon that has the data. Another one cannot have the same data: the error says
        # who has it.
        assert own.objects("status", "--no-spawn")[0]["pid"] == status["pid"]
        for options in ([], ["--no-spawn"]):
            done = own.vec("status", "--socket", f"{folder}/other.sock", *options, status=69)
            assert f"no daemon listens on {folder}/other.sock" in done.stderr
            assert f"in use by vecd with pid {status['pid']}, on {path}" in done.stderr
        assert own.objects("daemon", "stop", "--socket", path) == [{"stopped": True, "pid": status["pid"]}]
        own.vec("status")


def test_a_path_too_long_for_a_socket_is_a_usage_error() -> None:
    with Instance(HASH) as own:
        for done in (
            own.vec("status", "--socket", "/tmp/" + "x" * 200, status=2),
            subprocess.run(
                [BIN / "vec", "status"], env={**own.environment, "VEC_HOME": f"{own.home}/{'x' * 200}"},
                capture_output=True, text=True, check=False,
            ),
        ):  # fmt: skip
            assert done.returncode == 2
            assert "the socket's path has" in done.stderr


# --- a daemon that does not start -----------------------------------------------------------------------------------


def _garbage(own: Instance) -> None:
    own.settings.data.mkdir()
    own.settings.store.write_bytes(b"this is no database, whatever its name says. " * 1_000)


def _folder(own: Instance) -> None:
    own.settings.store.mkdir(parents=True)


def test_a_daemon_whose_lock_and_socket_are_removed_locks_and_binds_again_and_stays_the_only_one() -> None:
    with Instance(HASH) as own:
        own.vec("library", "create", "l")
        pid = own.pid()
        own.settings.lock.unlink()
        own.settings.socket.unlink()
        until(lambda: own.settings.socket.exists() and own.settings.lock.exists(), "both files")
        assert own.objects("status")[0]["pid"] == own.pid() == pid
        held = holder(own.settings)
        assert held is not None
        assert (held.pid, held.state) == (pid, "ready")


def test_of_two_daemons_on_one_store_the_one_that_has_lost_its_lock_stops() -> None:
    with Instance(HASH) as own:
        first = own.start()
        own.settings.lock.unlink()
        own.settings.socket.unlink()
        second = own.start()  # within the second that the first needs to miss them
        assert first.wait(timeout=60) == 74
        assert "was removed, and vecd with pid" in own.settings.log.read_text()
        own.vec("library", "create", "l")
        assert own.objects("status")[0]["pid"] == own.pid() == second.pid


def _socket_file(own: Instance) -> None:
    own.settings.socket.write_text("precious")


def _data_file(own: Instance) -> None:
    own.settings.data.write_text("precious")


@pytest.mark.parametrize(
    ("spoil", "status", "says"),
    [
        pytest.param(_garbage, 69, ["vecd did not start", "vec.db is damaged", "its log is"], id="garbage"),
        pytest.param(_folder, 69, ["vecd did not start", "vec.db", "its log is"], id="folder"),
        pytest.param(_socket_file, 69, ["vecd.sock"], id="no-socket"),
        pytest.param(_data_file, 2, ["cannot create the folder", "data"], id="data-is-a-file"),
    ],
)
def test_a_daemon_that_cannot_start_says_why(spoil: Callable[[Instance], None], status: int, says: list[str]) -> None:
    with Instance(HASH) as own:
        spoil(own)
        for command in (["status"], ["daemon", "start"]):
            done = own.vec(*command, status=status)
            assert all(part in done.stderr for part in says), done.stderr
            assert "Traceback" not in done.stderr
            assert done.stdout == ""
        if own.settings.data.is_file():
            assert own.settings.data.read_text() == "precious"
            own.settings.data.unlink()  # for whoever clears up


def test_a_damaged_store_is_left_as_it_is() -> None:
    with Instance(HASH) as own:
        _garbage(own)
        before = own.settings.store.read_bytes()
        own.vec("status", status=69)
        assert own.settings.store.read_bytes() == before


@pytest.mark.parametrize(
    ("config", "says"),
    [
        ("chunk_chars = ", "config.toml is not valid TOML"),
        ("chunk_charts = 100", "unknown setting 'chunk_charts'"),
        ("chunk_chars = 'many'", "chunk_chars must be a whole number"),
        ("chunk_chars = 1", "chunk_chars must be from 50"),
        ("log_level = 'loud'", "log_level must be debug, info, warning or error"),
        ("embedder = 5", "embedder must be a string"),
        ("stall_s = -1", "stall_s must be a number of seconds"),
        ("stall_s = true", "stall_s must be a number"),
    ],
)
def test_a_configuration_that_cannot_be_is_exit_2_and_named(config: str, says: str) -> None:
    with Instance() as own:
        (own.home / "config.toml").write_text(config)
        done = own.vec("status", status=2)
        assert [path.name for path in own.home.iterdir()] == ["config.toml"]
        (own.home / "config.toml").unlink()  # for whoever clears up
        assert says in done.stderr
        assert "config.toml" in done.stderr


def test_a_configuration_that_breaks_under_a_daemon_locks_nobody_out_of_it() -> None:
    with Instance({"VEC_EMBEDDER": "hash"}) as own:
        own.vec("ingest", stdin=ndjson([{"id": "a", "text": "x"}]))
        pid = own.pid()
        config = own.home / "config.toml"
        config.write_text("recal = 0.9")
        assert own.objects("count")[0]["documents"] == 1
        assert own.objects("daemon", "start")[0]["started"] is False
        refused = own.vec("daemon", "restart", status=2)
        assert "did you mean 'recall'?" in refused.stderr
        assert own.objects("daemon", "stop") == [{"stopped": True, "pid": pid}]
        assert "did you mean 'recall'?" in own.vec("count", status=2).stderr
        config.unlink()  # for whoever clears up


def test_an_environment_variable_that_cannot_be_is_exit_2_and_named() -> None:
    with Instance() as own:
        own.environment["VEC_CHUNK_CHARS"] = "many"
        done = own.vec("status", status=2)
        del own.environment["VEC_CHUNK_CHARS"]  # for whoever clears up
        assert "VEC_CHUNK_CHARS must be a whole number" in done.stderr


def test_an_embedder_that_there_is_not_is_named_where_it_is_set() -> None:
    """A daemon with a mistyped default must not seem to work until the first document comes."""
    with Instance({"VEC_EMBEDDER": "wordlama"}) as own:
        done = own.vec("ingest", stdin=ndjson([{"id": "a", "text": "x"}]), status=None)
        assert done.returncode in (2, 69)
        assert "wordlama" in done.stderr
        assert "'wordllama'" in done.stderr
        assert "bug" not in done.stderr


def test_the_configuration_is_what_new_libraries_are_made_with() -> None:
    with Instance() as own:
        (own.home / "config.toml").write_text('embedder = "hash"\nchunk_chars = 123\n')
        (made,) = own.objects("library", "create", "notes")
        assert (made["embedder"], made["chunk_chars"]) == ("hash", 123)


# --- vec daemon -----------------------------------------------------------------------------------------------------


def test_start_stop_and_restart_do_nothing_twice() -> None:
    with Instance(HASH) as own:
        assert own.objects("daemon", "stop") == [{"stopped": False, "pid": None}]
        (first,) = own.objects("daemon", "start")
        assert first == {"pid": own.pid(), "socket": str(own.settings.socket), "started": True}
        assert own.objects("daemon", "start") == [{**first, "started": False}]
        (second,) = own.objects("daemon", "restart")
        assert second["started"] is True
        assert second["pid"] == own.pid() != first["pid"]
        assert not alive(first["pid"])
        assert own.objects("daemon", "stop") == [{"stopped": True, "pid": second["pid"]}]
        until(lambda: not alive(second["pid"]), "its end")
        assert not own.settings.socket.exists()
        assert own.objects("daemon", "stop") == [{"stopped": False, "pid": None}]


def test_daemon_status_says_whether_a_daemon_runs_and_starts_none() -> None:
    with Instance(HASH) as own:
        nothing = {
            "running": False,
            "state": "stopped",
            "pid": None,
            "socket": None,
            "started_at": None,
            "uptime_s": None,
            "http": None,
        }
        assert json.loads(own.vec("daemon", "status", status=69).stdout) == nothing
        assert own.pid() is None
        own.vec("daemon", "start")
        (body,) = own.objects("daemon", "status")
        assert body["running"] is True
        assert (body["state"], body["pid"], body["socket"]) == ("ready", own.pid(), str(own.settings.socket))
        since = datetime.fromisoformat(body["started_at"])
        assert abs((datetime.now(UTC) - since).total_seconds() - body["uptime_s"]) < 60
        own.vec("daemon", "stop")
        assert json.loads(own.vec("daemon", "status", status=69).stdout) == nothing


#: A process that holds the lock on a home's data, as a daemon does in the state that is its argument.
HOLDS = """
import sys
from vecd.data_lock import DataLock
from vecd.settings import locate
with DataLock(locate()) as lock:
    assert lock.take() is None
    lock.tell(sys.argv[1])
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.mark.parametrize("state", [STARTING, STOPPING])
def test_daemon_status_of_a_daemon_that_starts_or_stops_is_exit_75(state: str) -> None:
    with Instance(HASH) as own:
        own.settings.lock.parent.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-c", HOLDS, state]
        pipe = subprocess.PIPE
        with subprocess.Popen(command, env=own.environment, stdin=pipe, stdout=pipe, text=True) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == "held\n"
            body = json.loads(own.vec("daemon", "status", status=75).stdout)
            process.communicate()
        assert (body["running"], body["state"], body["pid"]) == (True, state, process.pid)


def test_what_was_written_is_there_after_a_stop_and_after_a_kill() -> None:
    with Instance(HASH) as own:
        log = own.objects("status")[0]["log"]
        ends: list[Callable[[], object]] = [
            lambda: own.vec("daemon", "stop"),
            lambda: kill(own),
            lambda: own.vec("daemon", "restart"),
        ]
        for number, end in enumerate(ends):
            own.vec("ingest", stdin=ndjson([{"id": f"d{number}", "text": f"word{number}"}]))
            end()
            assert own.objects("count")[0]["documents"] == number + 1
            assert own.objects("search", f"word{number}", "--mode", "text")[0]["document_id"] == f"d{number}"
        (status,) = own.objects("status")
        assert (status["log"], status["seq"]) == (log, 1 + 2 * 3)


def test_after_a_kill_the_next_command_simply_works() -> None:
    """The socket file is still there, and nobody behind it."""
    with Instance(HASH) as own:
        own.vec("status")
        for _ in range(3):
            pid = kill(own)
            assert own.settings.socket.exists()
            assert own.vec("status", "--no-spawn", status=69).stdout == ""
            assert own.objects("status")[0]["pid"] != pid


def test_stopping_answers_what_was_asked_before() -> None:
    with Instance(HASH) as own:
        (status,) = own.objects("status")
        with own.connect() as client:
            pending = [
                client.submit("ingest", documents=[{"id": f"{n}-{m}", "text": f"text {m}"} for m in range(500)])
                for n in range(10)
            ]
            client.submit("shutdown")
            assert [each.result()["added"] for each in pending] == [500] * 10
        until(lambda: not alive(status["pid"]), "its end")
        assert own.objects("count")[0]["documents"] == 5_000


def test_logs_prints_the_end_of_the_log() -> None:
    with Instance(HASH) as own:
        assert "vecd.log does not exist" in own.vec("daemon", "logs", status=4).stderr
        own.vec("daemon", "restart")
        own.vec("daemon", "stop")
        whole = own.settings.log.read_text()
        assert own.vec("daemon", "logs").stdout == whole
        assert own.vec("daemon", "logs", "-n", "1").stdout == whole.splitlines(keepends=True)[-1]
        assert own.vec("daemon", "logs", "-n", "0").stdout == ""
        assert "event=stopped" in whole
        own.vec("daemon", "logs", "-n", "-1", status=2)


def test_logs_can_be_followed() -> None:
    with Instance(HASH) as own:
        own.vec("daemon", "start")
        with running(own, "daemon", "logs", "-n", "1", "--follow") as process:
            assert process.stdout is not None
            assert b"event=ready" in process.stdout.readline()
            # `tail` takes over; a line that comes before it looks would be missed, so go on until one is seen.
            os.set_blocking(process.stdout.fileno(), False)

            def seen() -> bool:
                own.vec("daemon", "restart")
                return b"event=stopp" in (process.stdout.read() or b"") if process.stdout else False

            until(seen, "a line")


# --- vec status -----------------------------------------------------------------------------------------------------


def test_status_has_what_is_promised() -> None:
    with Instance(HASH) as own:
        own.vec("ingest", stdin=ndjson([{"id": "a", "texts": ["one", "two"]}]))
        (status,) = own.objects("status")
        assert set(status) >= {
            "pid", "socket", "log", "seq", "uptime_s", "memory_bytes", "libraries", "connections", "watchers",
            "data", "version",
        }  # fmt: skip
        assert (status["pid"], status["socket"]) == (own.pid(), str(own.settings.socket))
        assert status["seq"] == 4
        assert 0 <= status["uptime_s"] < 600
        assert 2**20 < status["memory_bytes"] < 2**30
        assert [(each["name"], each["documents"], each["chunks"]) for each in status["libraries"]] == [
            ("default", 1, 2)
        ]
        assert own.vec("watch", "--from", f"{status['log']}:{status['seq']}", "--no-follow").stdout == ""


def test_status_counts_those_who_are_connected_and_watch() -> None:
    with Instance(HASH) as own:
        own.vec("status")
        with own.connect(), running(own, "watch"), running(own, "watch"):

            def counted() -> bool:
                (status,) = own.objects("status")
                return (status["connections"], status["watchers"]) == (4, 2)

            until(counted, "four connections and two watchers")
        until(lambda: own.objects("status")[0]["connections"] == 1, "their end")


# --- vec demo -------------------------------------------------------------------------------------------------------


@linux_only
def test_the_demo_works_in_a_pipe_and_leaves_nothing_behind() -> None:
    """A short folder for TMPDIR: the demo's socket lies below it."""
    with Instance() as own, tempfile.TemporaryDirectory(prefix="d") as folder:
        own.environment["TMPDIR"] = folder
        with running(own, "demo", stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
            printed = [line_of(process.stdout)]
            assert process.stdout is not None
            printed += [json.loads(line) for line in process.stdout]
            assert process.wait() == 0
        hits = [each for each in printed if "score" in each]
        assert len({hit["query"] for hit in hits}) >= 3
        assert any(hit["document_id"].startswith("csv") for hit in hits if "csv" in hit["query"])
        assert any("cursor" in each for each in printed)
        assert printed[-1]["libraries"][0]["documents"] > 1_000
        assert os.listdir(folder) == []
        until(lambda: not alive(printed[-1]["pid"]), "its end")
        assert list(own.home.iterdir()) == []  # the user's own instance was not touched
        for environ in Path("/proc").glob("[0-9]*/environ"):
            try:
                assert f"VEC_HOME={folder}".encode() not in environ.read_bytes(), environ
            except OSError:
                continue  # not ours, or gone


@linux_only
@pytest.mark.parametrize("when", ["starting", "serving"])
def test_the_demo_leaves_nothing_behind_when_it_is_interrupted(when: str) -> None:
    with Instance() as own, tempfile.TemporaryDirectory(prefix="d") as folder:
        own.environment["TMPDIR"] = folder
        with running(own, "demo", stdin=subprocess.DEVNULL) as process:

            def daemon() -> int:
                """Its pid, once it has a socket."""
                if not list(Path(folder).glob("*/vecd.sock")):
                    return 0
                lines = [each.read_text() for each in Path(folder).glob("*/data/vecd.lock")]
                return int(lines[0].split()[0]) if lines and lines[0].strip() else 0

            pid = until(daemon, "its daemon")
            try:
                if when == "serving":
                    assert process.stderr is not None
                    process.stderr.readline()  # it talks when its daemon stands
                process.send_signal(signal.SIGINT)
                assert process.wait() == 130
                until(lambda: not alive(pid), "its daemon's end")
                assert os.listdir(folder) == []
            finally:
                if alive(pid):
                    os.kill(pid, signal.SIGKILL)
