"""Connectors: relays carry the log to a broker, sources carry a broker's messages into a library.

    table ---- transport, definition, url, parameters, secrets      what there is, and what may be asked for; pure
    process -> relay  -> delivery loop -> the transport's sink      one thread for each relay
            -> source -> the transport's reader                     one thread for each source

They run in one child process of the daemon, `python -m vecd.connectors`, which is a client of its socket: a broker's
library can neither block nor crash the daemon. Rules: a transport is one file and one entry in the table; a broker's
library is imported in that file only, and in this process only.
"""
