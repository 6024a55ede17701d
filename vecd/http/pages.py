"""The live page at `/`, the documentation of the HTTP interface at `/docs`, and their files in the folder `static`.

Rules:
- Only the files of the table below are served; no path of a request reaches the file system.
- The pages load nothing from other origins and run no inline code: the Content-Security-Policy forbids it.
- Browsers keep the files, and ask each time whether they have changed (ETag), so an upgrade shows at once.
- Anybody may load them. They contain no data; their scripts use the public endpoints, with the user's key.
"""

from __future__ import annotations

import asyncio
import gzip
import hashlib
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

from starlette.responses import Response

from ..errors import Code, VecError
from .call import Call
from .endpoint import Answer, Endpoint, Parameter
from .schemas import STRING

FOLDER: Final = Path(__file__).parent / "static"

_HTML, _SCRIPT, _STYLE = "text/html; charset=utf-8", "text/javascript; charset=utf-8", "text/css; charset=utf-8"
_MEDIA_TYPES: Final = {
    ".html": _HTML, ".js": _SCRIPT, ".css": _STYLE, ".svg": "image/svg+xml", ".txt": "text/plain; charset=utf-8"
}  # fmt: skip
#: What `/static/…` serves.
FILES: Final = frozenset((
    "style.css", "icon.svg", "chevron.svg",
    "api.js", "dom.js", "feed.js", "format.js", "highlight.js", "ingest.js", "jobs.js", "libraries.js", "main.js",
    "search.js", "state.js", "theme.js", "docs.js",
    "swagger/swagger-ui.css", "swagger/swagger-ui-bundle.js", "swagger/LICENSE.txt", "swagger/NOTICE.txt",
    "swagger/swagger-ui-bundle.js.LICENSE.txt",
))  # fmt: skip

_POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'{images}; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
#: Markup is never made from strings: `require-trusted-types-for` refuses innerHTML and its like.
PAGE_POLICY: Final = _POLICY.format(images="") + "; require-trusted-types-for 'script'; trusted-types 'none'"
#: Swagger UI's style sheet has its icons as data: URLs.
DOCS_POLICY: Final = _POLICY.format(images=" data:")

#: Bytes from which a file is worth compressing.
_COMPRESS_BYTES_MIN: Final = 1_000


@dataclass(frozen=True, slots=True)
class _File:
    content: bytes
    compressed: bytes | None
    etag: str
    media_type: str


@cache
def _load(name: str) -> _File:
    content = (FOLDER / name).read_bytes()
    compressed = gzip.compress(content, 6, mtime=0) if len(content) >= _COMPRESS_BYTES_MIN else None
    etag = f'"{hashlib.sha256(content).hexdigest()[:32]}"'
    return _File(content, compressed, etag, _MEDIA_TYPES[Path(name).suffix])


async def _answer(call: Call, name: str, policy: str) -> Response:
    file = await asyncio.to_thread(_load, name)
    headers = {
        "cache-control": "no-cache",
        "content-security-policy": policy,
        "etag": file.etag,
        "referrer-policy": "no-referrer",
        "vary": "accept-encoding",
    }
    known = [each.strip().removeprefix("W/") for each in call.request.headers.get("if-none-match", "").split(",")]
    if file.etag in known or known == ["*"]:
        return Response(status_code=304, headers=headers)
    if file.compressed is not None and "gzip" in call.request.headers.get("accept-encoding", ""):
        return Response(file.compressed, 200, {**headers, "content-encoding": "gzip"}, file.media_type)
    return Response(file.content, 200, headers, file.media_type)


async def page(call: Call) -> Response:
    return await _answer(call, "index.html", PAGE_POLICY)


async def docs(call: Call) -> Response:
    return await _answer(call, "docs.html", DOCS_POLICY)


async def static(call: Call) -> Response:
    name = call.path["file"]
    if name not in FILES:
        raise VecError(Code.NOT_FOUND, f"there is no file {name!r:.200} of the page")
    return await _answer(call, name, DOCS_POLICY)


_FILE = Parameter("file", "path", STRING, "The name of the file.", required=True)
_TEXT = "text/html"

ENDPOINTS = (
    Endpoint("GET", "/", page, "open", "The live page.", "pages", {200: Answer("The page.", STRING, _TEXT)}),
    Endpoint(
        "GET", "/docs", docs, "open", "This documentation, as a page.", "pages",
        {200: Answer("The page.", STRING, _TEXT)},
    ),
    Endpoint(
        "GET", "/static/{file:path}", static, "open", "A file of the pages.", "pages",
        {200: Answer("The file.", STRING, "*/*")}, (_FILE,),
    ),
)  # fmt: skip
