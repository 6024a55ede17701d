"""Text analysis: MB/s of CPU time over several kinds of text, beside `re.findall(r"\\w+", text.lower())`.

`new` is an analyzer that has seen nothing yet, `known` one that has seen the text: prose repeats its words, so a daemon
that runs is close to `known`. Wanted: 8 MB/s of English prose and 2 MB/s of other scripts, and a title of 80 characters
in 10 microseconds.
"""

from __future__ import annotations

import re
import sysconfig
import time
from collections.abc import Callable
from pathlib import Path

from tests.bench import corpus
from vecd.text.analysis import Analyzer

_TITLE = "Rotating the logs of a daemon every night without losing a line (second edition)"
_TITLES = 20_000
_WORD = re.compile(r"\w+")
_OTHERS = (
    "Широкая электрификация южных губерний даст мощный толчок подъёму сельского хозяйства.",
    "Zwölf Boxkämpfer jagen Viktor quer über den großen Sylter Deich; dès Noël, où un zéphyr haï me vêt.",
    "Ξεσκεπάζω την ψυχοφθόρα βδελυγμία. صِف خَلقَ خَودِ كَمِثلِ الشَمسِ إِذ بَزَغَت ऋषियों को सताने वाले दुष्ट राक्षसों",
    "今日は東京タワーに行きました。中文分词测试，没有空格。키스의 고유조건은 입술끼리 만나야 하고",
    "เป็นมนุษย์สุดประเสริฐเลิศคุณค่า กว่าบรรดาฝูงสัตว์เดรัจฉาน 👩‍💻 🇩🇪 500₽",
)


def main() -> None:
    prose = "\n".join(corpus.texts(30_000))
    library = Path(sysconfig.get_paths()["stdlib"])
    source = "\n".join(path.read_text("utf-8", "ignore") for path in sorted(library.glob("*.py"))[:60])
    # A number behind each word makes it a word that no cache has.
    words = (f"{word}{'₀₁₂₃₄₅₆₇₈₉'[n % 10]}{n}" for n, word in enumerate(" ".join(_OTHERS * 400).split()))
    for name, text in (
        ("English prose", prose),
        ("Python source", source),
        ("other scripts", "\n".join(_OTHERS * 2_000)),
        ("other scripts, no word twice", " ".join(words)),
        ("Chinese without spaces", "中文分词测试，没有空格。" * 20_000),
    ):
        _print(name, text)
    analyzer = Analyzer("english")
    analyzer.terms(_TITLE)
    for what, analyse in (("terms", analyzer.terms), ("query", analyzer.query), ("findall", _findall)):
        started = time.process_time()
        for _ in range(_TITLES):
            analyse(_TITLE)
        print(
            f"  a title of {len(_TITLE)} characters, {what}: {(time.process_time() - started) / _TITLES * 1e6:.1f} µs"
        )


def _print(name: str, text: str) -> None:
    analyzer = Analyzer("english")
    new, known, plain = _megabytes(analyzer.terms, text), _megabytes(analyzer.terms, text), _megabytes(_findall, text)
    terms = analyzer.terms(text)
    print(
        f"  {name} ({len(text.encode()) / 1e6:.1f} MB): new {new:.1f} MB/s, known {known:.1f} MB/s, findall {plain:.1f}"
        f" MB/s; {len(terms) / len(_findall(text)):.2f} terms a word",
        flush=True,
    )


def _findall(text: str) -> list[str]:
    return _WORD.findall(text.lower())


def _megabytes(analyse: Callable[[str], object], text: str) -> float:
    started = time.process_time()
    analyse(text)
    return len(text.encode()) / (time.process_time() - started) / 1e6


if __name__ == "__main__":
    main()
