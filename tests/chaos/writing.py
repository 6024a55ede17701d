"""Writes documents without end, through the daemon's death, and notes the acks."""

from __future__ import annotations

import random
import threading
import time
from typing import Any, Final

from tests.support.instance import Instance
from vecd.client import Client
from vecd.client.discovery import connect_socket
from vecd.errors import VecError

LIBRARY: Final = "notes"
_IDS: Final = 30
#: The pause between two batches: some hundred documents a second.
_PAUSE_S: Final = 0.02
#: What the death of the daemon looks like.
_AWAY: Final = ("connection_lost", "no_daemon", "shutting_down")


class Writer:
    """A thread that writes. A context manager; its end raises what went wrong."""

    def __init__(self, instance: Instance, chance: random.Random) -> None:
        self._instance = instance
        self._chance = chance
        self._stop = threading.Event()
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run)
        self.acks_s: list[float] = []  # how long each ack took

    @property
    def acks(self) -> int:
        """Batches that were acknowledged."""
        self.check()
        return len(self.acks_s)

    def check(self) -> None:
        if self._failure is not None:
            raise self._failure

    def __enter__(self) -> Writer:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        self.check()

    def _run(self) -> None:
        try:
            while not self._stop.wait(_PAUSE_S):
                sock = connect_socket(self._instance.settings)
                if sock is None:
                    continue
                try:
                    with Client(sock, timeout_s=60.0) as client:
                        self._write(client)
                except VecError as error:
                    if error.code not in _AWAY:
                        raise
        except BaseException as failure:
            self._failure = failure

    def _write(self, client: Client) -> None:
        while not self._stop.wait(_PAUSE_S):
            batch = [self._document() for _ in range(self._chance.randint(1, 8))]
            begun = time.monotonic()
            assert client.ingest(batch, LIBRARY)["failed"] == 0
            self.acks_s.append(time.monotonic() - begun)

    def _document(self) -> dict[str, Any]:
        document_id = f"d{self._chance.randrange(_IDS)}"
        if self._chance.random() < 0.15:
            return {"op": "delete", "id": document_id}
        text = f"version {self._chance.getrandbits(40)}" + self._chance.choice(("", " word" * 20))
        return {"id": document_id, "text": text}
