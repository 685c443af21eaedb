"""Match keys, addresses and personal data: what is used, and what is left out and said."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from attributary.consumers.destinations.addresses import public_address
from attributary.consumers.destinations.meta.destination import MetaDestination, MetaOptions
from attributary.consumers.destinations.personal_data import clean_url
from attributary.producers.matching import build_fbc, is_fbc, is_fbp, meta
from attributary.producers.matching.google import emails
from attributary.producers.matching.text import sha256_hex
from tests.forwarder.forwarder_factories import CASE_TIME, HASH, line, sent

NOW = CASE_TIME
EMPTY = sha256_hex("")


@pytest.mark.parametrize(
    ("fields", "remark"),
    [
        ({"phone": "6505551212"}, "phone left out: not a valid number, or its country is not known"),
        ({"phone": "123", "country": "DE"}, "phone left out: not a valid number"),
        ({"phone": "+52 1 55 1"}, "phone left out"),
        ({"phone": "8 912 345 67 89"}, "phone left out"),
        ({"email": "a@x; b@x"}, "email left out: not an address"),
        ({"email": "jane%40example.com"}, "email left out"),
        ({"email": "Jane <jane@example.com>"}, "email left out"),
        ({"email": "jane@example..com"}, "email left out"),
        ({"email": "d41d8cd98f00b204e9800998ecf8427e"}, "email left out"),
        ({"email": "0cc175b9c0f1b6a831c399e269772661"}, "email left out: an MD5"),
        ({"country": "Narnia"}, "country left out: not a known country"),
        ({"gender": "divers"}, "gender left out"),
        ({"date_of_birth": "31.31.1990"}, "date_of_birth left out"),
        ({"first_name": "null"}, "first_name left out: a placeholder"),
        ({"external_id": "undefined"}, "external_id left out: a placeholder"),
        ({"meta_hashes": {"em": [EMPTY]}}, "em left out: the hash of an empty text"),
        ({"meta_hashes": {"odd": [HASH]}}, "a hash left out: its key is not known"),
    ],
)
def test_f11_b10_every_dropped_match_key_is_said(fields: dict[str, Any], remark: str) -> None:
    assert remark in sent("meta", user_data=fields)[1]


@pytest.mark.parametrize("name", ["order_id", "value", "num_items", "contents", "content_ids", "currency"])
def test_f11_properties_that_are_left_out_are_said(name: str) -> None:
    assert f"property {name} left out" in sent("meta", properties={name: "x"})[1]


def test_f11_user_properties_that_are_left_out_or_cut_are_said() -> None:
    many = {f"user.p{n:02d}": "x" for n in range(30)}
    assert "user property left out: too many" in sent("ga4", properties=many)[1]
    assert "user property left out: its name" in sent("ga4", properties={"user.1st": "x", "user.ga_x": "x"})[1]
    assert "user property plan cut to 36" in sent("ga4", properties={"user.plan": "x" * 37})[1]


@pytest.mark.parametrize(
    "number",
    [
        "tel:+49-171-1234567",
        "TEL:+491711234567",
        "whatsapp:+491711234567",
        "sms:+491711234567?body=hi",
        "'+491711234567",
        "491711234567.0",
        "tel:+49-171-1234567;ext=5",
        "callto:+491711234567",
        "tel:171-1234567;phone-context=+49",
        "+49\u200b171\u200b1234567",
    ],
)
def test_f14_b10_numbers_as_links_and_spreadsheets_write_them(number: str) -> None:
    assert meta.phone(number) == "491711234567"


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("jane@example.com\u200b", "jane@example.com"),
        ("\ufeffjane@example.com", "jane@example.com"),
        ("mailto:jane@example.com", "jane@example.com"),
        ("MAILTO:jane@example.com?subject=x", "jane@example.com"),
        ("jane@bücher.de", "jane@xn--bcher-kva.de"),
        ("jane@xn--bcher-kva.de", "jane@xn--bcher-kva.de"),
        ("jane@BÜCHER.de", "jane@xn--bcher-kva.de"),
        ("jane@例え.jp", "jane@xn--r8jz45g.jp"),
        ("jane@faß.de", "jane@xn--fa-hia.de"),
        ("jane@example.com.", "jane@example.com"),
        ("ja\u200dne@example.com", "jane@example.com"),
    ],
)
def test_b8_one_address_has_one_hash(value: str, expected: str) -> None:
    assert meta.email(value) == expected
    assert emails(value) == [expected]


@pytest.mark.parametrize(
    "digest", [sha256_hex(word) for word in ("", "null", "undefined", "None", "NaN", "unknown", " ")]
)
def test_b8_the_hash_of_nothing_is_no_match_key(digest: str) -> None:
    for fields in (
        {"email": digest, "phone": digest.upper()},
        {"meta_hashes": {"em": [digest], "ph": [digest]}, "google_hashes": {"sha256_email_address": [digest]}},
    ):
        body, remark = sent("meta", user_data=fields)
        assert digest not in json.dumps(body)
        assert "left out" in remark
        body, remark = sent("ga4", user_data=fields)
        assert digest not in json.dumps(body)
        assert "left out" in remark
    kept, _ = sent("meta", user_data={"meta_hashes": {"em": [digest, HASH]}})
    assert kept["user_data"]["em"] == [HASH]


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("::ffff:203.0.113.5", "203.0.113.5"),
        ("::ffff:cb00:7105", "203.0.113.5"),
        ("[::ffff:8.8.8.8]:443", "8.8.8.8"),
        ("64:ff9b::8.8.8.8", "8.8.8.8"),
        ("8.8.8.8", "8.8.8.8"),
        ("2a00:1450:4001:82a::200e", "2a00:1450:4001:82a::200e"),
        ("10.0.0.1", ""),
        ("192.168.1.10", ""),
        ("127.0.0.1", ""),
        ("::1", ""),
        ("172.16.3.4", ""),
        ("169.254.1.1", ""),
        ("100.64.0.1", ""),
        ("fe80::1%eth0", ""),
        ("fd00::1", ""),
        ("::", ""),
        ("224.0.0.1", ""),
        ("255.255.255.255", ""),
        ("::ffff:10.0.0.1", ""),
        ("198.18.0.1", ""),
        ("8.8.8.8, 9.9.9.9", ""),
        ("unknown", ""),
    ],
)
def test_b11_addresses_are_public_and_ipv4_where_they_are(address: str, expected: str) -> None:
    assert public_address(address)[0] == expected
    body, remark = sent("meta", client_ip_address=address)
    assert body["user_data"].get("client_ip_address", "") == expected
    assert ("client_ip_address left out" in remark) is (expected == "")
    body, remark = sent("ga4", client_ip_address=address)
    assert body["envelope"].get("ip_override", "") == expected
    assert ("client_ip_address left out" in remark) is (expected == "")


def test_b25_what_meta_asks_for_is_missed_aloud() -> None:
    assert "client_user_agent is missing" in sent("meta", client_user_agent=None)[1]
    assert "client_user_agent" not in sent("meta", client_user_agent=None, action_source="email")[1]
    for url in ("shop.example.com/thanks", "//shop.example.com/", "/thanks", "about:blank", "android-app://com.x"):
        assert "event_source_url is no web address" in sent("meta", event_source_url=url)[1]


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("https://s.example/t?email=a%40example.com&phone=123&order=1", "https://s.example/t?order=1"),
        ("https://s.example/t?next=https%253A%252F%252Fx%253Fm%253Da%2540b.de&a=1", "https://s.example/t?a=1"),
        ("https://jane:pw@s.example/t", "https://s.example/t"),
        ("https://s.example/u/jane%40example.com/x", "https://s.example/u/(removed)/x"),
        ("https://s.example/t#email=a@b.de", "https://s.example/t"),
        ("https://s.example/#/done?mail=a@b.de&z=1", "https://s.example/#/done?z=1"),
        ("https://s.example/t?billing[first_name]=Jane&b=2", "https://s.example/t?b=2"),
        ("https://s.example/t?q=%2B491711234567", "https://s.example/t"),
        ("https://s.example/t?user.lastName=Doe&utm_source=x", "https://s.example/t?utm_source=x"),
        ("https://s.example/@48.1,11.5?utm_medium=email&newsletter_email=1", None),
        ("https://s.example/p?name=shoe&q=1&fbclid=IwAR#top", None),
        ("https://s.example/?", None),
    ],
)
def test_b26_urls_leave_without_personal_data(url: str, expected: str | None) -> None:
    wanted = url if expected is None else expected
    assert clean_url(url) == (wanted, expected is not None)
    body, remark = sent("meta", event_source_url=url, referrer=url)
    assert (body["event_source_url"], body["referrer_url"]) == (wanted, wanted)
    assert ("event_source_url: personal data left out" in remark) is (expected is not None)
    body, remark = sent("ga4", event_source_url=url)
    assert body["params"]["page_location"] == wanted
    kept, _ = sent("meta", MetaDestination(MetaOptions(strip_personal_data=False)), event_source_url=url)
    assert kept["event_source_url"] == url


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("note", "write to jane@example.com"),
        ("email", "jane(at)example"),
        ("customer_phone", "0171 123"),
        ("contact", "+49 171 1234567"),
        ("lastName", "Doe"),
        ("billing.first_name", "Jane"),
        ("enc", "jane%40example.com"),
    ],
)
def test_b26_properties_with_personal_data_stay_here(name: str, text: str) -> None:
    for where in ("meta", "ga4"):
        body, remark = sent(where, properties={name: text})
        assert text not in json.dumps(body)
        assert "property" in remark
        assert text not in remark
    body, _ = sent("ga4", items=[line(properties={name: text})])
    assert text not in json.dumps(body)
    body, remark = sent("ga4", properties={f"user.{name}": text})
    assert text not in json.dumps(body)


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=60) | st.from_regex(r"https?://[a-z.]{1,9}/[a-z@%=&?#.40]{0,40}", fullmatch=True))
def test_b26_cleaning_a_url_is_idempotent_and_never_raises(url: str) -> None:
    once, _ = clean_url(url)
    assert clean_url(once)[0] == once


@pytest.mark.parametrize(
    "word", ["undefined", "null", "none", "0", "-", "NaN", "{{fbclid}}", "__CLICKID__", "(not set)", "%7Bfbclid%7D"]
)
def test_b7_a_placeholder_is_no_click_id(word: str) -> None:
    assert build_fbc(word, NOW // 1_000) is None
    assert not is_fbc(f"fb.1.{NOW // 1_000}.{word}")
    for click_ids in ({"fbclid": word}, {"fbc": f"fb.1.{NOW // 1_000}.{word}"}, {"fbc": word}):
        body, remark = sent("meta", click_ids=click_ids)
        assert "fbc" not in body["user_data"]
        assert "fbc left out" in remark


@pytest.mark.parametrize(
    "value",
    [
        "fb.1.1700000000.IwAR",
        "fb.1.4070908800000.IwAR",
        "fb.1.9999999999999.IwAR",
        "fb.1.0000000000.IwAR",
        "fb.1.17000000000.IwAR",
    ],
)
def test_b7_a_click_id_has_a_time_that_can_be(value: str) -> None:
    body, remark = sent("meta", click_ids={"fbc": value})
    assert "fbc" not in body["user_data"]
    assert "fbc left out" in remark
    assert not is_fbp("fb.1.1700000000.123456")


@pytest.mark.parametrize(
    "word",
    [
        "undefined",
        "null",
        "NaN",
        "[object Object]",
        "0",
        "{{user_id}}",
        "(not set)",
        "00000000-0000-0000-0000-000000000000",
    ],
)
def test_b6_placeholders_are_no_identity_at_the_destinations(word: str) -> None:
    body, remark = sent("ga4", ga_client_id=word)
    assert body["envelope"]["client_id"] != word
    assert "ga_client_id left out: a placeholder" in remark
    fields = {"external_id": word, "first_name": word, "last_name": word, "email": HASH}
    body, remark = sent("meta", user_data=fields, user_id=None)
    assert body["user_data"].keys() & {"external_id", "fn", "ln"} == set()
    assert {name for name in fields if f"{name} left out" in remark} == {"external_id", "first_name", "last_name"}
    body, _ = sent("ga4", ga_app_instance_id="0" * 32)
    assert "client_id" in body["envelope"]
    assert sent("ga4", ga_client_id=' "123.456" ')[0]["envelope"]["client_id"] == "123.456"
