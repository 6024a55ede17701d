"""vecd: real-time vector search for the shell.

`vecd` is the daemon and everything below it; `vec_cli` (the folder `cli/`) is the command line.

Imports go one way, from the bottom of this list to its top (tests/test_layering.py holds it to that):

    errors files limits units settings values
                               shared with the command line
    fair_queue.py scarcity.py  a fair queue; what the system does not give
    write_order.py             the order of one sender's writes
    wire/                      bytes in, messages out; no sockets
    process.py                 what a process inherits, and what we make of it
    holder.py                  the lock on the data folder, and who holds it
    dial.py                    reaching a socket, and who is at its other end
    subscription.py            a watch, in the client
    client.py launch.py        blocking client; starting a daemon when none answers
    store/                     the only place with SQL
    index/                     vectors in memory; no SQL, no sockets
    text/                      text in, chunks and vectors out
    engine/                    the verbs: store + index + text put to work; no sockets
    jobs/                      background jobs: queue, workers, schedules, one file a kind
    ops/                       what a request means, whatever transport brought it: one handler file a noun
    server/                    the Unix socket, a transport of ops
    daemon.py logs.py          wires it all together; structured log lines
"""

__version__ = "0.1.0"

#: Version of the wire protocol, an integer of its own (man/vec-protocol.7).
PROTOCOL = 1
