"""TLS for a connector's client: verified against the system's certificates or a file's, with a client certificate if
one is given (parameters `ca_file`, `cert_file`, `key_file`)."""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from typing import Any

from ..errors import Code, VecError


def client_context(parameters: Mapping[str, Any]) -> ssl.SSLContext:
    """Reads the files at each call. Raises VecError `invalid_settings`, which names the file."""
    ca_file, cert_file, key_file = (parameters.get(name) for name in ("ca_file", "cert_file", "key_file"))
    try:
        context = ssl.create_default_context(cafile=ca_file)
    except OSError as error:  # ssl.SSLError is one
        raise _unusable("ca_file", ca_file, error) from error
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if cert_file is not None:
        try:
            context.load_cert_chain(cert_file, key_file, password=_no_password)
        except OSError as error:
            raise _unusable("cert_file and key_file", f"{cert_file} and {key_file}", error) from error
    return context


def refused(server: str, error: ssl.SSLError) -> VecError:
    """The error for a handshake that failed: only a change of the configuration, or of the server, helps."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return VecError(
            Code.SETTINGS,
            f"the certificate of {server} is not trusted ({error.verify_message})",
            "name the certificate to trust: -p ca_file=PATH; its names must include the URL's host",
        )
    why = error.reason or error
    return VecError(Code.SETTINGS, f"TLS with {server} failed ({why})", "check that the server speaks TLS on this port")


def _unusable(what: str, path: Any, error: OSError) -> VecError:
    why = (error.reason if isinstance(error, ssl.SSLError) else error.strerror) or error
    return VecError(Code.SETTINGS, f"{what}: cannot use {path} ({why})", "it must be readable, in PEM format")


def _no_password() -> str:
    """Raises VecError, where OpenSSL would ask on the terminal."""
    raise VecError(
        Code.SETTINGS,
        "key_file: the private key is encrypted",
        "write it without a password, readable by its user only: openssl pkey -in KEY -out NEW; chmod 600 NEW",
    )
