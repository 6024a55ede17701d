"""The log as a feed: events from any cursor on, selected, batched, encoded once for all that want the same.

    positions.py   cursors, and the positions that they name
    selection.py   which events a watch wants, and how much of each
    batches.py     events, or documents of a snapshot, as they are sent
    broadcast.py   wakes all tasks that wait
    channels.py    one ring buffer of batches for each selection, filled by one reader of the log
    watch.py       a watch: catch-up and live in one loop; flush
    consumers.py   named cursors that the daemon keeps
    retention.py   how much of the log is kept

Knows the store and the filters; no index, no sockets.
"""
