"""Where the daemon listens, who may come in, how it is started by others, and how it stops."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.instance import Instance
from vecd.client import Client
from vecd.errors import Code, VecError
from vecd.unixsocket import peer_uid

PATIENCE_S = 60.0  # more than anything here takes; a test that waits so long has failed
NOBODY = 65534
ENVIRONMENT = {"VEC_EMBEDDER": "hash"}


@pytest.fixture
def instance() -> Iterator[Instance]:
    with Instance(ENVIRONMENT) as instance:
        yield instance


def until(reached: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not reached():
        assert time.monotonic() < deadline, f"waited {PATIENCE_S:g} s for {what}"


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def failing(instance: Instance, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Runs a `vecd` that cannot start, to its end; it logs to stderr."""
    return subprocess.run(
        [sys.executable, "-m", "vecd", *arguments],
        env=instance.environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )


# --- the socket file --------------------------------------------------------------------------------------------------


def test_the_socket_and_its_folder_are_ours_alone_whatever_the_umask(instance: Instance) -> None:
    path = instance.home / "run" / "deeper" / "vecd.sock"
    open_to_all = ["sh", "-c", 'umask 0; exec "$@"', "sh"]
    instance.environment["VEC_SOCKET"] = str(path)
    instance.start(prefix=open_to_all)
    assert stat.S_ISSOCK(path.stat().st_mode)
    assert mode(path) == 0o600
    assert mode(path.parent) == 0o700
    assert mode(instance.settings.data) == 0o700
    with instance.connect() as client:
        client.ping()


def test_the_folder_of_a_socket_that_was_named_is_left_as_it_is(instance: Instance) -> None:
    folder = instance.home / "run"
    folder.mkdir()
    folder.chmod(0o2775)
    instance.start("--socket", str(folder / "vecd.sock"))
    assert mode(folder) == 0o2775
    assert mode(folder / "vecd.sock") == 0o600


def test_a_socket_that_another_daemon_listens_on_is_not_taken_from_it(instance: Instance) -> None:
    daemon = instance.start()
    with Instance({"VEC_SOCKET": str(instance.settings.socket)}) as other:
        with pytest.raises(AssertionError, match="another daemon listens"):
            other.start()
        with instance.connect() as client:
            assert client.status()["pid"] == daemon.pid


def test_a_stale_socket_file_is_replaced(instance: Instance) -> None:
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(instance.settings.socket))
    assert instance.settings.socket.is_socket()
    instance.start()
    with instance.connect() as client:
        client.ping()


def test_after_a_kill_the_next_daemon_takes_over_the_socket(instance: Instance) -> None:
    first = instance.start()
    first.kill()
    first.wait()
    assert instance.settings.socket.exists()
    second = instance.start()
    with instance.connect() as client:
        assert client.status()["pid"] == second.pid


@pytest.mark.parametrize("what", ["file", "folder"])
def test_what_is_no_socket_is_not_replaced(instance: Instance, what: str) -> None:
    path = instance.home / "precious"
    path.write_text("do not lose me") if what == "file" else path.mkdir()
    done = failing(instance, "--socket", str(path))
    assert done.returncode == 78
    assert str(path) in done.stderr
    assert "is not a socket" in done.stderr
    assert path.is_dir() if what == "folder" else path.read_text() == "do not lose me"


def test_a_second_daemon_on_the_same_data_names_the_first_and_leaves_it_alone(instance: Instance) -> None:
    first = instance.start()
    for socket_name in ("vecd.sock", "other.sock"):
        done = failing(instance, "--socket", str(instance.home / socket_name))
        assert done.returncode == 75
        assert f"pid {first.pid}" in done.stderr
        assert str(instance.settings.socket) in done.stderr
        assert not (instance.home / "other.sock").exists()
    with instance.connect() as client:
        assert client.status()["pid"] == first.pid


def test_a_home_that_anybody_may_write_to_is_refused(instance: Instance) -> None:
    instance.home.chmod(0o777)
    done = failing(instance)
    assert done.returncode == 78
    assert f"the folder is writable by everyone: {instance.home}" in done.stderr
    assert not instance.settings.socket.exists()


def test_a_daemon_that_stops_leaves_a_socket_that_took_the_place_of_its_own(instance: Instance) -> None:
    process = instance.start()
    with socket.socket(socket.AF_UNIX) as another:
        another.bind(f"{instance.settings.socket}.new")
        os.rename(f"{instance.settings.socket}.new", instance.settings.socket)
        process.terminate()
        assert process.wait(PATIENCE_S) == 0
        assert instance.settings.socket.is_socket()


def test_a_daemon_that_stops_takes_its_socket_file_along(instance: Instance) -> None:
    process = instance.start()
    process.send_signal(signal.SIGINT)
    assert process.wait(PATIENCE_S) == 0
    assert not instance.settings.socket.exists()


# --- started by systemd -----------------------------------------------------------------------------------------------

ACTIVATE = """
import os, socket, sys
listening = socket.socket(socket.AF_UNIX, socket.{kind})
listening.bind(sys.argv[1])
if {kind!r} == "SOCK_STREAM":
    listening.listen()
os.dup2(listening.fileno(), 3)
os.set_inheritable(3, True)
os.environ.update(LISTEN_PID={pid}, LISTEN_FDS="1", LISTEN_FDNAMES="vecd.socket")
os.execv(sys.argv[2], sys.argv[2:])
"""


def activated(
    instance: Instance, path: Path, *, kind: str = "SOCK_STREAM", pid: str = "str(os.getpid())"
) -> subprocess.Popen[bytes]:
    """Starts `vecd` as systemd does, with a socket at `path` as descriptor 3."""
    with contextlib.ExitStack() as stack:
        for _ in range(4):  # so that no pipe of ours has the number 3
            stack.callback(os.close, os.open(os.devnull, os.O_RDONLY))
        script = ACTIVATE.format(kind=kind, pid=pid)
        return instance.start(prefix=[sys.executable, "-c", script, str(path)])


def test_a_socket_that_systemd_passes_is_served_and_left_in_place(instance: Instance) -> None:
    path = instance.home / "activated.sock"
    process = activated(instance, path)
    assert not instance.settings.socket.exists()
    instance.environment["VEC_SOCKET"] = str(path)
    with instance.connect() as client:
        assert client.status()["pid"] == process.pid
        client.ingest([{"id": "a", "text": "through a socket of systemd's"}])
        client.request("shutdown")
    assert process.wait(PATIENCE_S) == 0
    assert path.is_socket()  # it is systemd's, which still listens on it


def test_a_socket_of_systemd_that_was_removed_is_bound_again(instance: Instance) -> None:
    path = instance.home / "activated.sock"
    process = activated(instance, path)
    path.unlink()
    # Found by the lock, which says where the daemon listens.
    assert instance.objects("status", "--no-spawn")[0]["pid"] == process.pid
    assert path.is_socket()
    instance.vec("daemon", "stop")
    assert process.wait(PATIENCE_S) == 0
    assert not path.exists()


def test_a_socket_that_was_passed_to_another_process_is_not_ours(instance: Instance) -> None:
    path = instance.home / "activated.sock"
    activated(instance, path, pid='"1"')
    with instance.connect() as client:
        client.ping()


def test_a_passed_socket_of_another_kind_is_refused(instance: Instance) -> None:
    with pytest.raises(AssertionError, match=r"did not start \(78\)(.|\n)*not a Unix stream socket"):
        activated(instance, instance.home / "activated.sock", kind="SOCK_DGRAM")


@pytest.mark.parametrize("abstract", [False, True], ids=["path", "abstract"])
def test_systemd_is_told_when_it_is_ready_and_when_it_stops(instance: Instance, abstract: bool) -> None:
    if abstract and sys.platform != "linux":
        pytest.skip("only Linux has abstract sockets")
    name = f"@vec-test-{os.getpid()}-{instance.home.name}" if abstract else str(instance.home / "notify.sock")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notified:
        notified.bind(name.replace("@", "\0", 1) if abstract else name)
        notified.settimeout(PATIENCE_S)
        instance.environment["NOTIFY_SOCKET"] = name
        process = instance.start()
        assert notified.recv(1_000) == b"READY=1"
        with instance.connect() as client:  # ready means that it listens
            client.ping()
        process.terminate()
        assert notified.recv(1_000) == b"STOPPING=1"
        assert process.wait(PATIENCE_S) == 0


def test_a_notify_socket_that_nobody_reads_does_not_matter(instance: Instance) -> None:
    instance.environment["NOTIFY_SOCKET"] = str(instance.home / "nobody.sock")
    instance.start()
    with instance.connect() as client:
        client.ping()


# --- stopping ---------------------------------------------------------------------------------------------------------


def lost(client: Client) -> VecError:
    """What ends this connection."""
    try:
        while True:
            client.wait()
    except VecError as error:
        return error


def test_a_stop_answers_what_is_in_flight_and_tells_the_watchers(instance: Instance) -> None:
    instance.environment["VEC_DRAIN_S"] = "60"  # a busy machine takes long for so many documents
    process = instance.start()
    with instance.connect() as writer, instance.connect() as watcher, instance.connect() as idle:
        documents = [{"id": f"{n}", "text": f"{n} words " * 300} for n in range(3_000)]
        subscription = watcher.submit("watch", **{"from": "beginning"})
        watcher.ping()
        in_flight = writer.submit("ingest", documents=documents)
        writer.submit("ping").result()  # so the daemon has what was sent before it
        assert not in_flight.done
        process.send_signal(signal.SIGTERM)

        replies = list(subscription.parts())
        assert replies[-1].kind == "end"
        assert replies[-1].body["reason"] == "shutting_down"
        assert lost(watcher).code == Code.CONNECTION_LOST
        assert lost(idle).code == Code.CONNECTION_LOST
        writer.pump()
        assert not in_flight.done, "it was not in flight any more when the daemon was told to stop"
        with pytest.raises(VecError) as caught:
            writer.ping()
        assert caught.value.code == Code.SHUTTING_DOWN
        with pytest.raises((ConnectionRefusedError, FileNotFoundError)), socket.socket(socket.AF_UNIX) as late:
            late.connect(str(instance.settings.socket))

        assert in_flight.result()["added"] == len(documents)
        assert lost(writer).code == Code.CONNECTION_LOST
    assert process.wait(PATIENCE_S) == 0
    assert not instance.settings.socket.exists()
    instance.start()
    with instance.connect() as client:
        assert client.count()["documents"] == len(documents)


def test_a_stop_does_not_wait_longer_than_it_may_for_a_peer_that_does_not_read(instance: Instance) -> None:
    instance.environment["VEC_DRAIN_S"] = "0.5"
    process = instance.start()
    with instance.connect() as client, socket.socket(socket.AF_UNIX) as silent:
        client.ingest([{"id": f"{n}", "text": "a page " * 100} for n in range(1_000)])
        client.submit("search", query="a page", k=1_000)
        select.select([client], [], [], PATIENCE_S)  # the answer, larger than what anybody buffers, has begun
        silent.connect(str(instance.settings.socket))
        process.terminate()
        assert process.wait(PATIENCE_S) == 0
    assert 'event="connections cut off" count=1' in instance.log()
    assert not instance.settings.socket.exists()


def test_a_stop_by_request_is_answered_first(instance: Instance) -> None:
    process = instance.start()
    with instance.connect() as client:
        assert client.request("shutdown") == {}
    assert process.wait(PATIENCE_S) == 0


# --- the log ----------------------------------------------------------------------------------------------------------


def test_a_log_that_was_moved_away_is_opened_anew_on_sighup(instance: Instance) -> None:
    process = instance.start()
    log, moved = instance.settings.log, instance.home / "vecd.log.1"
    log.rename(moved)
    process.send_signal(signal.SIGHUP)
    until(log.exists, "a new log file")
    before = moved.read_bytes()
    assert b"event=ready" in before
    with socket.socket(socket.AF_UNIX) as peer:
        peer.settimeout(PATIENCE_S)
        peer.connect(str(instance.settings.socket))
        peer.sendall(b"\xff\xff\xff\xff")
        while peer.recv(1_000):
            pass
    assert f"code={Code.FRAME_TOO_LARGE}" in log.read_text()
    assert moved.read_bytes() == before
    with instance.connect() as client:
        client.ping()


# --- who may come in --------------------------------------------------------------------------------------------------


def test_the_kernel_says_who_the_peer_is() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        assert peer_uid(ours) == peer_uid(theirs) == os.getuid()


VISIT = """
import socket, os, sys
sock = socket.socket(socket.AF_UNIX)
os.setgroups([])
os.setgid({uid})
os.setuid({uid})
sock.connect(sys.argv[1])
while data := sock.recv(1000):
    os.write(1, data)
"""


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become somebody else")
def test_another_user_is_refused_even_if_the_file_modes_let_it_in(instance: Instance) -> None:
    instance.start()
    instance.home.chmod(0o711)
    instance.settings.socket.chmod(0o666)
    visit = [sys.executable, "-c", VISIT.format(uid=NOBODY), str(instance.settings.socket)]
    done = subprocess.run(visit, capture_output=True, timeout=PATIENCE_S, check=True)
    assert Code.FORBIDDEN.encode() in done.stdout
    assert f"user {NOBODY}".encode() in done.stdout
    assert f"code={Code.FORBIDDEN}" in instance.log()
    with instance.connect() as client:
        assert client.status()["connections"] == 1


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become somebody else")
def test_another_user_cannot_reach_the_socket_at_all(instance: Instance) -> None:
    instance.start()
    visit = [sys.executable, "-c", VISIT.format(uid=NOBODY), str(instance.settings.socket)]
    done = subprocess.run(visit, capture_output=True, timeout=PATIENCE_S, check=False)
    assert done.returncode == 1
    assert b"PermissionError" in done.stderr
