"""The languages of full text search, which decide how words are stemmed."""

from __future__ import annotations

from typing import Final

from ..errors import Code, VecError, nearest

#: `none` leaves words as they are; the others are the languages that Snowball has a stemmer for.
LANGUAGES: Final = (
    "english", "none", "arabic", "armenian", "basque", "catalan", "danish", "dutch", "finnish", "french", "german",
    "greek", "hindi", "hungarian", "indonesian", "irish", "italian", "lithuanian", "nepali", "norwegian", "portuguese",
    "romanian", "russian", "serbian", "spanish", "swedish", "tamil", "turkish", "yiddish",
)  # fmt: skip


def checked(language: str) -> str:
    """The language. Raises VecError `unsupported` if there is none of that name."""
    if language not in LANGUAGES:
        close = nearest(language, LANGUAGES)
        hint = f"did you mean {close!r}?" if close else f"known: {', '.join(LANGUAGES)}"
        raise VecError(Code.UNSUPPORTED, f"unknown language {language!r:.40}", hint, field="language")
    return language
