"""The operations on libraries and documents: store, index and text put to work. No sockets, no frames.

    engine.py            Engine: what the operations share, and its life
    ingest.py            writes documents; prepare.py validates, chunks and embeds them, on threads of fair_pool.py
    documents.py         get, list, count, delete
    libraries.py         create, show, list, rebuild, delete
    search.py            vector, text and hybrid search; batch_executor.py runs searches in batches, hit_cache.py reads
                         the hits
    indexes.py           the libraries' LiveIndexes, loaded when they are first needed
    attribute_cache.py   the libraries' attributes, which filters are answered from
    damage.py            damaged chunks that reads have found and left out
    library_registry.py  what these three are: one object per library that every commit is applied to
    chunk_terms.py       terms of chunks, for full text
    read_views.py        the state at one seq, for answers that take several transactions
    vacuum.py            deletes what a trim has left, and frees the space
    synthetic_recall.py  measures an index's recall with synthetic queries
    status.py            what the daemon is and holds

A function that blocks says so; a caller on the event loop runs it with Engine.read. The others belong to the loop.
"""
