"""The proxy that tests put between a client and a server (proxy.py)."""

from __future__ import annotations

import socket
import socketserver
import threading
import time
from collections.abc import Iterator

import pytest

from .proxy import Proxy
from .waiting import PATIENCE_S, until


class _Echo(socketserver.BaseRequestHandler):
    def handle(self) -> None:
        self.request.settimeout(PATIENCE_S)
        try:
            while data := self.request.recv(65536):
                self.server.received += data  # type: ignore[attr-defined]
                self.request.sendall(data)
        except OSError:
            pass


class _EchoServer(socketserver.ThreadingTCPServer):
    daemon_threads = True
    received = b""


@pytest.fixture
def server() -> Iterator[_EchoServer]:
    with _EchoServer(("127.0.0.1", 0), _Echo) as made:
        thread = threading.Thread(target=made.serve_forever, args=(0.01,))
        thread.start()
        yield made
        made.shutdown()
        thread.join()


@pytest.fixture
def network(server: _EchoServer) -> Iterator[Proxy]:
    with Proxy(("127.0.0.1", server.server_address[1])) as made:
        yield made


def _connected(network: Proxy) -> socket.socket:
    return socket.create_connection(("127.0.0.1", network.port), timeout=PATIENCE_S)


def _exactly(client: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count and (more := client.recv(count - len(data))):
        data += more
    return data


def _nothing_comes(client: socket.socket, within_s: float = 0.05) -> bool:
    client.settimeout(within_s)
    try:
        return not client.recv(1)
    except TimeoutError:
        return True
    finally:
        client.settimeout(PATIENCE_S)


def test_a_healthy_network_carries_everything_in_order(network: Proxy) -> None:
    data = bytes(range(256)) * 4096
    with _connected(network) as client:
        sender = threading.Thread(target=client.sendall, args=(data,))
        sender.start()
        assert _exactly(client, len(data)) == data
        sender.join()
        client.shutdown(socket.SHUT_WR)
        assert client.recv(1) == b""  # the end is carried too
    assert network.forwarded == {"requests": len(data), "replies": len(data)}
    assert network.connections == 1
    until(lambda: network.open_connections == 0)


def test_a_black_hole_holds_what_was_sent_and_delivers_it_when_healed(network: Proxy) -> None:
    with _connected(network) as client:
        network.black_hole()
        client.sendall(b"one")
        with _connected(network) as later:  # is accepted
            later.sendall(b"two")
            assert _nothing_comes(client)
            network.heal()
            assert _exactly(client, 3) == b"one"
            assert _exactly(later, 3) == b"two"


def test_replies_alone_can_be_lost(network: Proxy, server: _EchoServer) -> None:
    with _connected(network) as client:
        network.black_hole("replies")
        client.sendall(b"written")
        until(lambda: server.received == b"written")
        assert network.cut() == 1
        with pytest.raises(ConnectionResetError):
            client.recv(1)


def test_a_cut_comes_after_exactly_so_many_bytes_and_only_once(network: Proxy, server: _EchoServer) -> None:
    network.cut_after(5)
    with _connected(network) as client:
        client.sendall(b"123456789")
        with pytest.raises(ConnectionResetError):
            _exactly(client, 9)
    assert network.forwarded["requests"] == 5
    assert b"12345".startswith(server.received)
    with _connected(network) as client:
        client.sendall(b"123456789")
        assert _exactly(client, 9) == b"123456789"


def test_down_refuses_connections_and_heal_listens_on_the_same_port(network: Proxy) -> None:
    port = network.port
    with _connected(network) as client:
        network.down()
        with pytest.raises(ConnectionError):
            client.recv(1)
    with pytest.raises(ConnectionRefusedError):
        _connected(network)
    network.heal()
    assert network.port == port
    with _connected(network) as client:
        client.sendall(b"back")
        assert _exactly(client, 4) == b"back"


def test_a_delay_does_not_reduce_the_throughput(network: Proxy) -> None:
    network.delay_s = 0.1
    with _connected(network) as client:
        began = time.monotonic()
        client.sendall(b"x" * 1_000_000)  # about 16 chunks, each delayed twice
        assert len(_exactly(client, 1_000_000)) == 1_000_000
        took_s = time.monotonic() - began
    assert 0.2 <= took_s < 1.5


def test_a_throttled_network_is_slow(network: Proxy) -> None:
    with _connected(network) as client:
        network.bytes_per_s = 100_000
        began = time.monotonic()
        client.sendall(b"x" * 20_000)
        assert len(_exactly(client, 20_000)) == 20_000
        assert time.monotonic() - began >= 0.19


def test_an_absent_server_looks_as_it_does_without_the_proxy() -> None:
    with Proxy(("127.0.0.1", 1)) as network, pytest.raises(ConnectionError), _connected(network) as client:
        client.recv(1)


def test_the_server_s_own_address_is_rewritten_even_when_it_comes_in_pieces(server: _EchoServer) -> None:
    target = ("127.0.0.1", server.server_address[1])
    with Proxy(target, rewrite={b"broker:9092": b"proxy::1234"}) as network, _connected(network) as client:
        client.sendall(b"at brok")
        until(lambda: server.received == b"at brok")
        client.sendall(b"er:9092, not at b")
        assert _exactly(client, 23) == b"at proxy::1234, not at "
        client.shutdown(socket.SHUT_WR)
        assert client.recv(10) == b"b"
