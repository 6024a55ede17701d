"""Files as documents: which files of a folder are read, what text they have, and where to split it.

    options       what is read, and how long chunks are
    entry         a file that was found; why a file is skipped
    ignore        .gitignore and .vecignore
    walk          the files of a folder: `walk`
    extractors/   the text of each kind of file: one file and one entry in a table for each
    chunks        splits a text at its structure (headings, functions), and knows the line of each chunk
    documents     the documents of a file, as an ingest takes them: `documents_of`

Rules: a path in, documents out. This package knows no daemon and no store; it reads files, and writes nothing. A file
that cannot be read, or has no text, is skipped with a reason, and stops no other file. What a kind of file needs (a
parser of PDF, a grammar) is imported when the first such file is read.
"""
