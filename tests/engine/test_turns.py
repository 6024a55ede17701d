"""Writes of one sender take effect in the order they were sent, however long each takes to prepare."""

from __future__ import annotations

import asyncio
import random

from vecd.engine.turns import Turns


def test_turns_pass_in_the_order_they_were_taken_also_when_some_are_given_up() -> None:
    for seed in range(30):
        assert asyncio.run(_passed(seed)) == [n for n in range(20) if n % 4]


async def _passed(seed: int) -> list[int]:
    chance, turns, passed = random.Random(seed), Turns(), []

    async def write(number: int) -> None:
        turn = turns.take()
        try:
            for _ in range(chance.randrange(30)):  # preparing
                await asyncio.sleep(0)
            if number % 4:  # the others fail while they are prepared
                async with turn:
                    passed.append(number)
        finally:
            turn.release()

    async with asyncio.TaskGroup() as group:
        for number in range(20):
            group.create_task(write(number))
    return passed


def test_a_long_chain_of_turns_keeps_nothing_alive() -> None:
    async def chain() -> None:
        turns = Turns()
        for _ in range(100_000):  # a chain that was kept would overflow the stack or the memory
            turn = turns.take()
            async with turn:
                pass
            assert turn._before is None

    asyncio.run(chain())
