"""Redis Streams: a relay appends its events to a stream, a source reads one.

**Relay.** An entry's id is `<seq>-0`; its fields are the message's headers, `content-type` and `body`. A script adds
the entries of a batch. The server runs it as a whole, or not at all if the connection is cut, and it stops at the first
entry that fails: ids only grow, so a gap could never be filled. Beside the stream NAME is the hash NAME:vec with the
log and the relay that write the stream, and their last seq. So an event that is sent again is skipped, no other log or
relay can write to the stream, and an entry of another program is noticed.

**Source.** The position is the id of the last applied entry, as the store has it: XREAD behind it. The group at the
server is only a display: it has no consumers, and its position follows ours, so that XINFO GROUPS shows the lag.

The client is redis-py (asyncio) with one connection, without its retries: the delivery loop has its own.
"""

from __future__ import annotations

import contextlib
import logging
import ssl
from collections.abc import Coroutine, Iterator, Mapping, Sequence
from typing import Any, Final, TypeVar, cast

import msgpack
import orjson
from redis import exceptions
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from .. import limits
from ..credentials import read_secret
from ..delivery import AttemptFailed, DeliveryBatch
from ..errors import Code, VecError
from . import tls
from .causes import causes, reason
from .loop_thread import LoopThread
from .messages import InMessage, OutMessage
from .transport import MessageSink, Opening, SourceReader

T = TypeVar("T")

log = logging.getLogger("vecd.connectors")

BODY: Final = "body"
CONTENT_TYPE: Final = "content-type"
#: Beside the key of a relay's stream: the hash of its writer.
OWNER_SUFFIX: Final = ":vec"

_PORT: Final = 6379
#: Bytes of entries that one script adds, unless one entry has more: the server does nothing else meanwhile, for some
#: milliseconds.
_SCRIPT_BYTES_MAX: Final = 2 * limits.MIB

#: KEYS: the stream, its owner hash. ARGV: log id, relay, MAXLEN (0: none), the entries in MessagePack, each as
#: [seq, field, value …]. Returns how many were added and the error that ended it, or the owner if it is another one.
_ADD: Final = """
local owner = redis.call('HMGET', KEYS[2], 'log', 'relay', 'seq')
if owner[1] and (owner[1] ~= ARGV[1] or owner[2] ~= ARGV[2]) then
  return {'owner', owner[1], owner[2]}
end
redis.call('XLEN', KEYS[1]) -- an error if it is no stream
local last = 0
if owner[3] and redis.call('EXISTS', KEYS[1]) == 1 then last = tonumber(owner[3]) end
local maxlen, added, failure = ARGV[3], 0, false
for _, entry in ipairs(cmsgpack.unpack(ARGV[4])) do
  local seq, reply = entry[1], nil
  if seq > last then
    local id = string.format('%.0f-0', seq)
    if maxlen == '0' then
      reply = redis.pcall('XADD', KEYS[1], id, unpack(entry, 2))
    else
      reply = redis.pcall('XADD', KEYS[1], 'MAXLEN', '~', maxlen, id, unpack(entry, 2))
    end
    if type(reply) == 'table' and reply.err then
      failure = reply.err
      break
    end
    last, added = seq, added + 1
  end
end
if added > 0 then
  redis.call('HSET', KEYS[2], 'log', ARGV[1], 'relay', ARGV[2], 'seq', string.format('%.0f', last))
end
return {'added', added, failure}
"""

#: Before all entries.
_BEGINNING: Final = "0-0"
#: Errors of a server that serves us later: it is loading, full, a replica, or cannot write its disk.
_PASSING: Final = ("LOADING", "BUSY", "OOM", "MISCONF", "READONLY", "MASTERDOWN", "NOREPLICAS", "TRYAGAIN")


class _Connection:
    """One connection to the server, and an event loop for it."""

    def __init__(self, opening: Opening) -> None:
        self.opening = opening
        self.timeout_s = opening.timeout_s
        url, parameters = opening.url, opening.parameters
        self.server = f"Redis at {url.addresses(_PORT)[0]}"
        secure: dict[str, Any] = {}
        if url.scheme == "rediss":
            tls.client_context(parameters)  # says which file is unusable
            secure = {
                "ssl": True,
                "ssl_ca_certs": parameters.get("ca_file"),
                "ssl_certfile": parameters.get("cert_file"),
                "ssl_keyfile": parameters.get("key_file"),
                "ssl_min_version": ssl.TLSVersion.TLSv1_2,
            }
        definition = opening.definition
        self.redis: Any = Redis(
            host=url.host,
            port=url.port(_PORT),
            db=parameters["db"],
            username=url.user,
            password=read_secret(parameters, "password"),
            client_name=f"vec-{definition.direction}-{definition.name}",
            protocol=2,
            max_connections=1,
            retry=Retry(NoBackoff(), 0),
            socket_timeout=None,  # `call` bounds each call
            socket_connect_timeout=self.timeout_s,
            **secure,
        )
        self._loop = LoopThread(f"{definition.direction} {definition.name}", opening.stop)

    def call(self, coroutine: Coroutine[Any, Any, T], what: str, more_s: float = 0.0) -> T:
        """The coroutine's result, within `timeout_s` and `more_s` more seconds. Raises AttemptFailed and VecError."""
        try:
            return self._loop.call(coroutine, self.timeout_s + more_s, what)
        except exceptions.RedisError as error:
            raise self.translated(error) from error

    def translated(self, error: BaseException) -> Exception:
        """The error that says what happened, and whether it passes."""
        said = str(error) or type(error).__name__
        handshake = next((each for each in causes(error) if isinstance(each, ssl.SSLError)), None)
        if handshake is not None and not isinstance(handshake, (ssl.SSLZeroReturnError, ssl.SSLEOFError)):
            return tls.refused(self.server, handshake)
        if isinstance(error, exceptions.AuthenticationError):
            return VecError(
                Code.SETTINGS,
                f"{self.server} refuses the login ({said})",
                "check the URL's user, and the password: -p password_file=PATH or -p password_env=NAME",
            )
        if isinstance(error, exceptions.NoPermissionError):
            return VecError(Code.SETTINGS, f"{self.server}: {said}", "allow it: ACL SETUSER")
        if isinstance(error, (exceptions.MovedError, exceptions.AskError)) or said.startswith(("MOVED", "CROSSSLOT")):
            return VecError(
                Code.UNSUPPORTED,
                f"{self.server} belongs to a Redis Cluster, where a stream and its {OWNER_SUFFIX} key may be apart",
                "use a server that is not in cluster mode",
            )
        if isinstance(error, (exceptions.ConnectionError, exceptions.TimeoutError)):
            return AttemptFailed(f"{self.server} cannot be reached ({reason(error)})", unreachable=True)
        if isinstance(error, (exceptions.ReadOnlyError, exceptions.OutOfMemoryError, exceptions.ClusterDownError)):
            return AttemptFailed(f"{self.server}: {said}", unreachable=True)
        if isinstance(error, exceptions.ResponseError):
            return self.refusal(said)
        return AttemptFailed(f"{self.server}: {said}", unreachable=True)

    def refusal(self, said: str) -> Exception:
        """The same for an error reply."""
        if any(word in said[:80].split() for word in _PASSING):
            return AttemptFailed(f"{self.server}: {said}", unreachable=True)
        key = self.opening.url.path
        if "WRONGTYPE" in said:
            return VecError(
                Code.INVALID_REQUEST,
                f"the key {key!r} of {self.server} holds no stream",
                "delete the key, or name another one",
            )
        return VecError(Code.INVALID_REQUEST, f"{self.server} refuses a command on {key!r}: {said}")

    def close(self) -> None:
        with contextlib.suppress(Exception):  # what is left is closed with the loop
            self._loop.call(self.redis.aclose(), 1.0, "closing the connection")
        self._loop.close()


# --- relay ------------------------------------------------------------------------------------------------------------


class _StreamSink:
    def __init__(self, opening: Opening) -> None:
        self._connection = _Connection(opening)
        self._key = opening.url.path
        self._delete = f"DEL {self._key} {self._key}{OWNER_SUFFIX}"
        self._log_id = opening.log_id
        self._relay = opening.definition.name
        self._maxlen: int = opening.parameters["maxlen"]
        self._skipped = False  # whether it was logged that events were skipped
        self._replicas: int = opening.parameters["replicas"]

    def deliver(self, batch: DeliveryBatch[OutMessage]) -> None:
        if batch.again:  # cannot come from here: no event is ever refused alone
            raise VecError(
                Code.UNSUPPORTED,
                f"the stream {self._key!r} cannot take dead letters again: its ids only grow",
                f"vec relay drop {self._relay}",
            )
        for entries in _parts(batch.items):
            self._add(entries)

    def close(self) -> None:
        self._connection.close()

    def check(self) -> None:
        """Connects. Raises AttemptFailed, and VecError if the stream is not for this relay."""
        self._add([])

    def _add(self, entries: Sequence[Sequence[Any]]) -> None:
        added, acknowledged = self._connection.call(self._send(entries), "adding entries to the stream")
        if added[0] == b"owner":
            raise self._foreign_owner(added[1].decode(), (added[2] or b"?").decode())
        if added[2] is not None:
            said = added[2].decode("utf-8", "replace")
            if "equal or smaller" in said:
                raise VecError(
                    Code.INVALID_REQUEST,
                    f"another program writes to the stream {self._key!r} of {self._connection.server}: its last entry "
                    f"has a higher id than {entries[added[1]][0]}-0",
                    f"name another stream; or, if that one is not needed: {self._delete}",
                )
            raise self._connection.refusal(said)
        if entries and not added[1] and not self._skipped:
            self._skipped = True  # usual for some events after a crash, and for all of them after a reset
            log.info(
                "a relay's events are in its stream already, or were before it was trimmed",
                extra={"relay": self._relay, "stream": self._key, "first": entries[0][0], "last": entries[-1][0]},
            )
        if acknowledged < self._replicas:
            raise AttemptFailed(
                f"{acknowledged} of {self._replicas} replicas of {self._connection.server} have the batch",
                unreachable=True,
            )

    async def _send(self, entries: Sequence[Sequence[Any]]) -> tuple[list[Any], int]:
        """The script's answer, and how many replicas have what it wrote."""
        packed = msgpack.packb(entries, use_bin_type=False)  # the server's MessagePack knows no binary type
        keys = (self._key, self._key + OWNER_SUFFIX)
        async with self._connection.redis.pipeline(transaction=False) as commands:
            commands.execute_command("EVAL", _ADD, 2, *keys, self._log_id, self._relay, self._maxlen, packed)
            waits = self._replicas > 0 and len(entries) > 0
            if waits:
                commands.execute_command("WAIT", self._replicas, int(self._connection.timeout_s * 500))
            answers = await commands.execute()
        return answers[0], answers[1] if waits else self._replicas

    def _foreign_owner(self, log: str, relay: str) -> VecError:
        owner = f"the relay {relay!r} of this log" if log == self._log_id else f"the relay {relay!r} of the log {log}"
        return VecError(
            Code.INVALID_REQUEST,
            f"the stream {self._key!r} of {self._connection.server} belongs to {owner}",
            f"name another stream; or, if that one is not needed: {self._delete}",
        )


def _parts(messages: Sequence[OutMessage]) -> Iterator[list[list[Any]]]:
    """The entries as the script takes them, in lists of limited size."""
    part: list[list[Any]] = []
    size = 0
    for message in messages:
        if part and size + len(message.body) > _SCRIPT_BYTES_MAX:
            yield part
            part, size = [], 0
        entry: list[Any] = [message.seq]
        for name, value in message.headers.items():
            entry += (name, value)
        part.append([*entry, CONTENT_TYPE, message.content_type, BODY, message.body])
        size += len(message.body)
    if part:
        yield part


def open_sink(opening: Opening) -> MessageSink:
    """It connects at once."""
    sink = _StreamSink(opening)
    try:
        sink.check()
    except BaseException:
        sink.close()
        raise
    return sink


# --- source -----------------------------------------------------------------------------------------------------------


class _StreamReader:
    """Reads one stream, which is its only partition. An offset is an entry's id."""

    def __init__(self, opening: Opening, offset: str | None) -> None:
        """Raises AttemptFailed and VecError."""
        self._key = opening.url.path
        self._field: str | None = opening.parameters["field"]
        self._name = opening.definition.name
        self._group = getattr(opening.definition, "group", None) or f"vec-{self._name}"
        self._shows = True  # whether the group's position can be moved
        #: How many entries were ever added up to the position, and up to those that were read and are not committed:
        #: what the server calls entries-read. None where it is unknown.
        self._count: int | None = None
        self._counts: dict[str, int | None] = {}
        self._connection = _Connection(opening)
        self._redis = self._connection.redis
        try:
            self._position = self._call(self._begin(offset, opening.parameters["start"]))
        except BaseException:
            self._connection.close()
            raise

    def read(self, count_max: int, wait_s: float) -> Sequence[InMessage]:
        return self._call(self._read(count_max, max(1, int(wait_s * 1000))), more_s=wait_s)

    def committed(self, offsets: Mapping[str, str]) -> None:
        if self._key in offsets and self._shows:
            self._call(self._show(offsets[self._key]))

    def lag(self) -> int | None:
        return self._call(self._lag())

    def pause(self) -> None:
        """The server keeps the entries; nothing is read ahead."""

    def close(self) -> None:
        self._connection.close()

    def _call(self, coroutine: Coroutine[Any, Any, T], more_s: float = 0.0) -> T:
        return self._connection.call(coroutine, f"reading the stream {self._key!r}", more_s)

    async def _begin(self, offset: str | None, start: str) -> str:
        """The id behind which to read."""
        about = await self._stream()
        group = await self._own_group() if about is not None else None
        if offset is not None:
            self._check_end(about, offset)
            if group is not None and _text(group["last-delivered-id"]) == offset:
                self._count = group.get("entries-read")
            elif about is not None and _text(about["last-generated-id"]) == offset:
                self._count = about.get("entries-added")
            self._notice_removed(about, offset)
            return offset
        if about is None:
            return _BEGINNING
        added = about.get("entries-added")  # since Redis 7
        if start == "latest":
            self._count = added
            return _text(about["last-generated-id"])
        self._count = None if added is None else added - about["length"]
        return _BEGINNING

    async def _read(self, count_max: int, block_ms: int) -> list[InMessage]:
        answer = await self._redis.xread({self._key: self._position}, count=count_max, block=block_ms)
        found: list[InMessage] = []
        for _, entries in answer or ():
            for its_id, fields in entries:
                self._position = _text(its_id)
                self._count = None if self._count is None else self._count + 1
                self._counts[self._position] = self._count
                found.append(self._message(self._position, fields))
        return found

    def _message(self, offset: str, fields: Mapping[bytes, bytes]) -> InMessage:
        named = {_text(name): value for name, value in fields.items()}
        field = self._field or BODY
        if field in named or self._field is not None:
            body = named.pop(field, b"")
        else:
            body = orjson.dumps({name: _text(value) for name, value in named.items()})
        return InMessage(self._key, offset, body, headers={name: _text(value) for name, value in named.items()})

    async def _lag(self) -> int | None:
        about = await self._stream()
        self._check_end(about, self._position)
        if about is None:
            return 0
        self._notice_removed(about, self._position)
        added = about.get("entries-added")
        if _text(about["last-generated-id"]) == self._position:
            self._count = self._counts[self._position] = added
            return 0
        if self._count is None or added is None:
            length: int = about["length"]
            return length if self._position == _BEGINNING else None
        behind: int = added - self._count
        return max(0, behind)

    def _notice_removed(self, about: Mapping[str, Any] | None, position: str) -> None:
        """Logs that the stream was trimmed beyond the position: the source misses entries."""
        if about is None or self._count is None or not about["first-entry"]:
            return
        removed = about.get("entries-added", 0) - about["length"]
        first = _text(about["first-entry"][0])
        if removed > self._count and _place(first) > _place(position) > (0, 0):
            log.warning(
                "a source misses entries that were removed from its stream",
                extra={"source": self._name, "stream": self._key, "entries": removed - self._count, "next": first},
            )
            self._count = removed

    async def _show(self, offset: str) -> None:
        """Moves the group's position, for others to see."""
        count = self._counts.get(offset)
        self._counts = {each: known for each, known in self._counts.items() if _place(each) > _place(offset)}
        place = (self._key, self._group, offset, *(() if count is None else ("ENTRIESREAD", count)))
        try:
            try:
                await self._redis.execute_command("XGROUP SETID", *place)
            except exceptions.ResponseError as error:
                if not str(error).startswith("NOGROUP"):
                    raise
                await self._redis.execute_command("XGROUP CREATE", *place)
        except (exceptions.NoPermissionError, exceptions.ReadOnlyError):
            self._shows = False

    async def _stream(self) -> Mapping[str, Any] | None:
        """XINFO STREAM; None if there is no such key."""
        try:
            return cast("Mapping[str, Any]", await self._redis.xinfo_stream(self._key))
        except exceptions.ResponseError as error:
            if "no such key" in str(error):
                return None
            raise

    async def _own_group(self) -> Mapping[str, Any] | None:
        """The group of this source at the server. Raises VecError if others read with it."""
        try:
            groups = await self._redis.xinfo_groups(self._key)
        except exceptions.NoPermissionError:
            self._shows = False
            return None
        for group in groups:
            if _text(group["name"]) == self._group:
                if group["consumers"]:
                    raise VecError(
                        Code.INVALID_REQUEST,
                        f"the group {self._group!r} of the stream {self._key!r} has consumers; they would miss "
                        "entries, because a source moves the group's position",
                        "name a group of its own: --group",
                    )
                return cast("Mapping[str, Any]", group)
        return None

    def _check_end(self, about: Mapping[str, Any] | None, position: str) -> None:
        """Raises VecError if the stream ends before the position: entries with lower ids would never be read."""
        end = _BEGINNING if about is None else _text(about["last-generated-id"])
        if _place(end) < _place(position):
            raise VecError(
                Code.INVALID_CURSOR,
                f"the stream {self._key!r} of {self._connection.server} ends at {end}, before the position {position} "
                "of the source: the stream was deleted, or its server has lost entries",
                f"to read it from its beginning: vec source reset {self._name}",
            )


def _text(value: bytes | str) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else value


def _place(entry_id: str) -> tuple[int, int]:
    """An id as a value that orders like it."""
    milliseconds, _, number = entry_id.partition("-")
    return int(milliseconds), int(number or 0)


def open_source(opening: Opening, offsets: Mapping[str, str]) -> SourceReader:
    """It connects at once."""
    return _StreamReader(opening, offsets.get(opening.url.path))
