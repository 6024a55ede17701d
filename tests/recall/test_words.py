"""Every document is found by its own words in mode text, in any script and spelling, and not by the words of others.

Through a real daemon. A row of the table names a document, its text and the queries that must find it and no other.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator
from typing import Final, NamedTuple

import pytest

from tests.support.instance import Instance
from vecd.client import Client

_SYMBOLS: Final = 2_200
_BATCH: Final = 500


class Case(NamedTuple):
    """A document and the queries that find only it."""

    text: str
    queries: tuple[str, ...]


def nfd(text: str) -> str:
    return unicodedata.normalize("NFD", text)


def nfc(text: str) -> str:
    return unicodedata.normalize("NFC", text)


CASES: Final[dict[str, Case]] = {
    # one word, written in several ways
    "decomposed": Case(nfd("The résumé arrived late"), (nfc("résumé"), nfd("résumé"), "resume", "RÉSUMÉ")),
    "composed": Case(nfc("Her naïveté was charming"), (nfc("naïveté"), nfd("naïveté"), "naivete", nfd("NAÏVETÉ"))),
    "dotted-i": Case("İstanbul has two continents", ("İstanbul", "istanbul", "Istanbul", "ISTANBUL", nfd("İstanbul"))),
    "sharp-s": Case("Die lange Straße am Hafen", ("Straße", "strasse", "STRASSE")),
    "ligature": Case("An oﬃcial ﬁle with ﬂags", ("ﬁle", "file", "oﬃcial", "official", "ﬂags", "flags")),
    "full-width": Case("The ＬＩＮＵＸ kernel, release ４２", ("ＬＩＮＵＸ", "linux", "Linux", "４２", "42")),
    "half-width": Case("A ｶﾒﾗ on the shelf", ("ｶﾒﾗ", "カメラ")),
    "soft-hyphen": Case("They co\u00adoperate well", ("cooperate", "co\u00adoperate")),
    "vietnamese": Case("Từ điển tiếng Việt", ("điển", nfd("điển"), "tiếng", nfd("tiếng"), "tieng")),
    "apostrophe": Case("We shouldn’t wait", ("shouldn’t", "shouldn't")),
    # scripts with marks
    "greek": Case("Ἡ Ἀθήνα τὴν αὐγή", ("Ἀθήνα", nfd("Ἀθήνα"), "Αθήνα", "αθηνα", "ΑΘΗΝΑ")),
    "final-sigma": Case("Ὁ Ὀδυσσεύς ταξιδεύει", ("Ὀδυσσεύς", "Οδυσσευς", "ΟΔΥΣΣΕΥΣ")),
    "arabic": Case("هذا كِتَابٌ جديد", ("كِتَابٌ", "كتاب")),
    "hebrew": Case("זה סֵפֶר טוב", ("סֵפֶר", "ספר")),
    "persian": Case("من می‌خواهم بروم", ("می‌خواهم",)),
    "cyrillic": Case("Свежий мёд из леса", ("мёд", nfd("мёд"), "мед", "МЁД")),
    "hindi": Case("यह हाथी बड़ा है", ("हाथी", nfd("हाथी"))),
    "hindi-letters": Case("अक्षर ह और थ", ("अक्षर",)),
    "tamil": Case("தமிழ் மொழி இனிது", ("தமிழ்", "மொழி")),
    "tamil-letters": Case("எழுத்து த ம ழ", ("எழுத்து",)),
    "bengali": Case("বাংলা ভাষা সুন্দর", ("বাংলা", "ভাষা")),
    "hangul-decomposed": Case(nfd("한국어 문법"), (nfc("한국어"), nfd("한국어"))),
    # scripts without spaces: a word inside a sentence
    "chinese": Case("我们在北京的图书馆里学习中文", ("北京", "图书馆", "中文", "学习")),
    "chinese-other": Case("他昨天去上海的医院看病", ("上海", "医院", "昨天")),
    "japanese": Case("東京の大学で日本の歴史を学ぶ", ("東京", "大学", "歴史")),
    "japanese-other": Case("大阪でラーメンを食べた", ("大阪", "ラーメン")),
    "thai": Case("ฉันชอบอ่านหนังสือที่ห้องสมุดทุกวัน", ("หนังสือ", "ห้องสมุด")),
    "thai-other": Case("แมวนอนบนเก้าอี้ในครัว", ("แมว", "เก้าอี้")),
    "mixed": Case("Install 日本語版Windows today", ("日本語", "Windows", "windows")),
    # symbols and emoji, alone and beside a word
    "emoji": Case("Awesome🤩 work", ("Awesome🤩", "awesome", "🤩")),
    "rouble": Case("It costs 500₽ there", ("500₽", "500", "₽")),
    "heart": Case("I ❤️ Debian", ("❤️", "❤")),
    "joined-emoji": Case("Ask a 👩‍💻 about it", ("👩‍💻",)),
    "flag": Case("Made in 🇩🇪", ("🇩🇪",)),
    "flag-other": Case("Grown in 🇫🇷", ("🇫🇷",)),
    "arrow": Case("See ⇒ below", ("⇒",)),
    # names with signs in them
    "c": Case("Plain C is older", ("C", "c")),
    "c++": Case("We compile C++ daily", ("C++", "c++")),
    "c-sharp": Case("They teach C# here", ("C#", "c#")),
    "f-sharp": Case("F# runs there too", ("F#", "f#")),
    "dot-net": Case("Built for .NET only", (".NET", ".net")),
    "snake": Case("It calls foo_bar twice", ("foo_bar",)),
    "address": Case("Write to root@example.org now", ("root@example.org",)),
}

#: Names of several parts: each is the first hit of its own query, before those that share parts with it.
FIRST: Final = {
    "CVE-2024-1234": "Fixes CVE-2024-1234 in the parser",
    "CVE-2024-9999": "Fixes CVE-2024-9999 in the parser",
    "1.2.34-5": "Upgrade to 1.2.34-5 of the library",
    "1.2.35-4": "Upgrade to 1.2.35-4 of the library",
    "/etc/cron.d": "Look into /etc/cron.d on the host",
    "/etc/cron.daily": "Look into /etc/cron.daily on the host",
    "std::vector": "Fill a std::vector of them",
    "std::string": "Fill a std::string of them",
}


@pytest.fixture(scope="module")
def client() -> Iterator[Client]:
    with Instance({"VEC_EMBEDDER": "hash"}) as instance:
        instance.start()
        with instance.connect() as connected:
            write(connected, "words", {name: case.text for name, case in CASES.items()})
            write(connected, "first", FIRST)
            write(connected, "symbols", {symbol: f"before {symbol} after" for symbol in symbols()})
            write(connected, "titles", {"of": "Nothing of it here", "other": "Nothing here"}, {"of": "Ἡ Ωμέγα"})
            yield connected


def write(client: Client, library: str, texts: dict[str, str], titles: dict[str, str] | None = None) -> None:
    """Each text is a document of one chunk."""
    client.request("library.create", library=library, embedder="hash")
    documents = [
        {"id": name, "texts": [text], **({"title": titles[name]} if titles and name in titles else {})}
        for name, text in texts.items()
    ]
    for start in range(0, len(documents), _BATCH):
        answer = client.ingest(documents[start : start + _BATCH], library)
        assert answer["failed"] == 0, answer["errors"]


def found(client: Client, library: str, query: str, k: int = 20) -> list[str]:
    """The documents that full text finds, best first."""
    return [hit["document_id"] for hit in client.search(query, library=library, mode="text", k=k)]


def symbols() -> list[str]:
    """2,200 symbols from all of Unicode: signs of mathematics and currencies, pictures, emoji."""
    all_of_them = [chr(code) for code in range(0x21, 0x1FB00) if unicodedata.category(chr(code)) in ("Sm", "Sc", "So")]
    places = range(0, len(all_of_them) * _SYMBOLS, len(all_of_them))
    return [all_of_them[place // _SYMBOLS] for place in places]


def plain(symbol: str) -> bool:
    """Whether it stands for itself only: not for letters (™), nor for another symbol with a mark (≠)."""
    return unicodedata.normalize("NFKD", symbol) == symbol


@pytest.mark.parametrize(("name", "query"), [(name, query) for name, case in CASES.items() for query in case.queries])
def test_a_document_is_found_by_its_own_words_and_no_other_is(client: Client, name: str, query: str) -> None:
    assert found(client, "words", query) == [name]


@pytest.mark.parametrize("name", CASES)
def test_a_document_is_found_by_its_whole_text_first(client: Client, name: str) -> None:
    assert found(client, "words", CASES[name].text)[:1] == [name]


@pytest.mark.parametrize("name", FIRST)
def test_a_name_of_several_parts_finds_its_own_document_first(client: Client, name: str) -> None:
    assert found(client, "first", name)[:1] == [name]
    assert found(client, "first", name.upper())[:1] == [name]


def test_a_word_that_is_only_in_the_title_finds_its_document(client: Client) -> None:
    for query in ("Ωμέγα", "ωμεγα", "ΩΜΕΓΑ"):
        assert found(client, "titles", query) == ["of"]


def test_each_of_2_200_symbols_finds_its_document_and_no_other(client: Client) -> None:
    asked = symbols()
    assert len(set(asked)) == _SYMBOLS
    missed, confused = [], []
    for symbol in asked:
        hits = found(client, "symbols", symbol)
        if symbol not in hits:
            missed.append(symbol)
        elif plain(symbol) and any(plain(other) for other in hits if other != symbol):
            confused.append(symbol)
    assert (len(missed), len(confused)) == (0, 0), f"missed {''.join(missed[:50])}, confused {''.join(confused[:50])}"
