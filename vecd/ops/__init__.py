"""What a request means, whatever transport brought it.

    table.py       the ops: name -> handler, and what it needs (the order of writes, a stream)
    handlers/      one file a noun: fields -> engine or jobs -> the reply's body
    call.py        what a handler sees of a request
    fields.py      typed reading of a request's fields
    reply.py       where the answer of a request goes: what a transport implements
    runner.py      runs one sender's requests: what a transport drives
    sender.py      the requests of one sender that are in progress
    service.py     what the daemon offers to all requests
    budget.py      what all requests together may hold in memory

A transport makes a Runner for each connection (or whatever it calls a sender), and hands it requests, each with the
Reply that its answer goes to. `vecd/server/` is one, on a Unix socket; tests/support/inprocess.py is the smallest.

An added op is a handler and a line in the table. An added transport is a Reply and something that drives a Runner.
Everything here runs on the event loop.
"""
