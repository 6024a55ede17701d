"""The handlers of ops, one file a noun: fields -> engine or jobs -> the reply's body. `ops/table.py` lists them."""
