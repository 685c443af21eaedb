"""Lists of properties that may go to a destination."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from attributary.consumers.destinations.destination import Moment, PreparedEvent
from attributary.consumers.destinations.ga4.destination import Ga4Destination
from attributary.consumers.destinations.meta.destination import MetaDestination
from attributary.consumers.destinations.prepare import prepare
from attributary.consumers.destinations.property_filter import PropertyFilter
from attributary.consumers.destinations.settings import MetaSettings
from attributary.consumers.runtime.errors import ConfigError
from attributary.consumers.runtime.settings import load
from tests.forwarder.forwarder_factories import CASE_TIME, conversion, ga4_account, line, meta_account


@pytest.mark.parametrize(
    ("text", "allowed", "kept_back"),
    [
        ("coupon", ["coupon"], ["Coupon", "coupon2", "", "tax"]),
        ("coupon, tax", ["coupon", "tax"], ["x"]),
        ("-note", ["coupon", "notes"], ["note"]),
        ("user.*", ["user.plan", "user."], ["user", "users.plan", "plan"]),
        ("-internal_*", ["x", "my_internal_x"], ["internal_", "internal_x", "internal_\n"]),
        ("*,-*secret*", ["x"], ["secret", "my_secret_x"]),
        ("a.b", ["a.b"], ["axb"]),
        ("user.*,-user.age", ["user.plan"], ["user.age", "coupon"]),
        ("x+(y)[z]", ["x+(y)[z]"], ["xxy"]),
    ],
)
def test_a_list_allows_and_keeps_back(text: str, allowed: list[str], kept_back: list[str]) -> None:
    found = PropertyFilter.read(text)
    assert found is not None
    assert [name for name in (*allowed, *kept_back) if found.allows(name)] == allowed


@pytest.mark.parametrize("text", ["", " ", ",", " , "])
def test_an_empty_list_is_none(text: str) -> None:
    assert PropertyFilter.read(text) is None


@pytest.mark.parametrize("text", ["a b", "-", "a*b*c*d", "x" * 101, "a,b c"])
def test_what_is_no_list_ends_the_start(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORWARD_META_PROPERTIES", text)
    with pytest.raises(ConfigError, match="separated by commas") as caught:
        load(MetaSettings)
    assert caught.value.variable == "FORWARD_META_PROPERTIES"


PROPERTIES = {"coupon": "A", "internal_id": "7", "user.plan": "gold", "user.age": "45"}


def built(destination: Any, account: Any, text: str, **changes: Any) -> PreparedEvent:
    event = conversion(CASE_TIME, properties=PROPERTIES, items=[line(properties={"internal_cost": "3", "size": "L"})])
    found = prepare(
        destination,
        event | changes,
        account,
        Moment(CASE_TIME, CASE_TIME),
        unknown="send",
        properties=PropertyFilter.read(text),
    )
    assert isinstance(found, PreparedEvent), found
    return found


def test_neither_event_nor_person_nor_line_has_what_is_kept_back() -> None:
    event = built(Ga4Destination(), ga4_account(), "-internal_*,-user.age")
    everything = event.body + event.envelope
    assert b"internal" not in everything
    assert b'"age"' not in event.envelope
    for kept in (b'"coupon":"A"', b'"size":"L"', b'"plan":{"value":"gold"}', b'"transaction_id"', b'"value":19.99'):
        assert kept in everything
    assert event.remark is not None
    for name in ("internal_id", "internal_cost", "user.age"):
        assert f"property {name} left out: not allowed" in event.remark


def test_a_list_never_keeps_back_what_the_destination_needs() -> None:
    app = {
        "action_source": "app",
        "properties": {
            "extinfo": "|".join(["a2"] * 16), "advertiser_tracking_enabled": "1", "application_tracking_enabled": "0",
            "coupon": "A",
        },
    }  # fmt: skip
    event = built(MetaDestination(), meta_account(), "tax", **app)
    assert b'"app_data"' in event.body
    assert b"coupon" not in event.body


def test_without_anything_to_keep_back_nothing_changes() -> None:
    event = built(MetaDestination(), meta_account(), "*", items=[])
    same = built(MetaDestination(), meta_account(), "", items=[])
    assert event.remark == same.remark


@settings(max_examples=100, deadline=None)
@given(st.text(max_size=30), st.dictionaries(st.text(max_size=20), st.text(max_size=5), max_size=6))
def test_any_list_and_any_properties(text: str, properties: dict[str, str]) -> None:
    try:
        found = PropertyFilter.read(text)
    except ValueError:
        return
    if found is None:
        return
    event = {"properties": properties, "items": None}
    kept, remarks = found.applied(event, ())
    assert set(kept["properties"]) == {name for name in properties if found.allows(name)}
    assert bool(remarks) is (kept["properties"] != properties)
