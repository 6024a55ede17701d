"""The languages of full-text search: those with a stemmer, and `none`."""

from __future__ import annotations

from typing import Final

from ..errors import Code, VecError, nearest

#: `none` does not stem; the others are the languages that Snowball has a stemmer for.
LANGUAGES: Final = (
    "english", "none", "arabic", "armenian", "basque", "catalan", "danish", "dutch", "finnish", "french", "german",
    "greek", "hindi", "hungarian", "indonesian", "irish", "italian", "lithuanian", "nepali", "norwegian", "portuguese",
    "romanian", "russian", "serbian", "spanish", "swedish", "tamil", "turkish", "yiddish",
)  # fmt: skip


def checked(language: str) -> str:
    """Returns `language`. Raises VecError `unsupported` if it is unknown."""
    if language not in LANGUAGES:
        close = nearest(language, LANGUAGES)
        hint = f"did you mean {close!r}?" if close else f"known: {', '.join(LANGUAGES)}"
        raise VecError(Code.UNSUPPORTED, f"unknown language {language!r:.40}", hint, field="language")
    return language
