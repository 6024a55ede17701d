"""Parameters that several transports have: secrets, TLS, time-outs. A transport's own are in its entry in the table."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from ..errors import Code, VecError
from ..parameters import Parameter

#: The password that goes with the URL's user.
PASSWORD: Final[Mapping[str, Parameter]] = {
    "password_file": Parameter("the file with the password", str),
    "password_env": Parameter("the variable of the daemon's environment with the password", str),
}

#: TLS, for a scheme that uses it.
TLS: Final[Mapping[str, Parameter]] = {
    "ca_file": Parameter("the certificates to trust, in PEM; default: those of the system", str),
    "cert_file": Parameter("the client's certificate, in PEM", str),
    "key_file": Parameter("the key of the client's certificate, in PEM", str),
}

TIMEOUT: Final[Mapping[str, Parameter]] = {
    "timeout_s": Parameter("how long the broker may take to connect, or to confirm a batch", float,
                           low=0.1, high=600.0, default=10.0),
}  # fmt: skip

#: Of a source whose broker keeps messages that were read.
START: Final[Mapping[str, Parameter]] = {
    "start": Parameter("where to begin without a stored offset: with the earliest message that the broker has, or "
                       "behind the latest", str, choices=("earliest", "latest"), default="earliest"),
}  # fmt: skip

#: Names of parameters that are paths: the command line makes them absolute, the daemon refuses relative ones.
PATHS: Final = ("password_file", "secret_file", "token_file", "ca_file", "cert_file", "key_file", "credentials_file")


def check_paths(parameters: Mapping[str, Any]) -> None:
    """Raises VecError `invalid_request` for a relative path: the daemon's working folder is not the user's."""
    for name in PATHS:
        path = parameters.get(name)
        if path is not None and not path.startswith("/"):
            raise VecError(
                Code.INVALID_REQUEST, f"{name} is the relative path {path!r:.200}", "use an absolute path", field=name
            )
    if ("cert_file" in parameters) != ("key_file" in parameters):
        raise VecError(Code.INVALID_REQUEST, "cert_file and key_file belong together", "give both", field="cert_file")
