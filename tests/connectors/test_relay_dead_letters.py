"""Dead letters of a relay: what RabbitMQ returns is kept, listed, sent again and deleted."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import aio_pika
import pytest

from tests.support.brokers.rabbitmq import RabbitMQ
from tests.support.instance import Instance
from tests.support.waiting import until


@pytest.fixture
def instance() -> Iterator[Instance]:
    with Instance({"VEC_EMBEDDER": "hash"}) as made:
        made.start()
        yield made


def show(instance: Instance) -> Any:
    (found,) = instance.objects("relay", "show", "out")
    return found


def letters(instance: Instance) -> list[Any]:
    return instance.objects("relay", "dead", "out")


async def bind(server: RabbitMQ, exchange: str, queue: str) -> None:
    async with await aio_pika.connect(server.url) as connection:
        channel = await connection.channel()
        made = await channel.declare_queue(queue, durable=True)
        await made.bind(exchange, "#")


async def drain(server: RabbitMQ, queue: str) -> list[Any]:
    found = []
    async with await aio_pika.connect(server.url) as connection:
        channel = await connection.channel()
        held = await channel.get_queue(queue)
        while (message := await held.get(no_ack=True, fail=False)) is not None:
            found.append(json.loads(message.body))
    return found


def test_refused_events_are_dead_letters_until_they_are_sent_again_or_dropped(
    instance: Instance, rabbitmq_server: RabbitMQ
) -> None:
    url = f"amqp://{rabbitmq_server.user}@{rabbitmq_server.address}/letters"
    password = instance.home / "password"
    password.write_text(f"{rabbitmq_server.password}\n")
    instance.vec(
        "relay", "add", "out", url, "-p", f"password_file={password}", "--type", "document.*", "--from", "beginning"
    )
    with instance.connect() as client:
        client.ingest([{"id": each, "text": each} for each in ("a", "b", "c")])
    until(lambda: show(instance)["dead_letters"] == 3, "the dead letters")
    until(lambda: show(instance)["lag"] == 0, "the position behind them")
    found = letters(instance)
    assert [json.loads(each["body"])["data"]["id"] for each in found] == ["a", "b", "c"]
    assert [each["position"] for each in found] == [json.loads(each["body"])["cursor"] for each in found]
    assert {each["attempts"] for each in found} == {1}

    instance.vec("relay", "retry", "out", str(found[0]["letter_id"]))
    until(lambda: letters(instance)[0]["attempts"] == 2, "another attempt, in vain")
    assert not any(each["retrying"] for each in letters(instance))

    (dropped,) = instance.objects("relay", "drop", "out", str(found[1]["letter_id"]))
    assert dropped == {"dropped": 1}
    asyncio.run(bind(rabbitmq_server, "letters", "letters-all"))
    instance.vec("relay", "retry", "out", "--all")
    until(lambda: letters(instance) == [], "the last dead letter")
    assert [each["data"]["id"] for each in asyncio.run(drain(rabbitmq_server, "letters-all"))] == ["a", "c"]
    assert hides(instance, rabbitmq_server.password)


def hides(instance: Instance, password: str) -> bool:
    """Whether the log and the list have the name of the password's file only. (The user has the same name here.)"""
    shown = json.dumps(show(instance)).replace(f"{password}@", "") + instance.log().replace(f"{password}@", "")
    return password not in shown
