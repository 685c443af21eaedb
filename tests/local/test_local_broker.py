"""Discovery order, the real broker's basics, and the limits that the mock admits."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from confluent_kafka import Consumer, Producer
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from attributary.local import broker as discovery
from attributary.local.broker import BrokerUnavailableError, find_broker
from attributary.local.kafka_archive import make_archive
from attributary.local.kafka_jars import free_node_ports, kafka_cluster
from attributary.local.kafka_maven import fetch_jars, java
from attributary.local.kafka_node import Runtime, write_identity
from attributary.local.process import ProcessFailedError, run

if TYPE_CHECKING:
    from attributary.local.broker import Broker
    from attributary.local.kafka_jars import KafkaCluster


def test_a_real_broker_keeps_a_committed_transaction_and_hides_an_aborted_one(broker: Broker) -> None:
    topic = "local.test.transactions"
    admin = AdminClient({"bootstrap.servers": broker.bootstrap})
    admin.create_topics([NewTopic(topic, 1)])[topic].result(timeout=120)
    producer = Producer({"bootstrap.servers": broker.bootstrap, "transactional.id": topic, "log_level": 0})
    producer.init_transactions(120)
    for value, keep in ((b"kept", True), (b"dropped", False), (b"last", True)):
        producer.begin_transaction()
        producer.produce(topic, value)
        producer.flush(120)
        if keep:
            producer.commit_transaction(120)
        else:
            producer.abort_transaction(120)
    assert _read(broker, topic, 2) == [b"kept", b"last"]


def test_the_mock_delivers_and_describes_its_limits() -> None:
    with find_broker(("mock",)) as broker:
        assert not broker.real
        assert "not for guarantees" in broker.describe()
        producer = Producer({"bootstrap.servers": broker.bootstrap, **broker.producer_overrides})
        producer.produce("local.test.mock", b"hello")
        assert producer.flush(120) == 0
        assert _read(broker, "local.test.mock", 1) == [b"hello"]


def test_a_given_broker_that_does_not_answer_is_an_error(monkeypatch: pytest.MonkeyPatch, free_port: int) -> None:
    monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", f"127.0.0.1:{free_port}")
    with pytest.raises(BrokerUnavailableError, match="does not answer"), find_broker():
        pass


def test_a_given_broker_comes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    with find_broker(("mock",)) as mock:
        monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", mock.bootstrap)
        with find_broker() as found:
            assert found.kind == "given"
            assert found.bootstrap == mock.bootstrap


def test_the_reasons_are_listed_when_there_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_java(*_args: object, **_kwargs: object) -> None:
        raise ProcessFailedError("there is no Java")

    monkeypatch.delenv("KAFKA_BOOTSTRAP_SERVERS", raising=False)
    monkeypatch.setattr(discovery, "docker_obstacle", lambda: "no Docker engine answers")
    monkeypatch.setattr(discovery, "kafka_cluster", no_java)
    expected = "KAFKA_BOOTSTRAP_SERVERS is not set; Docker: no Docker engine answers; Kafka's jars: there is no Java"
    with pytest.raises(BrokerUnavailableError, match=expected), find_broker(discovery.REAL):
        pass
    with find_broker() as found:
        assert found.kind == "mock"
        assert len(found.missed) == 3


@pytest.mark.slow
@pytest.mark.fault
def test_three_nodes_go_on_without_one_and_take_it_back(three_brokers: KafkaCluster) -> None:
    topic = "local.test.three"
    admin = AdminClient({"bootstrap.servers": three_brokers.bootstrap, "log_level": 0})
    admin.create_topics([NewTopic(topic, 3, 3)])[topic].result(timeout=120)
    producer = Producer({"bootstrap.servers": three_brokers.bootstrap, "acks": "all", "log_level": 0})
    victim = three_brokers.nodes[0]
    victim.kill()
    assert not victim.running
    failures: list[object] = []
    for number in range(30):
        producer.produce(topic, str(number), on_delivery=lambda error, _: failures.append(error) if error else None)
    assert producer.flush(120) == 0
    assert failures == []
    three_brokers.restart(victim)
    assert len(admin.list_topics(timeout=120).brokers) == 3


@pytest.mark.slow
def test_a_kept_folder_goes_on_where_it_was(broker: Broker, tmp_path: Path) -> None:
    if broker.kind != "jars":
        pytest.skip("the run uses another kind of broker")
    for _ in range(2):
        with find_broker(("jars",), folder=tmp_path) as kept:
            admin = AdminClient({"bootstrap.servers": kept.bootstrap, "log_level": 0})
            before = set(admin.list_topics(timeout=120).topics)
            if "local.test.kept" not in before:
                admin.create_topics([NewTopic("local.test.kept", 1)])["local.test.kept"].result(timeout=120)
    assert "local.test.kept" in before


@pytest.mark.slow
def test_a_node_takes_its_classes_from_the_archive(broker: Broker) -> None:
    """Without it a node starts as well, at twice the CPU, so nobody would notice an archive that does not fit."""
    if broker.kind != "jars":
        pytest.skip("the run uses another kind of broker")
    archive = make_archive()
    runtime = Runtime(java(), fetch_jars(), heap_megabytes=384, options=("-Xshare:on", "-Xlog:class+load"))
    command = runtime.command("kafka.Kafka", "--version")
    assert f"-XX:SharedArchiveFile={archive}" in command
    printed = run(command, name="kafka.Kafka", timeout_seconds=120.0)
    (source,) = {line.partition(" source: ")[2] for line in printed.splitlines() if "] kafka.Kafka$ source" in line}
    assert source == "shared objects file (top)"
    assert not any("-XX:SharedArchiveFile" in part for part in replace(runtime, optimise=True).command("kafka.Kafka"))


@pytest.mark.slow
def test_a_broker_behind_a_proxy_advertises_the_proxy(broker: Broker, free_port: int) -> None:
    if broker.kind != "jars":
        pytest.skip("the run uses another kind of broker")
    ports = free_node_ports(1, proxy_ports=[free_port])
    with kafka_cluster(ports=ports):
        assert ports[0].proxied is not None
        through = AdminClient({"bootstrap.servers": f"127.0.0.1:{ports[0].proxied}", "log_level": 0})
        assert [one.port for one in through.list_topics(timeout=120).brokers.values()] == [free_port]
        direct = AdminClient({"bootstrap.servers": f"127.0.0.1:{ports[0].broker}", "log_level": 0})
        assert [one.port for one in direct.list_topics(timeout=120).brokers.values()] == [ports[0].broker]


def _read(broker: Broker, topic: str, count: int) -> list[bytes]:
    consumer = Consumer(
        {
            "bootstrap.servers": broker.bootstrap,
            "group.id": "local.test",
            "auto.offset.reset": "earliest",
            "isolation.level": "read_committed",
            "log_level": 0,
            **broker.consumer_overrides,
        }
    )
    consumer.subscribe([topic])
    try:
        return [message.value() or b"" for message in consumer.consume(count, timeout=120)]
    finally:
        consumer.close()


@pytest.mark.slow
def test_a_relative_folder_is_the_callers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kafka_bootstrap: str
) -> None:
    assert kafka_bootstrap  # jars or not, a real broker can be had here
    monkeypatch.chdir(tmp_path)
    try:
        with kafka_cluster(folder=Path("here")) as cluster:
            assert cluster.bootstrap
    except ProcessFailedError as error:
        pytest.skip(f"no jars: {error}")
    assert (tmp_path / "here" / "node-1" / "server.properties").exists()


def test_a_copy_of_formatted_storage_is_a_node_of_its_own(tmp_path: Path) -> None:
    written = "#\n#Mon Nov 30\nnode.id=1\ndirectory.id=old\nversion=1\ncluster.id=other\n"
    found = []
    for number in (1, 2):
        file = tmp_path / str(number) / "meta.properties"
        file.parent.mkdir()
        file.write_text(written)
        write_identity(file.parent, "mine", number)
        lines = [line for line in file.read_text().splitlines() if not line.startswith("#")]
        found.append(dict(line.split("=", 1) for line in lines))
    folders = [own.pop("directory.id") for own in found]
    assert found == [{"version": "1", "cluster.id": "mine", "node.id": str(number)} for number in (1, 2)]
    assert len({*folders, "old"}) == 3
    assert all(len(each) == 22 for each in folders), "as Kafka writes an id of 16 bytes"
