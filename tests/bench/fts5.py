"""Full text in SQLite: an FTS5 table, contentless, rowid = label. The baseline of the inverted index."""

from __future__ import annotations

import apsw

_TOKENIZER = "porter unicode61 remove_diacritics 2"


def create(db: apsw.Connection, library_id: int) -> None:
    db.execute(
        f"CREATE VIRTUAL TABLE text_{library_id:d}"
        f" USING fts5(text, content='', contentless_delete=1, tokenize='{_TOKENIZER}')"
    )


def add(db: apsw.Connection, library_id: int, first_label: int, texts: str) -> None:
    """`texts` is a JSON array; its i-th string is indexed under `first_label + i`, nulls are passed over."""
    db.execute(
        f"INSERT INTO text_{library_id:d} (rowid, text)"
        " SELECT ?1 + key, value FROM json_each(?2) WHERE value IS NOT NULL",
        (first_label, texts),
    )


def search(db: apsw.Connection, library_id: int, words: list[str], k: int) -> list[tuple[int, float]]:
    """The k best (label, BM25) for any of the words, best first; a higher BM25 is better.

    `words` are taken literally: quoting keeps FTS5's own operators out of what a person typed.
    """
    if not words:
        return []
    expression = " OR ".join('"' + word.replace('"', '""') + '"' for word in words)
    rows = db.execute(
        f"SELECT rowid, -rank FROM text_{library_id:d} WHERE text MATCH ? ORDER BY rank LIMIT ?", (expression, k)
    )
    return [(int(label), float(score)) for label, score in rows]
