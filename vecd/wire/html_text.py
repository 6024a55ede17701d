"""The text of HTML, for people to read: without tags, scripts and styles; blocks are paragraphs.

Linear in time for any input, which the parser of the standard library is not: a page or a mail may be hostile. So tags
are found by one pattern that never looks far ahead.
"""

from __future__ import annotations

import re
from html import unescape
from typing import Final

#: Elements whose contents are not text. In the first ones a tag is no tag, up to the element's end.
_RAW: Final = frozenset(("iframe", "noembed", "noframes", "script", "style", "textarea", "title", "xmp"))
_HIDDEN: Final = frozenset(("head", "noscript", "object", "svg", "template"))
_END: Final = {name: re.compile(rf"</{name}[\s/>]", re.IGNORECASE) for name in _RAW}
#: What is shown of raw elements.
_SHOWN: Final = frozenset(("textarea", "xmp"))
#: Elements that begin a line, and those that begin a paragraph.
_LINES: Final = frozenset(("br", "dd", "div", "dt", "li", "option", "tr"))
_PARAGRAPHS: Final = frozenset(
    ("address", "article", "aside", "blockquote", "dl", "fieldset", "figure", "footer", "form", "h1", "h2", "h3", "h4",
     "h5", "h6", "header", "hr", "main", "nav", "ol", "p", "pre", "section", "table", "ul")
)  # fmt: skip
_CELLS: Final = frozenset(("td", "th"))

#: A tag, a comment's beginning, or a declaration. A `>` in a quoted value of up to 1,000 characters ends no tag.
_MARKUP: Final = re.compile(
    r"""<(?: (?P<comment>!--) | [!?][^<>]*> | (?P<end>/?)(?P<name>[a-zA-Z][^\s/<>]*+)"""
    r"""(?: [^<>"'] | "[^"]{0,1000}" | '[^']{0,1000}' | ["'] )*+ > )""",
    re.VERBOSE,
)
_SPACES: Final = re.compile(r"[ \t\n\r\f\v]+")
_AROUND_BREAK: Final = re.compile(r"[ \t\r]*\n[ \t]*")
_EMPTY_LINES: Final = re.compile(r"\n{3,}")


def text_of(html: str) -> str:
    """The text. HTML that is wrong, or is none, gives about the text that a browser would show."""
    parts: list[str] = []
    hidden = 0  # open elements whose contents are not text
    pre = 0  # open `pre` elements
    at, end = 0, len(html)
    while at < end:
        found = _MARKUP.search(html, at)
        stop = end if found is None else found.start()
        if stop > at and not hidden:
            text = unescape(html[at:stop])
            parts.append(text if pre else _SPACES.sub(" ", text))
        if found is None:
            break
        at = found.end()
        if found["comment"]:
            closed = html.find("-->", at - 2)
            at = end if closed < 0 else closed + 3
            continue
        if found["name"] is None:
            continue
        name, opens = found["name"].lower(), not found["end"]
        if name in _RAW and opens:
            closes = _END[name].search(html, at)
            stop = end if closes is None else closes.start()
            if name in _SHOWN and not hidden:
                parts.append(unescape(html[at:stop]))
            at = stop
        elif name == "body" and opens:
            hidden = 0  # a head that was not closed ends here
        elif name in _HIDDEN:
            if not (opens and html.startswith("/>", at - 2)):
                hidden = max(0, hidden + (1 if opens else -1))
        elif not hidden:
            pre = max(0, pre + (1 if opens else -1)) if name == "pre" else pre
            parts.append(_break(name, opens))
    joined = "".join(parts).replace("\xa0", " ").replace("\0", "")
    return _EMPTY_LINES.sub("\n\n", _AROUND_BREAK.sub("\n", joined)).strip()


def _break(name: str, opens: bool) -> str:
    if name in _PARAGRAPHS:
        return "\n\n"
    if name in _LINES:
        return "\n" if opens or name != "br" else ""
    return " " if name in _CELLS else ""
