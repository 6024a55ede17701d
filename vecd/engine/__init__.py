"""The verbs: store, index and text put to work. No sockets, no frames: a transport calls these.

    core.py        Engine: what the verbs share, and its life
    indexes.py     the libraries' LiveIndexes, loaded when they are first needed
    ingest.py      write documents; draft.py validates, chunks and embeds
    documents.py   get, list, count, delete
    libraries.py   create, show, list, rebuild, delete
    selections.py  the libraries' attributes, for filters
    readviews.py   the state at one seq, for answers that take several transactions
    search.py      vector, text and hybrid search; desk.py answers vector searches together, hits.py reads the hits
    watch.py       watch and flush; positions.py cursors, view.py which events and how much of each, pages.py pieces of
                   the log as they are sent, feed.py hands them on to all who watch, pulse.py wakes them
    consumers.py   cursors that the daemon keeps
    retention.py   trim; vacuum.py follows behind it
    status.py      what the daemon is and holds

A verb that blocks says so; a transport runs it with Engine.read. The others belong to the event loop.
"""
