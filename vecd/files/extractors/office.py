"""PDF and Office files, by Kreuzberg: the text of a PDF in the order of its pages; others with their headings."""

from __future__ import annotations

import re
from typing import Any, Final

from ..entry import FileSkipped, SkipReason
from . import MARKDOWN, Extracted, suffix_of

_OPEN_XML: Final = "application/vnd.openxmlformats-officedocument"
_OPEN_DOCUMENT: Final = "application/vnd.oasis.opendocument"
#: By suffix. The content does not tell them all apart: most are zip archives.
_MEDIA_TYPES: Final = {
    ".doc": "application/msword",
    ".docx": f"{_OPEN_XML}.wordprocessingml.document",
    ".epub": "application/epub+zip",
    ".odp": f"{_OPEN_DOCUMENT}.presentation",
    ".ods": f"{_OPEN_DOCUMENT}.spreadsheet",
    ".odt": f"{_OPEN_DOCUMENT}.text",
    ".pdf": "application/pdf",
    ".ppt": "application/vnd.ms-powerpoint",
    ".pptx": f"{_OPEN_XML}.presentationml.presentation",
    ".rtf": "application/rtf",
    ".xls": "application/vnd.ms-excel",
    ".xlsx": f"{_OPEN_XML}.spreadsheetml.sheet",
}

#: A file that takes longer is skipped.
_EXTRACT_S: Final = 60

#: Punctuation that Kreuzberg escapes in Markdown; in a text to be found it is noise.
_ESCAPED: Final = re.compile(r"\\([!-/:-@\[-`{-~])")
#: What programs write as the title of a document to which nobody gave one.
_PLACEHOLDER: Final = re.compile(
    r"|\(?(untitled|unnamed|no ?title|unknown)\)?([ -]?(document|presentation|spreadsheet|page))?[ -]?\d*"
    r"|(microsoft (office )?(word|excel|powerpoint|publisher)|powerpoint presentation)( - .*)?"
    r"|(document|presentation|spreadsheet|book|slide|dokument|unbenannt)[ -]?\d*"
    r"|.*\.(docx?|dotx?|xlsx?|pptx?|rtf|od[tsp]|tex|dvi|indd|qxd|pages|tmp)",
    re.IGNORECASE,
)


def extract(content: bytes, name: str) -> Extracted:
    try:
        from kreuzberg import ExtractionConfig, extract_bytes_sync
        from kreuzberg.exceptions import KreuzbergError
    except ImportError:
        raise FileSkipped(
            SkipReason.EXTRA, "reading PDF and Office files needs Kreuzberg", "pip install 'vecd[files]'"
        ) from None
    media_type = _MEDIA_TYPES[suffix_of(name)]
    structure = "" if media_type == "application/pdf" else MARKDOWN
    config = ExtractionConfig(
        use_cache=False,
        disable_ocr=True,  # type: ignore[call-arg, unused-ignore]  # its stubs lack it
        enable_quality_processing=False,
        output_format=structure or "plain",
        extraction_timeout_secs=_EXTRACT_S,
    )
    try:
        found = extract_bytes_sync(content, media_type, config)
    except KreuzbergError as error:
        raise FileSkipped(SkipReason.DAMAGED, f"it cannot be read ({str(error).splitlines()[0]:.200})") from error
    text = found.content.replace("\r\n", "\n")
    about: dict[str, Any] = dict(found.metadata)
    title = about.get("title") or (about.get("core_properties") or {}).get("title")
    return Extracted(
        _ESCAPED.sub(r"\1", text) if structure else text,
        title if isinstance(title, str) and not _PLACEHOLDER.fullmatch(title.strip()) else None,
        structure,
        has_lines=False,
    )
