"""Writes of one sender take effect in the order they were sent, however long each takes to prepare."""

from __future__ import annotations

import asyncio
import random

from vecd.write_order import WriteOrder


def test_writes_pass_in_the_order_of_their_slots_also_when_some_are_given_up() -> None:
    for seed in range(30):
        assert asyncio.run(_passed(seed)) == [n for n in range(20) if n % 4]


async def _passed(seed: int) -> list[int]:
    chance, order, passed = random.Random(seed), WriteOrder(), []

    async def write(number: int) -> None:
        slot = order.take()
        try:
            for _ in range(chance.randrange(30)):  # preparing
                await asyncio.sleep(0)
            if number % 4:  # the others fail while they are prepared
                async with slot:
                    passed.append(number)
        finally:
            slot.release()

    async with asyncio.TaskGroup() as group:
        for number in range(20):
            group.create_task(write(number))
    return passed


def test_a_long_chain_of_writes_keeps_nothing_alive() -> None:
    async def chain() -> None:
        order = WriteOrder()
        for _ in range(100_000):  # a chain that was kept would overflow the stack or the memory
            slot = order.take()
            async with slot:
                pass
            assert slot._before is None

    asyncio.run(chain())
