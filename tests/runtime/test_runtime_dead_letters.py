"""Dead letters keep the original bytes; too many of them stop the process before the first write."""

from __future__ import annotations

from itertools import cycle

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from attributary.consumers.runtime.dead_letters import (
    MAX_LETTER_BYTES,
    check_poison_share,
    dead_letter_message,
    dead_letter_topic,
)
from attributary.consumers.runtime.errors import Fatal
from attributary.consumers.runtime.records import DeadLetter, Record
from attributary.consumers.stitcher.decode import Decoder
from tests.factories.samples import codec, records, sale

GROUP = "attribution.stitcher"
headers_ = st.lists(st.tuples(st.text(min_size=1, max_size=5), st.binary(max_size=5)), max_size=4)


@given(st.none() | st.binary(max_size=20), st.none() | st.binary(max_size=50), headers_)
@settings(max_examples=50)
def test_key_value_and_headers_are_the_original_bytes(
    key: bytes | None, value: bytes | None, headers: list[tuple[str, bytes]]
) -> None:
    record = Record("attribution.touchpoints.v1", 3, 41, key, value, 1_700_000_000_123, lambda: headers)
    sent = dead_letter_message(DeadLetter(record, "validate", "currency", "must be ISO 4217", 2), "stitcher", GROUP)
    assert (sent.topic, sent.key, sent.value) == ("attribution.touchpoints.v1.attribution.stitcher.dlq", key, value)
    assert list(sent.headers[: len(headers)]) == headers
    ours = dict(sent.headers[len(headers) :])
    assert ours == {
        "__connect.errors.topic": b"attribution.touchpoints.v1",
        "__connect.errors.partition": b"3",
        "__connect.errors.offset": b"41",
        "__connect.errors.connector.name": b"attribution.stitcher",
        "__connect.errors.task.id": b"stitcher",
        "__connect.errors.stage": b"validate",
        "__connect.errors.exception.class.name": b"Poison",
        "__connect.errors.exception.message": b"must be ISO 4217",
        "attribution-field": b"currency",
        "attribution-attempts": b"2",
        "attribution-timestamp-ms": b"1700000000123",
    }


def test_a_dead_letter_that_dies_again_names_its_last_place_once() -> None:
    first = Record("t", 0, 1, b"k", b"v", 5, lambda: [("ce_id", b"x")])
    again = dead_letter_message(DeadLetter(first, "decode", None, "truncated"), "stitcher", GROUP)
    second = Record(again.topic, 2, 9, again.key, again.value, 6, lambda: again.headers)
    headers = list(dead_letter_message(DeadLetter(second, "decode", None, "truncated"), "stitcher", GROUP).headers)
    names = [name for name, _ in headers]
    assert len(names) == len(set(names))
    assert dict(headers)["__connect.errors.offset"] == b"9"
    assert dict(headers)["ce_id"] == b"x"


def test_a_lone_surrogate_in_a_reason_stops_nothing() -> None:
    record = Record("t", 0, 1, None, None, 5)
    sent = dead_letter_message(DeadLetter(record, "decode", None, "\ud800"), "stitcher", GROUP)
    assert dict(sent.headers)["__connect.errors.exception.message"] == b"?"


def test_the_reason_of_a_rule_never_holds_the_value() -> None:
    (read,) = records([sale("s", currency="jane@example.org")])
    (letter,) = Decoder(codec()).decode([read]).dead_letters
    sent = dead_letter_message(letter, "stitcher", GROUP)
    assert letter.field == "currency"
    assert all(b"jane" not in value for _, value in sent.headers)


def letters(number: int) -> list[DeadLetter]:
    return [DeadLetter(Record("t", 0, at, None, b"", 0), "decode", None, "truncated") for at in range(number)]


@pytest.mark.parametrize(("dead", "batch"), [(0, 0), (1, 1), (99, 99), (50, 100), (0, 5_000)])
def test_what_the_valve_lets_through(dead: int, batch: int) -> None:
    check_poison_share(letters(dead), batch, 0.5)


@pytest.mark.parametrize(("dead", "batch", "most"), [(51, 100, 0.5), (100, 100, 0.99), (2, 200, 0.005)])
def test_the_valve_stops_and_says_where_to_look(dead: int, batch: int, most: float) -> None:
    with pytest.raises(Fatal, match="ATTRIBUTION_MAX_POISON_SHARE") as caught:
        check_poison_share(letters(dead), batch, most)
    assert "t[0]@0: truncated" in str(caught.value)
    assert caught.value.exit_code == 70


def of_tenants(**numbers: int) -> list[DeadLetter]:
    return [
        DeadLetter(Record("t", 0, at, f"{tenant}|{at}".encode(), b"", 0), stage, None, "bad")
        for tenant, number in numbers.items()
        for at, stage in zip(range(number), cycle(("decode", "validate")), strict=False)
    ]


@pytest.mark.parametrize(
    "dead", [of_tenants(acme=99), of_tenants(acme=190), of_tenants(acme=180, beta=10)], ids=["S6", "all", "nearly"]
)
def test_s6_poison_of_one_tenant_stops_nobody(dead: list[DeadLetter]) -> None:
    check_poison_share(dead, 190, 0.5)


@pytest.mark.parametrize(
    "dead", [of_tenants(acme=60, beta=60), of_tenants(a=40, b=40, c=40), [*letters(60), *of_tenants(a=60)]]
)
def test_s6_poison_of_several_tenants_still_stops(dead: list[DeadLetter]) -> None:
    with pytest.raises(Fatal, match="ATTRIBUTION_MAX_POISON_SHARE"):
        check_poison_share(dead, 190, 0.5)


@pytest.mark.parametrize(("key", "headers"), [(bytes(5_000_000), []), (b"k", [("own", bytes(6_000_000))]), (None, [])])
def test_s4_whatever_is_too_large_is_cut(key: bytes | None, headers: list[tuple[str, bytes]]) -> None:
    value = b"" if key and len(key) > 9 else bytes(MAX_LETTER_BYTES)
    record = Record("t", 0, 1, key, value, 5, lambda: headers)
    sent = dead_letter_message(DeadLetter(record, "decode", None, "too large"), "stitcher", GROUP)
    size = len(sent.key or b"") + len(sent.value or b"") + sum(len(n) + len(v) for n, v in sent.headers)
    assert size < 1_000_000
    assert dict(sent.headers)["attribution-cut-bytes"] == str(len(value)).encode()


def test_the_valve_is_open_at_one() -> None:
    check_poison_share(letters(200), 200, 1.0)


def test_both_layers_name_the_topic_alike() -> None:
    from attributary.schemas import topics

    assert dead_letter_topic(topics.TOUCHPOINTS, GROUP) == topics.dead_letter_topic(topics.TOUCHPOINTS, GROUP)
