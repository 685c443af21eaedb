"""The reader of touchpoint rows against codec, rules and JSON: the same row, or it leaves the record to them."""

from __future__ import annotations

import json
import os
import random
from typing import Any

import pytest

from attributary.attribution_core.domain.identity_rules import IdentityRules
from attributary.consumers.adapters.tenant_rules import TenantRules
from attributary.consumers.runtime.records import Record
from attributary.consumers.stitcher.decode import Decoder, StitchBatch
from attributary.consumers.stitcher.touchpoint_reader import IRREGULAR, compile_touchpoint_reader
from attributary.schemas.codec import Codec
from attributary.schemas.schema_catalog import current_schemas
from attributary.schemas.topics import TOUCHPOINTS

NOW_MS = 1_764_000_000_000
NOW = NOW_MS * 1000
DAY = 86_400_000_000
SEED = 20_261_130
MUTANTS = int(os.environ.get("READER_MUTANTS", "12000"))
CODEC = Codec()
ALL = TenantRules()
LISTED = TenantRules(IdentityRules({"*": ["kiosk-9"], "shop": ["d-81"]}, {"shop": ["test", "0"]}))

PLAIN: dict[str, Any] = {
    "tenant_id": "shop", "event_id": "019f9ca2-a8bb-7e10-85c9-7362784d6348", "user_id": "user-7",
    "anonymous_id": "d-81", "occurred_at": NOW - DAY, "platform": "meta", "channel": "paid_social",
    "interaction": "click",
    "campaign_id": "30100050000", "campaign_name": "Sommer „Süd“", "ad_set_id": "3", "ad_set_name": '\t"quoted"',
    "ad_id": None, "ad_name": "", "utm_source": "meta", "utm_medium": None, "utm_campaign": "summer", "utm_term": None,
    "utm_content": "ad_2", "click_ids": {"fbclid": "Fbw0CE", "gclid": "x\\y"},
    "landing_url": "https://shop.example/?a=1",
    "referrer": None, "country": "DE", "device": "mobile", "engagement_seconds": 11.8, "is_bot": False,
    "properties": {"größe": "L", "": ""}, "consent": {"ad_storage": True, "ad_user_data": False},
}  # fmt: skip
BARE = {**dict.fromkeys(PLAIN), **{name: PLAIN[name] for name in ("tenant_id", "event_id", "occurred_at")},
        "anonymous_id": "d-81", "platform": "direct", "channel": "direct", "interaction": "visit", "is_bot": True,
        "click_ids": {}, "properties": {}}  # fmt: skip
LONG_ID, LONG_TEXT, LONG_URL, LONG_NAME = "ä1" * 100, "ä1" * 250, "u" * 4096, "n" * 200

# Values of each field at and beyond what the rules allow.
VALUES: dict[str, tuple[Any, ...]] = {
    "tenant_id": ("shop", "a.b_c-9", "", "Shop", "a b", "x" * 64, "x" * 65, "\0"),
    "event_id": ("e-1", "", LONG_ID, LONG_ID + "x", "\0"),
    "user_id": (None, "user-7", "", "null", "USER", "12345.0", " padded7 ", "a\u200bb7", "0", "000000", LONG_ID,
                LONG_ID + "x", "{{user_id}}", "me@shop.example", "kiosk-9", "test", "\0", "150"),
    "anonymous_id": (None, "d-81", "", "undefined", "e\u0301-7", "eed260f2-c798-4a2a-af14-7e2f0f9e4849", "1e+21"),
    "occurred_at": (NOW, NOW + DAY, NOW + DAY + 1, 946_684_800_000_000, 946_684_799_999_999, -1, 0, 2**62, -(2**63)),
    "platform": ("meta", "", "Meta", "größer", "x" * 100, "x" * 101, " x", "two words", "\0"),
    "channel": ("email", "Email", "\u202e"),
    "interaction": ("view", "VIEW", ""),
    "campaign_id": (None, "", "7", LONG_ID, LONG_ID + "x"),
    "campaign_name": (None, "", LONG_TEXT, LONG_TEXT + "x", "\0"),
    "ad_set_id": (None, LONG_ID + "x"),
    "ad_name": (None, LONG_TEXT + "x", "\u2028"),
    "utm_term": (None, LONG_TEXT, LONG_TEXT + "x"),
    "click_ids": ({}, {"gclid": "1"}, {LONG_NAME: LONG_URL}, {LONG_NAME + "n": ""}, {"a": LONG_URL + "u"},
                  {f"k{n}": "v" for n in range(63)}, {f"k{n}": "v" for n in range(101)}),
    "landing_url": (None, "", LONG_URL, LONG_URL + "u", "\x1f"),
    "referrer": (None, "https://a.example/ü", LONG_URL + "u"),
    "country": (None, "DE", "de", "DEU", "D", "", "ÄÖ"),
    "device": (None, "tv", LONG_TEXT + "x"),
    "engagement_seconds": (None, 0.0, -0.0, 1e300, 12.0, 1e-7, float("inf"), float("nan"), -0.1),
    "is_bot": (True, False),
    "properties": ({}, {"a": "\0"}, {"a": LONG_URL + "u"}),
    "consent": (None, {}, {"a": True}, {LONG_NAME + "n": True}, {f"k{n}": n % 2 == 0 for n in range(63)},
                {f"k{n}": True for n in range(101)}),
}  # fmt: skip


def reference(tenants: TenantRules) -> Decoder:
    """A decoder that goes the long way with every record."""
    decoder = Decoder(CODEC, tenants=tenants)
    decoder._read_touchpoint = None
    return decoder


def decoded(decoder: Decoder, value: bytes) -> StitchBatch:
    return decoder.decode([Record(TOUCHPOINTS, 3, 17, None, value, NOW_MS)])


def assert_alike(quick: Decoder, slow: Decoder, value: bytes) -> bool:
    """Both decoders say the same of a record; returns whether it is accepted."""
    ours, theirs = decoded(quick, value), decoded(slow, value)
    assert [letter.reason for letter in ours.dead_letters] == [letter.reason for letter in theirs.dead_letters]
    assert len(ours.touchpoints) == len(theirs.touchpoints)
    for mine, other in zip(ours.touchpoints, theirs.touchpoints, strict=True):
        assert mine._replace(details="") == other._replace(details="")
        assert json.loads(mine.details) == json.loads(other.details)
    return bool(ours.touchpoints)


def is_read_at_once(value: bytes) -> bool:
    try:
        compile_touchpoint_reader(ALL)(value, 10, NOW, TOUCHPOINTS, 3, 17)
    except IRREGULAR:
        return False
    return True


@pytest.mark.parametrize("record", [PLAIN, BARE], ids=["all fields", "few fields"])
def test_ordinary_touchpoints_are_read_in_one_pass_to_the_very_same_row(record: dict[str, Any]) -> None:
    value = CODEC.encode("touchpoint", record)
    assert is_read_at_once(value)
    quick, slow = Decoder(CODEC), reference(ALL)
    for _ in range(2):  # the second time everything is known
        assert decoded(quick, value).touchpoints == decoded(slow, value).touchpoints


def test_every_field_of_the_schema_has_values_at_its_limits() -> None:
    fields = {field["name"] for field in current_schemas()["touchpoint"].source["fields"]}
    alike = {"ad_set_name", "ad_id", "utm_source", "utm_medium", "utm_campaign", "utm_content"}  # as their neighbours
    assert fields - alike == VALUES.keys()


@pytest.mark.parametrize("tenants", [
    ALL, LISTED, TenantRules(known=frozenset({"shop"})),
], ids=["built in", "with lists", "closed"])  # fmt: skip
@pytest.mark.parametrize("field", VALUES)
def test_each_rule_is_judged_as_the_rules_do(field: str, tenants: TenantRules) -> None:
    quick, slow = Decoder(CODEC, tenants=tenants), reference(tenants)
    accepted = []
    for record in (PLAIN, BARE, PLAIN):
        for value in VALUES[field]:
            encoded = CODEC.encode("touchpoint", {**record, field: value})
            accepted.append(assert_alike(quick, slow, encoded))
    if tenants is ALL:
        assert any(accepted), "no value of the field is allowed"


def mutate(value: bytearray, chance: random.Random) -> None:
    for _ in range(chance.choice((0, 0, 1, 1, 3))):
        at = chance.randrange(len(value) + 1)
        match chance.randrange(6):
            case 0:
                value[at:at] = bytes(chance.choice((0, 1, 2, 4, 127, 128, 255)) for _ in range(chance.randrange(1, 4)))
            case 1:
                del value[at : at + chance.randrange(1, 4)]
            case 2:
                value[at : at + 1] = bytes([chance.choice((0, 1, 2, 3, 4, 6, 126, 128, 129, 254, 255))])
            case 3:
                del value[at + 1 :]
            case 4:
                value += chance.randbytes(1)
            case _ if at < len(value):
                value[at] ^= 1 << chance.randrange(8)


def test_mutated_touchpoints_come_to_the_same_row_or_the_same_refusal() -> None:
    chance = random.Random(SEED)
    pairs = [(Decoder(CODEC, tenants=tenants), reference(tenants)) for tenants in (ALL, LISTED)]
    accepted = 0
    for number in range(MUTANTS):
        record = dict(chance.choice((PLAIN, BARE)))
        for field in chance.sample(sorted(VALUES), chance.choice((0, 0, 1, 2, 4))):
            record[field] = chance.choice(VALUES[field])
        value = bytearray(CODEC.encode("touchpoint", record))
        mutate(value, chance)
        accepted += assert_alike(*pairs[number % 2], bytes(value))
    assert MUTANTS // 10 < accepted < MUTANTS * 9 // 10, "the mutants should be of both kinds"


def test_what_is_remembered_is_bounded() -> None:
    read = compile_touchpoint_reader(ALL)
    for number in range(10_000):
        value = CODEC.encode("touchpoint", {**BARE, "campaign_name": f"name {number}", "event_id": f"e{number}"})
        read(value, 10, NOW, TOUCHPOINTS, 3, number)
    assert len(read.__globals__["campaigns"]) <= 4_096
    assert len(read.__globals__["people"]) == 1
