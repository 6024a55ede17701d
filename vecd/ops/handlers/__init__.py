"""The handlers of ops, one file for each noun: they read a request's fields, call the engine or jobs, and return the
reply's body. `ops/table.py` lists them."""
