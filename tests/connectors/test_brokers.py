"""The brokers of the tests: one for all who share it, none left behind."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path

import pika
import pytest

from tests.support.brokers import NatsServer, RabbitMQ, RedisServer, shared
from tests.support.waiting import until


def _gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


def test_a_restarted_broker_has_its_port_and_its_data(own_redis: RedisServer) -> None:
    address = own_redis.address
    own_redis.cli("SET", "kept", "1")
    own_redis.restart(killed=True)
    assert own_redis.address == address
    assert own_redis.cli("GET", "kept") == "1"
    own_redis.restart()
    assert own_redis.cli("GET", "kept") == "1"


def test_a_stopped_broker_has_ended(own_nats: NatsServer) -> None:
    pid = own_nats.pid
    assert pid is not None
    own_nats.stop()
    assert not own_nats.running
    assert _gone(pid)


def test_a_broker_is_shared_until_its_last_user_leaves(tmp_path: Path) -> None:
    if RedisServer.missing():
        pytest.skip("needs redis-server")
    with shared(RedisServer, tmp_path) as first:
        with shared(RedisServer, tmp_path) as second:
            assert second.address == first.address
        assert first.cli("PING") == "PONG"
        pid = first.pid
    assert pid is not None
    until(lambda: _gone(pid), "the end of the server")
    with shared(RedisServer, tmp_path) as third:
        assert third.cli("PING") == "PONG"


def test_a_broker_ends_when_its_user_is_killed(tmp_path: Path) -> None:
    if RedisServer.missing():
        pytest.skip("needs redis-server")
    code = (
        "import sys, pathlib; from tests.support.brokers import RedisServer\n"
        "with RedisServer(pathlib.Path(sys.argv[1])) as broker: print(broker.pid, flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "own")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as user:
        assert user.stdout is not None
        pid = int(user.stdout.readline())
        assert not _gone(pid)
        user.send_signal(signal.SIGKILL)
    until(lambda: _gone(pid), "the end of the server")


def test_a_rabbitmq_server_keeps_what_is_persistent_and_leaves_no_process_behind(own_rabbitmq: RabbitMQ) -> None:
    with contextlib.closing(pika.BlockingConnection(pika.URLParameters(own_rabbitmq.url))) as connection:
        channel = connection.channel()
        channel.queue_declare("kept", durable=True)
        channel.confirm_delivery()
        channel.basic_publish("", "kept", b"message", pika.BasicProperties(delivery_mode=2))
    own_rabbitmq.restart()  # not killed: a kill may undo a declaration of a moment ago
    with contextlib.closing(pika.BlockingConnection(pika.URLParameters(own_rabbitmq.url))) as connection:
        assert connection.channel().basic_get("kept")[2] == b"message"
    processes = _with_home(own_rabbitmq.folder)
    assert len(processes) >= 2  # the server and its name server
    own_rabbitmq.stop()
    assert not _with_home(own_rabbitmq.folder)


def _with_home(folder: Path) -> list[int]:
    """The processes whose variable HOME is the folder."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it has ended
            if f"HOME={folder}".encode() in (process / "environ").read_bytes().split(b"\0"):
                found.append(int(process.name))
    return found
