"""Regular expressions of filters (`~`), matched by RE2: the time is linear in the text, whatever the pattern is.

A backtracking matcher can take hours for a short pattern. RE2 (Google's, BSD) cannot, but a pattern with large counted
repetitions is slow for each character, so the compiled size is bounded, and so is the time of one filter (columns.py).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

from .. import limits


@lru_cache(maxsize=64)
def matcher(pattern: str) -> Callable[[str], bool]:
    """A function that returns whether a text contains a match. Raises ValueError, with the reason, for a pattern that
    cannot be used."""
    import re2  # takes 10 ms: only if there is a pattern

    if len(pattern) > limits.FILTER_PATTERN_CHARS_MAX:
        raise ValueError(f"it has {len(pattern):,} characters, the limit is {limits.FILTER_PATTERN_CHARS_MAX:,}")
    options = re2.Options()
    options.log_errors = False
    options.never_capture = True
    try:
        compiled = re2.compile(pattern, options)
    except re2.error as error:
        reason = error.args[0]
        raise ValueError(reason.decode(errors="replace") if isinstance(reason, bytes) else str(reason)) from error
    if compiled.programsize > limits.FILTER_PATTERN_STEPS_MAX:
        raise ValueError("it is too large: reduce its counted repetitions")
    search = compiled.search
    return lambda text: search(text.encode()) is not None  # a text takes it three times as long as bytes
