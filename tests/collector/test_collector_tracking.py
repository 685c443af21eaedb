"""The tracking endpoints over real HTTP: answers, ids and bytes of repeated requests, consent, addresses, cookies."""

from __future__ import annotations

import gzip
import json
import re
from collections.abc import Iterator
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from attributary.producers import MemoryTransport
from tests.fixtures.collector import (
    CONVERSION,
    EVENT,
    PAGE,
    RunningCollector,
    make_key,
    now,
    purchase,
    running_collector,
    touch,
    wait_until,
)

FIXED = "2026-06-01T09:30:00.123456+02:00"
ROBOT = "Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)"
PAGE_HEADERS = {"Origin": PAGE, "User-Agent": "Mozilla/5.0 (X11; Linux x86_64) Firefox/140.0"}


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningCollector]:
    folder: Path = tmp_path_factory.mktemp("collector")
    with running_collector(folder, ip="cut") as running:
        keys = folder / "keys.json"
        running.keys["values"] = make_key(keys, "wk", origins=[PAGE], browser_values=True)
        running.keys["consented"] = make_key(keys, "wk", origins=[PAGE], consent={"ad_storage": True})
        running.keys["other"] = make_key(keys, "sk", tenant="other")
        wait_until(lambda: running.post(touch(), key="other").status == 200, "the new keys are known")
        yield running


@pytest.fixture
def collector(shared: RunningCollector) -> RunningCollector:
    """The collector of the file, with an empty log."""
    assert isinstance(shared.transport, MemoryTransport)
    shared.transport.messages.clear()
    return shared


def test_a_single_record_a_list_and_an_envelope(collector: RunningCollector) -> None:
    bodies: list[Any] = [touch(event_id="e1"), [touch(event_id="e2"), touch(event_id="e3")]]
    bodies.append({"events": [touch(event_id="e4")], "sent_at": now()})
    answers = [collector.post(body) for body in bodies]
    assert [(answer.status, answer.json) for answer in answers] == [
        (200, {"accepted": 1, "event_ids": ["e1"]}),
        (200, {"accepted": 2, "event_ids": ["e2", "e3"]}),
        (200, {"accepted": 1, "event_ids": ["e4"]}),
    ]
    assert [record["event_id"] for record in collector.log.records("touchpoint")] == ["e1", "e2", "e3", "e4"]


@pytest.mark.parametrize("media_type", ["application/json", "application/json; charset=utf-8", "text/plain"])
def test_json_beacons_and_gzip(collector: RunningCollector, media_type: str) -> None:
    body = json.dumps(touch(event_id="e1")).encode()
    plain = collector.post(body, headers={"Content-Type": media_type})
    packed = collector.post(gzip.compress(body), headers={"Content-Type": media_type, "Content-Encoding": "gzip"})
    assert (plain.status, packed.status) == (200, 200)
    assert len({message.value for message in collector.log.messages}) == 1


def test_a_repeated_request_gives_the_same_ids_and_bytes(collector: RunningCollector) -> None:
    landing = {"landing_url": "https://shop.example/?fbclid=AbC", "referrer": "https://facebook.com/"}
    record = {"anonymous_id": "a1", "occurred_at": now()} | landing
    batch = [record, touch(occurred_at=record["occurred_at"])]
    first, again = collector.post(batch), collector.post(batch)
    assert first.json == again.json
    values = [message.value for message in collector.log.messages]
    assert values[:2] == values[2:]
    split_up = [collector.post(each, headers={"Connection": "close"}).json["event_ids"][0] for each in batch]
    assert split_up == first.json["event_ids"]
    assert {message.value for message in collector.log.messages[4:]} == set(values)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=25)
@given(st.data())
def test_any_split_into_batches_and_any_retries_give_the_same_ids_and_bytes(
    shared: RunningCollector, data: st.DataObject
) -> None:
    landings = ["https://shop.example/?gclid=A%2Bb", "https://shop.example/?utm_source=news&utm_medium=email"]
    records = [
        {
            "anonymous_id": f"a{number}",
            "occurred_at": FIXED,
            "landing_url": landings[number % 2],
            "user_id": f"u{number}",
        }
        for number in range(8)
    ]
    shared.log.messages.clear()
    expected = _ids_and_bytes(shared, [records])
    order = data.draw(st.permutations(records))
    cuts = sorted(data.draw(st.lists(st.integers(1, 7), max_size=4, unique=True)))
    batches = [order[start:end] for start, end in zip([0, *cuts], [*cuts, 8], strict=True)]
    retries = data.draw(st.lists(st.sampled_from(batches), max_size=3))
    assert _ids_and_bytes(shared, [*batches, *retries]) == expected


def _ids_and_bytes(collector: RunningCollector, batches: list[list[Any]]) -> set[tuple[Any, bytes]]:
    collector.log.messages.clear()
    for batch in batches:
        assert collector.post(batch).status == 200
    return {(dict(message.headers)["ce_id"], message.value) for message in collector.log.messages}


def test_the_id_of_a_record_does_not_depend_on_the_time_of_sending(collector: RunningCollector) -> None:
    record = touch()
    ids = [collector.post(record | {"sent_at": now(seconds=age)}).json["event_ids"] for age in (0, 100)]
    assert ids[0] == ids[1]
    assert ids[0] != collector.post(record | {"platform": "other"}).json["event_ids"]


def test_rejected_records_name_index_field_and_rule_never_the_value(collector: RunningCollector) -> None:
    secret_text = "somebody@example.com"
    answer = collector.post(
        [
            touch(event_id="good"),
            touch(anonymous_id="null"),
            touch(occurred_at="yesterday"),
            touch(occurred_at="2026-11-30T09:30:00"),
            touch(unknown=secret_text),
            {secret_text: 1},
            touch(click_ids={"gclid": 3}),
            touch(occurred_at=None),
            {"anonymous_id": "a1", "occurred_at": now()},
            touch(platform=secret_text.upper()),
            "text",
            touch(type="purchase"),
        ]
    )
    assert answer.status == 200
    assert answer.json["event_ids"] == ["good"]
    assert [(each["index"], each["field"]) for each in answer.json["rejected"]] == [
        (1, "anonymous_id"), (2, "occurred_at"), (3, "occurred_at"), (4, "unknown"), (5, "(a field's name)"),
        (6, "click_ids"), (7, "occurred_at"), (8, "channel"), (9, "platform"), (10, "record"), (11, "type"),
    ]  # fmt: skip
    assert secret_text.lower() not in answer.body.decode().lower()


def test_all_invalid_is_400_with_the_list(collector: RunningCollector) -> None:
    answer = collector.post([touch(anonymous_id=None)])
    assert answer.status == 400
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert answer.json["rejected"][0]["field"] == "user_id, anonymous_id"


def test_one_id_with_two_contents_in_a_batch(collector: RunningCollector) -> None:
    answer = collector.post([touch(event_id="e"), touch(event_id="e", platform="other"), touch(event_id="f")])
    assert answer.json["event_ids"] == ["f"]
    assert [each["index"] for each in answer.json["rejected"]] == [0, 1]


def test_a_visit_that_goes_on_is_ignored(collector: RunningCollector) -> None:
    inside = {"anonymous_id": "a1", "occurred_at": now(), "landing_url": f"{PAGE}/cart", "referrer": f"{PAGE}/"}
    answer = collector.post([inside, touch(event_id="e")])
    assert (answer.status, answer.json) == (200, {"accepted": 1, "event_ids": ["e"], "ignored": [0]})
    assert len(collector.log.messages) == 1


def test_click_ids_keep_their_bytes_and_the_landing_is_read(collector: RunningCollector) -> None:
    url = "https://shop.example/?utm_source=news&gclid=Ab%2BC+d_-E&fbclid=Xy%2Fz"
    collector.post({"anonymous_id": "a1", "occurred_at": now(), "landing_url": url})
    [record] = collector.log.records("touchpoint")
    assert record["click_ids"]["gclid"] == "Ab%2BC+d_-E"
    assert record["click_ids"]["fbclid"] == "Xy%2Fz"
    assert record["landing_url"] == url
    assert (record["utm_source"], record["channel"]) == ("news", "paid_search")


def test_an_identity_link_is_an_event(collector: RunningCollector) -> None:
    link = {"type": "identity_link", "anonymous_id": "a1", "user_id": "u1", "occurred_at": now(), "event_id": "l1"}
    assert collector.post(link, key="wk", headers=PAGE_HEADERS).status == 200
    [record] = collector.log.records("identity_link")
    assert (record["anonymous_id"], record["user_id"], record["tenant_id"]) == ("a1", "u1", "acme")


def test_a_conversion_keeps_money_exactly_and_hashes_persons(collector: RunningCollector) -> None:
    answer = collector.post(
        b'{"anonymous_id":"a1","occurred_at":"%s","conversion_type":"purchase","order_id":"o7","value":19.99,'
        b'"currency":"EUR","items":[{"item_id":"x","price":"6.663333"}],"user_data":{"email":"a@example.com"}}'
        % now().encode(),
        path=CONVERSION,
    )
    assert answer.json == {"accepted": 1, "event_ids": ["order-o7"]}
    [record] = collector.log.records("conversion")
    assert record["value_micros"] == 19_990_000
    assert record["items"][0]["price_micros"] == 6_663_333
    assert record["user_data"]["email"] is None
    assert record["user_data"]["meta_hashes"]["em"]
    assert b"a@example.com" not in collector.log.messages[0].value


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"value": 19.999}, "value"),
        ({"value": "19,99"}, "value"),
        ({"value": "1_000"}, "value"),
        ({"value": "NaN"}, "value"),
        ({"value": "1e400"}, "value"),
        ({"value": -1}, "value_micros"),
        ({"value": "10", "currency": "JPX"}, "value"),
        ({"value": "10.5", "currency": "JPY"}, "value"),
        ({"value": "10", "currency": None}, "currency"),
        ({"value": "1" + "0" * 14}, "value"),
        ({"value": 1, "value_micros": 1_000_000}, "value"),
        ({"value": None, "value_micros": 10**30}, "value_micros"),
        ({"conversion_type": None}, "conversion_type"),
        ({"order_id": None}, "event_id, order_id"),
        ({"kind": "refund"}, "conversion_id"),
        ({"kind": "present"}, "kind"),
        ({"items": [{"item_id": "x", "price": "1e400"}]}, "items.price"),
        ({"items": [{"item_id": "x", "quantity": 0}]}, "items.quantity"),
        ({"user_data": {"emial": "a@example.com"}}, "user_data.emial"),
        ({"engagement_time_msec": 10**40}, "engagement_time_msec"),
        ({"data_processing_country": 10**25}, "data_processing_country"),
        ({"event_id": "a\nb"}, "event_id"),
        ({"event_id": ""}, "event_id"),
        ({"event_id": "x" * 201}, "event_id"),
    ],
)
def test_what_a_conversion_must_not_be(collector: RunningCollector, fields: dict[str, Any], field: str) -> None:
    answer = collector.post(purchase(**fields), path=CONVERSION)
    assert answer.status == 400
    assert answer.json["rejected"][0]["field"] == field
    assert not collector.log.messages


@pytest.mark.parametrize(("currency", "value", "micros"), [("JPY", "500", 500_000_000), ("KWD", 1.125, 1_125_000)])
def test_currencies_with_other_minor_units(collector: RunningCollector, currency: str, value: Any, micros: int) -> None:
    assert collector.post(purchase(value=value, currency=currency), path=CONVERSION).status == 200
    assert collector.log.records("conversion")[0]["value_micros"] == micros


def test_a_write_key_says_less_than_a_secret_key(collector: RunningCollector) -> None:
    refused = [
        purchase(), purchase(value=None, kind="refund", conversion_id="o1"),
        purchase(value=None, client_ip_address="1.2.3.4"), purchase(value=None, occurred_at=now(hours=25)),
    ]  # fmt: skip
    fields = []
    for record in refused:
        answer = collector.post(record, key="wk", path=CONVERSION, headers=PAGE_HEADERS)
        fields.append(answer.json["rejected"][0]["field"])
    assert fields == ["value", "kind", "client_ip_address", "occurred_at"]
    assert collector.post(purchase(value=None), key="wk", path=CONVERSION, headers=PAGE_HEADERS).status == 200
    assert collector.post(purchase(), key="values", path=CONVERSION, headers=PAGE_HEADERS).status == 200
    assert [record["properties"]["trust"] for record in collector.log.records("conversion")] == ["browser"] * 2
    assert collector.post(purchase(occurred_at=now(days=300)), path=CONVERSION).status == 200


def test_the_tenant_is_the_keys_own(collector: RunningCollector) -> None:
    collector.post(touch(), key="other")
    assert collector.post(touch(tenant_id="acme"), key="other").json["rejected"][0]["field"] == "tenant_id"
    assert [record["tenant_id"] for record in collector.log.records("touchpoint")] == ["other"]


def test_gpc_takes_back_what_a_record_says(collector: RunningCollector) -> None:
    consent = {"ad_user_data": True, "ad_personalization": True, "ad_storage": True}
    headers = {**PAGE_HEADERS, "Sec-GPC": "1"}
    collector.post(purchase(value=None, consent=consent), key="wk", path=CONVERSION, headers=headers)
    [record] = collector.log.records("conversion")
    assert record["consent"] == {"ad_user_data": False, "ad_personalization": False, "ad_storage": True}
    assert record["client_ip_address"] is None


def test_dnt_counts_by_setting_only(tmp_path: Path) -> None:
    said = []
    for honour in (False, True):
        with running_collector(tmp_path / str(honour), honour_dnt=honour) as running:
            running.post(touch(), key="wk", headers={**PAGE_HEADERS, "DNT": "1"})
            said.append(running.log.records("touchpoint")[0]["consent"])
    assert said == [None, {"ad_user_data": False, "ad_personalization": False}]


@pytest.mark.parametrize(
    ("policy", "consent", "kept"),
    [
        ("cut", None, "203.0.113.0"),
        ("full", None, "203.0.113.7"),
        ("none", None, None),
        ("full", {"ad_user_data": False}, None),
        ("full", {"ad_storage": False}, None),
    ],
)
def test_what_is_kept_of_an_address(
    tmp_path: Path, policy: str, consent: dict[str, bool] | None, kept: str | None
) -> None:
    with running_collector(tmp_path, ip=policy, trusted_proxies=(ip_network("127.0.0.0/8"),)) as running:
        headers = {**PAGE_HEADERS, "X-Forwarded-For": "10.9.8.7, 203.0.113.7"}
        record = purchase(value=None, consent=consent)
        assert running.post(record, key="wk", path=CONVERSION, headers=headers).status == 200
        assert running.log.records("conversion")[0]["client_ip_address"] == kept


def test_robots_are_marked_and_kept(collector: RunningCollector) -> None:
    headers = {**PAGE_HEADERS, "User-Agent": ROBOT}
    collector.post(touch(), key="wk", headers=headers)
    collector.post(purchase(value=None), key="wk", path=CONVERSION, headers=headers)
    collector.post(touch(user_agent=ROBOT))
    assert [record["is_bot"] for record in collector.log.records("touchpoint")] == [True, True]
    assert collector.log.records("conversion")[0]["properties"]["is_bot"] == "true"


COOKIE = re.compile(
    r"_atb=1\.([0-9a-f-]{36}); Max-Age=33696000; Path=/; Domain=acme-shop\.com; Secure; HttpOnly; SameSite=Lax"
)
FIRST_PARTY = {**PAGE_HEADERS, "Host": "t.acme-shop.com"}


def test_the_cookie_comes_with_consent_only_and_is_the_same_for_a_repeated_request(collector: RunningCollector) -> None:
    record = touch(anonymous_id=None, consent={"ad_storage": True})
    first, again = (collector.post(record, key="wk", headers=FIRST_PARTY) for _ in range(2))
    found = COOKIE.fullmatch(first.headers["Set-Cookie"])
    assert found
    assert first.headers["Set-Cookie"] == again.headers["Set-Cookie"]
    assert first.json["anonymous_id"] == found[1]
    assert [each["anonymous_id"] for each in collector.log.records("touchpoint")] == [found[1]] * 2
    kept = collector.post(
        touch(anonymous_id=None), key="consented", headers={**FIRST_PARTY, "Cookie": f"a=b; _atb=1.{found[1]}"}
    )
    assert kept.json["anonymous_id"] == found[1]
    assert COOKIE.fullmatch(kept.headers["Set-Cookie"])


def test_no_cookie_without_consent_and_an_old_one_ends(collector: RunningCollector) -> None:
    identified = collector.post(touch(), key="wk", headers=FIRST_PARTY)
    assert (identified.status, identified.headers["Set-Cookie"]) == (200, None)
    assert collector.post(touch(anonymous_id=None), key="wk", headers=FIRST_PARTY).status == 400
    cookie = {"Cookie": "_atb=1.01890a5d-ac96-774b-bcce-b302099a8057"}
    refused = touch(consent={"ad_storage": False})
    ended = collector.post(refused, key="wk", headers={**FIRST_PARTY, **cookie})
    assert "Max-Age=0" in ended.headers["Set-Cookie"]
    elsewhere = {**PAGE_HEADERS, "Host": "collector.vendor.example"}
    consented = touch(anonymous_id=None, consent={"ad_storage": True})
    assert collector.post(consented, key="wk", headers=elsewhere).headers["Set-Cookie"] is None


@pytest.mark.parametrize(
    "cookie",
    ["_atb=junk", "_atb=1.null", "_atb=1.00000000-0000-0000-0000-000000000000", "_atb=", "x_atb=1.01890a5d",
     "_atb=1." + "a" * 9000, "_atb=2.01890a5d-ac96-774b-bcce-b302099a8057"],
)  # fmt: skip
def test_a_cookie_with_junk_is_no_cookie(collector: RunningCollector, cookie: str) -> None:
    record = touch(anonymous_id=None, consent={"ad_storage": True})
    answer = collector.post(record, key="wk", headers={**FIRST_PARTY, "Cookie": cookie})
    assert answer.status == 200
    assert COOKIE.fullmatch(answer.headers["Set-Cookie"])
    assert answer.json["anonymous_id"] not in cookie


def test_a_wrong_clock_is_corrected_in_whole_minutes_for_pages_only(collector: RunningCollector) -> None:
    record = touch(occurred_at=now(hours=2))
    slow = collector.post({"events": [record], "sent_at": now(hours=2)}, key="wk", headers=PAGE_HEADERS)
    right = collector.post({"events": [record], "sent_at": now(minutes=4)}, key="wk", headers=PAGE_HEADERS)
    server = collector.post({"events": [record], "sent_at": now(hours=2)})
    assert (slow.status, right.status, server.status) == (200, 200, 200)
    times = [each["occurred_at"] for each in collector.log.records("touchpoint")]
    assert times[0] - times[1] == 120 * 60_000_000
    assert times[1] == times[2]


def test_an_idempotency_key_is_the_event_id_of_one_record(collector: RunningCollector) -> None:
    named = collector.post(touch(), headers={"Idempotency-Key": '"order-17"'})
    assert named.json["event_ids"] == ["order-17"]
    assert collector.post([touch()], headers={"Idempotency-Key": "x"}).status == 400
    assert collector.post(touch(event_id="y"), headers={"Idempotency-Key": "x"}).status == 400
    assert collector.post(touch(), headers={"Idempotency-Key": "x" * 201}).status == 400


def test_a_trace_context_goes_along(collector: RunningCollector) -> None:
    parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    collector.post(touch(), headers={"traceparent": parent})
    assert ("traceparent", parent.encode()) in collector.log.messages[0].headers


def test_every_answer_has_the_security_headers(collector: RunningCollector) -> None:
    answers = [collector.post(touch()), collector.post(b"["), collector.request("GET", "/nothing")]
    answers += [collector.request("PUT", EVENT, b""), collector.post(touch(), key="")]
    for answer in answers:
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert answer.headers["Cache-Control"] == "no-store"
        assert answer.headers["Content-Security-Policy"] == "default-src 'none'; frame-ancestors 'none'"
        assert answer.headers["Server"] is None


def test_a_prefix_stands_before_all_routes(tmp_path: Path) -> None:
    with running_collector(tmp_path, prefix="/x") as running:
        assert running.post(touch(), path=f"/x{EVENT}").status == 200
        assert running.post(touch()).status == 404
