"""The connector process: `python -m vecd.connectors`. The daemon starts it while there are relays or sources."""

from __future__ import annotations

from .command import run
from .relay import Relay
from .source import Source

if __name__ == "__main__":
    run("vecd.connectors", "The connectors of vecd.", {"relay": Relay, "source": Source})
