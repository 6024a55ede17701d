"""vecd: real-time vector search for the shell.

`vecd` is the daemon and the client library; `vec_cli` (the folder `cli/`) is the command line.

Each layer may import from those above it in this list, not from those below (tests/test_layering.py has the exact
table, and checks it):

    limits errors settings units json_values parameters
                        every bound with its reason; the one error root, with `retryable`; configuration
    durable_files credentials backoff resources
                        files that are on disk when a call returns; secrets in files and variables; pauses between
                        retries; what the operating system may refuse
    process             the state that a process inherits, and how vec and vecd change it
    unixsocket          who is at the other end of a Unix socket; bounded waits
    data_lock           the lock on the data folder, and which daemon holds it
    wire/               the protocol: bytes in, messages out; no sockets
    files/              files as documents: which files of a folder, their text, chunks with lines
    client/             blocking client, a method for each op; starts a daemon if none runs; imports only the
                        standard library and msgpack
    fair_queue write_order
                        a fair queue; the order of one sender's writes
    store/              the only place with SQL: one SQLite file, one writer
    filters/            filter expressions, answered from columns in memory
    index/              vectors and terms in memory; no SQL, no sockets
    text/               text in, chunks and vectors out
    feed/               the log as a feed: cursors, selection, batches, watches, consumers
    delivery/           delivers a feed to something that may fail: batches, retries, dead letters
    workers/            texts to vectors in other processes, also on other machines: who embeds what; the process
                        `vec worker`; what Celery, RQ and Dramatiq load
    connectors/         relays of the log to brokers, and sources from them; a process of its own, and a client of the
                        socket; ops may know its pure half (connectors/table.py, connectors/folder.py)
    sync/               libraries that follow folders; in a process of its own, or in `vec sync`; a client of the socket
    engine/             store, index, text and feed at work: ingest, search, documents, libraries
    jobs/               background jobs: queue, workers, schedules; kinds/ has one file for each kind
    ops/                what a request means, whatever transport brought it: one table, one handler for each op
    server/             the transport on a Unix socket: listener, sessions
    child_process connector_process
                        keep the gateway and the processes of connectors and syncs running as children of the daemon
    daemon logs         wires it all together: start, stop, signals; structured log lines
    http/               the gateway for HTTP and WebSockets; a process of its own, and a client of the socket
    restore             puts a backup in the place of the store

An op, an index kind, an embedder, a job kind or a transport is one file and one entry in a visible table.
"""

__version__ = "0.1.0"

#: Version of the wire protocol, an integer, independent of the package version (man/vec-protocol.7).
PROTOCOL = 1
