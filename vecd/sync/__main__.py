"""The sync process: `python -m vecd.sync`. The daemon starts it while there are syncs that it runs."""

from __future__ import annotations

from ..connectors.command import run
from .runner import SyncRunner

if __name__ == "__main__":
    run("vecd.sync", "The syncs of vecd.", {"sync": SyncRunner})
