"""Mail becomes documents, whatever a program wrote: messages are told apart, headers and bodies are decoded."""

from __future__ import annotations

import mailbox
from email.message import EmailMessage
from email.policy import SMTP
from pathlib import Path

import pytest

from vecd import limits
from vecd.errors import VecError
from vecd.wire import mail
from vecd.wire.html_text import text_of


def message(**parts: str) -> EmailMessage:
    made = EmailMessage()
    made["Message-ID"] = "<a.1@example.com>"
    made["From"] = "Jörg Müller <j@example.com>"
    made["To"] = "ann@example.com, Bob <b@example.com>"
    made["Subject"] = "Grüße aus 東京, " + "a long subject " * 10
    made["Date"] = "Thu, 26 Nov 2026 10:30:00 +0100"
    if "plain" in parts:
        made.set_content(parts["plain"])
        if "html" in parts:
            made.add_alternative(parts["html"], subtype="html")
    elif "html" in parts:
        made.set_content(parts["html"], subtype="html")
    return made


def test_a_message_is_a_document_with_its_headers_decoded() -> None:
    assert mail.document_of(message(plain="Hällo\n\nyou").as_bytes(policy=SMTP)) == {
        "id": "a.1@example.com",
        "title": ("Grüße aus 東京, " + "a long subject " * 10).strip(),
        "text": "Hällo\n\nyou",
        "metadata": {
            "from": "Jörg Müller <j@example.com>",
            "to": "ann@example.com, Bob <b@example.com>",
            "date": "2026-11-26T09:30:00Z",
        },
    }


def test_plain_text_is_taken_before_html_and_html_is_read_where_there_is_no_other() -> None:
    html = "<html><head><style>p {}</style></head><body><p>One <b>two</b><p>caf&eacute;</body></html>"
    assert mail.document_of(message(plain="plain", html=html).as_bytes())["text"] == "plain"
    assert mail.document_of(message(html=html).as_bytes())["text"] == "One two\n\ncafé"


def test_attachments_are_no_text_and_a_forwarded_message_is() -> None:
    made = message(plain="see below")
    made.add_attachment("secret,table\n", subtype="csv", filename="t.csv")
    made.add_attachment(b"%PDF", maintype="application", subtype="pdf", filename="t.pdf")
    inner = message(plain="the original")
    made.add_attachment(inner, disposition="inline")
    assert mail.document_of(made.as_bytes())["text"] == "see below\n\nthe original"


@pytest.mark.parametrize(
    ("raw", "wanted"),
    [
        (b"Subject: caf\xe9\n\nna\xefve", ("café", "naïve")),  # Latin-1 without saying so
        ("Subject: café\n\nnaïve".encode(), ("café", "naïve")),
        (b"Subject: =?no-such-charset?q?a=62c?=\n\nx", ("abc", "x")),
        (b"Subject: =?utf-8?b?!!!!?=\n\nx", ("=?utf-8?b?!!!!?=", "x")),
        (b"Subject: s\nContent-Type: text/plain; charset=no-such\n\nx\xc3\xa9", ("s", "xé")),
        (b"Subject: s\nContent-Type: multipart/mixed\n\nno boundary", ("s", "no boundary")),
        (b"Subject: s\nContent-Transfer-Encoding: base64\n\n%%%not base64", ("s", None)),
        (b"Subject: a\n\tfolded\n  line\n\nx", ("a folded line", "x")),
        (b"\n\nonly a text", (None, "only a text")),
    ],
)
def test_what_a_program_wrote_wrongly_is_read_as_well_as_possible(
    raw: bytes, wanted: tuple[str | None, str | None]
) -> None:
    found = mail.document_of(raw)
    assert found.get("title") == wanted[0]
    assert wanted[1] is None or found.get("text") == wanted[1]


@pytest.mark.parametrize(
    "date", ["yesterday", "Thu, 99 Nov 2026 10:00:00 +0000", "", "Mon, 1 Jan 99999 10:00:00 +0000"]
)
def test_a_date_that_is_none_is_left_out(date: str) -> None:
    assert "metadata" not in mail.document_of(f"Subject: s\nDate: {date}\n\nx".encode())


def test_an_id_that_is_too_long_is_left_out_and_a_subject_that_is_too_long_is_cut() -> None:
    raw = f"Message-ID: <{'i' * 600}>\nSubject: {'é' * limits.TITLE_BYTES_MAX}\n\nx".encode()
    found = mail.document_of(raw)
    assert "id" not in found
    assert found["title"] == "é" * (limits.TITLE_BYTES_MAX // 2)


def test_a_message_without_a_subject_and_a_text_is_refused() -> None:
    with pytest.raises(VecError, match="no subject and no text"):
        mail.document_of(b"From: a@example.com\n\n")


def test_messages_nested_without_end_are_refused_and_not_a_crash() -> None:
    raw = b"".join(b'Content-Type: multipart/mixed; boundary="%d"\n\n--%d\n' % (n, n) for n in range(3_000))
    try:
        mail.document_of(raw)
    except VecError as error:
        assert error.code == "invalid_document"


# --- mbox -----------------------------------------------------------------------------------------------------------


def read(data: bytes, size: int) -> list[tuple[int, bytes]]:
    pieces = iter([data[start : start + size] for start in range(0, len(data), size)])
    return [found for found in mail.messages("a file", pieces) if found is not None]


def test_an_mbox_of_the_standard_library_comes_out_as_its_messages_however_it_is_cut(tmp_path: Path) -> None:
    box = mailbox.mbox(tmp_path / "box")
    texts = [
        "one\n",
        "From here on it is quoted\n\nFrom the start of a line\n",
        "\nFrom nobody at 10:00\n",
        "x" * 5_000,
    ]
    for text in texts:
        made = message(plain=text)
        box.add(made)
    box.close()
    data = (tmp_path / "box").read_bytes()
    for size in (1, 3, 100, len(data)):
        found = read(data, size)
        assert [mail.document_of(each)["text"] for _, each in found] == [text.strip() for text in texts]
        assert all(data.split(b"\n")[number - 1].startswith(b"From ") for number, _ in found)


def test_a_line_in_a_message_that_only_begins_like_a_mark_begins_no_message() -> None:
    data = b"From a Thu Nov 26 10:00:00 2026\nSubject: s\n\nHello.\n\nFrom now on all is well.\n\n>From x\n"
    ((number, found),) = read(data, 7)
    assert (number, mail.document_of(found)["text"]) == (1, "Hello.\n\nFrom now on all is well.\n\nFrom x")


def test_a_message_that_is_too_large_is_read_up_to_the_limit() -> None:
    mark = b"From a Thu Nov 26 10:00:00 2026\n"
    huge = mark + b"Subject: huge\n\nfirst\n" + b"x" * 70 * limits.MIB + b"\n\n" + mark + b"Subject: next\n\nlast\n"
    first, second = read(huge, 256 * limits.KIB)
    assert len(first[1]) <= limits.LINE_BYTES_MAX
    assert mail.document_of(first[1])["title"] == "huge"
    assert mail.document_of(second[1])["text"] == "last"


def test_what_is_no_mbox_is_refused_and_an_empty_one_has_no_messages() -> None:
    assert read(b"\n\n", 1) == read(b"", 1) == []
    with pytest.raises(VecError, match="is no mbox"):
        read(b"Subject: s\n\nx", 5)


# --- the text of HTML -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("html", "text"),
    [
        ("a<br>b<br/>c", "a\nb\nc"),
        ("<ul><li>a<li>b</ul>c", "a\nb\n\nc"),
        ("<table><tr><td>1<td>2<tr><td>3</table>", "1 2\n3"),
        ("a &lt; b &amp;&nbsp;c < d", "a < b & c < d"),
        ("<a title='a > b'>link</a>", "link"),
        ("<!-- no > text --><p>x<!-- never closed", "x"),
        ("<script>if (a < b) { '</p>' }</script>x<title>t</title>", "x"),
        ("<pre>a\n  b</pre>", "a\nb"),
        ("<head><meta><body>x", "x"),
        ("no html at all", "no html at all"),
    ],
)
def test_html_is_read_as_a_browser_shows_it(html: str, text: str) -> None:
    assert text_of(html) == text
