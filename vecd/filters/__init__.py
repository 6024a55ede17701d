"""Filters: `--where` expressions, answered from memory.

    expressions.py   the text of an expression -> a tree; errors that point at the column
    attributes.py    columns of the documents' fields -> masks

Knows numpy and JSON; no SQL, no sockets.
"""
