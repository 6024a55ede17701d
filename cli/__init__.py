"""`vec`, the command line. Thin: parse flags, call the client, print.

    main.py           the group, exit statuses, errors
    explanations.py   what exit statuses and error codes mean
    usage_errors.py   errors of the parser; suggestions for misspelt commands and options
    options.py        options that several commands share
    output.py         tables for people, NDJSON for pipes
    input_lines.py    lines of input, from files and pipes, also compressed
    pipeline.py       documents on their way: batches in flight, acknowledgements in order
    progress.py       progress on stderr
    event_lines.py    what a watch writes: events, or lines that ingest accepts
    cursors.py        where a watch keeps its position: a file, or a consumer
    reconnecting.py   a watch that survives the loss of its connection
    exec_delivery.py  --exec: delivers a watch to a command (vecd/delivery)
    signals.py        SIGTERM and SIGINT, remembered until work can end
    jobs.py           jobs: options, rows for people, waiting
    completion.py     completes names that the daemon knows
    doctor.py         the checks of vec doctor
    mcp_server.py     the tools of vec mcp
    spool.py          copies the input of a background job
    commands/         one file for each command, named as its handler in vecd/ops/handlers/

Start-up time is part of the product: scripts call `vec` thousands of times. A command's module is imported when it is
run, and what only some runs need (rich, orjson, subprocess) where it is needed; tests/cli/test_startup.py has the list
of what may be imported. Installed under the name `vec_cli`.
"""

import gc

# Imports and options are many objects, none of them garbage. By default Python would search them for cycles dozens of
# times before a command begins; a stream still has its garbage collected, only less often.
gc.set_threshold(50_000, 10, 10)
