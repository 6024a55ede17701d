"""The documents of real files: pages of this project's manual, its source, and files in data/ that pandoc and mandoc
wrote."""

from __future__ import annotations

import bz2
import gzip
import sys
from pathlib import Path
from typing import Any

import pytest

from vecd.files.documents import documents_of
from vecd.files.entry import FileSkipped, SkipReason
from vecd.files.options import FileOptions
from vecd.files.walk import walk

ROOT = Path(__file__).parents[2]
DATA = Path(__file__).parent / "data"


def documents(path: Path, **options: Any) -> list[dict[str, Any]]:
    (entry,) = walk(str(path), prefix=path.name)
    return list(documents_of(entry, FileOptions(**options)))


def document(path: Path, **options: Any) -> dict[str, Any]:
    (only,) = documents(path, **options)
    return only


def written(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def reason(path: Path) -> SkipReason:
    with pytest.raises(FileSkipped) as skipped:
        documents(path)
    return skipped.value.reason


@pytest.mark.parametrize("path", ["README.md", "vecd/files/walk.py", "vecd/http/static/feed.js", "LICENSE"])
def test_chunks_stand_on_the_lines_that_they_name(path: str) -> None:
    lines = (ROOT / path).read_text().split("\n")
    found = document(ROOT / path, chunk_chars=300)
    assert len(found["texts"]) == len(found["lines"]) > 2
    for text, number in zip(found["texts"], found["lines"], strict=True):
        # The chunk follows the file line by line from there on; its first and last line may be parts of lines.
        for place, line in enumerate(text.split("\n")):
            assert line.strip() in lines[number - 1 + place], (path, number, place)
    assert max(map(len, found["texts"])) <= 300


def test_source_code_is_split_at_its_functions(tmp_path: Path) -> None:
    functions = [
        f"def tide_{number}(harbour):\n    height = {number}\n\n    return height * {number}\n" for number in range(9)
    ]
    found = document(written(tmp_path / "tides.py", "\n\n".join(functions)), chunk_chars=90)
    assert [text.split("(")[0] for text in found["texts"]] == [f"def tide_{number}" for number in range(9)]
    assert found["lines"] == [1 + 6 * number for number in range(9)]
    assert (found["metadata"]["type"], found["metadata"]["language"]) == ("code", "python")


def test_markdown_is_split_at_its_headings_and_titled_by_the_first(tmp_path: Path) -> None:
    text = (
        "---\ntags: x\n---\n\n# The *North* [Sea](x.html)\n\nOne.\n\n## Spring\n\n"
        + "Water rises. " * 5
        + "\n\n## Neap\n\nLow.\n"
    )
    found = document(written(tmp_path / "sea.md", text), chunk_chars=100)
    assert found["title"] == "The North Sea"
    assert "## Spring" in [chunk.split("\n")[0] for chunk in found["texts"]]
    titled = written(tmp_path / "front.md", "---\ntitle: 'Tides: a book'\n---\n# Other\n")
    assert document(titled)["title"] == "Tides: a book"


def test_chunks_overlap_by_whole_words_and_keep_their_lines(tmp_path: Path) -> None:
    text = "\n".join(f"word{number} and more" for number in range(60))
    found = document(written(tmp_path / "a.txt", text), chunk_chars=100, chunk_overlap=40)
    for before, chunk in zip(found["texts"], found["texts"][1:], strict=False):
        first = chunk.split("\n")[0].strip()
        assert first in before
    numbers = [int(chunk.split("word")[1].split()[0]) + 1 for chunk in found["texts"]]
    assert found["lines"] == numbers


def test_a_manual_page_has_its_names_as_title_and_its_sections_as_headings() -> None:
    found = document(ROOT / "man" / "vec-count.1")
    assert found["title"] == "vec-count(1) - count the documents and chunks of a library"
    assert found["metadata"]["type"] == "man"
    text = "\n".join(found["texts"])
    assert "# DESCRIPTION" in text
    assert "--where" in text or "-where" in text
    assert ".Nm" not in text
    assert "\\" not in text
    source = (ROOT / "man" / "vec-count.1").read_text().split("\n")
    for chunk, number in zip(found["texts"], found["lines"], strict=True):
        if chunk.startswith("# "):
            assert chunk.split("\n")[0][2:] in source[number - 1]


def test_roff_of_other_programs_is_read(tmp_path: Path) -> None:
    page = (
        '.\\" a comment\n.TH TIDE 1 "2026" "harbour 1\\-2"\n.de XX\nnot text\n..\n.SH NAME\ntide, ebb \\- show the '
        'tides\n.SH SYNOPSIS\n.B tide\n[\\fI\\,OPTION\\/\\fR]...\n.ie n .ds Aq \'\n.el .ds Aq x\n.if t \\{\\\n'
        '.B on paper\n'
        '.\\}\n.SH OPTIONS\n.TP\n\\fB\\-h\\fR, \\fB\\-\\-height\\fR=\\fIN\\fR\nheights over \\fIN\\fR m;\n'
        'it\\(aqs \\(lqhigh\\(rq\n'
        '.nf\n  kept\n    as it is\n.fi\n.BR moon (7)\n'
    )  # fmt: skip
    found = document(written(tmp_path / "tide.1", page))
    text = found["texts"][0]
    assert found["title"] == "tide, ebb(1) - show the tides"
    assert "tide [OPTION]..." in text
    assert "-h, --height=N\nheights over N m; it's “high”" in text
    assert "  kept\n    as it is" in text
    assert "moon(7)" in text
    assert "not text" not in text
    assert "on paper" not in text
    assert document(written(tmp_path / "libtide.so.1", "no roff, only a name\n"))["texts"] == ["no roff, only a name"]
    assert reason(written(tmp_path / "alias.1", ".so man1/tide.1\n")) is SkipReason.NO_TEXT


def test_html_is_what_a_reader_sees(tmp_path: Path) -> None:
    page = (
        "<html><head><title>The  tides\n</title><style>p {x}</style><script>var a = '<p>no</p>'</script></head>\n<body>"
        "<nav><a href=x>Home</a></nav>\n<h2>Spring &amp; neap</h2>\n<p>At <b>full</b>\nmoon&nbsp;it rises.<ul><li>Emden"
        "<li>Husum</ul>\n<pre>a\n  b</pre><table><tr><td>1<td>2</table>"
    )
    found = document(written(tmp_path / "t.html", page))
    assert found["title"] == "The tides"
    assert found["texts"][0].split("\n")[0] == "## Spring & neap"
    for part in ("At full moon it rises.", "- Emden\n- Husum", "a\n  b", "1 | 2"):
        assert part in found["texts"][0]
    assert "Home" not in found["texts"][0]
    assert "no" not in found["texts"][0].split()
    assert found["lines"] == [4]


@pytest.mark.parametrize("suffix", ["docx", "odt", "epub", "pptx", "rtf"])
def test_office_files_of_pandoc_have_their_text_and_no_lines(suffix: str) -> None:
    found = document(DATA / f"tides.{suffix}")
    text = "\n".join(found["texts"])
    for part in ("Spring tides", "the water rises higher", "Café by the harbour: open at low tide.", "Emden"):
        assert part in text, part
    assert "lines" not in found
    assert found["metadata"]["type"] == suffix
    if suffix != "rtf":
        assert found["title"] == "Tides of the North Sea"


def test_a_pdf_of_mandoc_has_its_text() -> None:
    found = document(DATA / "vec-count.pdf")
    assert found["metadata"]["type"] == "pdf"
    assert "count the documents and chunks" in "\n".join(found["texts"])


@pytest.mark.parametrize(
    ("title", "found"),
    [
        ("The tides", "The tides"), ("Document types", "Document types"), ("Untitled hours", "Untitled hours"),
        ("untitled", None), ("Untitled document", None), ("Untitled-3", None), ("Microsoft Word - tides.docx", None),
        ("PowerPoint Presentation", None), ("", None), ("  ", None), ("tides_final.doc", None), ("Document1", None),
    ],
)  # fmt: skip
def test_a_pdf_title_that_nobody_wrote_is_none(tmp_path: Path, title: str, found: str | None) -> None:
    page = b"BT /F 12 Tf 72 700 Td (High water at noon) Tj ET"
    parts = [
        b"<</Type/Catalog/Pages 2 0 R>>",
        b"<</Type/Pages/Kids[3 0 R]/Count 1>>",
        b"<</Type/Page/Parent 2 0 R/MediaBox[0 0 612 792]/Contents 4 0 R/Resources<</Font<</F 5 0 R>>>>>>",
        b"<</Length %d>>stream\n%s\nendstream" % (len(page), page),
        b"<</Type/Font/Subtype/Type1/BaseFont/Helvetica>>",
        b"<</Title(%s)>>" % title.encode(),
    ]
    pdf, places = b"%PDF-1.4\n", []
    for number, part in enumerate(parts, 1):
        places.append(len(pdf))
        pdf += b"%d 0 obj%s\nendobj\n" % (number, part)
    table = b"".join(b"%010d 00000 n \n" % place for place in places)
    end = b"xref\n0 7\n0000000000 65535 f \n%strailer<</Size 7/Root 1 0 R/Info 6 0 R>>\nstartxref\n%d\n%%%%EOF\n"
    made = document(written(tmp_path / "a.pdf", pdf + end % (table, len(pdf))))
    assert made["title"] == (found or "a.pdf")
    assert made["texts"] == ["High water at noon"]


def test_a_damaged_file_is_skipped_and_says_so(tmp_path: Path) -> None:
    assert reason(written(tmp_path / "a.pdf", b"%PDF-1.4 no")) is SkipReason.DAMAGED
    whole = (DATA / "tides.docx").read_bytes()
    assert reason(written(tmp_path / "a.docx", whole[: len(whole) // 2])) is SkipReason.DAMAGED
    assert reason(written(tmp_path / "b.docx", "not even a zip")) is SkipReason.DAMAGED
    assert reason(written(tmp_path / "a.txt.gz", gzip.compress(b"text" * 999)[:30])) is SkipReason.DAMAGED


def test_without_the_extra_the_remedy_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "kreuzberg", None)
    with pytest.raises(FileSkipped) as skipped:
        document(DATA / "tides.docx")
    assert (skipped.value.reason, skipped.value.hint) == (SkipReason.EXTRA, "pip install 'vecd[files]'")


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ("héllo\r\nworld".encode(), "héllo\nworld"),
        ("\ufeffhéllo".encode(), "héllo"),
        ("héllo wörld".encode("utf-16"), "héllo wörld"),
        ("héllo".encode("latin-1"), "héllo"),
        ("“quoted”".encode("cp1252"), "“quoted”"),
        (gzip.compress(b"gezippt", mtime=0), "gezippt"),
        (bz2.compress(b"bzipped"), "bzipped"),
    ],
)
def test_text_in_any_common_encoding_is_read(tmp_path: Path, content: bytes, text: str) -> None:
    assert document(written(tmp_path / "a.txt", content))["texts"] == [text]


def test_what_is_no_text_is_skipped(tmp_path: Path) -> None:
    assert reason(written(tmp_path / "a.unknown", bytes(range(256)) * 9)) is SkipReason.BINARY
    assert reason(written(tmp_path / "b.txt", bytes([1, 2, 3, 65]) * 99)) is SkipReason.BINARY
    assert reason(Path(sys.executable).resolve()) in (SkipReason.BINARY, SkipReason.TOO_LARGE)
    assert reason(written(tmp_path / "c.txt", " \n\t\n")) is SkipReason.EMPTY
    assert reason(written(tmp_path / "d.html", "<html><script>x()</script>")) is SkipReason.NO_TEXT


def test_metadata_says_where_when_how_large_and_what(tmp_path: Path) -> None:
    import os

    path = written(tmp_path / "Makefile", "all:\n\ttrue\n")
    os.utime(path, ns=(0, 1_700_000_000_123_456_789))
    assert document(path)["metadata"] == {
        "path": str(path), "mtime": "2023-11-14T22:13:20.123Z", "size": 11, "type": "code", "language": "make",
    }  # fmt: skip


def test_mail_is_a_document_and_a_mailbox_one_for_each_message(tmp_path: Path) -> None:
    message = (
        "Message-ID: <{0}@sea>\nFrom: ann@sea\nTo: bob@sea\nSubject: Tide {0}\n"
        "Date: Thu, 26 Nov 2026 10:00:00 +0100\n\nHigh at {0}.\n"
    )
    found = document(written(tmp_path / "a.eml", message.format(1)))
    assert (found["id"], found["title"], found["texts"]) == ("a.eml", "Tide 1", ["High at 1."])
    assert found["metadata"]["from"] == "ann@sea"
    assert found["metadata"]["message_id"] == "1@sea"
    mailbox = "".join(f"From ann@sea Thu Nov 26 10:00:00 2026\n{message.format(number)}\n" for number in (1, 2))
    first, second = documents(written(tmp_path / "b.mbox", mailbox))
    assert (first["id"], second["id"]) == ("b.mbox#1@sea", "b.mbox#2@sea")
    assert second["lines"] == [mailbox[: mailbox.index("From ann", 9)].count("\n") + 1]


def test_a_file_of_one_endless_line_is_split_in_bounded_time(tmp_path: Path) -> None:
    for name, text in (("a.js", "x=1;" * 250_000), ("a.md", "word " * 200_000), ("a.json", '{"a":[' * 100_000)):
        found = document(written(tmp_path / name, text))
        assert max(map(len, found["texts"])) <= 1_000
        assert set(found["lines"]) == {1}
