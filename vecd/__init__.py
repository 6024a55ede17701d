"""vecd: real-time vector search for the shell.

`vecd` is the daemon and everything below it; `vec_cli` (the folder `cli/`) is the command line.

Imports go one way, from the bottom of this list to its top (tests/test_layering.py holds it to that):

    errors limits settings units values durable_files resources
                               shared by the client and the daemon
    fair_queue.py              a fair queue
    write_order.py             the order of one sender's writes
    process.py                 the state that a process inherits, and how vec and vecd change it
    unixsocket.py              who is at the other end of a Unix socket; bounded waits
    data_lock.py               the lock on the data folder, and which daemon holds it
    wire/                      bytes in, messages out; no sockets
    client/                    blocking client; starts a daemon when none answers
    store/                     the only place with SQL
    index/                     vectors in memory; no SQL, no sockets
    text/                      text in, chunks and vectors out
    feed/                      the log as a feed: cursors, selection, batches, channels, watches, consumers, retention
    engine/                    the verbs: store + index + text put to work; no sockets
    jobs/                      background jobs: queue, workers, schedules, one file a kind
    ops/                       what a request means, whatever transport brought it: one handler file a noun
    server/                    the Unix socket, a transport of ops
    daemon.py logs.py          wires it all together; structured log lines
"""

__version__ = "0.1.0"

#: Version of the wire protocol, an integer of its own (man/vec-protocol.7).
PROTOCOL = 1
