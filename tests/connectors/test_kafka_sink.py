"""The sink of relays for Kafka: what another program reads there, whatever fails meanwhile."""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from tests.connectors import direct
from tests.connectors.direct import LOG, batch, events
from tests.connectors.kafka_client import create_topic, headers_of, messages_in, produce, transaction
from tests.support.brokers import KafkaServer, fresh_name
from tests.support.waiting import until
from vecd.connectors import messages
from vecd.connectors.messages import OutMessage
from vecd.connectors.transport import MessageSink
from vecd.delivery import AttemptFailed, DeliveryBatch, Refused
from vecd.errors import VecError

both = pytest.mark.parametrize("exactly_once", [False, True], ids=["at_least_once", "exactly_once"])


def seqs_in(kafka: KafkaServer, topic: str) -> list[int]:
    return [json.loads(value)["seq"] for each in messages_in(kafka.address, topic) if (value := each.value())]


def open_sink(url: str, **parameters: Any) -> contextlib.AbstractContextManager[MessageSink]:
    """Of a relay that has the topic's name: each topic has a relay of its own."""
    return direct.open_sink(url, **{"name": url.rpartition("/")[2], **parameters})


def large(message: OutMessage, size: int) -> OutMessage:
    return replace(message, body=b'"' + b"x" * size + b'"')


class Sending:
    """Delivers as a relay does: with a new sink after a failure, until the broker has all."""

    def __init__(self, url: str, **parameters: Any) -> None:
        self._url, self._parameters = url, parameters
        self._opened = contextlib.ExitStack()
        self._sink: MessageSink | None = None

    def deliver(self, sent: DeliveryBatch[OutMessage]) -> None:
        until(lambda: self._attempt(sent), "the delivery")

    def _attempt(self, sent: DeliveryBatch[OutMessage]) -> bool:
        try:
            if self._sink is None:
                self._sink = self._opened.enter_context(open_sink(self._url, **self._parameters))
            self._sink.deliver(sent)
        except AttemptFailed:
            self.close()
            return False
        return True

    def close(self) -> None:
        self._sink = None
        self._opened.close()


def deliver_at_last(url: str, sent: DeliveryBatch[OutMessage], **parameters: Any) -> None:
    with contextlib.closing(Sending(url, **parameters)) as sending:
        sending.deliver(sent)


@both
def test_a_consumer_gets_each_event_with_its_key_and_headers(kafka_server: KafkaServer, exactly_once: bool) -> None:
    topic = fresh_name()
    sent = events(1, 50)
    with open_sink(f"{kafka_server.url}/{topic}", exactly_once=exactly_once) as sink:
        sink.deliver(batch(sent))
    found = messages_in(kafka_server.address, topic)
    assert [each.value() for each in found] == [each.body for each in sent]
    assert [each.key() for each in found] == [f"notes/d{seq}".encode() for seq in range(1, 51)]
    assert headers_of(found[6]) == {
        "vec-cursor": f"{LOG}:7", "vec-type": "document.added", "vec-log": LOG, "vec-library": "notes", "vec-id": "d7",
        "content-type": "application/json",
    }  # fmt: skip


def test_the_events_of_a_document_are_in_one_partition_in_order_on_a_cluster_of_three(
    kafka_cluster: Sequence[str],
) -> None:
    topic, bootstrap = fresh_name(), ",".join(kafka_cluster)
    sent = [replace(each, key=b"notes/d%d" % (each.seq % 17)) for each in events(1, 2000)]
    with open_sink(f"kafka://{bootstrap}/{topic}") as sink:
        for start in range(0, 2000, 500):
            sink.deliver(batch(sent[start : start + 500]))
    found = messages_in(bootstrap, topic)
    assert len({each.partition() for each in found}) > 1
    assert len(found) == 2000
    for key in {each.key for each in sent}:
        mine = [each for each in found if each.key() == key]
        assert len({each.partition() for each in mine}) == 1
        assert [each.value() for each in mine] == [each.body for each in sent if each.key == key]


def test_a_partition_is_the_one_that_kafkas_own_producer_takes(kafka_server: KafkaServer) -> None:
    """Java's: murmur2 of the key. These are its values for 8 partitions."""
    topic = fresh_name()
    create_topic(kafka_server.address, topic, partitions=8)
    with open_sink(f"{kafka_server.url}/{topic}") as sink:
        sink.deliver(batch([replace(each, key=b"notes/d%d" % each.seq) for each in events(1, 20)]))
    for each in messages_in(kafka_server.address, topic):
        key = each.key()
        assert isinstance(key, bytes)
        assert each.partition() == (_murmur2(key) & 0x7FFFFFFF) % 8


def _murmur2(data: bytes) -> int:
    """As in org.apache.kafka.common.utils.Utils."""
    mask, m = 0xFFFFFFFF, 0x5BD1E995
    h = 0x9747B28C ^ len(data)
    for start in range(0, len(data) - len(data) % 4, 4):
        k = int.from_bytes(data[start : start + 4], "little") * m & mask
        h = (h * m & mask) ^ ((k ^ k >> 24) * m & mask)
    rest = data[len(data) - len(data) % 4 :]
    if rest:
        h = (h ^ int.from_bytes(rest, "little")) * m & mask
    h = (h ^ h >> 13) * m & mask
    return h ^ h >> 15


def test_a_deleted_document_leaves_a_tombstone_behind_its_event_if_asked_for(kafka_server: KafkaServer) -> None:
    topic = fresh_name()
    gone = messages.message(2, f"{LOG}:2", "document.deleted", "notes", "d1", LOG, b"{}", "application/json")
    for tombstones in (False, True):
        with open_sink(f"{kafka_server.url}/{topic}", tombstones=tombstones) as sink:
            sink.deliver(batch([*events(1, 1), gone, *events(3, 3)]))
    found = messages_in(kafka_server.address, topic)
    assert [(each.key(), each.value() is None) for each in found[3:]] == [
        (b"notes/d1", False), (b"notes/d1", False), (b"notes/d1", True), (b"notes/d3", False),
    ]  # fmt: skip
    assert headers_of(found[5])["vec-type"] == "document.deleted"
    assert all(each.value() is not None for each in found[:3])


@both
def test_only_what_is_too_large_is_refused(kafka_server: KafkaServer, exactly_once: bool) -> None:
    topic = fresh_name()
    sent = events(1, 10)
    sent[3] = large(sent[3], 2_000_000)
    with open_sink(f"{kafka_server.url}/{topic}", exactly_once=exactly_once) as sink:
        with pytest.raises(Refused, match="too large") as caught:
            sink.deliver(batch(sent))
        assert list(caught.value.reasons) == [3]
        sink.deliver(batch(events(11, 20)))
    assert seqs_in(kafka_server, topic) == [seq for seq in range(1, 21) if seq != 4]


@both
def test_a_topic_with_a_small_limit_refuses_the_large_message_and_none_that_was_sent_with_it(
    kafka_server: KafkaServer, exactly_once: bool
) -> None:
    """Kafka checks the size of a request to a partition, which has many messages."""
    topic = fresh_name()
    create_topic(kafka_server.address, topic, max_message_bytes=20_000)
    sent = events(1, 500)
    sent[99] = large(sent[99], 30_000)
    with open_sink(f"{kafka_server.url}/{topic}", exactly_once=exactly_once) as sink:
        with pytest.raises(Refused) as caught:
            sink.deliver(batch(sent))
        assert list(caught.value.reasons) == [99]
        sink.deliver(batch(events(501, 900)))
    found = seqs_in(kafka_server, topic)
    assert sorted(set(found)) == [seq for seq in range(1, 901) if seq != 100]
    if exactly_once:
        assert len(found) == 899


def test_a_batch_that_is_delivered_again_is_there_once(kafka_server: KafkaServer) -> None:
    """The relay's process died before it stored the position."""
    url = f"{kafka_server.url}/{(topic := fresh_name())}"
    with open_sink(url, exactly_once=True) as sink:
        sink.deliver(batch(events(1, 30)))
    with open_sink(url, exactly_once=True) as sink:
        sink.deliver(batch(events(11, 40)))  # in other batches than before
        sink.deliver(batch(events(1, 40)))
    assert seqs_in(kafka_server, topic) == list(range(1, 41))


def test_what_was_refused_is_refused_again_when_its_batch_is_delivered_again(kafka_server: KafkaServer) -> None:
    """The relay's process died before it stored the dead letter."""
    url = f"{kafka_server.url}/{(topic := fresh_name())}"
    sent = events(1, 5)
    sent[2] = large(sent[2], 2_000_000)
    for _ in range(2):
        with open_sink(url, exactly_once=True) as sink, pytest.raises(Refused) as caught:
            sink.deliver(batch(sent))
        assert list(caught.value.reasons) == [2]
    assert seqs_in(kafka_server, topic) == [1, 2, 4, 5]


def test_dead_letters_that_are_tried_again_are_sent_and_do_not_move_the_position(kafka_server: KafkaServer) -> None:
    url = f"{kafka_server.url}/{(topic := fresh_name())}"
    with open_sink(url, exactly_once=True) as sink:
        sink.deliver(batch(events(1, 3)))
        sink.deliver(DeliveryBatch(events(2, 2), 1, "", again=True))
    with open_sink(url, exactly_once=True) as sink:
        sink.deliver(batch(events(3, 4)))
    assert seqs_in(kafka_server, topic) == [1, 2, 3, 2, 4]


def test_a_reset_relay_sends_again_and_the_one_before_can_send_nothing_more(kafka_server: KafkaServer) -> None:
    url = f"{kafka_server.url}/{(topic := fresh_name())}"
    with open_sink(url, exactly_once=True) as before:
        before.deliver(batch(events(1, 3)))
        with open_sink(url, exactly_once=True, generation=2) as sink:
            sink.deliver(batch(events(2, 3)))
            with pytest.raises(AttemptFailed, match="fenced"):
                before.deliver(batch(events(4, 4)))
    assert seqs_in(kafka_server, topic) == [1, 2, 3, 2, 3]


def test_relays_with_one_position_topic_do_not_disturb_each_other(kafka_server: KafkaServer) -> None:
    """The position of one is found behind thousands of others', and while the transaction of another is open."""
    url, other = (f"{kafka_server.url}/{fresh_name()}" for _ in range(2))
    with open_sink(url, exactly_once=True) as sink:
        sink.deliver(batch(events(1, 3)))
    with open_sink(other, exactly_once=True) as sink:
        sink.deliver(batch(events(1, 3)))
    others = [b"vec.log.another%d" % number for number in range(2500)]
    produce(kafka_server.address, "vec-relay-positions", [b"{}"] * len(others), others, partition=0)
    opened = threading.Event()
    with transaction(kafka_server.address, fresh_name()) as producer:
        producer.produce("vec-relay-positions", b"{}", b"third", partition=0)
        producer.flush()

        def commit_later() -> None:
            opened.wait(1.0)
            producer.commit_transaction(60)

        committer = threading.Thread(target=commit_later)
        committer.start()
        with open_sink(url, exactly_once=True) as sink:
            sink.deliver(batch(events(1, 4)))
        committer.join()
    assert seqs_in(kafka_server, url.rpartition("/")[2]) == [1, 2, 3, 4]


def test_a_position_topic_that_would_lose_positions_is_refused(kafka_server: KafkaServer) -> None:
    topic = fresh_name()
    create_topic(kafka_server.address, topic, cleanup_policy="delete")
    with (
        pytest.raises(VecError, match=r"cleanup\.policy=delete") as caught,
        open_sink(f"{kafka_server.url}/{fresh_name()}", exactly_once=True, position_topic=topic),
    ):
        pass
    assert caught.value.code == "invalid_settings"


@both
def test_lost_replies_lose_nothing_and_exactly_once_doubles_nothing(own_kafka: KafkaServer, exactly_once: bool) -> None:
    """The broker has written the batch, and the relay does not learn it."""
    topic = fresh_name()
    with own_kafka.behind_proxy() as network:
        url = f"kafka://{network.address}/{topic}"
        with open_sink(url, exactly_once=exactly_once, timeout_s=2.0) as sink:
            sink.deliver(batch(events(1, 10)))
            network.black_hole("replies")
            with pytest.raises(AttemptFailed):
                sink.deliver(batch(events(11, 20)))
            network.cut()
            network.heal()
        deliver_at_last(url, batch(events(11, 20)), exactly_once=exactly_once)
    found = seqs_in(own_kafka, topic)
    assert sorted(set(found)) == list(range(1, 21))
    if exactly_once:
        assert found == list(range(1, 21))


@pytest.mark.parametrize("place", range(0, 6000, 400))
def test_a_cut_at_any_byte_of_a_transaction_neither_loses_nor_doubles(own_kafka: KafkaServer, place: int) -> None:
    topic = fresh_name()
    with own_kafka.behind_proxy() as network:
        url = f"kafka://{network.address}/{topic}"
        deliver_at_last(url, batch(events(1, 10)), exactly_once=True)  # a busy broker opens its transactions slowly
        with open_sink(url, exactly_once=True, timeout_s=20.0) as sink:
            network.cut_after(place, "requests" if place % 800 else "replies")
            cut_off(sink, events(11, 20))
            network.heal()
        deliver_at_last(url, batch(events(11, 25)), exactly_once=True)
    assert seqs_in(own_kafka, topic) == list(range(1, 26))


def cut_off(sink: MessageSink, sent: list[OutMessage]) -> None:
    with contextlib.suppress(AttemptFailed):
        sink.deliver(batch(sent))


def test_a_broker_that_is_restarted_while_batches_are_sent_has_everything(own_kafka: KafkaServer) -> None:
    """At any moment of a batch. Without transactions: after a restart, this broker sometimes knows them no more, and
    refuses others for minutes."""
    topic = fresh_name()
    delivered: list[int] = []
    ended = threading.Event()

    def deliver(url: str) -> None:
        with contextlib.closing(Sending(url, timeout_s=5.0)) as sending:
            start = 1
            while not ended.is_set():
                sending.deliver(batch(events(start, start + 19)))
                delivered.append(start)
                start += 20

    with own_kafka.behind_proxy() as network:
        writer = threading.Thread(target=deliver, args=(f"kafka://{network.address}/{topic}",))
        writer.start()
        for _ in range(2):
            before = len(delivered)
            until(lambda: len(delivered) > before + 2, "a few batches")  # noqa: B023
            own_kafka.restart_behind(network)
        ended.set()
        writer.join()
    last = delivered[-1] + 19
    found = seqs_in(own_kafka, topic)
    assert sorted(set(found)) == list(range(1, last + 1))


def test_an_absent_broker_is_unreachable_within_the_time_limit_and_says_why(own_kafka: KafkaServer) -> None:
    own_kafka.stop()
    began = time.monotonic()
    with (
        pytest.raises(AttemptFailed, match="Connection refused") as caught,
        open_sink(f"{own_kafka.url}/x", timeout_s=1.0),
    ):
        pass
    assert caught.value.unreachable
    assert time.monotonic() - began < 5.0


def test_a_stop_ends_a_delivery_that_waits(own_kafka: KafkaServer) -> None:
    stop = threading.Event()
    with (
        own_kafka.behind_proxy() as network,
        open_sink(f"kafka://{network.address}/{fresh_name()}", stop=stop, timeout_s=60.0) as sink,
    ):
        network.black_hole()
        threading.Timer(0.2, stop.set).start()
        began = time.monotonic()
        with pytest.raises(AttemptFailed, match="the connector stops"):
            sink.deliver(batch(events(1, 3)))
        assert time.monotonic() - began < 10.0


def test_a_topic_that_cannot_exist_is_an_error_of_the_settings(kafka_cluster: Sequence[str]) -> None:
    for url, why in (
        ("kafka://localhost/", "names no topic"), ("kafka://localhost/a b", "names no topic"),
        ("kafka:///topic", "names no topic"), ("kafka://localhost/t?x=1", "names no topic"),
        ("kafka://me@localhost/t", "no password"), ("kafka://me:secret@localhost/t", "password"),
    ):  # fmt: skip
        with pytest.raises(VecError, match=why), open_sink(url):
            pass
    with pytest.raises(VecError, match="another topic"), open_sink("kafka://h/t", position_topic="t"):
        pass
