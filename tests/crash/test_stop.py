"""A stop, however much is going on: the daemon ends, in time, and says nothing of a failure that there was not."""

from __future__ import annotations

import signal

from tests import history
from tests.instance import Instance
from vecd.errors import VecError


def test_a_stop_that_cuts_writes_off_ends_cleanly_and_keeps_what_was_acked() -> None:
    acknowledged: set[str] = set()
    with Instance({"VEC_DRAIN_S": "0.02"}) as instance:
        for turn in range(4):
            daemon = instance.start()
            clients = [instance.connect() for _ in range(4)]
            flying = []
            for number, client in enumerate(clients):
                for batch in range(8):
                    ids = [f"{turn}-{number}-{batch}-{row}" for row in range(256)]
                    documents = [{"id": each, "text": f"some text for {each} to be embedded"} for each in ids]
                    flying.append((ids, client.submit("ingest", documents=documents)))
            daemon.send_signal(signal.SIGTERM)
            for ids, pending in flying:
                try:
                    pending.result()
                    acknowledged.update(ids)
                except VecError as error:
                    assert error.code in ("shutting_down", "connection_lost"), error
            assert daemon.wait(30) == 0
            for client in clients:
                client.close()
        assert "level=critical" not in instance.log()
        assert "Traceback" not in instance.log()
        instance.start()
        with instance.connect() as client:
            assert acknowledged <= history.check(client).get("default", {}).keys()
