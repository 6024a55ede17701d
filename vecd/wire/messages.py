"""Messages of the protocol: one msgpack map per frame.

    request   {"op": str, "id": int, …fields}
    reply     {"id": int|nil, "result": map}            one answer
              {"id": int, "items": [map, …], …}         a part of a stream
              {"id": int, "end": map}                   the end of a stream
              {"id": int|nil, "error": map}             instead of any of these; id nil: the connection itself failed

Rules: unknown keys are ignored, so that either side may be newer; no ext types, no pickle; every array is bounded
before it is allocated. A decoded message is well formed; handlers validate its fields.
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

#: Initial size of the packer's buffer, which grows. msgpack's default, 1 MiB, costs more than most messages.
_PACK_BYTES = 4096

#: Approximate memory in Python, besides the bytes of the frame: of a list and each of its items, of a map and each of
#: its pairs. Items are small strings and integers; a pair is an item and its share of a hash table.
_LIST_BYTES: Final = 80
_ITEM_BYTES: Final = 40
_MAP_BYTES: Final = 80
_PAIR_BYTES: Final = 120
#: Keys of an undecoded request among which its `id` is searched.
_TOP_KEYS_MAX: Final = 100

_REPLY_KINDS: tuple[ReplyKind, ...] = ("items", "result", "end", "error")


class Request(NamedTuple):
    """A request: the operation (`op`), the client's number for it (`id`), and its fields."""

    op: str
    id: int
    fields: dict[str, Any]


class ReplyMessage(NamedTuple):
    """A reply: the `id` of its request (None: of the connection), its kind, its body, and other keys of the message."""

    id: int | None
    kind: ReplyKind
    body: Any
    extra: dict[str, Any]


def encode(message: dict[str, Any]) -> bytes:
    """A message as one frame. Raises VecError `invalid_request` for values that cannot be encoded."""
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
    """Whether its surrogates represent bytes that are not UTF-8, as in arguments and file names (PEP 383)."""
    return all(not 0xD800 <= ord(c) <= 0xDFFF or 0xDC80 <= ord(c) <= 0xDCFF for c in text)


class EncodedPart:
    """A message without its `id`, encoded once for several recipients: the number of its keys, and their bytes."""

    __slots__ = ("data", "keys")

    def __init__(self, keys: int, data: bytes) -> None:
        self.keys = keys
        self.data = data

    def __len__(self) -> int:
        return len(self.data)


def encode_part(message: dict[str, Any]) -> EncodedPart:
    """Encodes a message without its `id`. Raises VecError `invalid_request` for values that cannot be encoded."""
    assert 0 < len(message) < 15
    try:
        packed = msgpack.packb(message, buf_size=_PACK_BYTES)
    except (TypeError, ValueError, OverflowError, UnicodeEncodeError) as error:
        raise VecError(Code.INVALID_REQUEST, f"a value cannot be sent: {error}") from error
    assert packed is not None
    return EncodedPart(len(message), packed[1:])  # without the map's header, which counts the keys


def frame_of(number: int, part: EncodedPart) -> tuple[bytes, bytes]:
    """The part as one frame of the stream `number`, in two pieces; the second is shared, not copied.

    Raises VecError `frame_too_large`.
    """
    beginning: bytes = bytes([0x81 + part.keys]) + b"\xa2id" + msgpack.packb(number)
    return frame_header(len(beginning) + len(part.data)) + beginning, part.data


class _Meter:
    """Estimates a message's memory while its arrays and maps are decoded; refuses one that takes too much.

    An empty map is one byte in a frame, and about seventy in memory.
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
    """The request in a frame's payload, and its approximate bytes in memory.

    Raises VecError `protocol_error`; or `too_large` or `invalid_request`, for which `request_id` returns the id to
    answer.
    """
    meter = _Meter(len(payload), limits.REQUEST_BYTES_MAX)
    hooks = {"list_hook": meter.made_list, "object_hook": meter.made_map}
    try:
        message = decode(payload, **hooks)
    except VecError as error:
        if "strict_map_key" in str(error.__cause__):  # msgpack has no class for it
            raise VecError(
                Code.INVALID_REQUEST,
                "a map in the request has a key that is not a string",
                'send strings as keys, for example {"1": "a"} and not {1: "a"}',
            ) from error
        raise
    return parse_request(message), meter.total


def request_id(payload: bytes) -> int | None:
    """The `id` of a request that cannot be decoded, if it has one. Decodes no list, map or long string: they may be the
    cause."""
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
    except Exception:  # as in `decode`: msgpack's errors have no common base class
        return None
    return None


def decode(payload: bytes, **hooks: Any) -> dict[str, Any]:
    """Decodes a frame's payload, a map with string keys. `hooks` are msgpack's. Raises VecError `protocol_error` for
    anything else."""
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
    # msgpack's errors have no common base class: ValueError, StackError, ExtraData, OutOfData, UnicodeDecodeError …
    except Exception as error:
        what = str(error) or type(error).__name__  # StackError (nested too deep) has no message
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
    """Raises VecError `protocol_error`: a request without an op or an id cannot be answered."""
    op, number = message.pop("op", None), message.pop("id", None)
    if not isinstance(op, str):
        raise VecError(Code.PROTOCOL_ERROR, "a request has no 'op', or one that is not a string")
    if not isinstance(number, int) or isinstance(number, bool):
        raise VecError(Code.PROTOCOL_ERROR, f"the request {op[:40]!r} has no 'id', or one that is not an integer")
    return Request(op, number, message)


def parse_reply(message: dict[str, Any]) -> ReplyMessage:
    """Raises VecError `protocol_error` for a map that is not a reply."""
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
    """Refuses ext type -1, which msgpack decodes as a Timestamp without calling the ext_hook.

    Its code is the byte 0xff, which UTF-8 never contains: so mostly only frames with vectors are searched.
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
