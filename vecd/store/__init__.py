"""The store: one SQLite file with one writer. The only place with SQL; everything above speaks in nouns.

    schema.py      append-only numbered migrations
    database.py    the writer thread, group commit, read connections, after-commit hook
    catalogue.py   transaction.py     what the rest of the program sees of it
    libraries.py   documents.py   events.py      the statements of each noun
    jobs.py   job_transitions.py   schedules.py   reembed.py     and of background jobs
    integrity.py   backup.py       whether the store agrees with itself; a copy of it

Cross the interpreter lock in few, large steps: whoever lets go of it waits up to the switch interval to get it back
while another thread is busy, and SQLite lets go of it at every step of a statement. So a batch is one statement:
`INSERT … SELECT … FROM json_each(?)`, with all its vectors as one blob cut by `substr`. tests/bench/ingest.py holds
the figures. In such a statement the json_each is always the outer loop (CROSS JOIN says so); left alone, SQLite scans
the table instead.
"""
