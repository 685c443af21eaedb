"""What other people's data does to one event: a test an entry of the facts pages, with further members of its kind."""

from __future__ import annotations

import json
import random
from typing import Any

import phonenumbers
import pytest

from attributary.consumers.destinations.destination import NotSent, PreparedEvent
from attributary.consumers.destinations.ga4.destination import Ga4Destination, Ga4Options
from attributary.consumers.destinations.meta.destination import MetaDestination, MetaOptions
from attributary.consumers.destinations.meta.responses import classify
from attributary.consumers.destinations.wire_format import typed
from attributary.producers.matching import hash_user_data_with_remarks, meta
from attributary.producers.matching.phone import e164_digits
from attributary.producers.matching.text import sha256_hex
from attributary.producers.matching.user_data import google_address
from tests.forwarder.forwarder_factories import CASE_TIME, HASH, line, prepared, sent

NOW = CASE_TIME
EMPTY = sha256_hex("")


@pytest.mark.parametrize("text", ["NaN", "nan", "inf", "-Infinity", "1e400", "-1e999", "infinity", "1_0", "٣", ""])
@pytest.mark.parametrize("name", ["discount", "index"])
def test_f1_no_number_of_a_line_can_spoil_the_encoding(text: str, name: str) -> None:
    body, remark = sent("ga4", items=[line(properties={name: text})])
    assert name not in body["params"]["items"][0]
    assert f"item property {name} left out: not a number" in remark


@pytest.mark.parametrize(
    "quantities", [(1e308, 1e308), (1e308,), (1.7e308, 5.0), (1e200, 1e200), (2.0**60, 1.0), (1.7e308,) * 3]
)
def test_f1_quantities_without_a_finite_sum_lose_the_sum(quantities: tuple[float, ...]) -> None:
    for name in ("meta", "ga4"):
        body, _ = sent(name, items=[line(quantity=quantity) for quantity in quantities])
        assert "Infinity" not in json.dumps(body)
    body, remark = sent("meta", items=[line(quantity=quantity) for quantity in quantities])
    assert "num_items" not in body["custom_data"]
    assert "num_items left out" in remark


@pytest.mark.parametrize(
    "properties",
    [{"predicted_ltv": "NaN"}, {"net_revenue": "inf"}, {"predicted_ltv": "1e400"}, {"tax": "nan"}, {"level": "-inf"}],
)
def test_f1_no_property_can_spoil_the_encoding(properties: dict[str, str]) -> None:
    for name in ("meta", "ga4"):
        event = prepared(name, properties=properties)
        assert isinstance(event, PreparedEvent)
        json.loads(event.body, parse_constant=pytest.fail)


def test_f1_a_build_that_raises_costs_its_record_and_nothing_else() -> None:
    class Broken(MetaDestination):
        def build(self, *_: Any) -> PreparedEvent | NotSent:
            raise ValueError("jane@example.com")

    found = prepared("meta", Broken())
    assert isinstance(found, NotSent)
    assert (found.state, found.reason) == ("rejected", "the event cannot be built: ValueError")


def valid_numbers(region: str, kind: int, count: int, seed: int) -> list[phonenumbers.PhoneNumber]:
    """Numbers of a region that libphonenumber calls valid, made from its example by other last digits."""
    example = phonenumbers.example_number_for_type(region, kind)
    if example is None:
        return []
    start, rnd = phonenumbers.national_significant_number(example), random.Random(seed)
    found: list[phonenumbers.PhoneNumber] = []
    for _ in range(40 * count):
        keep = rnd.randint(1, max(1, len(start) - 2))
        text = start[:keep] + "".join(rnd.choice("0123456789") for _ in start[keep:])
        number = phonenumbers.parse(f"+{example.country_code}{text}")
        if phonenumbers.is_valid_number_for_region(number, region) and len(found) < count:
            found.append(number)
    return found


def test_f2_no_mobile_number_is_read_as_one_of_another_country() -> None:
    misread, seen = [], 0
    for region in sorted(phonenumbers.SUPPORTED_REGIONS):
        for number in valid_numbers(region, phonenumbers.PhoneNumberType.MOBILE, 12, seed=2):
            expected = phonenumbers.format_number(number, phonenumbers.PhoneNumberFormat.E164).removeprefix("+")
            national = phonenumbers.format_number(number, phonenumbers.PhoneNumberFormat.NATIONAL)
            for text in (phonenumbers.national_significant_number(number), national, f"+{expected}", f"00{expected}"):
                seen += 1
                if e164_digits(text, region, "US") != expected:
                    misread.append((region, text))
    assert seen > 5_000
    assert misread == []


@pytest.mark.parametrize(
    ("number", "country", "expected"),
    [
        ("15736819303", "CN", "8615736819303"),
        ("15123456789", "DE", "4915123456789"),
        ("9123456789", "IN", "919123456789"),
        ("6601234567", "AT", "436601234567"),
        ("412345678", "AU", "61412345678"),
        ("5321234567", "TR", "905321234567"),
        ("612345678", "FR", "33612345678"),
        ("8615736819303", "CN", "8615736819303"),
        ("4915123456789", "DE", "4915123456789"),
    ],
)
def test_f2_the_persons_country_comes_first(number: str, country: str, expected: str) -> None:
    assert e164_digits(number, country) == expected
    hashes = hash_user_data_with_remarks({"phone": number, "country": country}).user_data["meta_hashes"]
    assert hashes["ph"] == [sha256_hex(expected)]


@pytest.mark.parametrize(
    ("name", "text", "number"),
    [
        ("tax", "1.11", 1.11),
        ("shipping", "3.33", 3.33),
        ("level", "3", 3),
        ("score", "1e3", 1000),
        ("tax", "0.50", 0.5),
        ("shipping", "0", 0),
    ],
)
def test_f3_numbers_of_google_go_as_numbers(name: str, text: str, number: float) -> None:
    body, remark = sent("ga4", properties={name: text})
    assert body["params"][name] == number
    assert not isinstance(body["params"][name], str)
    assert name not in remark
    body, remark = sent("ga4", properties={name: "1,11 EUR"})
    assert name not in body["params"]
    assert f"property {name} left out: not a number" in remark


@pytest.mark.parametrize(
    "session",
    [
        "GS3.1.s17$o1",
        "abc",
        "1" * 21,
        "undefined",
        "null",
        "(not set)",
        "1700000000.0",
        "GS2.1.x",
        "-17",
        "NaN",
        "{{sid}}",
    ],
)
def test_f4_b9_a_broken_session_id_is_left_out_and_the_purchase_goes(session: str) -> None:
    body, remark = sent("ga4", ga_session_id=session)
    assert "session_id" not in body["params"]
    assert "ga_session_id left out" in remark


def test_f4_b9_a_session_id_with_blanks_is_used() -> None:
    assert sent("ga4", ga_session_id=" 1700000000 ")[0]["params"]["session_id"] == "1700000000"


def test_f4_a_long_order_id_is_hashed_alike_for_purchase_and_refund() -> None:
    order = "ö" * 150
    bought, remark = sent("ga4", order_id=order)
    back, _ = sent("ga4", order_id=order, kind="refund", conversion_id="c")
    assert bought["params"]["transaction_id"] == back["params"]["transaction_id"] == sha256_hex(order)
    assert "transaction_id is longer" in remark
    plain, _ = sent("ga4", order_id=None, event_id="e" * 200)
    assert plain["params"]["transaction_id"] == sha256_hex("e" * 200)
    assert sent("ga4", order_id="x" * 100)[0]["params"]["transaction_id"] == "x" * 100


def test_f4_too_many_lines_are_cut() -> None:
    body, remark = sent("ga4", items=[line(item_id=f"i{n}") for n in range(1_000)])
    assert len(body["params"]["items"]) == 200
    assert "items cut to 200" in remark
    fat = {f"c{n}": "ü" * 100 for n in range(10)}
    body, remark = sent("ga4", items=[line(item_id=f"i{n}", properties=fat) for n in range(200)])
    assert 0 < len(body["params"]["items"]) < 200
    assert "items cut" in remark


@pytest.mark.parametrize("name", ["items", "value", "currency", "session_id", "engagement_time_msec", "transaction_id"])
@pytest.mark.parametrize("without", [{}, {"items": [], "currency": "XXX", "value_micros": 0, "ga_session_id": None}])
def test_f4_a_property_of_an_own_name_changes_nothing(name: str, without: dict[str, Any]) -> None:
    kind = {"conversion_type": "lead"} if without and name != "transaction_id" else {}
    plain, _ = sent("ga4", event_id="e", user_id="u", order_id="o", ga_client_id="1.2", **without, **kind)
    body, remark = sent(
        "ga4", event_id="e", user_id="u", order_id="o", ga_client_id="1.2", properties={name: "3"}, **without, **kind
    )
    assert body == plain
    assert f"property {name} left out" in remark


@pytest.mark.parametrize(
    ("name", "text"),
    [("discount", "2%"), ("index", "first"), ("discount", "1,50"), ("index", "#1"), ("discount", "none")],
)
def test_f4_a_line_without_its_odd_number(name: str, text: str) -> None:
    body, remark = sent("ga4", items=[line(properties={name: text, "coupon": "C"})])
    assert body["params"]["items"] == [{"item_id": "a", "quantity": 1, "price": 5, "coupon": "C"}]
    assert name in remark


@pytest.mark.parametrize(
    ("kind", "given"), [("trial_started", "TrialStarted"), ("lead", "QualifiedLead"), ("purchase", "Order_Paid")]
)
def test_f7_event_names_are_the_tenants_own(kind: str, given: str) -> None:
    names = {kind: given}
    assert sent("meta", MetaDestination(MetaOptions(event_names=names)), conversion_type=kind)[0]["event_name"] == given
    assert sent("ga4", Ga4Destination(Ga4Options(event_names=names)), conversion_type=kind)[0]["name"] == given


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("45", 45),
        ("3.3", 3.3),
        ("-2", -2),
        ("0", 0),
        ("0.5", 0.5),
        ("007", "007"),
        ("1.10", "1.10"),
        ("1e3", "1e3"),
        ("1234567890123456", "1234567890123456"),
        ("+1", "+1"),
        ("", ""),
        ("NaN", "NaN"),
        ("-0", "-0"),
        ("1,5", "1,5"),
    ],
)
def test_f8_properties_that_print_like_numbers_are_numbers(text: str, value: Any) -> None:
    assert typed(text) == value
    assert type(typed(text)) is type(value)
    assert sent("ga4", properties={"p": text})[0]["params"]["p"] == value
    assert sent("ga4", properties={"user.p": text})[0]["envelope"]["user_properties"]["p"] == {"value": value}
    assert sent("meta", properties={"p": text})[0]["custom_data"]["p"] == value
    assert sent("meta", properties={"p": "true"})[0]["custom_data"]["p"] is True
    assert sent("ga4", properties={"coupon": "2026"})[0]["params"]["coupon"] == "2026", "a text by Google's reference"


@pytest.mark.parametrize(
    ("field", "value", "expected"),
    [
        ("city", "St. Gallen 5", "st gallen"),
        ("region", "Île-de-France 75", "îledefrance"),
        ("city", " Paris 16e ", "paris e"),
        ("postal_code", " 10.115~ ", "10115"),
        ("city", "L\u2019Aquila!", "laquila"),
        ("region", "N.R.W. (5)", "nrw"),
    ],
)
def test_f9_googles_address_has_no_digits_and_symbols(field: str, value: str, expected: str) -> None:
    assert google_address({field: value})[field] == expected


@pytest.mark.parametrize(
    ("how", "user_id", "expected"),
    [
        ("hashed", " U-1 ", [sha256_hex("U-1")]),
        ("raw", " U-1 ", ["U-1"]),
        ("both", "U-1", ["U-1", sha256_hex("U-1")]),
        ("hashed", HASH, [HASH]),
        ("raw", HASH.upper(), [HASH]),
        ("raw", "jane@example.com", [sha256_hex("jane@example.com")]),
    ],
)
def test_f10_the_user_id_travels_as_the_setting_says(how: Any, user_id: str, expected: list[str]) -> None:
    destination = MetaDestination(MetaOptions(external_id=how))
    assert sent("meta", destination, user_id=user_id)[0]["user_data"]["external_id"] == expected


@pytest.mark.parametrize(
    ("country", "code"),
    [
        ("Korea, Republic of", "kr"),
        ("Korea, Democratic People's Republic of", "kp"),
        ("Taiwan, Province of China", "tw"),
        ("Tanzania, United Republic of", "tz"),
        ("Iran, Islamic Republic of", "ir"),
        ("Moldova, Republic of", "md"),
        ("Venezuela, Bolivarian Republic of", "ve"),
        ("Virgin Islands, U.S.", "vi"),
        ("Virgin Islands, British", "vg"),
        ("Bolivia, Plurinational State of", "bo"),
        ("Palestine, State of", "ps"),
        ("Congo, The Democratic Republic of the", "cd"),
        ("Micronesia, Federated States of", "fm"),
        ("Kingdom of Spain", "es"),
        ("Republic of Austria", "at"),
        ("Federal Republic of Germany", "de"),
        ("French Republic", "fr"),
        ("Swiss Confederation", "ch"),
        ("Kingdom of the Netherlands", "nl"),
        ("United Mexican States", "mx"),
        ("Federative Republic of Brazil", "br"),
        ("Hellenic Republic", "gr"),
        ("Republic of Türkiye", "tr"),
        ("Arab Republic of Egypt", "eg"),
        ("Commonwealth of Australia", "au"),
        ("Russian Federation", "ru"),
        ("Slovak Republic", "sk"),
        ("Kingdom of Narnia", ""),
        ("Republic of", ""),
    ],
)
def test_f15_names_as_databases_hold_them(country: str, code: str) -> None:
    assert meta.country(country) == code


@pytest.mark.parametrize(
    ("status", "code", "found"),
    [
        (412, 5, "retry"),
        (409, 999, "retry"),
        (425, 7, "retry"),
        (408, 9, "retry"),
        (423, 11, "retry"),
        (400, 999, "rejected"),
        (412, 190, "channel_dead"),
    ],
)
def test_f16_unknown_codes_with_a_temporary_status_are_tried_again(status: int, code: int, found: str) -> None:
    from attributary.consumers.destinations.destination import HttpResponse

    answer = classify(HttpResponse(status, json.dumps({"error": {"code": code, "message": "x"}}).encode()), 1)
    assert answer.response_class.value == found


APP = {
    "advertiser_tracking_enabled": "1",
    "application_tracking_enabled": "0",
    "extinfo": "|".join(["i2"] + ["x"] * 15),
}


@pytest.mark.parametrize(
    "properties",
    [
        {},
        APP | {"extinfo": "i2|x"},
        APP | {"extinfo": "|".join("x" * 17)},
        {"extinfo": APP["extinfo"]},
        {k: APP[k] for k in list(APP)[:2]},
        APP | {"extinfo": ""},
    ],
)
def test_f17_an_app_event_that_would_spoil_its_batch_does_not_leave(properties: dict[str, str]) -> None:
    found = prepared("meta", action_source="app", properties=properties)
    assert isinstance(found, NotSent)
    assert (found.state, found.field) == ("rejected", "properties.extinfo")
    body, _ = sent("meta", action_source="app", properties=APP)
    assert len(body["app_data"]["extinfo"]) == 16


def test_f17_a_delivery_category_is_one_of_metas_three() -> None:
    item = line(properties={"delivery_category": "drone"})
    body, remark = sent("meta", items=[item], properties={"delivery_category": "pigeon"})
    assert "delivery_category" not in json.dumps(body)
    assert "delivery_category" in remark
    assert (
        sent("meta", properties={"delivery_category": "curbside"})[0]["custom_data"]["delivery_category"] == "curbside"
    )


def test_f18_small_normalisations() -> None:
    hashes = hash_user_data_with_remarks({"postal_code": "940351234", "country": "US"}).user_data["meta_hashes"]
    assert hashes["zp"] == [sha256_hex("94035")]
    assert meta.email("jane@example..com") == ""
    assert {meta.name(f"O{mark}Brien") for mark in "'`\u00b4\u02b9\u02bb\u02bc\u2018\u2019\u2032\uff07"} == {"obrien"}
    assert meta.state("Newfoundland & Labrador") == "nl"
