"""The Unix socket: the only folder that knows sockets.

listener.py    bind, accept, the sweep for stalled peers, drain
session.py     one connection: frames in, tasks, replies out, back-pressure
fields.py      typed reading of a request's fields
handlers/      one file a command: fields -> engine -> reply
"""
