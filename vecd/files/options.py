"""What is read of a folder, and how long the chunks of its files are."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Final, Self

from .. import limits

#: Larger files are skipped, unless `bytes_max` says otherwise.
BYTES_MAX: Final = 16 * limits.MIB


@dataclass(frozen=True, slots=True)
class FileOptions:
    """Options of `walk` and `documents_of`. The defaults are those of the command line."""

    hidden: bool = False  # also names that begin with a dot, except those of version control (.git)
    links: bool = False  # also what symbolic links point to
    ignore_files: bool = True  # respect .gitignore and .vecignore
    exclude: tuple[str, ...] = ()  # further patterns, in the syntax of .gitignore, relative to the root
    bytes_max: int = BYTES_MAX  # of a file
    chunk_chars: int = limits.CHUNK_CHARS  # characters of a chunk, at most; that of the library
    chunk_overlap: int = 0  # characters that a chunk may repeat from the one before it; that of the library

    def to_wire(self) -> dict[str, Any]:
        """Plain values, for JSON and msgpack."""
        return {**asdict(self), "exclude": list(self.exclude)}

    @classmethod
    def from_wire(cls, wire: dict[str, Any]) -> Self:
        """The options that `to_wire` gave; what is missing has its default. Raises TypeError for other keys."""
        return cls(**{**wire, "exclude": tuple(wire.get("exclude", ()))})
