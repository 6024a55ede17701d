"""What a request means, whatever transport brought it.

table.py       the ops: name -> handler, and what it needs (order of writes, a stream)
call.py        what a handler sees of a request
fields.py      typed reading of a request's fields
handlers/      one file a noun: fields -> engine or jobs -> the reply's body
"""
