"""Round trip of `ping`, beside a byte sent to and fro between two processes over a Unix socket pair.

Wanted: median under 0.1 ms.
"""

from __future__ import annotations

import os
import socket

from tests.bench.measure import times_ms, told
from tests.support.instance import Instance


def main() -> None:
    ours, theirs = socket.socketpair()
    child = os.fork()
    if child == 0:
        ours.close()
        while data := theirs.recv(64):
            theirs.send(data)
        os._exit(0)
    theirs.close()

    def echo() -> None:
        ours.send(b"x")
        ours.recv(64)

    with Instance() as instance:
        instance.start()
        with instance.connect(timeout_s=None) as client:
            for _ in range(3):
                print(f"  echo between processes: {told(times_ms(echo, 5_000))}")
                print(f"  vecd ping:              {told(times_ms(client.ping, 5_000))}", flush=True)
    ours.close()
    os.waitpid(child, 0)


if __name__ == "__main__":
    main()
