"""TLS of `vec serve`: https and wss, certificates that are renewed while it runs, and files that cannot be used."""

from __future__ import annotations

import os
import signal
import socket
import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from websockets.sync.client import connect

from tests.support.gateway import Gateway
from tests.support.instance import Instance
from tests.support.waiting import PATIENCE_S, until


class Files:
    """A certificate for 127.0.0.1 and its key, which `issue` replaces."""

    def __init__(self, folder: Path, name: str) -> None:
        self.cert, self.key = folder / f"{name}.crt", folder / f"{name}.key"
        self.issue(name)

    def issue(self, name: str) -> None:
        """Makes both files anew, as a renewal does: complete files replace the old ones."""
        new_cert, new_key = (each.with_suffix(f"{each.suffix}.new") for each in (self.cert, self.key))
        subprocess.run(
            [
                *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"),
                *("-subj", f"/CN={name}", "-addext", "subjectAltName=IP:127.0.0.1", "-days", "2"),
                *("-keyout", new_key, "-out", new_cert),
            ],
            check=True,
            capture_output=True,
        )
        os.replace(new_key, self.key)
        os.replace(new_cert, self.cert)

    @property
    def environment(self) -> dict[str, str]:
        return {"VEC_HTTP_TLS_CERT": str(self.cert), "VEC_HTTP_TLS_KEY": str(self.key)}

    def trusting(self) -> ssl.SSLContext:
        """A client's context that trusts this certificate and no other."""
        return ssl.create_default_context(cafile=str(self.cert))


@pytest.fixture(scope="module")
def instance() -> Iterator[Instance]:
    with Instance({"VEC_EMBEDDER": "hash", "VEC_HTTP_HEAD_S": "1"}) as made:
        made.vec("library", "create", "notes")
        yield made


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    return Files(tmp_path_factory.mktemp("tls"), "first")


@pytest.fixture(scope="module")
def gateway(instance: Instance, files: Files) -> Iterator[Gateway]:
    with Gateway(instance, environment=files.environment) as made:
        yield made


def address(gateway: Gateway) -> tuple[str, int]:
    url = httpx.URL(gateway.url)
    assert url.port is not None
    return url.host, url.port


def presented(gateway: Gateway) -> bytes:
    """The certificate that a new connection gets."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with socket.create_connection(address(gateway), PATIENCE_S) as plain, context.wrap_socket(plain) as sock:
        found = sock.getpeercert(binary_form=True)
    assert found is not None
    return found


def on_disk(files: Files) -> bytes:
    return ssl.PEM_cert_to_DER_cert(files.cert.read_text())


# --- requests ---------------------------------------------------------------------------------------------------------


def test_https_answers_a_client_that_verifies_the_certificate(gateway: Gateway, files: Files) -> None:
    assert gateway.url.startswith("https://127.0.0.1:")
    with httpx.Client(base_url=gateway.url, verify=files.trusting(), timeout=PATIENCE_S) as client:
        assert client.get("/v1/libraries/notes/count").json()["documents"] == 0
        large = "x" * 3_000_000
        assert client.put("/v1/libraries/notes/documents/a", json={"text": large}).status_code in (200, 201)
        assert client.get("/v1/libraries/notes/documents/a").json()["chunks"]
        assert client.delete("/v1/libraries/notes/documents/a").status_code == 200


def test_a_client_that_does_not_trust_the_certificate_does_not_connect(gateway: Gateway) -> None:
    with pytest.raises(httpx.ConnectError, match="CERTIFICATE_VERIFY_FAILED"):
        httpx.get(f"{gateway.url}/healthz", timeout=PATIENCE_S)


def test_wss_answers(gateway: Gateway, files: Files) -> None:
    with connect(f"{gateway.websocket_url}/v1/ws", ssl=files.trusting(), open_timeout=PATIENCE_S) as client:
        assert gateway.websocket_url.startswith("wss://")
        client.send('{"action": "count", "id": 1, "library": "notes"}')
        assert '"status":"ok"' in client.recv(PATIENCE_S)


@pytest.mark.parametrize(("version", "allowed"), [("-tls1_1", False), ("-tls1_2", True), ("-tls1_3", True)])
def test_versions_before_tls_1_2_are_refused(gateway: Gateway, version: str, allowed: bool) -> None:
    where = ":".join(map(str, address(gateway)))
    done = subprocess.run(
        ["openssl", "s_client", "-connect", where, version, "-cipher", "DEFAULT@SECLEVEL=0"],
        capture_output=True,
        input=b"",
        timeout=PATIENCE_S,
        check=False,
    )
    assert (done.returncode == 0) == allowed, done.stderr.decode()


@pytest.mark.parametrize(
    "sent", [b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n", b"\x16\x03\x01\x02\x00\x01", b""]
)
def test_a_client_that_does_not_finish_the_handshake_is_closed_in_time(
    gateway: Gateway, files: Files, sent: bytes
) -> None:
    """Plain HTTP, half a ClientHello, and nothing; the time is VEC_HTTP_HEAD_S."""
    with socket.create_connection(address(gateway), PATIENCE_S) as client:
        client.sendall(sent)
        try:
            answer = client.recv(4_096)
            while piece := client.recv(4_096):
                answer += piece
        except ConnectionResetError:
            answer = b""
        assert b"200 OK" not in answer
    assert httpx.get(f"{gateway.url}/healthz", verify=files.trusting(), timeout=PATIENCE_S).status_code == 200


# --- renewals ---------------------------------------------------------------------------------------------------------


def test_a_renewed_certificate_is_used_without_a_restart(instance: Instance, tmp_path: Path) -> None:
    """After SIGHUP at once, and without a signal a few seconds later. A connection that is open stays open, and a
    renewal that is broken leaves the certificate in use."""
    files = Files(tmp_path, "one")
    with Gateway(instance, environment=files.environment) as gateway:
        one = on_disk(files)
        assert presented(gateway) == one
        kept = httpx.Limits(keepalive_expiry=None)
        with httpx.Client(base_url=gateway.url, verify=files.trusting(), limits=kept, timeout=PATIENCE_S) as client:
            assert client.get("/healthz").status_code == 200

            files.issue("two")
            two = on_disk(files)
            gateway.process.send_signal(signal.SIGHUP)
            until(lambda: presented(gateway) == two, "the certificate is read again after SIGHUP")

            key = files.key.read_bytes()
            Files(tmp_path, "other")
            files.key.write_bytes((tmp_path / "other.key").read_bytes())
            gateway.process.send_signal(signal.SIGHUP)
            assert presented(gateway) == two

            files.key.write_bytes(key)
            files.issue("three")
            three = on_disk(files)
            until(lambda: presented(gateway) == three, "the certificate is read again when the files change")

            assert client.get("/healthz").status_code == 200  # on the connection that it has
        assert gateway.stop() == 0
        said = gateway.stderr()
        assert "the new certificate cannot be used; the old one stays" in said
        assert "is not that of the certificate" in said
        assert "PRIVATE KEY" not in said


# --- files that cannot be used ----------------------------------------------------------------------------------------


def refusal(instance: Instance, cert: object, key: object) -> str:
    """What `vec serve` says when it does not start."""
    environment = {**instance.environment, "VEC_HTTP_TLS_CERT": str(cert), "VEC_HTTP_TLS_KEY": str(key)}
    process = instance.spawn("serve", "--listen", "127.0.0.1:0", env=environment)
    out, said = process.communicate(timeout=PATIENCE_S)
    assert process.returncode not in (0, None)
    assert out == b""
    assert b"Traceback" not in said
    return said.decode()


def test_files_that_cannot_be_used_are_named_with_the_reason(instance: Instance, files: Files, tmp_path: Path) -> None:
    other = Files(tmp_path, "other")
    missing = tmp_path / "missing.key"
    text = tmp_path / "text.pem"
    text.write_text("this is no certificate")
    damaged = tmp_path / "damaged.pem"
    damaged.write_text("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
    locked = tmp_path / "locked.key"
    subprocess.run(["openssl", "pkey", "-in", files.key, "-aes256", "-passout", "pass:x", "-out", locked], check=True)
    for cert, key, said in (
        (files.cert, missing, f"tls_key: cannot read {missing} (No such file or directory)"),
        (files.cert, tmp_path, f"tls_key: cannot read {tmp_path} (Is a directory)"),
        (files.cert, other.key, f"the private key in {other.key} is not that of the certificate in {files.cert}"),
        (text, files.key, f"tls_cert: {text} has no certificate in PEM format"),
        (files.cert, text, f"tls_key: {text} has no private key in PEM format"),
        (damaged, files.key, f"the certificate {damaged} with the key {files.key} cannot be used"),
        (files.cert, locked, "the private key is encrypted"),
        (files.cert, "", "tls_cert is set, and tls_key is not"),
        ("", files.key, "tls_key is set, and tls_cert is not"),
    ):
        found = refusal(instance, cert, key)
        assert said in found, found
