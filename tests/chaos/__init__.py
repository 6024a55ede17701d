"""Relays and sources while everything around them fails: the daemon, the process of the connectors, the broker and the
network are killed, stopped and cut at random, while documents are written.

    checks.py      what must hold of the messages at the broker, in the end
    scenarios.py   one entry for each broker: how it is set up and read, and what is promised there
    writing.py     writes documents all the while, and notes how long each ack took
    troubles.py    one function for each thing that goes wrong
    run.py         one run

`make chaos` runs each for minutes; test_chaos.py for seconds. The seed is printed, and repeats the choices.
"""
