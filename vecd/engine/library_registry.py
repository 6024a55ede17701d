"""A registry of one object for each library that every commit is applied to: its index, its attributes for filters.

An object is registered before it reads the store, and a commit is applied before the write is answered. So whatever an
acknowledged write did is either in what the object reads, or applied to it: nothing falls between.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Generic, TypeVar

from ..errors import Code, VecError
from ..store.catalogue import Library
from ..store.transaction import Change, Commit

T = TypeVar("T")

#: Applies the changes that one commit made to a library, in their order. It is given the library as of that commit and
#: its object, None if there is none, and returns the object that is registered from then on.
Apply = Callable[[Library, T | None, list[Change], Commit], T | None]

#: Called with a library that a commit deleted, and its object if there was one.
Drop = Callable[[Library, T | None], None]


class LibraryRegistry(Generic[T]):
    """Objects by library id. Any thread; `apply` on the writer's thread, in commit order."""

    def __init__(self, make: Callable[[Library], T], apply: Apply[T], drop: Drop[T] = lambda library, dropped: None):
        """The functions are called with `lock` held: they must be quick, and must not read the store."""
        self._make, self._apply, self._drop = make, apply, drop
        self._objects: dict[int, T] = {}
        self._dropped: set[int] = set()  # a request may have found a library just before it was deleted
        self.lock = threading.RLock()  # guards the two; a user may guard with it what must agree with them

    def of(self, library: Library) -> T:
        """The library's object, made if there is none. Raises VecError `not_found` if the library was deleted."""
        with self.lock:
            if library.library_id in self._dropped:
                raise gone(library)
            found = self._objects.get(library.library_id)
            if found is None:
                found = self._objects[library.library_id] = self._make(library)
            return found

    def get(self, library_id: int) -> T | None:
        """The library's object, if there is one. Takes no lock."""
        return self._objects.get(library_id)

    def all(self) -> list[T]:
        with self.lock:
            return list(self._objects.values())

    def discard(self, discarded: T) -> None:
        """Unregisters an object; the next user of its library makes another."""
        with self.lock:
            for library_id, each in list(self._objects.items()):
                if each is discarded:
                    del self._objects[library_id]

    def apply(self, commit: Commit) -> None:
        """Applies a commit's changes, those of one library together: no reader sees half a commit."""
        by_library: dict[int, list[Change]] = {}
        for change in commit.changes:
            by_library.setdefault(change.library_id, []).append(change)
        with self.lock:
            for library_id, changes in by_library.items():
                library = commit.catalogue.by_id[library_id]
                known = self._objects.get(library_id)
                if any(change.dropped for change in changes):
                    self._dropped.add(library_id)
                    self._objects.pop(library_id, None)
                    self._drop(library, known)
                elif (kept := self._apply(library, known, changes, commit)) is not None:
                    self._objects[library_id] = kept
                else:
                    self._objects.pop(library_id, None)


def gone(library: Library) -> VecError:
    """The error of a request that found a library just before it was deleted."""
    return VecError(Code.NOT_FOUND, f"library {library.name!r} has just been deleted", library=library.name)
