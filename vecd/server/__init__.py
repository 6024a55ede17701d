"""The Unix socket: the folder where connections live.

    listener.py    bind, accept, the sweep for stalled peers, drain
    session.py     one connection: frames in, tasks, replies out, back-pressure
    call.py        what a handler sees of a request
    fields.py      typed reading of a request's fields
    handlers/      one file a command: fields -> engine -> reply

Everything here runs on the event loop; what blocks is the engine's to run elsewhere.
"""
