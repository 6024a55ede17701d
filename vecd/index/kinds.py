"""The table of index kinds. Adding a kind is one file, which declares its `KIND`, and one entry here.

The table imports neither a kind nor numpy, so that the command line can list the names.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, MutableMapping
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

from ..errors import Code, VecError, nearest
from . import METRICS

if TYPE_CHECKING:
    from .kind import IndexKind

#: Name of a kind -> the module that declares it.
MODULES: Final[dict[str, str]] = {
    "pq": "vecd.index.local.pq",
    "hnsw": "vecd.index.local.hnsw",
    "flat": "vecd.index.local.flat",
    "lsh": "vecd.index.local.lsh",
    "kdtree": "vecd.index.local.kdtree",
}

#: The default kind: exact while a library is small, and fast when it is not.
DEFAULT: Final = "pq"


class _IndexKinds(MutableMapping[str, "IndexKind"]):
    """Kinds by name. A kind's module is imported when the kind is first looked up; a kind that is set replaces it."""

    def __init__(self, modules: dict[str, str]) -> None:
        self._modules = modules
        self._loaded: dict[str, IndexKind] = {}

    def __getitem__(self, name: str) -> IndexKind:
        kind = self._loaded.get(name)
        if kind is None:
            kind = self._loaded[name] = import_module(self._modules[name]).KIND
        return kind

    def __setitem__(self, name: str, kind: IndexKind) -> None:
        if name not in self._modules:
            raise KeyError(name)
        self._loaded[name] = kind

    def __delitem__(self, name: str) -> None:
        del self._loaded[name], self._modules[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._modules)

    def __len__(self) -> int:
        return len(self._modules)


KINDS: Final[MutableMapping[str, IndexKind]] = _IndexKinds(MODULES)


def checked(kind: str, metric: str, parameters: Mapping[str, Any]) -> dict[str, Any]:
    """All parameters of an index of that kind, with defaults for those not given.

    Raises VecError `unsupported` or `invalid_request`.
    """
    for what, value, names in (("index", kind, tuple(KINDS)), ("metric", metric, tuple(METRICS))):
        if value not in names:
            close = nearest(value, names)
            hint = f"did you mean {close!r}?" if close else f"known: {', '.join(names)}"
            raise VecError(Code.UNSUPPORTED, f"unknown {what} {value!r:.40}", hint, field=what)
    about = KINDS[kind]
    if metric in about.refuses:
        others = ", ".join(each for each in METRICS if each not in about.refuses)
        raise VecError(
            Code.UNSUPPORTED,
            f"the index {kind!r} does not support the metric {metric!r}: {about.refuses[metric]}",
            f"use one of {others}, or another index",
            field="metric",
        )
    known = tuple(about.parameters)
    for name, value in parameters.items():
        if name not in known:
            close = nearest(name, known)
            hint = (f"did you mean {close!r}? " if close else "") + f"it has {', '.join(known) or 'no parameters'}"
            raise VecError(Code.INVALID_REQUEST, f"the index {kind!r} has no parameter {name!r:.40}", hint, field=name)
        parameter = about.parameters[name]
        if not parameter.accepts(value):
            message = f"the index {kind!r}: {name} must be {parameter.valid}, not {value!r:.40}"
            hint = f"{name}: {parameter.what}; default: {parameter.default}"
            raise VecError(Code.INVALID_REQUEST, message, hint, field=name)
    complete = {name: parameters.get(name, about.parameters[name].default) for name in known}
    about.check(metric, complete)
    return complete
