"""What users of other implementations have: several addresses of a person, places and devices, Meta's further parts."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import pytest

from attributary.consumers.destinations.catalog import read_setup
from attributary.consumers.destinations.destination import PreparedEvent
from attributary.consumers.destinations.meta.destination import MetaDestination, MetaOptions
from attributary.consumers.destinations.settings import MetaSettings
from attributary.consumers.runtime.errors import ConfigError
from attributary.producers.matching import hash_user_data, hash_user_data_with_remarks
from tests.forwarder.forwarder_factories import account_at, destination_at, line, prepared, sent


def sha(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def test_every_address_and_number_of_a_person_is_hashed() -> None:
    found = hash_user_data(
        {
            "email": [" Jane@Example.com", "jane.doe+x@corp.com"],
            "phone": ("+49 171 1234567", "+1 650 555 1212"),
            "external_id": ["U-1", "U-2"],
        }
    )
    assert found["email"] is found["phone"] is found["external_id"] is None
    hashes = found["meta_hashes"]
    assert hashes["em"] == [sha("jane@example.com"), sha("jane.doe+x@corp.com")]
    assert hashes["em_bare"] == [sha("janedoe@corp.com")]
    assert hashes["ph"] == [sha("491711234567"), sha("16505551212")]
    assert hashes["external_id"] == [sha("U-1"), sha("U-2")]
    assert found["google_hashes"]["sha256_phone_number"] == [sha("+491711234567"), sha("+16505551212")]
    assert hash_user_data(found) == found, "hashing twice changes nothing"


def test_of_too_many_addresses_the_first_go_and_a_remark_says_so() -> None:
    found, left_out = hash_user_data_with_remarks({"email": [f"a{n}@example.com" for n in range(12)] + ["x" * 2_000]})
    assert len(found["meta_hashes"]["em"]) == 10
    said = ["email left out: longer than 1000 characters", "email left out: more than 10"]
    assert left_out == {"meta": said, "google": said}


def test_a_list_where_only_one_makes_sense_is_refused() -> None:
    with pytest.raises((TypeError, AttributeError)):
        hash_user_data({"country": ["DE", "FR"]})


def test_several_addresses_reach_meta_and_ga4() -> None:
    person = hash_user_data({"email": ["a@example.com", "b@example.com"]})
    for name, part, key in (("meta", "user_data", "em"), ("ga4", "envelope", "user_data")):
        body, _ = sent(name, user_data=person)
        found = body[part][key]
        found = found["sha256_email_address"] if name == "ga4" else found
        assert found == [sha("a@example.com"), sha("b@example.com")]


GA4_PLACES = {
    "location.city": "Berlin",
    "location.region_id": "DE-BE",
    "location.country_id": "DE",
    "device.category": "mobile",
    "device.operating_system": "Android",
    "device.screen_resolution": "1280x2856",
}


def test_location_and_device_go_to_ga4_in_their_own_places() -> None:
    body, remarks = sent("ga4", properties=GA4_PLACES | {"coupon": "X"})
    assert body["envelope"]["user_location"] == {"city": "Berlin", "region_id": "DE-BE", "country_id": "DE"}
    assert body["envelope"]["device"] == {
        "category": "mobile", "operating_system": "Android", "screen_resolution": "1280x2856",
    }  # fmt: skip
    assert body["params"]["coupon"] == "X"
    assert not body["params"].keys() & GA4_PLACES.keys()
    assert "location" not in remarks


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("location.country_id", "Germany"),
        ("location.region_id", "Berlin"),
        ("location.street", "Main 1"),
        ("device.name", "x"),
        ("device.model", " "),
        ("device.browser", "jane@example.com"),
    ],
)
def test_a_place_that_ga4_does_not_take_costs_the_field_and_not_the_event(name: str, text: str) -> None:
    body, remarks = sent("ga4", properties={name: text, "location.city": "Bonn"})
    assert body["envelope"]["user_location"] == {"city": "Bonn"}
    assert "device" not in body["envelope"]
    assert f"property {name} left out" in remarks
    assert "jane" not in remarks


def test_meta_gets_neither_location_nor_device_and_ga4_nothing_of_meta() -> None:
    body, remarks = sent("meta", properties=GA4_PLACES)
    assert not body["custom_data"].keys() & GA4_PLACES.keys()
    assert "location" not in remarks
    body, remarks = sent("ga4", properties={"attribution.scope": "click", "original_event.event_id": "e"})
    assert not any("." in name for name in body["params"])
    assert "its name" not in remarks


def test_meta_gets_the_original_event_and_the_attribution() -> None:
    given = {
        "original_event.event_name": "Purchase",
        "original_event.event_time": "1795400000",
        "original_event.order_id": "o-1",
        "original_event.event_id": "e-1",
        "attribution.scope": "click",
        "attribution.visit_time": "1795390000",
        "attribution.attribution_share": "0.25",
        "attribution.campaign_id": "120330",
        "attribution.attr_window": "7",
    }
    body, remarks = sent("meta", properties=given)
    assert body["original_event_data"] == {
        "event_name": "Purchase", "event_time": 1_795_400_000, "order_id": "o-1", "event_id": "e-1",
    }  # fmt: skip
    assert body["attribution_data"] == {
        "scope": "click", "visit_time": 1_795_390_000, "attribution_share": 0.25, "campaign_id": "120330",
        "attr_window": 7,
    }  # fmt: skip
    assert not any("." in name for name in body["custom_data"])
    assert remarks == ""


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("attribution.visit_time", "yesterday", "not a whole number"),
        ("attribution.attr_window", "7.5", "not a whole number"),
        ("attribution.attribution_value", "NaN", "not a number"),
        ("original_event.event_time", "", "not a whole number"),
        ("attribution.ad_id", " ", "not a text"),
        ("attribution.linkage_key", "jane@example.com", "personal data"),
        ("attribution.nonsense", "1", "attribution_data has no such field"),
    ],
)
def test_a_part_of_meta_that_is_malformed_costs_the_field(name: str, text: str, said: str) -> None:
    body, remarks = sent("meta", properties={name: text})
    assert said in remarks
    assert not body.keys() & {"attribution_data", "original_event_data"}


def test_an_app_event_has_its_further_fields_and_a_web_event_has_them_as_properties() -> None:
    app = {
        "advertiser_tracking_enabled": "1",
        "application_tracking_enabled": "0",
        "extinfo": "|".join(["i2", *[""] * 15]),
        "campaign_ids": "120330",
        "install_referrer": "utm_source=x",
        "consider_views": "true",
        "url_schemes": "shop://",
        "app_user_id": "jane@example.com",
    }
    body, remarks = sent("meta", action_source="app", properties=app)
    assert body["app_data"] == {
        "advertiser_tracking_enabled": True, "application_tracking_enabled": False, "consider_views": True,
        "campaign_ids": "120330", "install_referrer": "utm_source=x", "url_schemes": "shop://",
        "extinfo": ["i2", *[""] * 15],
    }  # fmt: skip
    assert not body["custom_data"].keys() & app.keys()
    assert "property app_user_id left out: personal data" in remarks
    body, _ = sent("meta", properties={"campaign_ids": "120330"})
    assert body["custom_data"]["campaign_ids"] == 120_330


def test_an_event_without_lines_may_name_its_contents() -> None:
    given = {"content_ids": "a, b,", "num_items": "3", "content_type": "product_group"}
    body, _ = sent("meta", items=[], properties=given)
    data = body["custom_data"]
    assert (data["content_ids"], data["num_items"], data["content_type"]) == (["a", "b"], 3, "product_group")
    body, remarks = sent("meta", items=[], properties={"content_ids": " ,", "num_items": "many"})
    assert "content_ids" not in body["custom_data"]
    assert "property content_ids left out: not a list of ids; property num_items left out: not a number" in remarks
    body, remarks = sent("meta", properties=given)
    assert body["custom_data"]["content_ids"] == ["sku-1"]
    assert "property content_ids left out: the event has its own" in remarks


@pytest.mark.parametrize(
    ("categories", "content_type"),
    [
        (["Flights", " flights "], "flight"),
        (["Flights", "Hotels"], "product"),
        (["Shoes"], "product"),
        ([None], "product"),
    ],
)
def test_the_category_of_the_lines_decides_the_content_type(categories: list[str | None], content_type: str) -> None:
    types = {"flights": "flight", "hotels": "hotel"}
    destination = MetaDestination(MetaOptions(content_types=types))
    items = [line(item_category=category) for category in categories]
    body, _ = sent("meta", destination, items=items)
    assert body["custom_data"]["content_type"] == content_type


def settings(monkeypatch: pytest.MonkeyPatch, text: str) -> Any:
    monkeypatch.setenv("FORWARD_META_CONTENT_TYPES", text)
    return MetaSettings()


def test_content_types_are_pairs(monkeypatch: pytest.MonkeyPatch) -> None:
    found = settings(monkeypatch, "Flights=flight, Hotels = hotel")
    assert found.types_of_contents() == {"flights": "flight", "hotels": "hotel"}
    for wrong in ("Flights", "=flight", "Flights=", "Flights=A flight"):
        with pytest.raises(ConfigError, match="must be pairs such as Flights=flight"):
            settings(monkeypatch, wrong).types_of_contents()


def test_every_request_to_meta_may_name_its_partner_and_its_upload(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {
        "PIXEL_ID": "1",
        "ACCESS_TOKEN": "t",
        "PARTNER_AGENT": "shop-1.0",
        "UPLOAD_TAG": "stores",
    }.items():
        monkeypatch.setenv(f"META_{name}", value)
    event = prepared("meta")
    assert isinstance(event, PreparedEvent)
    body = json.loads(read_setup("meta").destination.request(account_at("meta"), [event]).body)
    assert (body["partner_agent"], body["upload_tag"]) == ("shop-1.0", "stores")
    plain = json.loads(destination_at("meta", "https://a").request(account_at("meta"), [event]).body)
    assert set(plain) == {"data"}
    monkeypatch.setenv("META_PARTNER_AGENT", 'x"y')
    with pytest.raises(ConfigError, match="META_PARTNER_AGENT"):
        read_setup("meta")


def test_one_event_may_show_in_ga4s_debug_view() -> None:
    body, _ = sent("ga4", properties={"debug_mode": "1"})
    assert body["params"]["debug_mode"] == 1
