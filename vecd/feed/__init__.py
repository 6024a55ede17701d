"""The log as a feed: selected events from any cursor on, in batches that are encoded once for all watches with the same
selection.

    feed.py        Feed: all of this put together for one store, with its threads
    watch.py       watches, with catch-up and live in one loop; flush
    channels.py    a ring buffer of the newest batches for each selection, all filled by one reader of the log
    batches.py     batches of events, encoded
    initial_snapshot.py
                   a watch's initial snapshot, in batches too
    payloads.py    documents in their events
    selection.py   which events a watch wants
    consumers.py   named consumers: cursors that the daemon keeps
    retention.py   how much of the log is kept
    positions.py   cursors, and the positions that they name
    broadcast.py   wakes all tasks that wait
    run_blocking.py
                   how functions that block are run off the event loop

Knows the store and the filters; no engine, no index, no sockets.
"""
