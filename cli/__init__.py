"""`vec`, the command line. Thin: parse flags, call the client, print.

    main.py       the group, exit statuses, errors
    options.py    options that several commands share
    output.py     tables for people, NDJSON for pipes
    ndjson.py     input: lines from files, pipes and gzip
    pipeline.py   documents on their way: batches in flight, acknowledgements in order
    progress.py   progress on stderr
    feed.py       what a watch writes: events, or lines that ingest accepts
    cursors.py    where a watch keeps its place: a file, or a consumer
    batches.py    a watch cut into batches, and the signals that end it
    handler.py    --exec: a command for each batch, retries, dead letters
    jobs.py       jobs: options, rows for people, waiting
    spool.py      input put aside for a background job
    commands/     one file a command, named as its handler in vecd/ops/handlers/

Start-up time is part of the product: scripts call `vec` thousands of times. A command's module is imported when it is
run, and what only some runs need (rich, orjson, subprocess) where it is needed; tests/cli/test_startup.py has the list
of what may be imported. Installed under the name `vec_cli`.
"""
