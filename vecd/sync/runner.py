"""A sync that the daemon runs, as a connector of its sync process."""

from __future__ import annotations

from ..connectors.runner import Runner
from .follow import Follower
from .session import Session, Told, options_of


class SyncRunner(Runner):
    """Runs one generation of a sync."""

    def _run(self) -> None:
        with self._connect() as client:
            client.set_timeout(None)  # a commit may wait for an embedder
            with Session(client, self.name, self._stop) as session:
                follower = Follower(
                    client, session, options_of(session.definition), self._stop,
                    on_round=self._done, on_warning=self._warn, on_pending=self._pending,
                )  # fmt: skip
                follower.run()

    def _done(self, told: Told, seconds: float) -> None:
        self.progressed()
        self._status.moved(told.documents.total() - told.documents["unchanged"])

    def _warn(self, warning: str) -> None:
        self._status.warning = warning

    def _pending(self, count: int) -> None:
        self._status.lag = count

    def retry(self) -> None:
        """A sync has no dead letters: a file that was refused is tried again by each scan."""
