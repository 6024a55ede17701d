"""relay.watch, without a process of the connectors."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.inprocess import daemon
from vecd.connectors.definition import RelayDefinition
from vecd.errors import VecError


async def test_a_relay_that_is_removed_while_its_watch_begins_leaves_no_consumer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with daemon(tmp_path / "data") as own:
        ops, connectors = own.connect(), own.service.connectors
        added = await ops.call("relay.add", name="out", url=f"file://{tmp_path}/out", paused=True)
        check = connectors.check_relay

        async def removed_after_the_check(name: str, generation: int) -> RelayDefinition:
            found = await check(name, generation)
            await ops.call("relay.remove", name=name)
            return found

        monkeypatch.setattr(connectors, "check_relay", removed_after_the_check)
        with pytest.raises(VecError) as refusal:
            await ops.call("relay.watch", name="out", generation=added["generation"])
        assert refusal.value.code == "not_found"
        assert (await ops.call("consumers.list"))["consumers"] == []
