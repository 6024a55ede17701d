"""Text analysis: what terms a text has, and that a document is found by its own words."""

from __future__ import annotations

import re
import sys
import threading
import unicodedata
from itertools import chain

import pytest
from apsw import unicode
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from vecd.errors import VecError
from vecd.text import analysis
from vecd.text.analysis import (
    ANALYSIS_VERSION,
    FORM_MARK,
    TERM_CHARS_MAX,
    Analyzer,
    analyzer,
    holds_phrase,
)
from vecd.text.folding import fold, is_invisible, shape
from vecd.text.languages import LANGUAGES
from vecd.text.tokenizing import ascii_stretches, stretches, tokens

ENGLISH = analyzer("english")


def finds(query: str, document: str, language: str = "english") -> bool:
    """Whether all that the query asks for is in the document: every word, phrase and prefix."""
    asked, terms = analyzer(language).query(query), analyzer(language).terms(document)
    return (
        bool(asked)
        and {*asked.words, *chain.from_iterable(asked.units)} <= set(terms)
        and all(holds_phrase(terms, phrase) for phrase in asked.phrases)
        and all(any(prefix.matches(term) for term in terms) for prefix in asked.prefixes)
    )


# --- a document is found by its own words -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("query", "document"),
    [
        ("re\u0301sume\u0301", "my résumé"), ("résumé", "my re\u0301sume\u0301"), ("resume", "my RÉSUMÉ"),
        ("İstanbul", "İstanbul'da"), ("istanbul", "in İstanbul today"), ("İSTANBUL", "istanbul"),
        ("diyarbakir", "Diyarbakır"), ("DİYARBAKIR", "diyarbakır"),
        ("awesome", "Awesome🤩"), ("🤩", "Awesome🤩"), ("500", "500₽"), ("₽", "500₽"), ("500₽", "500 ₽"),
        ("ανθρωπος", "Ο Άνθρωπος"), ("ἄνθρωπος", "ΑΝΘΡΩΠΟΣ"), ("ΟΔΌΣ", "οδός"), ("οδοσ", "οδός"), ("ᾳ", "α"),
        ("كتاب", "كِتَابٌ جديد"), ("كِتَابٌ", "كتاب"), ("احمد", "أحمد"), ("کتاب", "كتاب"), ("كـتـاب", "كتاب"),
        ("میخواهم", "می\u200cخواهم"), ("שלום", "שָׁלוֹם"), ("שָׁלוֹם", "שלום"), ('צה"ל', 'חיילי צה"ל'),
        ("елка", "ёлка"), ("ёлка", "Елка"), ("за\u0301мок", "замок"), ("и\u0306од", "йод"),
        ("fine", "ﬁne"), ("ﬁne", "FINE"), ("full", "ＦＵＬＬ ｗｉｄｔｈ"), ("ｆｕｌｌ", "full"),
        ("strasse", "Straße"), ("STRAẞE", "strasse"), ("lodz", "Łódź"), ("oresund", "Øresund"), ("da nang", "Đà Nẵng"),
        ("aeble", "æble"), ("thor", "Þor"), ("bada", "ɓaɗa"), ("soft", "so\u00adft"), ("123", "١٢٣"), ("१२", "12"),
        ("हाथी", "एक हाथी था"), ("जिंदगी", "ज़िंदगी"), ("தமிழ்", "தமிழ்"),
        ("東京", "今日は東京タワーに行く"), ("タワー", "今日は東京タワーに行く"), ("ﾀﾜｰ", "東京タワー"),
        ("京", "今日は東京タワーに行く"),
        ("分词", "中文分词测试"), ("한국", "한국어를 배웁니다"), ("집", "집에"), ("カ\u3099", "ガ"),
        ("สวัสดี", "ผมพูดว่าสวัสดีครับ"), ("ดี", "สวัสดีครับ"), ("ສະບາຍດີ", "ຂ້ອຍເວົ້າສະບາຍດີ"),
        ("ភាសា", "ខ្ញុំរៀនភាសាខ្មែរ"), ("မြန်မာ", "ကျွန်တော်မြန်မာစာ"),
        ("C++", "I write C++, mostly"), ("c#", "C# (and F#)"), ("F#", "C# (and F#)"),
        ("Ｃ＋＋", "c++"), ("c++", "C++17"),
        (".NET", "on .NET"), ("net", "on .NET"), ("asp.net", "ASP.NET."), ("notepad", "Notepad++"),
        ("foo_bar", "call foo_bar(1)"), ("foo", "call foo_bar(1)"), ("bar", "call foo_bar(1)"),
        ("foo_bar", "x/foo_bar.py"),
        ("CVE-2024-1234", "see cve-2024-1234."), ("2024", "CVE-2024-1234"), ("cve", "CVE-2024-1234"),
        ("it's", "IT’S"), ("o’reilly", "O'Reilly"), ("reilly", "O'Reilly"), ("dog", "the dog's"),
        ("hawai'i", "Hawaiʻi"),
        ("ada@example.com", "<ada@example.com>"), ("ada", "ada@example.com"), ("example.com", "ada@example.com"),
        ("/usr/local/bin", "in /usr/local/bin: x"), ("local", "/usr/local/bin"), ("my-file.txt", "~/a/my-file.txt"),
        ("3.11.4", "Python 3.11.4."), ("11", "3.11.4"), ("node.js", "Node.js!"), ("node", "Node.js"),
        ("1,000", "1,000 x"),
        ("usa", "U.S.A."), ("U.S.", "the U.S. of"), ("at&t", "AT&T"), ("parseJSON", "parsejson"), ("real", "real-time"),
        ("👩‍💻", "a 👩‍💻!"), ("👩", "a 👩‍💻!"), ("💻", "a 👩‍💻!"), ("👍🏽", "ok👍🏽"), ("👍", "ok👍🏽"),
        ("🇩🇪", "in 🇩🇪🇫🇷"), ("🇫🇷", "🇩🇪🇫🇷"),
        ("❤", "❤️"), ("1️⃣", "1️⃣ first"), ("#️⃣", "#️⃣"), ("🏴󠁧󠁢󠁳󠁣󠁴󠁿", "x🏴󠁧󠁢󠁳󠁣󠁴󠁿y"), ("™", "Awesome™"), ("½", "3½"), ("℃", "20℃"),
        ("—", "a — b"), ("rotating", "Rotate"), ("logs", "log"),
    ],
)  # fmt: skip
def test_a_document_is_found(query: str, document: str) -> None:
    assert finds(query, document)


@pytest.mark.parametrize(
    ("query", "document"),
    [
        ("C++", "C and C#, c+ and C"), ("C#", "C and C++"), ("C", "C++ and C#"), (".NET", "a fishing net"), ("F#", "F"),
        ("foo_bar", "foo bar"), ("CVE-2024-1234", "CVE-2024-1235"), ("3.11.4", "3.11.5"),
        ("हाथी", "हाथ"), ("हाथी", "हथ था थी"), ("йод", "иод"), ("か", "が"), ("東京", "京東"), ("京都", "東京と都"),
        ("👍🏽", "👍"), ("👍🏽", "👍🏿"), ("🇩🇪", "🇩🇰 🇪🇸"), ("u", "ü" * 2), ("x" * 70 + "a", "x" * 70 + "b"),
        ("ล่า", "ล้า"),
    ],
)  # fmt: skip
def test_a_document_is_not_found_by_accident(query: str, document: str) -> None:
    assert not finds(query, document)


def assigned(*categories: str) -> list[str]:
    every = map(chr, range(sys.maxunicode + 1))
    return [char for char in every if unicode.category(char) in categories and not char.isascii()]


def test_every_symbol_is_found_alone_and_attached_to_a_word() -> None:
    symbols = assigned("So", "Sm", "Sc", "Sk")
    assert len(symbols) > 7_000
    assert [char for char in symbols if not finds(char, f"between {char} words")] == []
    # These are ASCII in another form. The grave accent's canonical equivalent is ASCII punctuation.
    ascii_alike = {"＋", "﹢", "\u1fef"}
    lost = {char for char in symbols if not finds(char, f"{char}500") or not finds("500", f"500{char}")}
    enclosed_letters = {char for char in symbols if unicodedata.normalize("NFKC", char).isalpha()}
    enclosed_letters = {char for char in enclosed_letters if len(unicodedata.normalize("NFKC", char)) == 1}
    joined = {char for char in symbols if not finds(char, f"Awesome{char}") or not finds("Awesome", f"{char}Awesome")}
    assert lost | joined <= ascii_alike | enclosed_letters


def test_a_letter_of_any_script_is_found_whatever_its_case_and_normal_form() -> None:
    letters = assigned("Lu", "Ll", "Lt", "Lm", "Nd", "Nl")
    for char in letters:
        for form in ("NFC", "NFD", "NFKC", "NFKD"):
            assert fold(unicodedata.normalize(form, char)) == fold(char), (char, form)
        assert fold(char.lower()) == fold(char), char
        assert finds(char, f"x {char} y"), char


# --- properties -------------------------------------------------------------------------------------------------------

ALPHABET = (
    "abcSxyzéßıİŁøđﬁЁёйжςΣάאָשׁךكِأهةहाथी東京タワーｶﾞ한국ㄱสวัสดีກາមြန်ខ្ញុំ0179²½１٣,._-@&'’+#*/:;()[]\"“”«»=$%"
    "₽€™¨´＋＄ℵ①㎏👩💻👍🏽🇩🇪❤\ufe0f\u20e3\u200d\u200b\u200c\u00ad\u0301\u0308\u093c\u3099"
    "\U000e0067\U000e007f\x00\x1f\x85 \n\t\u3000"
)
TEXTS = st.one_of(st.text(), st.text(st.characters()), st.text(ALPHABET, max_size=40))
PIECES = TEXTS.map(lambda text: "".join(text.split()))
LATIN = "aeiouybcdfglnrstvxzéüł'"


def searchable(piece: str) -> bool:
    """Whether a piece holds anything but invisible characters and ASCII punctuation, as the module's header defines."""
    normal = unicodedata.normalize("NFC", piece)
    return any(char.isalnum() or char in "$+<=>^`|~" if char.isascii() else not is_invisible(char) for char in normal)


@settings(max_examples=600, deadline=None)
@given(text=TEXTS, language=st.sampled_from(LANGUAGES))
@example(text="ﷺ ⑴ ¨ ϔ\u0301 \ud800 a\u20e3 1\u20e3 c++17 a.b.c. don't", language="french")
def test_a_document_has_all_terms_of_a_query_for_any_of_its_pieces(text: str, language: str) -> None:
    terms = set(analyzer(language).terms(text))
    for piece in text.split():
        asked = analyzer(language).query(piece)
        assert {*asked.words, *asked.parts, *chain.from_iterable(asked.units)} <= terms
        assert set(asked.words).isdisjoint(asked.parts)
        assert all(any(prefix.matches(term) for term in terms) for prefix in asked.prefixes)
        assert bool(asked) == bool(asked.words or asked.prefixes or asked.units) == searchable(piece)


@settings(max_examples=600, deadline=None)
@given(text=TEXTS, language=st.sampled_from(LANGUAGES))
def test_terms_are_not_empty_not_long_and_can_be_encoded(text: str, language: str) -> None:
    for term in analyzer(language).terms(text):
        assert 1 <= len(term) <= TERM_CHARS_MAX
        assert term.encode().decode() == term
        assert not re.search(r"\s", term)


@settings(max_examples=300, deadline=None)
@given(text=TEXTS)
def test_the_normal_form_makes_no_difference(text: str) -> None:
    wanted = ENGLISH.terms(text)
    assert ENGLISH.terms(unicodedata.normalize("NFC", text)) == wanted
    assert ENGLISH.terms(unicodedata.normalize("NFD", text)) == wanted


@settings(max_examples=300, deadline=None)
@given(pieces=st.lists(PIECES.filter(bool)), language=st.sampled_from(("english", "none")))
def test_the_terms_of_a_text_are_those_of_its_pieces_in_order(pieces: list[str], language: str) -> None:
    terms = analyzer(language).terms(" ".join(pieces))
    apart = [analyzer(language).terms(piece) for piece in pieces]
    assert terms == [
        *(term for each in apart for term in each if not term.startswith(FORM_MARK)),
        *sorted({term for each in apart for term in each if term.startswith(FORM_MARK)}),
    ]


@settings(max_examples=300, deadline=None)
@given(text=st.text(ALPHABET).filter(str.isascii) | st.text(st.characters(codec="ascii")))
def test_the_fast_path_for_ascii_gives_the_same_tokens(text: str) -> None:
    for piece in text.split():
        found = ascii_stretches(piece.lower())
        assert found == [each for each, _ in stretches(piece.lower())]
        assert [each.text for one in found for each in tokens(one)] == [each.text for each in tokens(piece.lower())]


@settings(max_examples=600, deadline=None)
@given(before=TEXTS, phrase=st.lists(PIECES.filter(bool), min_size=1, max_size=4), after=TEXTS)
def test_a_phrase_of_whole_pieces_is_found(before: str, phrase: list[str], after: str) -> None:
    words = [re.sub('["“„«”»]', "", piece) for piece in phrase]
    asked = ENGLISH.query(f'"{" ".join(words)}"')
    terms = ENGLISH.terms(" ".join([before, *words, after]))
    assert all(holds_phrase(terms, each) for each in asked.phrases)
    assert len(asked.phrases) == any(ENGLISH.terms(word) for word in words)
    assert {term for each in asked.phrases for term in each} <= set(ENGLISH.terms(" ".join(words)))


@settings(max_examples=1_500, deadline=None)
@given(
    word=st.one_of(
        st.text(LATIN, min_size=1),
        st.sampled_from(
            re.split(
                " ",
                "flying rotating rotations nationalization hopping happily skis dying ponies capability relational"
                " généralement Häuser hızlandırılmış ёлками электрификация كتابات وبالكتاب हाथियों ανθρώπους menyatakan",
            )
        ),
        st.text(st.characters(categories=("Lu", "Ll", "Lo", "Mn", "Mc")), min_size=1),
        st.text("東京タワー한국สวัสดี", min_size=1, max_size=6),
    ),
    language=st.sampled_from(LANGUAGES),
    data=st.data(),
)
def test_a_prefix_finds_every_document_that_holds_a_word_that_begins_with_it(
    word: str, language: str, data: st.DataObject
) -> None:
    characters = list(unicode.grapheme_iter(word))
    prefix = "".join(characters[: data.draw(st.integers(1, len(characters)))])
    assume(any(char.isalnum() for char in prefix))  # marks without a letter begin no word
    asked, terms = analyzer(language).query(f"{prefix}*"), analyzer(language).terms(f"before {word}, after")
    assert {*asked.words, *chain.from_iterable(asked.units)} <= set(terms)
    assert all(any(each.matches(term) for term in terms) for each in asked.prefixes)
    if any(char.isalpha() for char in prefix):
        assert asked


@settings(max_examples=600, deadline=None)
@given(text=TEXTS)
def test_spans_are_the_terms_in_order_and_each_lies_in_the_text(text: str) -> None:
    spans = list(ENGLISH.spans(text))
    assert [span.term for span in spans] == [term for term in ENGLISH.terms(text) if not term.startswith(FORM_MARK)]
    assert all(0 <= span.start < span.stop <= len(text) for span in spans)
    assert all(not re.search(r"\s", text[span.start : span.stop]) for span in spans)


@settings(max_examples=300, deadline=None)
@given(text=st.text(st.characters(categories=("Lu", "Ll", "Mn", "Zs"), max_codepoint=0x24F), max_size=60))
@example("it's “quoted” text: naïve façade, l'été; 42 apples")
def test_words_of_alphabets_are_those_of_uax_29(text: str) -> None:
    mine = [token.text for piece in text.split() for token in tokens(fold(piece)) if token.role == 0]
    assert mine == [fold(word).strip("'.") for word in unicode.word_iter(text)]  # ŉ is 'n, ŀ is l.


# --- single decisions -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "words", "parts"),
    [
        ("C++", ("c++",), ()),
        (".NET", (".net",), ()),
        ("foo_bar", ("foo_bar",), ("foo", "bar")),
        ("rotate-logs rotate", ("rotate-logs", "rotat"), ("log",)),
        ("my-file_x.txt", ("my-file_x.txt",), ("my-file_x", "my", "file_x", "file", "x", "txt")),
        ("ada@example.com", ("ada@example.com",), ("ada", "example.com", "exampl", "com")),
        ("東京都の図書館で", ("東京", "京都", "都の", "の図", "図書", "書館", "館で"), ()),
        ("京", ("京",), ()),
        ("👍🏽", ("👍🏽",), ("👍",)),
        ("it's don't", ("it", "don't"), ()),
        ("O'Reilly", ("o'reilli",), ("reilli",)),
        ("log — logs", ("log",), ()),
        ("...and so?", ("and", "so"), ()),
        ("--exact __init__ a::b", ("exact", "init", "a", "b"), ()),
        ("python3 3rd", ("python3", "3rd"), ()),
    ],
)
def test_a_query_takes_the_most_specific_terms(text: str, words: tuple[str, ...], parts: tuple[str, ...]) -> None:
    asked = ENGLISH.query(text)
    assert (asked.words, asked.parts) == (words, parts)
    assert asked.phrases == ()
    assert asked.prefixes == ()


@pytest.mark.parametrize(
    ("text", "words", "units"),
    [
        ("東京都", (), (("東京", "京都"),)),
        ("京", ("京",), ()),
        ("the 日本語版 manual", ("the", "manual"), (("日本", "本語", "語版"),)),
        ("日本語 日本", ("日本",), (("日本", "本語"),)),
    ],
)
def test_the_pairs_of_a_short_run_count_together_only(
    text: str, words: tuple[str, ...], units: tuple[tuple[str, ...], ...]
) -> None:
    asked = ENGLISH.query(text)
    assert (asked.words, asked.units) == (words, units)


@pytest.mark.parametrize("text", ["", " \n", "!?", '-- // # * ""', "\x00\x1f", "\u200b\ufeff", "\ufe0f"])
def test_a_text_without_anything_to_search_for_gives_an_empty_query(text: str) -> None:
    assert not ENGLISH.query(text)
    assert ENGLISH.terms(text) == []


def test_a_phrase_in_quotes_gives_its_words_too() -> None:
    asked = ENGLISH.query('"Rotate logs" nightly “daemon log”')
    assert asked.phrases == (("rotat", "log"), ("daemon", "log"))
    assert asked.words == ("rotat", "log", "night", "daemon")


def test_a_quote_that_is_not_closed_and_a_mark_of_inches_make_no_phrase() -> None:
    assert ENGLISH.query('"rotate logs').phrases == ()
    assert ENGLISH.query('a 3.5" disk and a 5" one').phrases == ()


def test_a_prefix_that_is_longer_than_the_stem_finds_the_word_and_not_its_neighbours() -> None:
    (prefix,) = ENGLISH.query("logs*").prefixes
    assert any(map(prefix.matches, ENGLISH.terms("logs")))
    assert not any(map(prefix.matches, ENGLISH.terms("logic")))
    (prefix,) = ENGLISH.query("Rotati*").prefixes
    assert any(map(prefix.matches, ENGLISH.terms("rotating")))
    assert not any(map(prefix.matches, ENGLISH.terms("rotate")))


def test_forms_for_prefixes_come_last_and_once() -> None:
    assert ENGLISH.terms("rotating logs, rotating") == ["rotat", "log", "rotat", f"{FORM_MARK}rotating"]
    assert analyzer("none").terms("rotating logs") == ["rotating", "logs"]


def test_spans_mark_the_words_that_match() -> None:
    text = "«Re\u0301sume\u0301», foo_bar ﬁne, ＦＵＬＬ 東京!"
    found = {span.term: text[span.start : span.stop] for span in ENGLISH.spans(text)}
    assert found == {
        "resum": "Re\u0301sume\u0301", "foo_bar": "foo_bar", "foo": "foo", "bar": "bar", "fine": "ﬁne",
        "full": "ＦＵＬＬ", "東": "東", "東京": "東京", "京": "京",
    }  # fmt: skip


def test_each_language_stems_its_own_words() -> None:
    assert finds("nadando", "nadar", "spanish")
    assert finds("Häuser", "Hauses", "german")
    assert finds("книгами", "книга", "russian")
    assert not finds("книгами", "книга", "english")
    assert not finds("rotating", "rotate", "none")


def test_an_unknown_language_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(VecError, match="unknown language 'englich'") as refusal:
        analyzer("englich")
    assert "english" in (refusal.value.hint or "")


def test_long_tokens_are_cut_the_same_way_on_both_sides() -> None:
    blob = "QUJDREVGR0hJSktMTU5PUFFSU1RVVldYWVo" * 30_000
    assert finds(blob, f"data {blob} end")
    assert not finds(blob, f"data {blob}x end")
    assert finds(blob[:40] + "*", f"data {blob}")
    assert finds(blob[:63] + "*", f"data {blob}")
    assert len(ENGLISH.terms(blob)) == 1


@pytest.mark.parametrize(
    "unit", ["a-", "a.", "a@b.", "a_", "'a", "c++", "👩‍", "a\u0301", "東", "\u0301", "1,", "\u200d"]
)
def test_a_long_piece_of_any_kind_takes_time_in_proportion_to_its_length(unit: str) -> None:
    """A quadratic step would take minutes here, not a second; terms are a few for each unit at most."""
    text = unit * (60_000 // len(unit))
    assert len(ENGLISH.terms(text)) <= 4 * len(text)
    ENGLISH.query(text)


def test_caches_are_bounded_and_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(analysis, "_CACHED_PIECES", 8)
    small = Analyzer("english")
    text = " ".join(f"word{number % 37} rotating{'s' * (number % 11)}, x{number}" for number in range(500))
    assert small.terms(text) == ENGLISH.terms(text)
    for cache in (small._pieces, small._stretches):
        assert len(cache) <= 8
        assert len(cache._older) <= 8
    long = "long" * 100
    assert small.terms(long) == ENGLISH.terms(long)
    assert long not in small._pieces


def test_threads_get_the_same_terms(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(analysis, "_CACHED_PIECES", 50)
    shared = Analyzer("english")
    texts = [" ".join(f"{stem}{ending}{n % 3 * 's'}," for n in range(200)) for stem in ("rotat", "hop", "été", "東")
             for ending in ("ing", "ed", "ation")]  # fmt: skip
    wanted = [analyzer("english").terms(text) for text in texts]
    wrong: list[str] = []

    def work(offset: int) -> None:
        for turn in range(60):
            place = (turn + offset) % len(texts)
            if shared.terms(texts[place]) != wanted[place]:
                wrong.append(texts[place])

    threads = [threading.Thread(target=work, args=(3 * number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_the_version_is_stable_in_a_process_and_the_analyzers_are_shared() -> None:
    assert isinstance(ANALYSIS_VERSION, int)
    assert analyzer("english") is analyzer("english") is analyzer()
    assert {"english", "none"} <= set(LANGUAGES)
    assert {"english", "german", "french", "russian", "arabic"} <= set(LANGUAGES)


@given(text=TEXTS)
def test_a_shape_has_the_length_of_its_text(text: str) -> None:
    assert len(shape(fold(text))) == len(fold(text))
