"""TLS from certificate files, which are read again when they change: renewals need no restart.

Rules: TLS 1.2 or newer, with the ciphers of Python's defaults. A renewal is first loaded apart: if it is broken, the
certificate that is in use stays, and the log says why.
"""

from __future__ import annotations

import asyncio
import logging
import os
import ssl

from .. import limits
from ..errors import Code, VecError

log = logging.getLogger("vecd.http.tls")


class Certificate:
    """The certificate of a gateway, and the context for new connections."""

    def __init__(self, cert: str, key: str) -> None:
        """`cert` is a PEM file with the certificate and its chain, `key` one with the private key. Raises VecError
        `invalid_settings`."""
        self._cert, self._key = cert, key
        self._version = self._look()
        self._context = _load(cert, key)

    def context(self) -> ssl.SSLContext:
        return self._context

    def reload(self) -> None:
        """Reads the files again if they have changed, or if the last attempt failed."""
        version = self._look()
        if version == self._version:
            return
        try:
            context = _load(self._cert, self._key)
        except VecError as error:
            log.error("the new certificate cannot be used; the old one stays", extra={"error": str(error)})
        else:
            self._context = context
            log.info("the certificate was read again", extra={"cert": self._cert})
        self._version = version

    async def watch(self) -> None:
        """Reloads the files when they change; runs as long as the gateway."""
        while True:
            await asyncio.sleep(limits.TLS_LOOK_S)
            self.reload()

    def _look(self) -> tuple[object, ...]:
        return tuple(_version(each) for each in (self._cert, self._key))


def _version(path: str) -> object:
    try:
        status = os.stat(path)
    except OSError as error:
        return error.errno
    return status.st_ino, status.st_size, status.st_mtime_ns


def _load(cert: str, key: str) -> ssl.SSLContext:
    for path, what in ((cert, "tls_cert"), (key, "tls_key")):
        if not path:
            other = "tls_key" if what == "tls_cert" else "tls_cert"
            raise VecError(Code.SETTINGS, f"[http] {other} is set, and {what} is not", "set both, or neither")
        try:
            with open(path, "rb") as file:
                content = file.read(limits.TLS_FILE_BYTES_MAX)
        except OSError as error:
            raise VecError(
                Code.SETTINGS,
                f"[http] {what}: cannot read {path} ({error.strerror})",
                f"it must be a PEM file that the user of vec serve ({os.geteuid()}) can read",
            ) from error
        wanted = b"CERTIFICATE-----" if what == "tls_cert" else b"PRIVATE KEY-----"
        if b"-----BEGIN " not in content or wanted not in content:
            kind = "certificate" if what == "tls_cert" else "private key"
            raise VecError(Code.SETTINGS, f"[http] {what}: {path} has no {kind} in PEM format", "see vec-serve(1)")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION
    context.set_alpn_protocols(["http/1.1"])
    try:
        context.load_cert_chain(cert, key, password=_no_password)
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            what = f"the private key in {key} is not that of the certificate in {cert}"
            raise VecError(Code.SETTINGS, f"[http] {what}", "use the two files that were made together") from error
        raise VecError(
            Code.SETTINGS,
            f"[http] the certificate {cert} with the key {key} cannot be used ({error.reason or error})",
            "check them with openssl x509 -in CERT -noout -text, and openssl pkey -in KEY -check -noout",
        ) from error
    return context


def _no_password() -> str:
    """Raises VecError, where OpenSSL would ask on the terminal."""
    raise VecError(
        Code.SETTINGS,
        "[http] tls_key: the private key is encrypted",
        "write it without a password, readable by its user only: openssl pkey -in KEY -out NEW; chmod 600 NEW",
    )
