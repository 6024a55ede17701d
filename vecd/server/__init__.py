"""The Unix socket: one transport of `vecd/ops/`.

    listener.py    bind, accept, the sweep for stalled peers, drain
    session.py     one connection: frames in, replies out, back-pressure
    frame_budget.py what all connections together may hold in memory

Everything here runs on the event loop.
"""
