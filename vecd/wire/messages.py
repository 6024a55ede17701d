"""Messages: one msgpack map a frame.

    request   {"op": str, "id": int, …fields}
    reply     {"id": int|nil, "result": map}            one answer
              {"id": int, "items": [map, …], …}         a part of a stream
              {"id": int, "end": map}                   the end of a stream
              {"id": int|nil, "error": map}             instead of any of these; id nil: the connection itself failed

Rules: unknown keys are ignored, so that either side may be newer; no ext types, no pickle; every array is bounded
before it is allocated. What decodes here is well formed; whether its fields make sense is for the handler to say.
"""

from __future__ import annotations

import reprlib
from itertools import chain
from typing import Any, Final, Literal, NamedTuple, NoReturn

import msgpack

from .. import PROTOCOL, __version__, limits
from ..errors import Code, VecError
from .frames import encode_frame, frame_header

ReplyKind = Literal["result", "items", "end", "error"]

#: What packing begins with; it grows. msgpack's default, 1 MiB a message, costs more than most messages themselves.
_PACK_BYTES = 4096

#: What Python takes, about, beside the bytes of the frame: for a list and each of its items, for a map and each of its
#: pairs. Items are small strings and integers; a pair is an item and its share of a hash table.
_LIST_BYTES: Final = 80
_ITEM_BYTES: Final = 40
_MAP_BYTES: Final = 80
_PAIR_BYTES: Final = 120
#: Keys of a request among which its `id` is looked for if it is not decoded.
_TOP_KEYS_MAX: Final = 100

_REPLY_KINDS: tuple[ReplyKind, ...] = ("items", "result", "end", "error")


class Request(NamedTuple):
    """One request: what to do (`op`), the client's number for it (`id`), and its fields."""

    op: str
    id: int
    fields: dict[str, Any]


class ReplyMessage(NamedTuple):
    """One reply: to which request (None: to the connection), what kind, its body, and the keys beside it."""

    id: int | None
    kind: ReplyKind
    body: Any
    extra: dict[str, Any]


def encode(message: dict[str, Any]) -> bytes:
    """A message as one frame. Raises VecError `invalid_request` for values that have no place on the wire."""
    try:
        payload = msgpack.packb(message, buf_size=_PACK_BYTES)
    except (TypeError, ValueError, OverflowError, UnicodeEncodeError) as error:
        if isinstance(error, UnicodeEncodeError):
            text = error.object.encode("utf-8", "surrogateescape" if _from_bytes(error.object) else "surrogatepass")
            shown = text.decode("utf-8", "backslashreplace")
            raise VecError(Code.INVALID_REQUEST, f"a value is not UTF-8: {shown:.200}") from error
        raise VecError(Code.INVALID_REQUEST, f"a value cannot be sent: {error}") from error
    assert payload is not None
    return encode_frame(payload)


def _from_bytes(text: str) -> bool:
    """Whether its surrogates stand for bytes that are not UTF-8, as in arguments and file names (PEP 383)."""
    return all(not 0xD800 <= ord(c) <= 0xDFFF or 0xDC80 <= ord(c) <= 0xDCFF for c in text)


class EncodedPart:
    """A message without its `id`, encoded once for all who are sent the same: how many keys it has, and their bytes."""

    __slots__ = ("data", "keys")

    def __init__(self, keys: int, data: bytes) -> None:
        self.keys = keys
        self.data = data

    def __len__(self) -> int:
        return len(self.data)


def encode_part(message: dict[str, Any]) -> EncodedPart:
    """Raises VecError `invalid_request` for values that have no place on the wire."""
    assert 0 < len(message) < 15
    try:
        packed = msgpack.packb(message, buf_size=_PACK_BYTES)
    except (TypeError, ValueError, OverflowError, UnicodeEncodeError) as error:
        raise VecError(Code.INVALID_REQUEST, f"a value cannot be sent: {error}") from error
    assert packed is not None
    return EncodedPart(len(message), packed[1:])  # without the map's header, which counts the keys


def frame_of(number: int, part: EncodedPart) -> tuple[bytes, bytes]:
    """The part as one frame of the stream `number`, in two pieces: only the first is made anew.

    Raises VecError `frame_too_large`.
    """
    beginning: bytes = bytes([0x81 + part.keys]) + b"\xa2id" + msgpack.packb(number)
    return frame_header(len(beginning) + len(part.data)) + beginning, part.data


class _Meter:
    """Adds up what a message takes in memory, about, as its arrays and maps are made; stops one that takes too much.

    An empty map is one byte in a frame and some seventy as an object.
    """

    __slots__ = ("_most", "total")

    def __init__(self, total: int, most: int) -> None:
        self.total = total
        self._most = most

    def made_list(self, found: list[Any]) -> list[Any]:
        self.total += _LIST_BYTES + _ITEM_BYTES * len(found)
        if self.total > self._most:
            self._refuse()
        return found

    def made_map(self, found: dict[str, Any]) -> dict[str, Any]:
        self.total += _MAP_BYTES + _PAIR_BYTES * len(found)
        if self.total > self._most:
            self._refuse()
        return found

    def _refuse(self) -> NoReturn:
        raise VecError(
            Code.TOO_LARGE,
            f"a request takes more than {self._most // limits.MIB:,} MiB of memory: it has too many small parts",
            "send fewer documents at once",
        )


def decode_request(payload: bytes) -> tuple[Request, int]:
    """The request in a frame's payload, and the bytes that it takes in memory, about.

    Raises VecError `protocol_error`; or `too_large`, and then `request_id` gives whom to answer.
    """
    meter = _Meter(len(payload), limits.REQUEST_BYTES_MAX)
    hooks = {"list_hook": meter.made_list, "object_hook": meter.made_map}
    return parse_request(decode(payload, **hooks)), meter.total


def request_id(payload: bytes) -> int | None:
    """The `id` of a request that is not decoded, if it has one. Makes no list, no map and no long string of it: they
    may be why it is not decoded."""
    unpacker = msgpack.Unpacker(
        raw=False,
        max_buffer_size=len(payload),
        max_array_len=0,
        max_map_len=0,
        max_str_len=limits.KEY_CHARS_MAX,
        max_bin_len=limits.KEY_CHARS_MAX,
        max_ext_len=0,
    )
    unpacker.feed(payload)
    try:
        for _ in range(min(unpacker.read_map_header(), _TOP_KEYS_MAX)):
            if unpacker.unpack() == "id":
                number = unpacker.unpack()
                return number if isinstance(number, int) and not isinstance(number, bool) else None
            unpacker.skip()
    except Exception:  # as in `decode`: whatever msgpack raises for bytes that are no message
        return None
    return None


def decode(payload: bytes, **hooks: Any) -> dict[str, Any]:
    """A frame's payload as a map with string keys. `hooks` are msgpack's. Raises VecError `protocol_error` for anything
    else."""
    try:
        message = msgpack.unpackb(
            payload,
            raw=False,
            strict_map_key=True,
            ext_hook=_refuse_ext,
            max_array_len=limits.ARRAY_ITEMS_MAX,
            max_map_len=limits.ARRAY_ITEMS_MAX,
            **hooks,
        )
    except VecError:
        raise
    # Whatever msgpack raises for bytes that are not msgpack (it has no common root: ValueError, StackError,
    # ExtraData, OutOfData, UnicodeDecodeError …) means the same to us.
    except Exception as error:
        what = str(error) or type(error).__name__  # StackError, the nesting too deep, says nothing
        raise VecError(Code.PROTOCOL_ERROR, f"a frame is not valid msgpack: {what}") from error
    if not isinstance(message, dict):
        raise VecError(Code.PROTOCOL_ERROR, f"a message must be a map, not {type(message).__name__}")
    for key in message:
        if not isinstance(key, str):
            raise VecError(Code.PROTOCOL_ERROR, f"a message has the key {key!r:.40}, but keys must be strings")
    if b"\xff" in payload:
        _refuse_timestamps(message)
    return message


def parse_request(message: dict[str, Any]) -> Request:
    """Raises VecError `protocol_error`, because without an op and an id there is nobody to answer."""
    op, number = message.pop("op", None), message.pop("id", None)
    if not isinstance(op, str):
        raise VecError(Code.PROTOCOL_ERROR, "a request has no 'op', or one that is not a string")
    if not isinstance(number, int) or isinstance(number, bool):
        raise VecError(Code.PROTOCOL_ERROR, f"the request {op[:40]!r} has no 'id', or one that is not an integer")
    return Request(op, number, message)


def parse_reply(message: dict[str, Any]) -> ReplyMessage:
    """Raises VecError `protocol_error` for a map that is no reply."""
    number = message.pop("id", None)
    if number is not None and (not isinstance(number, int) or isinstance(number, bool)):
        raise VecError(Code.PROTOCOL_ERROR, "the 'id' of a reply is not an integer")
    for kind in _REPLY_KINDS:
        if kind in message:
            body = message.pop(kind)
            wanted = list if kind == "items" else dict
            if not isinstance(body, wanted):
                raise VecError(
                    Code.PROTOCOL_ERROR, f"a reply's {kind!r} is {type(body).__name__}, not {wanted.__name__}"
                )
            return ReplyMessage(number, kind, body, message)
    raise VecError(Code.PROTOCOL_ERROR, "a reply has none of 'result', 'items', 'end' and 'error'")


def hello(client: str) -> dict[str, Any]:
    """The client's first request, always number 0."""
    return {"op": "hello", "id": 0, "protocol": PROTOCOL, "client": client}


def check_protocol(theirs: Any, *, who: Literal["client", "daemon"]) -> None:
    """Raises VecError `version_mismatch`, naming both sides, unless `theirs` is this program's protocol version."""
    if theirs != PROTOCOL:
        raise VecError(
            Code.VERSION_MISMATCH,
            f"the {who} speaks protocol {reprlib.repr(theirs):.20}, and this is vecd {__version__}, "
            f"which speaks {PROTOCOL}",
            "restart the daemon (`vec daemon restart`) if you have just upgraded" if who == "daemon" else "upgrade it",
        )


def _refuse_ext(code: int, data: bytes) -> Any:
    raise VecError(Code.PROTOCOL_ERROR, f"a message contains the ext type {code}, which the protocol does not use")


def _refuse_timestamps(message: dict[str, Any]) -> None:
    """msgpack makes a Timestamp of ext type -1 by itself, without asking the ext_hook.

    That type is the byte 0xff, which text in UTF-8 never holds: mostly, only frames with vectors pay for this walk.
    """
    maps: list[dict[str, Any]] = [message]
    lists: list[list[Any]] = []
    while maps or lists:
        level = [*chain.from_iterable(map(dict.values, maps)), *chain.from_iterable(lists)]
        kinds = set(map(type, level))
        if msgpack.Timestamp in kinds:
            _refuse_ext(-1, b"")
        maps = [each for each in level if type(each) is dict] if dict in kinds else []
        lists = [each for each in level if type(each) is list] if list in kinds else []
