"""The store: documents, vectors, the event log and jobs in one SQLite file with one writer. The only place with SQL.

    schema.py                          append-only numbered migrations
    database.py   write_queue.py       the writer thread, group commit, read connections, after-commit hook
    catalogue.py   transaction.py      what the rest of the program sees of the store
    libraries.py   documents.py   events.py   consumers.py   retention.py      statements, by table
    patch.py   rename.py   copy.py     updates of metadata; new names and copies of libraries
    jobs.py   job_transitions.py   schedules.py   reembed.py                   statements of background jobs
    integrity.py   checksums.py   file_identity.py                             consistency checks
    backup.py   restore.py

Cross the interpreter lock (GIL) in few, large steps. SQLite releases the lock at every step of a statement, and while
another thread is busy, taking it back takes up to the switch interval. So a batch is one statement:
`INSERT … SELECT … FROM json_each(?)`, with all its vectors as one blob that `substr` splits. tests/bench/ingest.py has
the figures. In these statements json_each is always the outer loop, which CROSS JOIN enforces; otherwise SQLite scans
the table.
"""
