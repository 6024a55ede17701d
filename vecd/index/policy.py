"""When maintenance of a LiveIndex is due, and how much of it is done at once."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Tuning:
    """When maintenance is due, and how much of it at once."""

    rows_min: int | None = None  # before a structure is made of a tail; None: the kind's own
    dead_share_max: float = 0.2  # of a structure's rows, before it is built anew
    tail_share_max: float = 0.1  # of its rows, before a structure that cannot grow is built anew
    slice_s: float = 0.001  # of draining while there are searches: two or three rows of a graph
    pause_s: float = 0.05  # without a search, and draining needs no rest any more
    quiet_slice_s: float = 0.02  # the same, on all cores, while there have been none for `quiet_s`
    quiet_s: float = 1.0
    tail_pressing: int = 8_192  # rows; from there on draining has its share of the time also while searches wait
    save_share: float = 0.1  # of its rows that are new, before a structure is saved again
    save_rows_min: int = 5_000  # new rows that are worth a snapshot
    save_rows_at_stop: int = 1_000  # the same, when the daemon stops
    retry_s: float = 60.0  # after a build or a save that failed
