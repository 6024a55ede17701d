"""Benchmarks: run by hand, `make bench` or `python -m tests.bench [NAME…]`; never a timed test.

Each prints its figures beside a baseline measured in the same run, because machines differ and are noisy.
"""
