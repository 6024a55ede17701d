"""API keys: `keys.json` beside config.toml, which `vec keys` writes and the gateway reads again when it changes.

Rules:
- A key is `vec_`, 32 random base62 characters (190 bits) and six of their CRC-32. The check characters find a key that
  was copied badly, and let secret scanners recognise a leaked one without asking us.
- Only the SHA-256 of a key is stored. A slow hash (bcrypt, Argon2) protects passwords, which can be guessed; 190 random
  bits cannot be guessed at any rate, and a slow hash would cost every request milliseconds, a way to attack us.
- A presented key is looked up by its hash. What such a lookup reveals by its timing is the hash of what the caller
  sent, which helps nobody to find a key; the hashes are then compared in constant time.
- Where the file exists, every request needs a key, also if it holds none: revoking the last key must not open the
  gateway.
- A lock file beside it makes a change of the file atomic between processes; readers need no lock, because the file is
  replaced as a whole.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import hmac
import json
import os
import re
import secrets
import stat
import string
import time
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

from .. import limits
from ..durable_files import check_regular, read_small, replace
from ..errors import Code, VecError, nearest
from ..settings import Settings, make_folder
from ..units import format_time

#: What a key allows, each including those before it.
SCOPES: Final = ("read", "write", "admin")

PREFIX: Final = "vec_"
_BASE62: Final = string.digits + string.ascii_uppercase + string.ascii_lowercase
_RANDOM_CHARS: Final = 32
_CHECK_CHARS: Final = 6  # 62^6 > 2^32
#: What a key looks like, wherever it stands.
PATTERN: Final = re.compile(rf"{PREFIX}[0-9A-Za-z]{{{_RANDOM_CHARS + _CHECK_CHARS}}}")

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]*")
_VERSION = 1


class Key(NamedTuple):
    """One entry of the file."""

    name: str  # unique; names the key in lists, in logs and for `revoke`
    digest: bytes  # the SHA-256 of the key
    scopes: frozenset[str]  # of SCOPES, with all that the highest includes
    libraries: frozenset[str] | None  # None: all libraries
    created_at: float  # Unix time in seconds
    expires_at: float | None  # None: never

    @property
    def scope(self) -> str:
        """The highest scope."""
        return max(self.scopes, key=SCOPES.index)

    def expired(self, now: float) -> bool:
        return self.expires_at is not None and now >= self.expires_at

    def to_json(self) -> dict[str, Any]:
        """What lists show: everything except the digest. Times are RFC 3339."""
        return {
            "name": self.name,
            "scope": self.scope,
            "libraries": sorted(self.libraries) if self.libraries is not None else None,
            "created_at": format_time(int(self.created_at * 1e6)),
            "expires_at": format_time(int(self.expires_at * 1e6)) if self.expires_at is not None else None,
            "expired": self.expired(time.time()),
        }


class Ring:
    """The keys of one version of the file."""

    def __init__(self, keys: Iterable[Key] = ()) -> None:
        self.keys = tuple(keys)
        self._by_digest = {key.digest: key for key in self.keys}

    def find(self, secret: str, now: float) -> Key:
        """The valid key. Raises VecError `unauthorized`, which does not quote what was presented."""
        if not well_formed(secret):
            raise VecError(
                Code.UNAUTHORIZED,
                "what was presented as a key is not one, or was not copied completely",
                f"a key is {PREFIX} and {_RANDOM_CHARS + _CHECK_CHARS} letters and digits; 'vec keys create' makes one",
            )
        digest = digest_of(secret)
        key = self._by_digest.get(digest)
        if key is None or not hmac.compare_digest(key.digest, digest):
            raise VecError(Code.UNAUTHORIZED, "the key is unknown, or was revoked", "'vec keys create' makes a new one")
        if key.expired(now):
            raise VecError(Code.UNAUTHORIZED, f"the key {key.name!r} has expired", "'vec keys create' makes a new one")
        return key

    def holds(self, key: Key, now: float) -> bool:
        """Whether a key that was found earlier is still valid, with the same rights."""
        return self._by_digest.get(key.digest) == key and not key.expired(now)


def generate() -> str:
    """A new key."""
    drawn = "".join(secrets.choice(_BASE62) for _ in range(_RANDOM_CHARS))
    return f"{PREFIX}{drawn}{_check(drawn)}"


def well_formed(secret: str) -> bool:
    """Whether the text has the form of a key and its check characters fit."""
    if PATTERN.fullmatch(secret) is None:
        return False
    drawn = secret[len(PREFIX) : -_CHECK_CHARS]
    return _check(drawn) == secret[-_CHECK_CHARS:]


def digest_of(secret: str) -> bytes:
    return hashlib.sha256(secret.encode()).digest()


def _check(drawn: str) -> str:
    number, characters = zlib.crc32(drawn.encode()), ""
    for _ in range(_CHECK_CHARS):
        number, place = divmod(number, len(_BASE62))
        characters = _BASE62[place] + characters
    return characters


class KeyFile:
    """The file of one instance."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._read: tuple[object, Ring | None] = (object(), None)

    @classmethod
    def of(cls, settings: Settings) -> KeyFile:
        return cls(settings.config.parent / "keys.json")

    def ring(self) -> Ring | None:
        """The keys as the file has them now; None if there is no file. Raises VecError `invalid_settings`.

        Reads the file only if it has changed.
        """
        status = self._status()
        version = status and (status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
        if version != self._read[0]:
            ring = None if status is None else Ring(self._parse(status))
            self._read = version, ring
        return self._read[1]

    def create(
        self, name: str, scope: str, libraries: Sequence[str] | None = None, expires_s: float | None = None
    ) -> tuple[Key, str]:
        """Adds a key; returns it with its secret, which is not kept. Raises VecError."""
        _check_name(name)
        _check_libraries(libraries)
        if scope not in SCOPES:
            raise VecError(Code.INVALID_REQUEST, f"{scope!r:.40} is not a scope", f"use one of {', '.join(SCOPES)}")
        if expires_s is not None and not 0 < expires_s <= limits.SECONDS_MAX:
            raise VecError(Code.INVALID_REQUEST, "a key must expire in the future, within a hundred years")
        secret, now = generate(), time.time()
        key = Key(
            name,
            digest_of(secret),
            _up_to(scope),
            None if libraries is None else frozenset(libraries),
            now,
            None if expires_s is None else now + expires_s,
        )
        with self._changing() as keys:
            if name in keys:
                raise VecError(
                    Code.EXISTS, f"there is already a key {name!r}", "choose another name, or revoke that key first"
                )
            if len(keys) >= limits.KEYS_MAX:
                raise VecError(Code.INVALID_REQUEST, f"there are {limits.KEYS_MAX:,} keys, the limit", "revoke some")
            keys[name] = key
        return key, secret

    def entries(self) -> tuple[Key, ...]:
        """All keys, the oldest first. Raises VecError `invalid_settings`."""
        ring = self.ring()
        return ring.keys if ring is not None else ()

    def revoke(self, name: str) -> tuple[Key, int]:
        """Removes a key; returns it, and how many are left. Raises VecError `not_found`."""
        if not self.path.exists():
            raise VecError(Code.NOT_FOUND, f"there is no key {name!r:.80}", "there are no keys")
        with self._changing() as keys:
            if name not in keys:
                close = nearest(name, keys)
                hint = f"did you mean {close!r}?" if close else "'vec keys list' lists them"
                raise VecError(Code.NOT_FOUND, f"there is no key {name!r:.80}", hint)
            key = keys.pop(name)
        return key, len(keys)

    @contextlib.contextmanager
    def _changing(self) -> Iterator[dict[str, Key]]:
        """The keys by name, to be changed; on disk when the block has ended without an error."""
        try:
            make_folder(self.path.parent)
            lock = os.open(self.path.with_name("keys.lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise self._refused(error) from error
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            status = self._status()
            keys = {key.name: key for key in (self._parse(status) if status is not None else ())}
            yield keys
            written = [
                {
                    "name": key.name,
                    "sha256": key.digest.hex(),
                    "scope": key.scope,
                    "libraries": sorted(key.libraries) if key.libraries is not None else None,
                    "created_at": key.created_at,
                    "expires_at": key.expires_at,
                }
                for key in keys.values()
            ]
            replace(self.path, json.dumps({"version": _VERSION, "keys": written}, indent=1).encode() + b"\n")
        except OSError as error:
            raise self._refused(error) from error
        finally:
            os.close(lock)

    def _status(self) -> os.stat_result | None:
        try:
            return check_regular(self.path)
        except OSError as error:
            raise self._refused(error) from error

    def _parse(self, status: os.stat_result) -> list[Key]:
        if status.st_uid not in (os.geteuid(), 0) or status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            raise VecError(
                Code.SETTINGS,
                f"others can write to the file of keys {self.path}",
                f"make it yours: chmod 600 {self.path}",
            )
        try:
            content = json.loads(read_small(self.path, limits.KEYS_BYTES_MAX))
            if content["version"] != _VERSION:
                raise VecError(
                    Code.SETTINGS,
                    f"the file of keys {self.path} is of version {content['version']!r:.20}; this vec knows {_VERSION}",
                    "use the vec that wrote it",
                )
            keys = [_from_json(entry) for entry in content["keys"]]
        except OSError as error:
            raise self._refused(error) from error
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise VecError(
                Code.SETTINGS,
                f"the file of keys {self.path} is damaged ({type(error).__name__})",
                "restore it from a backup; or delete it, and create the keys again",
            ) from None  # the cause may quote a digest
        return keys

    def _refused(self, error: OSError) -> VecError:
        return VecError(Code.SETTINGS, f"cannot access the file of keys {self.path} ({error.strerror})")


def _from_json(entry: Mapping[str, Any]) -> Key:
    digest = bytes.fromhex(entry["sha256"])
    libraries, expires_at = entry["libraries"], entry["expires_at"]
    if len(digest) != 32 or not isinstance(entry["name"], str) or entry["scope"] not in SCOPES:
        raise ValueError
    if libraries is not None and not (isinstance(libraries, list) and all(isinstance(each, str) for each in libraries)):
        raise ValueError
    return Key(
        entry["name"],
        digest,
        _up_to(entry["scope"]),
        None if libraries is None else frozenset(libraries),
        float(entry["created_at"]),
        None if expires_at is None else float(expires_at),
    )


def _up_to(scope: str) -> frozenset[str]:
    return frozenset(SCOPES[: SCOPES.index(scope) + 1])


def _check_name(name: str) -> None:
    if _NAME.fullmatch(name) is None or len(name) > limits.KEY_NAME_CHARS_MAX:
        raise VecError(
            Code.INVALID_REQUEST,
            f"{name!r:.80} cannot be the name of a key",
            f"use letters, digits and . _ @ -, beginning with a letter or digit, up to {limits.KEY_NAME_CHARS_MAX}",
        )


def _check_libraries(libraries: Sequence[str] | None) -> None:
    for each in libraries or ():
        if _NAME.fullmatch(each) is None or len(each) > limits.NAME_BYTES_MAX:
            raise VecError(Code.INVALID_REQUEST, f"{each!r:.80} cannot be the name of a library")
