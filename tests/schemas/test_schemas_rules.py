from __future__ import annotations

import math
from typing import Any

import pytest

from attributary.schemas.codec import Codec
from attributary.schemas.limits import MINOR_UNIT_MICROS, MOST_VALUE_MICROS
from attributary.schemas.rules import (
    CHECKS,
    RuleViolation,
    check_conversion,
    check_identity_link,
    check_job,
    check_spend,
    check_touchpoint,
    find_unstorable_text,
)

NOW = 1_764_000_000_000_000
DAY = 86_400_000_000
TOUCHPOINT: dict[str, Any] = {
    "tenant_id": "acme",
    "event_id": "e-1",
    "anonymous_id": "device-1",
    "occurred_at": NOW,
    "platform": "google",
    "channel": "paid_search",
}
CONVERSION: dict[str, Any] = {
    "tenant_id": "acme",
    "event_id": "o-1",
    "user_id": "customer-1",
    "conversion_type": "purchase",
    "occurred_at": NOW,
    "value_micros": 12_990_000,
    "currency": "EUR",
}
LINK: dict[str, Any] = {
    "tenant_id": "acme",
    "event_id": "l-1",
    "anonymous_id": "device-1",
    "user_id": "customer-1",
    "linked_at": NOW,
}
JOB: dict[str, Any] = {
    "tenant_id": "acme",
    "job_id": "j-1",
    "kind": "train",
    "parameters": {"model": "markov"},
    "submitted_at": NOW,
}
REQUEST = {
    "tenant_id": "acme", "request_id": "r1", "kind": "user", "identifier": "customer-1", "mode": "delete",
    "requested_at": NOW,
}  # fmt: skip
LINE: dict[str, Any] = {"currency": "EUR", "net_micros": 12_500_000, "campaign_id": "c1", "campaign_name": "Spring"}
SPEND: dict[str, Any] = {
    "tenant_id": "acme", "event_id": "s-1", "platform": "google", "account": "g1", "day": 20_000, "level": "campaign",
    "reported_at": NOW, "rows": [LINE],
}  # fmt: skip
GOOD = {
    "touchpoint": TOUCHPOINT, "conversion": CONVERSION, "identity_link": LINK, "job": JOB, "erasure_request": REQUEST,
    "spend": SPEND,
}  # fmt: skip


def item(**fields: Any) -> dict[str, Any]:
    return {"items": [{"item_id": "sku", **fields}]}


@pytest.mark.parametrize("name", CHECKS)
def test_a_good_record_passes_before_and_after_the_wire(name: str) -> None:
    codec = Codec()
    assert CHECKS[name](GOOD[name], now_micros=NOW) is None
    assert CHECKS[name](codec.decode(name, codec.encode(name, GOOD[name])), now_micros=NOW) is None


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"tenant_id": ""}, "tenant_id"),
        ({"tenant_id": "Acme"}, "tenant_id"),
        ({"tenant_id": "a|b"}, "tenant_id"),
        ({"tenant_id": "acme\n"}, "tenant_id"),
        ({"tenant_id": "a" * 65}, "tenant_id"),
        ({"event_id": ""}, "event_id"),
        ({"event_id": "x" * 201}, "event_id"),
        ({"anonymous_id": None}, "user_id, anonymous_id"),
        ({"anonymous_id": ""}, "anonymous_id"),
        ({"anonymous_id": "NULL"}, "anonymous_id"),
        ({"user_id": "anonymous"}, "user_id"),
        ({"user_id": "u" * 201}, "user_id"),
        ({"occurred_at": 0}, "occurred_at"),
        ({"occurred_at": NOW // 1000}, "occurred_at"),
        ({"occurred_at": NOW + DAY + 1}, "occurred_at"),
        ({"platform": ""}, "platform"),
        ({"platform": "Google"}, "platform"),
        ({"channel": "x" * 101}, "channel"),
        ({"channel": " email"}, "channel"),
        ({"interaction": ""}, "interaction"),
        ({"country": "de"}, "country"),
        ({"country": "DEU"}, "country"),
        ({"country": ""}, "country"),
        ({"engagement_seconds": -0.1}, "engagement_seconds"),
        ({"engagement_seconds": math.nan}, "engagement_seconds"),
        ({"engagement_seconds": math.inf}, "engagement_seconds"),
        ({"campaign_id": "x" * 201}, "campaign_id"),
        ({"campaign_name": "x" * 501}, "campaign_name"),
        ({"landing_url": "x" * 4097}, "landing_url"),
        ({"referrer": "x" * 4097}, "referrer"),
        ({"properties": {str(n): "" for n in range(101)}}, "properties"),
        ({"properties": {"k" * 201: ""}}, "properties"),
        ({"click_ids": {"gclid": "x" * 4097}}, "click_ids"),
        ({"consent": {str(n): True for n in range(101)}}, "consent"),
    ],
)
def test_a_touchpoint_that_breaks_a_rule_is_named(change: dict[str, Any], field: str) -> None:
    broken = check_touchpoint(TOUCHPOINT | change, now_micros=NOW)
    assert broken is not None
    assert broken.field == field


@pytest.mark.parametrize(
    "change",
    [
        {"occurred_at": NOW + DAY},
        {"occurred_at": 946_684_800_000_000},
        {"campaign_name": "x" * 500},
        {"landing_url": "x" * 4096},
        {"engagement_seconds": 0.0},
        {"country": "DE"},
        {"user_id": "customer-1"},
        {"properties": {str(n): "" for n in range(100)}},
    ],
)
def test_a_touchpoint_at_the_edge_passes(change: dict[str, Any]) -> None:
    assert check_touchpoint(TOUCHPOINT | change, now_micros=NOW) is None


def test_without_a_clock_far_futures_are_refused_still() -> None:
    assert check_touchpoint(TOUCHPOINT | {"occurred_at": NOW + 3 * 365 * DAY}) is None
    assert check_touchpoint(TOUCHPOINT | {"occurred_at": NOW * 1000}) == RuleViolation(
        "occurred_at", "must not be more than one day in the future (microseconds UTC)"
    )


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"kind": "return"}, "kind"),
        ({"kind": "refund"}, "conversion_id"),
        ({"kind": "cancellation"}, "conversion_id"),
        ({"kind": "restatement", "conversion_id": ""}, "conversion_id"),
        ({"conversion_id": ""}, "conversion_id"),
        ({"conversion_id": "x" * 201}, "conversion_id"),
        ({"conversion_type": "Purchase"}, "conversion_type"),
        ({"value_micros": -1}, "value_micros"),
        ({"value_micros": 1}, "value_micros"),
        ({"value_micros": MOST_VALUE_MICROS + 10_000}, "value_micros"),
        ({"currency": "JPY"}, "value_micros"),
        ({"currency": "eur"}, "currency"),
        ({"currency": "ZZZ"}, "currency"),
        ({"currency": "XAU"}, "currency"),
        ({"currency": "XXX"}, "value_micros"),
        ({"action_source": "moon"}, "action_source"),
        ({"engagement_time_msec": -1}, "engagement_time_msec"),
        ({"data_processing_options": ["CCPA"]}, "data_processing_options"),
        ({"data_processing_country": 2, "data_processing_state": 0}, "data_processing_country"),
        ({"data_processing_country": 1}, "data_processing_state"),
        ({"data_processing_state": 999}, "data_processing_state"),
        ({"items": [{"item_id": "x"}] * 1001}, "items"),
        (item(quantity=0.0), "items.quantity"),
        (item(quantity=math.nan), "items.quantity"),
        (item(price_micros=-1), "items.price_micros"),
        (item(item_name="x" * 501), "items.item_name"),
        (item(properties={str(n): "" for n in range(101)}), "items.properties"),
        ({"event_source_url": "x" * 4097}, "event_source_url"),
        ({"order_id": "x" * 201}, "order_id"),
        ({"user_data": {"email": "x" * 501}}, "user_data.email"),
        ({"user_data": {"meta_hashes": {"em": ["someone@example.com"]}}}, "user_data.meta_hashes"),
        ({"user_data": {"google_hashes": {"sha256_email_address": ["A" * 64]}}}, "user_data.google_hashes"),
        ({"user_data": {"meta_hashes": {"em": ["a" * 64] * 101}}}, "user_data.meta_hashes"),
        ({"occurred_at": NOW + 2 * DAY}, "occurred_at"),
        ({"user_id": None}, "user_id, anonymous_id"),
    ],
)
def test_a_conversion_that_breaks_a_rule_is_named(change: dict[str, Any], field: str) -> None:
    broken = check_conversion(CONVERSION | change, now_micros=NOW)
    assert broken is not None
    assert broken.field == field


@pytest.mark.parametrize(
    "change",
    [
        {"kind": "refund", "conversion_id": "o-0"},
        {"kind": "cancellation", "conversion_id": "o-0", "value_micros": 0, "currency": "XXX"},
        {"currency": "JPY", "value_micros": 500_000_000},
        {"currency": "KWD", "value_micros": 1_001_000},
        {"currency": "BGN"},
        {"data_processing_options": ["LDU"], "data_processing_country": 1, "data_processing_state": 1000},
        {"data_processing_options": ["LDU"], "data_processing_country": 0, "data_processing_state": 0},
        {"user_data": {"meta_hashes": {"em": ["a" * 64]}}},
        item(quantity=0.5, price_micros=0),
    ],
)
def test_a_conversion_that_is_unusual_passes(change: dict[str, Any]) -> None:
    assert check_conversion(CONVERSION | change, now_micros=NOW) is None


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"anonymous_id": "undefined"}, "anonymous_id"),
        ({"user_id": ""}, "user_id"),
        ({"user_id": None}, "user_id"),
        ({"linked_at": 5}, "linked_at"),
        ({"source": "x" * 501}, "source"),
    ],
)
def test_an_identity_link_that_breaks_a_rule_is_named(change: dict[str, Any], field: str) -> None:
    broken = check_identity_link(LINK | change, now_micros=NOW)
    assert broken is not None
    assert broken.field == field


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"kind": "dance"}, "kind"),
        ({"job_id": ""}, "job_id"),
        ({"tenant_id": "A"}, "tenant_id"),
        ({"submitted_at": -1}, "submitted_at"),
        ({"submitted_by": "x" * 501}, "submitted_by"),
        ({"parameters": {str(n): "" for n in range(101)}}, "parameters"),
    ],
)
def test_a_job_that_breaks_a_rule_is_named(change: dict[str, Any], field: str) -> None:
    broken = check_job(JOB | change, now_micros=NOW)
    assert broken is not None
    assert broken.field == field


@pytest.mark.parametrize("name", CHECKS)
@pytest.mark.parametrize("value", [None, 7, "x", b"x", [], {}, 1.5, [None], {"a": 1}])
def test_a_value_of_any_other_type_raises_nothing(name: str, value: Any) -> None:
    for field in Codec().decode(name, Codec().encode(name, GOOD[name])):
        broken = CHECKS[name](GOOD[name] | {field: value}, now_micros=NOW)
        assert broken is None or isinstance(broken, RuleViolation)
    for missing in GOOD[name]:
        rest = {key: kept for key, kept in GOOD[name].items() if key != missing}
        broken = CHECKS[name](rest)
        assert broken is None or isinstance(broken, RuleViolation)
    assert CHECKS[name]({}) == RuleViolation("tenant_id", "must be set")


def test_a_violation_never_holds_the_value() -> None:
    broken = check_touchpoint(TOUCHPOINT | {"tenant_id": "SECRET", "event_id": "SECRET" * 100})
    assert broken is not None
    assert "SECRET" not in str(broken)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({}, None),
        ({"event_id": "a\0b"}, RuleViolation("event_id", "must not hold a NUL character")),
        ({"event_id": "\ud800"}, RuleViolation("event_id", "must not hold half a surrogate pair")),
        ({"properties": {"a": "\0"}}, RuleViolation("properties", "must not hold a NUL character")),
        ({"properties": {"\0": "a"}}, RuleViolation("properties", "must not hold a NUL character")),
        ({"items": [{"properties": {"a": "\0"}}]}, RuleViolation("items", "must not hold a NUL character")),
        ({"\0": 1}, RuleViolation("(a field's name)", "must not hold a NUL character")),
    ],
)
def test_texts_that_cannot_be_stored_are_found(change: dict[str, Any], expected: RuleViolation | None) -> None:
    assert find_unstorable_text(TOUCHPOINT | change) == expected


def test_minor_units_are_whole_micros() -> None:
    assert MINOR_UNIT_MICROS["EUR"] == 10_000
    assert MINOR_UNIT_MICROS["JPY"] == 1_000_000
    assert MINOR_UNIT_MICROS["KWD"] == 1_000
    assert MINOR_UNIT_MICROS["CLF"] == 100
    assert "XXX" not in MINOR_UNIT_MICROS


AD = LINE | {"ad_set_id": "s1", "ad_id": "a1"}


def line(**fields: Any) -> dict[str, Any]:
    return {"rows": [LINE | fields]}


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"tenant_id": "Acme"}, "tenant_id"),
        ({"event_id": ""}, "event_id"),
        ({"platform": "Google Ads"}, "platform"),
        ({"account": ""}, "account"),
        ({"account": "x" * 201}, "account"),
        ({"day": 10_956}, "day"),  # 1999-12-31
        ({"day": 20_000_000}, "day"),
        ({"level": "keyword"}, "level"),
        ({"time_zone": "Berlin"}, "time_zone"),
        ({"time_zone": "../etc/passwd"}, "time_zone"),
        ({"report_id": "x" * 201}, "report_id"),
        ({"reported_at": NOW + DAY + 1}, "reported_at"),
        ({"reported_at": NOW // 1000}, "reported_at"),
        ({"rows": []}, "rows"),
        ({"rows": [LINE, LINE]}, "rows"),
        ({"rows": [LINE | {"campaign_id": str(n)} for n in range(2001)]}, "rows"),
        ({"level": "account", "rows": [{"currency": "EUR", "net_micros": 1}] * 2}, "rows"),
        ({"level": "account"}, "rows.campaign_id"),
        ({"level": "ad"}, "rows.ad_id"),
        ({"level": "ad", "rows": [AD | {"campaign_id": ""}]}, "rows.campaign_id"),
        (line(campaign_id=""), "rows.campaign_id"),
        (line(campaign_id="x" * 201), "rows.campaign_id"),
        (line(campaign_name="x" * 501), "rows.campaign_name"),
        (line(ad_id="a1"), "rows.ad_id"),
        (line(currency="eur"), "rows.currency"),
        (line(currency="XAU"), "rows.currency"),
        (line(net_micros=10**17 + 1), "rows.net_micros"),
        (line(tax_micros=-(10**17) - 1), "rows.tax_micros"),
        (line(clicks=-1), "rows.clicks"),
        (line(claimed_conversions_micros=10**15 + 1), "rows.claimed_conversions_micros"),
    ],
)
def test_a_record_of_spend_that_breaks_a_rule_is_named(change: dict[str, Any], field: str) -> None:
    broken = check_spend(SPEND | change, now_micros=NOW)
    assert broken is not None
    assert broken.field == field


@pytest.mark.parametrize(
    "change",
    [
        {"rows": [], "is_complete": True},
        {"level": "ad", "rows": [AD, AD | {"ad_id": "a2"}]},
        {"level": "ad", "rows": [AD | {"ad_set_id": ""}]},
        {"level": "ad", "rows": [AD | {"ad_id": "name:A"}, AD | {"campaign_id": "c2", "ad_id": "name:A"}]},
        {"level": "account", "rows": [{"currency": "JPY", "net_micros": -1}]},
        {"time_zone": "Asia/Kathmandu", "reported_at": NOW + DAY, "day": 10_957},
    ],
)
def test_spend_at_every_level_passes(change: dict[str, Any]) -> None:
    assert check_spend(SPEND | change, now_micros=NOW) is None
