"""TLS and SASL to Kafka: with what the connector logs in, and what it says when it may not.

The broker of these tests takes any PLAIN login, has no SCRAM, and speaks no TLS: the proxy in front of it ends the TLS,
and sees what is sent.
"""

from __future__ import annotations

import os
import ssl
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.connectors.direct import batch, events, open_reader, open_sink, read_until
from tests.support.brokers import HOST, KafkaServer, fresh_name
from tests.support.certificates import make_certificate
from tests.support.instance import Instance
from tests.support.proxy import Proxy, Way
from tests.support.waiting import until
from vecd.errors import VecError


class Tap(Proxy):
    """Keeps all requests, without TLS."""

    seen = b""

    async def _forward(self, way: Way, writer: object, data: bytes) -> None:
        if way == "requests":
            self.seen += data
        await super()._forward(way, writer, data)  # type: ignore[arg-type]


@pytest.fixture
def server_files(tmp_path: Path) -> tuple[str, str]:
    return make_certificate(tmp_path)


@pytest.fixture
def secure(kafka_server: KafkaServer, server_files: tuple[str, str], tmp_path: Path) -> Iterator[Tap]:
    """Kafka behind TLS. It wants a client certificate from `tmp_path/client`."""
    key, certificate = server_files
    (tmp_path / "client").mkdir()
    _, trusted = make_certificate(tmp_path / "client")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    context.load_verify_locations(trusted)
    context.verify_mode = ssl.CERT_REQUIRED
    with Tap((HOST, kafka_server.port), tls=context) as network:
        network.rewrite = {
            HOST.encode() + struct.pack(">i", kafka_server.port): HOST.encode() + struct.pack(">i", network.port)
        }
        yield network


def test_a_sink_and_a_reader_log_in_over_tls_with_a_certificate_and_a_password(
    secure: Tap, server_files: tuple[str, str], tmp_path: Path
) -> None:
    (tmp_path / "password").write_text("s3cret-word\n")
    topic = fresh_name()
    parameters: dict[str, Any] = {
        "ca_file": server_files[1], "cert_file": str(tmp_path / "client" / "certificate.pem"),
        "key_file": str(tmp_path / "client" / "key.pem"), "password_file": str(tmp_path / "password"),
        "sasl_mechanism": "PLAIN",
    }  # fmt: skip
    url = f"kafka+ssl://me@{secure.address}/{topic}"
    with open_sink(url, name=topic, exactly_once=True, **parameters) as sink:
        sink.deliver(batch(events(1, 10)))
    assert b"\0me\0s3cret-word" in secure.seen
    with open_reader(url, **parameters) as reader:
        assert len(read_until(reader, 10)) == 10


def test_a_server_that_is_not_trusted_gets_no_password(secure: Tap, tmp_path: Path) -> None:
    (tmp_path / "password").write_text("s3cret-word")
    with (
        pytest.raises(VecError, match="certificate") as caught,
        open_sink(
            f"kafka+ssl://me@{secure.address}/x", password_file=str(tmp_path / "password"), sasl_mechanism="PLAIN"
        ),
    ):
        pass
    assert caught.value.code == "invalid_settings"
    assert "ca_file" in str(caught.value.hint)
    assert b"s3cret" not in secure.seen


def test_a_file_that_is_no_certificate_is_an_error_of_the_settings(tmp_path: Path) -> None:
    (tmp_path / "ca").write_text("nothing")
    with pytest.raises(VecError) as caught, open_sink("kafka+ssl://localhost/x", ca_file=str(tmp_path / "ca")):
        pass
    assert caught.value.code == "invalid_settings"
    assert str(tmp_path / "ca") in caught.value.message


def test_a_login_that_fails_is_shown_without_the_password(kafka_server: KafkaServer, tmp_path: Path) -> None:
    with Instance({"VEC_EMBEDDER": "hash"}) as instance:
        instance.start()
        (tmp_path / "password").write_text("s3cret-word")
        os.chmod(tmp_path / "password", 0o600)
        url = f"kafka://me@{kafka_server.address}/x"
        for direction, library in (("relay", ()), ("source", ("--library", "notes"))):
            instance.vec(direction, "add", "it", url, *library, "-p", f"password_file={tmp_path / 'password'}")

            def shown(direction: str = direction) -> object:
                (found,) = instance.objects(direction, "list")
                return found["error"] and found

            found = until(shown, "the error")
            assert isinstance(found, dict)
            assert found["state"] == "failing"
            assert "SASL authentication error" in found["error"]["message"]
            assert "sasl_mechanism" in found["error"]["hint"]
            assert "s3cret" not in str(found)
        assert "s3cret" not in instance.settings.log.read_text()
