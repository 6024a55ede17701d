"""The reader of sources for Kafka: from which offset it begins, what it reads, and what it shows to others."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Sequence

import pytest
from confluent_kafka import Consumer, TopicPartition
from confluent_kafka.admin import AdminClient, NewPartitions  # type: ignore[attr-defined]

from tests.connectors.direct import batch, events, open_reader, open_sink, read_until
from tests.connectors.kafka_client import create_topic, produce, transaction
from tests.support.brokers import KafkaServer, fresh_name
from tests.support.waiting import PATIENCE_S, until
from vecd.connectors import kafka_source
from vecd.connectors.messages import InMessage
from vecd.connectors.transport import SourceReader
from vecd.delivery import AttemptFailed
from vecd.errors import VecError


def offsets_of(found: Sequence[InMessage]) -> dict[str, str]:
    return {each.partition: each.offset for each in found}


def numbered(first: int, last: int) -> list[bytes]:
    return [b"%d" % number for number in range(first, last + 1)]


def committed_in(kafka: KafkaServer, group: str, topic: str, partitions: int = 1) -> list[int]:
    """As `kafka-consumer-groups --describe` shows it."""
    consumer = Consumer({"bootstrap.servers": kafka.address, "group.id": group})
    try:
        places = consumer.committed([TopicPartition(topic, each) for each in range(partitions)], timeout=PATIENCE_S)
        return [place.offset for place in places]
    finally:
        consumer.close()


def nothing_comes(reader: SourceReader) -> bool:
    return not reader.read(100, 0.3)


def test_a_source_reads_each_partition_from_behind_its_stored_offset(kafka_server: KafkaServer) -> None:
    topic = fresh_name()
    create_topic(kafka_server.address, topic, partitions=3)
    for partition in range(3):
        produce(kafka_server.address, topic, numbered(0, 9), partition=partition)
    with open_reader(f"{kafka_server.url}/{topic}", {"0": "4", "2": "9"}) as reader:
        found = read_until(reader, 15)
        assert nothing_comes(reader)
    assert [int(each.body) for each in found if each.partition == "0"] == [5, 6, 7, 8, 9]
    assert [int(each.body) for each in found if each.partition == "1"] == list(range(10))
    assert offsets_of(found) == {"0": "9", "1": "9"}


def test_a_source_reads_a_cluster_of_three_and_each_message_with_key_and_headers(kafka_cluster: Sequence[str]) -> None:
    topic, bootstrap = fresh_name(), ",".join(kafka_cluster)
    sent = events(1, 500)
    with open_sink(f"kafka://{bootstrap}/{topic}") as sink:
        sink.deliver(batch(sent))
    with open_reader(f"kafka://{bootstrap}/{topic}") as reader:
        found = read_until(reader, 500)
        reader.committed(offsets_of(found))
        until(lambda: reader.read(1, 0.05) or reader.lag() == 0, "the end")
    assert len({each.partition for each in found}) > 1
    assert {each.key: (each.body, each.headers["vec-cursor"]) for each in found} == {
        each.key: (each.body, each.cursor) for each in sent
    }


def test_the_group_shows_what_was_applied_and_is_not_read_back(kafka_server: KafkaServer) -> None:
    """The offsets in the store decide: after a restore from a backup, they are the earlier ones."""
    topic, group = fresh_name(), fresh_name("group")
    produce(kafka_server.address, topic, numbered(0, 9))
    url = f"{kafka_server.url}/{topic}"
    with open_reader(url, group=group) as reader:
        read_until(reader, 10)
        reader.committed({"0": "5"})
        until(lambda: reader.read(1, 0.01) or committed_in(kafka_server, group, topic) == [6], "the commit")
    with open_reader(url, {"0": "3"}, group=group) as reader:
        assert [int(each.body) for each in read_until(reader, 6)] == [4, 5, 6, 7, 8, 9]
    with open_reader(url, group=group) as reader:
        assert len(read_until(reader, 10)) == 10


def test_a_source_that_starts_at_the_latest_misses_nothing_that_came_while_it_was_down(
    kafka_server: KafkaServer,
) -> None:
    topic = fresh_name()
    create_topic(kafka_server.address, topic, partitions=2)
    produce(kafka_server.address, topic, numbered(0, 4), partition=0)
    url = f"{kafka_server.url}/{topic}"
    with open_reader(url, start="latest") as reader:
        assert nothing_comes(reader)
    produce(kafka_server.address, topic, numbered(5, 6), partition=0)
    produce(kafka_server.address, topic, numbered(7, 8), partition=1)
    with open_reader(url, start="latest") as reader:
        assert sorted(int(each.body) for each in read_until(reader, 4)) == [5, 6, 7, 8]
    with open_reader(url, start="latest", generation=2) as reader:  # after a reset
        assert nothing_comes(reader)


def test_lag_counts_what_is_not_read_and_no_marks_of_transactions(kafka_server: KafkaServer) -> None:
    topic = fresh_name()
    url = f"{kafka_server.url}/{topic}"
    with open_sink(url, name=topic, exactly_once=True) as sink:
        for start in range(1, 101, 10):
            sink.deliver(batch(events(start, start + 9)))
    with open_reader(url) as reader:
        found = read_until(reader, 10)
        assert 0 < len(found) < 100
        lag = reader.lag()
        assert lag is not None
        assert 90 <= lag <= 100
        found += read_until(reader, 100 - len(found))
        until(lambda: reader.read(1, 0.01) or reader.lag() == 0, "a lag of 0")
    assert [json.loads(each.body)["seq"] for each in found] == list(range(1, 101))


def test_lag_counts_what_an_open_transaction_holds_back(kafka_server: KafkaServer) -> None:
    """A last stable offset that stands still is no end: whoever looks sees that messages wait."""
    topic, bootstrap = fresh_name(), kafka_server.address
    produce(bootstrap, topic, numbered(0, 0))
    with transaction(bootstrap, fresh_name()) as producer, open_reader(f"{kafka_server.url}/{topic}") as reader:
        for value in numbered(1, 3):
            producer.produce(topic, value)
        producer.flush()
        produce(bootstrap, topic, numbered(4, 4))
        assert [int(each.body) for each in read_until(reader, 1)] == [0]
        until(lambda: reader.read(1, 0.01) or reader.lag() == 4, "the lag")
        assert nothing_comes(reader)
        assert reader.lag() == 4
        producer.commit_transaction()
        assert [int(each.body) for each in read_until(reader, 4)] == [1, 2, 3, 4]
        until(lambda: reader.read(1, 0.01) or reader.lag() == 0, "a lag of 0")


def test_a_transaction_that_was_rolled_back_is_not_read(kafka_server: KafkaServer) -> None:
    topic = fresh_name()
    with transaction(kafka_server.address, fresh_name()) as producer:
        producer.produce(topic, b"never")
        producer.flush()
    produce(kafka_server.address, topic, [b"1"])
    with open_reader(f"{kafka_server.url}/{topic}") as reader:
        assert [each.body for each in read_until(reader, 1)] == [b"1"]
        assert nothing_comes(reader)


def test_a_tombstone_is_an_empty_message_with_its_key(kafka_server: KafkaServer) -> None:
    topic = fresh_name()
    produce(kafka_server.address, topic, [None], [b"notes/a"], headers={"vec-id": b"a"})
    with open_reader(f"{kafka_server.url}/{topic}") as reader:
        (found,) = read_until(reader, 1)
    assert (found.body, found.key, found.headers) == (b"", b"notes/a", {"vec-id": "a"})


def test_a_paused_source_holds_no_more_than_it_has_fetched_and_goes_on(kafka_server: KafkaServer) -> None:
    topic = fresh_name()
    produce(kafka_server.address, topic, numbered(0, 999))
    with open_reader(f"{kafka_server.url}/{topic}") as reader:
        found = read_until(reader, 100)
        for _ in range(3):
            reader.pause()
        found += read_until(reader, 900)
    assert [int(each.body) for each in found] == list(range(1000))


def test_added_partitions_are_read_from_their_beginning(
    kafka_server: KafkaServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kafka_source, "_PARTITIONS_S", 0.2)
    topic = fresh_name()
    create_topic(kafka_server.address, topic)
    with open_reader(f"{kafka_server.url}/{topic}", start="latest") as reader:
        admin = AdminClient({"bootstrap.servers": kafka_server.address})
        admin.create_partitions([NewPartitions(topic, 3)])[topic].result(PATIENCE_S)
        produce(kafka_server.address, topic, numbered(1, 5), partition=2)
        assert [int(each.body) for each in read_until(reader, 5)] == [1, 2, 3, 4, 5]


def test_a_stored_offset_that_the_topic_does_not_have_is_an_error_that_says_so(kafka_server: KafkaServer) -> None:
    topic = fresh_name()
    produce(kafka_server.address, topic, numbered(0, 9))
    url = f"{kafka_server.url}/{topic}"
    with open_reader(url, {"0": "500"}) as reader, pytest.raises(VecError, match="was created again"):
        read_until(reader, 1)
    admin = AdminClient({"bootstrap.servers": kafka_server.address})
    next(iter(admin.delete_records([TopicPartition(topic, 0, 6)]).values())).result(PATIENCE_S)
    with open_reader(url, {"0": "2"}) as reader, pytest.raises(VecError, match=r"3 messages \(3 to 5\)") as caught:
        read_until(reader, 1)
    assert caught.value.code == "compacted"
    with open_reader(url) as reader:
        assert [int(each.body) for each in read_until(reader, 4)] == [6, 7, 8, 9]


def test_a_source_goes_on_after_cuts_and_restarts_and_reads_each_message_once(own_kafka: KafkaServer) -> None:
    topic = fresh_name()
    produce(own_kafka.address, topic, [b"%d" % number + b" " * 1000 for number in range(3000)])
    found: list[InMessage] = []
    with own_kafka.behind_proxy() as network:
        network.bytes_per_s = 2_000_000
        url = f"kafka://{network.address}/{topic}"
        for disturb in (lambda: network.cut(), lambda: own_kafka.restart(), lambda: network.cut_after(3, "replies")):
            with open_reader(url, offsets_of(found)) as reader:
                while len(found) < 3000:
                    before = len(found)
                    found += reader.read(200, 0.2)
                    if before // 500 < len(found) // 500:
                        disturb()
                        break
                found += read_until(reader, 1)
        network.heal()
        with open_reader(url, offsets_of(found)) as reader:
            found += read_until(reader, 3000 - len(found))
            assert nothing_comes(reader)
    assert [int(each.body) for each in found] == list(range(3000))


def test_a_broker_that_stays_away_is_unreachable(own_kafka: KafkaServer) -> None:
    topic = fresh_name()
    produce(own_kafka.address, topic, [b"1"])
    with open_reader(f"{own_kafka.url}/{topic}", timeout_s=1.0) as reader:
        read_until(reader, 1)
        own_kafka.stop()
        with pytest.raises(AttemptFailed, match="Connection refused") as caught:
            read_until(reader, 1)
        assert caught.value.unreachable


def test_a_group_with_members_is_refused(kafka_server: KafkaServer) -> None:
    topic, group = fresh_name(), fresh_name("group")
    produce(kafka_server.address, topic, [b"1"])
    member = Consumer({"bootstrap.servers": kafka_server.address, "group.id": group, "auto.offset.reset": "earliest"})
    ended = threading.Event()
    joined = threading.Event()

    def poll() -> None:
        member.subscribe([topic], on_assign=lambda *_: joined.set())
        while not ended.is_set():
            member.poll(0.05)
        member.close()

    thread = threading.Thread(target=poll)
    thread.start()
    try:
        assert joined.wait(PATIENCE_S)
        with open_reader(f"{kafka_server.url}/{topic}", group=group) as reader:
            (found,) = read_until(reader, 1)
            reader.committed({found.partition: found.offset})
            with pytest.raises(VecError, match="has members"):
                read_until(reader, 1)
    finally:
        ended.set()
        thread.join()


def test_a_reader_closes_in_time_while_nothing_answers_and_leaves_nothing_behind(own_kafka: KafkaServer) -> None:
    """With an open commit, for which the library waits without a limit."""
    topic = fresh_name()
    produce(own_kafka.address, topic, numbered(0, 9))
    with own_kafka.behind_proxy() as network:
        with open_reader(f"kafka://{network.address}/{topic}", timeout_s=2.0) as reader:
            read_until(reader, 10)
            network.black_hole()
            reader.committed({"0": "5"})
            began = time.monotonic()
        assert time.monotonic() - began < 10.0
        network.cut()
        network.heal()
        until(lambda: all(each.name != "kafka close" for each in threading.enumerate()), "the end of the library")
