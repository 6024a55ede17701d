"""Metadata filters: `--where` expressions, parsed and evaluated over an in-memory column store.

    expressions.py   parser: text of an expression -> tree; errors point at the column
    patterns.py      regular expressions, in linear time
    dates.py         dates as points in time
    columns.py       typed columns of fields
    attributes.py    the columns of a library, and the masks of filters

Knows numpy and JSON; no SQL, no sockets.
"""
