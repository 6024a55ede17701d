"""Passages: the words of a query are marked where full text finds them, in the part of a text that has most of them."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from vecd.text.analysis import analyzer
from vecd.text.passages import Passage, PassageFinder

ENGLISH = analyzer("english")
FILLER = "Nothing of interest is said in this sentence, which is here to be passed over. " * 4

TEXTS = st.text(st.sampled_from("ab é\u0301ß日本語\n\t .,-_'👩‍💻*\"0"), max_size=120)


def finder(query: str) -> PassageFinder:
    return PassageFinder(ENGLISH, ENGLISH.query(query))


def marked(passage: Passage) -> list[str]:
    return [passage.text[start:stop] for start, stop in passage.marks]


def test_a_word_is_marked_in_each_of_its_forms() -> None:
    passage = finder("rotate log").passage("Rotating logs: a log is rotated, and not a rotor.", 100)
    assert marked(passage) == ["Rotating", "logs", "log", "rotated"]


def test_function_words_are_marked_only_if_a_query_has_no_others() -> None:
    text = "To be or not to be"
    assert marked(finder("to be the question").passage("The question is how to be", 100)) == ["question"]
    assert marked(finder("to be").passage(text, 100)) == ["To", "be", "to", "be"]


def test_names_prefixes_and_scripts_without_spaces_are_marked() -> None:
    assert marked(finder("node.js").passage("Run node.js here", 100)) == ["node.js"]
    assert marked(finder("rotat*").passage("It rotates a rotatable log", 100)) == ["rotates", "rotatable"]
    assert marked(finder("rotati*").passage("Rotating, rotation, rotor", 100)) == ["Rotating", "rotation"]
    assert marked(finder("logs*").passage("A log of logistics", 100)) == ["log"]
    assert marked(finder("日本語").passage("これは日本語です。", 100)) == ["日本語"]


def test_the_passage_is_where_most_of_the_words_are() -> None:
    text = f"Logs. {FILLER}Rotate the logs every night. {FILLER}The night."
    passage = finder("rotate logs at night").passage(text, 80)
    assert marked(passage) == ["Rotate", "logs", "night"]
    assert passage.text.startswith("…")
    assert "Rotate the logs every night." in passage.text
    assert len(passage.text) <= 82


def test_a_passage_begins_at_a_sentence_that_begins_nearby() -> None:
    passage = finder("zebra").passage(f"{FILLER}Here stands the zebra. {FILLER}", 60)
    assert passage.text.startswith("…Here stands the zebra.")


def test_without_a_match_the_passage_is_the_beginning() -> None:
    passage = finder("zebra").passage(FILLER, 40)
    assert passage == ("Nothing of interest is said in this…", [], 0)


def test_the_lines_before_the_first_mark_are_counted_or_else_those_before_the_passage() -> None:
    text = "".join(f"line {number} of the file\n" for number in range(1, 400)) + "the needle\n"
    passage = finder("needle").passage(text, 40)
    assert passage.text == "…file line 399 of the file the needle"
    assert (marked(passage), passage.lines) == (["needle"], 399)
    assert finder("zebra").passage(f"\n \n{text}", 40).lines == 2


def test_white_space_is_collapsed_and_the_marks_move_with_it() -> None:
    passage = finder("rotate logs").passage("  rotate \n\t the   logs\n", 100)
    assert passage == ("rotate the logs", [(0, 6), (11, 15)], 0)


@given(text=TEXTS, query=TEXTS, chars=st.integers(20, 60))
def test_marks_are_places_of_the_queries_words_in_any_text(text: str, query: str, chars: int) -> None:
    passage = finder(query).passage(text, chars)
    assert len(passage.text) <= chars + 2
    assert 0 <= passage.lines <= text.count("\n")
    last = 0
    for start, stop in passage.marks:
        assert last <= start < stop <= len(passage.text)
        assert not passage.text[start:stop].isspace()
        last = stop
    if len(text) <= chars:
        assert passage.text == " ".join(text.split())
