"""A long run of mixed load: `make soak`. Memory, files, descriptors and latencies must not grow.

load.py      what goes on
sampling.py  what is measured meanwhile
verdict.py   whether it grew
chart.py     the samples as a picture
"""
