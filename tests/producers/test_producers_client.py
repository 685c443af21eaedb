"""What the client promises about bad records, failed deliveries, full queues and its exit."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from typing import Any

import pytest

from attributary.attribution_core.domain.identity_rules import IdentityRules
from attributary.producers import (
    AttributaryProducer,
    BufferFull,
    Conversion,
    DeliveryFailed,
    FlushTimeout,
    InvalidRecord,
    MemoryTransport,
    ProducerConfig,
    Touchpoint,
    UserData,
)
from attributary.producers.kafka import FIXED, KafkaTransport, settings
from attributary.producers.transport import Message, OnDone, Refused
from attributary.schemas.codec import Codec, RegistryUnavailableError

NOON = 1_717_243_200_000_000


def touchpoint(event_id: str = "t1", **others: Any) -> Touchpoint:
    fields: dict[str, Any] = {
        "anonymous_id": "a1",
        "occurred_at": NOON,
        "platform": "meta",
        "channel": "paid_social",
    } | others
    return Touchpoint(event_id=event_id, **fields)


def opened(transport: MemoryTransport, **config: Any) -> AttributaryProducer:
    return AttributaryProducer(ProducerConfig(**({"default_tenant": "acme"} | config)), transport=transport)


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"tenant_id": "Acme!"}, "tenant_id"),
        ({"anonymous_id": None}, "user_id, anonymous_id"),
        ({"anonymous_id": "null"}, "anonymous_id"),
        ({"occurred_at": 1_717_243_200}, "occurred_at"),
        ({"occurred_at": NOON * 2}, "occurred_at"),
        ({"platform": "Meta"}, "platform"),
        ({"utm_term": "a\0b"}, "utm_term"),
        ({"properties": {"note": "a\0b"}}, "properties"),
        ({"utm_term": "half \ud800 pair"}, "utm_term"),
        ({"properties": {"n": 3}}, "properties"),
        ({"utm_source": 3}, "utm_source"),
        ({"click_ids": None}, "click_ids"),
    ],
)
def test_a_bad_record_is_refused_with_its_field_and_rule(fields: dict[str, Any], field: str) -> None:
    transport = MemoryTransport()
    with opened(transport) as producer:
        with pytest.raises(InvalidRecord) as caught:
            producer.publish(touchpoint("t-bad", **fields))
        producer.publish(touchpoint("t-good"))
    assert (caught.value.record, caught.value.field, caught.value.event_id) == ("touchpoint", field, "t-bad")
    assert caught.value.rule
    assert str(caught.value).startswith(f"touchpoint.{field}: ")
    assert [record["event_id"] for record in transport.records("touchpoint")] == ["t-good"]
    assert producer.counters == (1, 1, 0)


def test_a_mapping_without_its_fields_is_refused() -> None:
    with opened(MemoryTransport()) as producer, pytest.raises(InvalidRecord, match="event_id"):
        producer.publish_mapping("touchpoint", {"anonymous_id": "a1"})


def test_a_mapping_is_left_as_it_was() -> None:
    transport = MemoryTransport()
    record = {
        "event_id": "c1", "user_id": "u1", "occurred_at": NOON, "conversion_type": "lead",
        "user_data": {"email": "jo@example.org"},
    }  # fmt: skip
    before = json.dumps(record)
    with opened(transport) as producer:
        producer.publish_mapping("conversion", record)
    assert json.dumps(record) == before
    assert transport.records("conversion")[0]["tenant_id"] == "acme"


def conversion_with_user_data() -> Conversion:
    data = UserData(email=" Jo@Example.org ", phone="0171 2345678", city="Berlin")
    return Conversion(event_id="c1", user_id="u1", occurred_at=NOON, conversion_type="lead", user_data=data)


def test_user_data_leaves_as_hashes() -> None:
    transport = MemoryTransport()
    with opened(transport, default_region="DE") as producer:
        producer.publish(conversion_with_user_data())
    assert not any(
        word in message.value for message in transport.messages for word in (b"xample", b"2345678", b"erlin")
    )
    data = transport.records("conversion")[0]["user_data"]
    assert {"em", "ph"} <= data["meta_hashes"].keys()
    assert {"sha256_email_address", "sha256_phone_number"} <= data["google_hashes"].keys()
    assert data["email"] is None


def test_user_data_leaves_plain_only_on_request() -> None:
    transport = MemoryTransport()
    with opened(transport, hash_user_data=False) as producer:
        producer.publish(conversion_with_user_data())
    assert transport.records("conversion")[0]["user_data"]["email"] == " Jo@Example.org "


def test_user_data_of_another_type_is_an_invalid_record() -> None:
    record = {"event_id": "c1", "user_id": "u1", "occurred_at": NOON, "conversion_type": "lead"}
    with opened(MemoryTransport()) as producer, pytest.raises(InvalidRecord, match="user_data"):
        producer.publish_mapping("conversion", record | {"user_data": {"email": 3}})


def test_a_failed_delivery_is_raised_by_the_next_call_once() -> None:
    transport = MemoryTransport()
    transport.fail_next("broker says no", times=2)
    producer = opened(transport)
    producer.publish(touchpoint("t1"))
    with pytest.raises(DeliveryFailed, match="broker says no") as caught:
        producer.publish(touchpoint("t2"))
    assert caught.value.event_ids == ("t1",)
    producer.publish(touchpoint("t2"))
    with pytest.raises(DeliveryFailed) as caught:
        producer.flush()
    assert caught.value.event_ids == ("t2",)
    producer.publish(touchpoint("t3"))
    producer.close()
    assert producer.counters == (3, 1, 2)
    assert [record["event_id"] for record in transport.records("touchpoint")] == ["t3"]


def test_a_failed_delivery_is_raised_at_exit() -> None:
    transport = MemoryTransport()
    transport.fail_next("gone")
    with pytest.raises(DeliveryFailed, match="gone"), opened(transport) as producer:
        producer.publish(touchpoint())


def test_many_failures_are_told_in_one_short_text() -> None:
    error = DeliveryFailed([f"t{number}" for number in range(100)], ["timed out"])
    assert str(error) == "100 not delivered (timed out): t0, t1, t2, t3, t4 and 95 more"


def test_failures_go_to_the_callback_instead() -> None:
    transport = MemoryTransport()
    outcomes: list[tuple[str, str | None]] = []
    with AttributaryProducer(
        ProducerConfig(default_tenant="acme"),
        transport=transport,
        on_delivery=lambda event_id, reason: outcomes.append((event_id, reason)),
    ) as producer:
        transport.fail_next("no")
        producer.publish(touchpoint("t1"))
        producer.publish(touchpoint("t2"))
    assert outcomes == [("t1", "no"), ("t2", None)]
    assert producer.counters == (2, 1, 1)


def test_a_full_queue_makes_publish_wait_for_room() -> None:
    transport = MemoryTransport(capacity=10)
    with opened(transport) as producer:
        for number in range(100):
            producer.publish(touchpoint(f"t{number}"))
    assert len(transport.messages) == 100


def test_a_queue_that_stays_full_is_an_error_and_loses_nothing() -> None:
    transport = MemoryTransport(capacity=2)
    transport.stall()
    producer = opened(transport, full_buffer_timeout_seconds=0.01)
    producer.publish(touchpoint("t1"))
    producer.publish(touchpoint("t2"))
    with pytest.raises(BufferFull, match="stayed full"):
        producer.publish(touchpoint("t3"))
    assert producer.counters == (2, 0, 0)
    assert producer.counters.waiting == 2
    transport.stall(stalled=False)
    producer.publish(touchpoint("t3"))
    producer.close()
    assert [record["event_id"] for record in transport.records("touchpoint")] == ["t1", "t2", "t3"]


def test_the_exit_says_how_many_were_not_delivered() -> None:
    transport = MemoryTransport()
    transport.stall()
    producer = opened(transport)
    producer.publish(touchpoint("t1"))
    producer.publish(touchpoint("t2"))
    with pytest.raises(FlushTimeout, match="2 records were not delivered") as caught:
        producer.flush(0.01)
    assert (caught.value.undelivered, caught.value.event_ids) == (2, ())
    with pytest.raises(FlushTimeout) as caught:
        producer.close()
    assert (caught.value.undelivered, caught.value.event_ids) == (2, ("t1", "t2"))


def test_an_error_inside_the_block_is_not_hidden_by_the_exit() -> None:
    transport = MemoryTransport()
    transport.stall()
    with pytest.raises(KeyError) as caught, opened(transport) as producer:  # noqa: PT012 - the exit is what is tested
        producer.publish(touchpoint())
        raise KeyError("the service's own")
    assert caught.value.__notes__ == ["while closing the producer: 1 record was not delivered within 30 s"]


def test_a_message_that_the_transport_refuses_is_named() -> None:
    class Refusing(MemoryTransport):
        def send(self, message: Message, on_done: OnDone) -> None:  # noqa: ARG002 - the protocol's names
            raise Refused("Broker: Message size too large")

    with opened(Refusing()) as producer:
        with pytest.raises(DeliveryFailed, match="too large") as caught:
            producer.publish(touchpoint("t1"))
        assert producer.counters == (0, 0, 0)
    assert caught.value.event_ids == ("t1",)


def test_librdkafka_refuses_a_large_message() -> None:
    transport = KafkaTransport("127.0.0.1:9", {"message.max.bytes": 1000, "log_level": 0})
    with pytest.raises(Refused, match="too large"):
        transport.send(Message("topic", b"k", b"v" * 2000, []), lambda _error, _message: None)


def test_a_broker_that_is_away_is_a_failed_delivery(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL, logger="attributary.producers")
    config = ProducerConfig(
        bootstrap="127.0.0.1:9", default_tenant="acme", flush_timeout_seconds=0.2, kafka={"log_level": 0}
    )
    producer = AttributaryProducer(config)
    producer.publish(touchpoint("t1"))
    with pytest.raises(FlushTimeout) as caught:
        producer.close()
    assert caught.value.event_ids == ("t1",)
    assert producer.counters == (1, 0, 1)


def test_a_producer_does_not_survive_a_fork(monkeypatch: pytest.MonkeyPatch) -> None:
    producer = opened(MemoryTransport())
    monkeypatch.setattr(os, "getpid", lambda: -1)
    with pytest.raises(RuntimeError, match="before a fork"):
        producer.publish(touchpoint())


@pytest.mark.parametrize(
    "extra",
    [{"acks": "1"}, {"enable.idempotence": False}, {"partitioner": "consistent"}, {"request.required.acks": 1}],
)
def test_settings_that_lose_data_are_refused(extra: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"acks|idempotence|partitioner"):
        settings("localhost:9092", extra)


def test_other_settings_are_taken() -> None:
    merged = settings("localhost:9092", {"linger.ms": 1, "acks": "all"})
    assert merged["linger.ms"] == 1
    assert merged.items() >= FIXED.items()


def test_a_configuration_without_a_broker_or_a_source_is_refused() -> None:
    with pytest.raises(ValueError, match="bootstrap"):
        AttributaryProducer(ProducerConfig())
    with pytest.raises(ValueError, match="source"):
        ProducerConfig(source="")
    with pytest.raises(ValueError, match="timeout"):
        ProducerConfig(flush_timeout_seconds=0)


def test_importing_the_package_brings_no_database_and_no_consumers() -> None:
    code = (
        "import sys, attributary.producers, attributary.producers.landing, attributary.producers.importer\n"
        "print([name for name in sys.modules if name.split('.')[0] in {'psycopg', 'psycopg_pool', 'pydantic_settings'}"
        " or name.startswith(('attributary.consumers', 'attributary.cli', 'attributary.local'))])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=240)
    assert found.stdout.strip() == "[]"


def test_a_producer_that_nobody_closed_delivers_at_the_end_of_the_process() -> None:
    code = (
        "from attributary.local.mock_broker import mock_broker\n"
        "from attributary.producers import AttributaryProducer, ProducerConfig, Touchpoint\n"
        "outcomes = []\n"
        "import atexit; atexit.register(lambda: print(outcomes))\n"
        "broker = mock_broker(); bootstrap = broker.__enter__()\n"
        "config = ProducerConfig(bootstrap=bootstrap, default_tenant='acme', kafka={'linger.ms': 500})\n"
        "producer = AttributaryProducer(config, on_delivery=lambda *outcome: outcomes.append(outcome))\n"
        f"producer.publish(Touchpoint(event_id='t1', user_id='u', occurred_at={NOON}, platform='x', channel='y'))\n"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=240)
    assert found.stdout.strip() == "[('t1', None)]"


def test_a_producer_that_nobody_closed_says_what_was_lost(caplog: pytest.LogCaptureFixture) -> None:
    transport = MemoryTransport()
    transport.stall()
    producer = opened(transport)
    producer.publish(touchpoint())
    producer._abandoned()
    assert "1 records were not delivered; the producer was not closed" in caplog.text


def test_parts_of_records_may_leave_out_what_has_a_default() -> None:
    transport = MemoryTransport()
    record = {
        "event_id": "c1", "user_id": "u1", "occurred_at": NOON, "conversion_type": "lead",
        "items": [{"item_id": "sku"}], "user_data": {"meta_hashes": {"em": ["0" * 64]}},
    }  # fmt: skip
    with opened(transport, hash_user_data=False) as producer:
        producer.publish_mapping("conversion", record)
    (stored,) = transport.records("conversion")
    assert stored["items"][0]["quantity"] == 1.0
    assert stored["user_data"]["google_hashes"] == {}


class Registry:
    """A schema registry with one schema, or one that is away."""

    def __init__(self, *, away: bool = False) -> None:
        self.away = away
        self.text = ""

    def schema(self, schema_id: int) -> str:
        assert schema_id == 7
        return self.text

    def schema_id(self, name: str, schema: str) -> int:
        assert name == "touchpoint"
        if self.away:
            raise RegistryUnavailableError("no answer")
        self.text = schema
        return 7


def test_the_framing_of_a_registry() -> None:
    codec = Codec(Registry())
    transport = MemoryTransport(codec=codec)
    with opened(transport, codec=codec) as producer:
        producer.publish(touchpoint("t1"))
    assert transport.messages[0].value[:5] == b"\0\0\0\0\7"
    assert transport.records("touchpoint")[0]["event_id"] == "t1"


def test_a_registry_that_is_away_is_no_fault_of_the_record() -> None:
    with opened(MemoryTransport(), codec=Codec(Registry(away=True))) as producer:
        with pytest.raises(RegistryUnavailableError):
            producer.publish(touchpoint("t1"))
        assert producer.counters == (0, 0, 0)


def test_b6_the_client_sends_ids_in_normal_form_and_refuses_what_a_tenant_lists() -> None:
    transport = MemoryTransport()
    with opened(transport, identities=IdentityRules({"acme": ["kiosk"]})) as producer:
        producer.publish(touchpoint(anonymous_id=" a1\u200b", user_id="12345.0"))
        with pytest.raises(InvalidRecord, match="anonymous_id: names nobody"):
            producer.publish(touchpoint("t2", anonymous_id="Kiosk"))
    (record,) = transport.records("touchpoint")
    assert (record["anonymous_id"], record["user_id"]) == ("a1", "12345")
    assert transport.messages[0].key == b"acme|a1"


def test_newcomer_1_a_broker_that_is_away_is_one_line_in_the_log_and_named_in_the_error(
    caplog: pytest.LogCaptureFixture, free_port: int
) -> None:
    config = ProducerConfig(bootstrap=f"127.0.0.1:{free_port}", source="test", default_tenant="acme")
    producer = AttributaryProducer(config)
    producer.publish(touchpoint())
    with pytest.raises(FlushTimeout, match=f"no broker answers at 127.0.0.1:{free_port}$"):
        producer.flush(3.0)
    producer._transport.discard()
    with pytest.raises(DeliveryFailed):
        producer.close()
    refused = [record for record in caplog.records if "Connection refused" in record.getMessage()]
    assert len(refused) <= 1  # librdkafka says it some 20 times a second
