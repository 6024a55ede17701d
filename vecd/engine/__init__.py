"""The verbs: store, index and text put to work. No sockets, no frames: a transport calls these.

core.py        Engine: what the verbs share, and its life
indexes.py     the libraries' LiveIndexes, loaded when they are first needed
ingest.py      validate, chunk, embed, write; turns.py keeps one sender's writes in order
documents.py   get, list, count, delete
libraries.py   create, show, list, delete
search.py      vector, text and hybrid search
watch.py       the event feed
status.py      what the daemon is and holds
"""
