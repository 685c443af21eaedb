"""Results as readers want them: expanded, rolled up, and old records read as new ones."""

from __future__ import annotations

import copy
import json
from io import BytesIO
from typing import Any

import pytest
from fastavro import schemaless_reader, schemaless_writer
from hypothesis import given, settings
from hypothesis import strategies as st

from attributary import expand_result, roll_up_result
from attributary.schemas.codec import Codec, DecodeError
from attributary.schemas.compatibility import problems
from attributary.schemas.result_layout import FIRST_COMPACT_VERSION, check_fields, compact_result
from attributary.schemas.schema_catalog import (
    BundledSchema,
    bundle,
    compiled_reader,
    compiled_writer,
    current_schemas,
    published_paths,
)

CODEC = Codec()
PUBLISHED = [bundle("result", json.loads(path.read_text("utf-8"))) for path in published_paths("result")]
OLD = PUBLISHED[: FIRST_COMPACT_VERSION - 1]
_LONG = st.integers(-(2**62), 2**62 - 1)  # longer numbers are left to fastavro
_WORD = st.sampled_from(["email", "paid_search", "", "Süd", "x" * 70]) | st.text(max_size=8)
_ID = st.none() | _WORD
_SHARE = st.floats(0, 1)


@st.composite
def results(draw: Any) -> dict[str, Any]:
    """Any result that the schema can hold, with as many numbers as touchpoints."""
    count = draw(st.sampled_from([0, 1, 2, 4]))
    touchpoints = [
        {"event_id": f"t{place}", "channel": draw(_WORD), "platform": draw(_WORD), "campaign": draw(_WORD),
         "campaign_id": draw(_ID), "ad_set_id": draw(_ID), "ad_id": draw(_ID), "occurred_at": draw(_LONG)}
        for place in range(count)
    ]  # fmt: skip
    models = [
        {"model": name, "model_version": draw(_WORD), "credits": draw(st.lists(_SHARE, min_size=count, max_size=count)),
         "micros": draw(st.lists(_LONG, min_size=count, max_size=count)), "unattributed_micros": draw(_LONG),
         "confidence": draw(st.none() | _SHARE), "fallback": draw(_ID)}
        for name in draw(st.lists(_WORD, min_size=1, max_size=3))
    ]  # fmt: skip
    insights = [
        {"rule_id": "r", "text": draw(_WORD), "estimate": draw(st.none() | _SHARE), "low": None, "high": None, "n": 3}
    ]
    return {
        "tenant_id": "acme", "conversion_id": draw(_WORD), "conversion_type": "purchase", "converted_at": draw(_LONG),
        "journey_key": draw(_WORD), "version": draw(_LONG), "version_reason": "new", "is_final": draw(st.booleans()),
        "net_value_micros": draw(_LONG), "gross_value_micros": draw(_LONG), "delta_micros": draw(_LONG),
        "currency": "EUR", "policy_version": "p", "touchpoint_count": count, "touchpoints": touchpoints,
        "models": models, "insights": insights, "computed_at": draw(_LONG), "content_hash": "0f" * 16,
    }  # fmt: skip


def old_view(result: dict[str, Any]) -> dict[str, Any]:
    """What versions 1 and 2 said, written down once more, slowly: each model with its touchpoints and sums."""
    models = []
    for model in result["models"]:
        touches = [
            touch | {"credit": model["credits"][place], "value_micros": model["micros"][place]}
            for place, touch in enumerate(result["touchpoints"])
        ]
        rollups = []
        for dimension in ("platform", "channel", "campaign"):
            for name in sorted({touch[dimension] for touch in touches}):
                under = [touch for touch in touches if touch[dimension] == name]
                rollups.append({
                    "dimension": dimension, "name": name, "credit": sum([touch["credit"] for touch in under]),
                    "value_micros": sum(touch["value_micros"] for touch in under),
                })  # fmt: skip
        kept = {name: value for name, value in model.items() if name not in {"credits", "micros"}}
        models.append(kept | {"touchpoints": touches, "rollups": rollups})
    return {name: value for name, value in result.items() if name != "touchpoints"} | {"models": models}


def written(schema: BundledSchema, view: dict[str, Any]) -> bytes:
    """The bytes of an old record; sums that 64 bits do not hold are written as 0, nobody reads them."""
    for model in view["models"]:
        for row in model["rollups"]:
            row["value_micros"] = row["value_micros"] if -(2**63) <= row["value_micros"] < 2**63 else 0
    out = BytesIO(b"\xc3\x01" + schema.crc64)
    out.seek(10)
    schemaless_writer(out, schema.runtime, view)
    return out.getvalue()


@given(results())
@settings(max_examples=80, deadline=None)
def test_encoded_decoded_and_expanded_a_result_says_what_it_said_in_the_old_layout(result: dict[str, Any]) -> None:
    value = CODEC.encode("result", result)
    decoded = CODEC.decode("result", value)
    assert decoded == result
    assert expand_result(decoded) == old_view(result)
    assert compact_result(expand_result(decoded)) == decoded


@given(results())
@settings(max_examples=80, deadline=None)
def test_compiled_reader_and_writer_agree_with_fastavro(result: dict[str, Any]) -> None:
    runtime = current_schemas()["result"].runtime
    out = BytesIO()
    schemaless_writer(out, runtime, result)
    read, write = compiled_reader("result"), compiled_writer("result")
    assert read is not None
    assert write is not None
    assert write(result, b"") == out.getvalue()
    out.seek(0)
    assert read(out.getvalue(), 0) == schemaless_reader(out, runtime, None) == result


@pytest.mark.parametrize("schema", OLD, ids=["version 1", "version 2"])
@given(results())
@settings(max_examples=40, deadline=None)
def test_a_record_of_an_older_version_is_read_as_one_of_today(schema: BundledSchema, result: dict[str, Any]) -> None:
    if schema is OLD[0]:  # it had no ids
        for touch in result["touchpoints"]:
            touch |= {"campaign_id": None, "ad_set_id": None, "ad_id": None}
    value = written(schema, old_view(result))
    assert CODEC.decode("result", value) == result
    assert CODEC.body_of("result", value) is None  # readers that are made for one schema leave it to the codec
    for cut in (11, len(value) // 2, len(value) - 1):
        with pytest.raises(DecodeError):
            CODEC.decode("result", value[:cut])


class _Registry:
    """Has the old schemas under the ids 1 and 2."""

    def schema(self, schema_id: int) -> str:
        return json.dumps(OLD[schema_id - 1].source)

    def schema_id(self, name: str, schema: str) -> int:
        raise LookupError(name + schema)


@pytest.mark.parametrize("number", [1, 2])
def test_an_older_version_of_a_registry_is_read_as_well(number: int) -> None:
    result = example()
    value = b"\0" + number.to_bytes(4, "big") + written(OLD[number - 1], old_view(result))[10:]
    assert Codec(_Registry()).decode("result", value) == result


def test_an_old_record_with_models_at_odds_is_refused() -> None:
    view = old_view(example())
    view["models"][1]["touchpoints"][0]["event_id"] = "other"
    with pytest.raises(DecodeError, match="models name different touchpoints"):
        CODEC.decode("result", written(OLD[-1], view))


def example() -> dict[str, Any]:
    touch = {"event_id": "t1", "channel": "email", "platform": "own", "campaign": "b", "campaign_id": None,
             "ad_set_id": None, "ad_id": None, "occurred_at": 1}  # fmt: skip
    touches = [touch, {**touch, "event_id": "t2", "channel": "ads", "campaign": "a"}, {**touch, "event_id": "t3"}]
    linear = {"model": "linear", "model_version": "1", "credits": [0.25, 0.25, 0.5], "micros": [1, 2, 4],
              "unattributed_micros": 3, "confidence": None, "fallback": None}  # fmt: skip
    return {
        "tenant_id": "acme", "conversion_id": "c", "conversion_type": "purchase", "converted_at": 2,
        "journey_key": "a:d", "version": 1, "version_reason": "new", "is_final": False, "net_value_micros": 10,
        "gross_value_micros": 10, "delta_micros": 0, "currency": "EUR", "policy_version": "p", "touchpoint_count": 3,
        "touchpoints": touches, "models": [linear, {**linear, "model": "last", "credits": [0.0, 0.0, 1.0]}],
        "insights": [], "computed_at": 3, "content_hash": "",
    }  # fmt: skip


def test_roll_ups_are_sums_by_name() -> None:
    rows = [row for row in roll_up_result(example(), ["channel", "campaign_id"]) if row["model"] == "linear"]
    assert rows == [
        {"model": "linear", "dimension": "channel", "name": "ads", "credit": 0.25, "value_micros": 2},
        {"model": "linear", "dimension": "channel", "name": "email", "credit": 0.75, "value_micros": 5},
        {"model": "linear", "dimension": "campaign_id", "name": None, "credit": 1.0, "value_micros": 7},
    ]
    named = example()
    named["touchpoints"][0]["campaign_id"] = "9"
    names = [row["name"] for row in roll_up_result(named, ["campaign_id"])]
    assert names == [None, "9"] * 2
    with pytest.raises(KeyError):
        roll_up_result(example(), ["medium"])


@pytest.mark.parametrize("array", ["credits", "micros"])
@pytest.mark.parametrize("read", [expand_result, roll_up_result])
def test_a_model_without_a_number_for_each_touchpoint_is_refused(read: Any, array: str) -> None:
    result = example()
    result["models"][0][array].pop()
    with pytest.raises(ValueError, match="not one credit"):
        read(result)


def test_the_expanded_form_is_far_longer() -> None:
    result = example()
    touch, model = result["touchpoints"][0], result["models"][0]
    result["touchpoints"] = [{**touch, "event_id": f"019f9ca2-0000-7000-8000-{number:012}"} for number in range(6)]
    model |= {"credits": [1 / 6] * 6, "micros": [10**7] * 6}
    result["models"] = [{**model, "model": f"model_{number}"} for number in range(8)]
    assert len(written(OLD[-1], old_view(result))) > 3 * len(CODEC.encode("result", result))


def test_only_versions_from_the_third_on_are_compared() -> None:
    assert problems() == []
    assert FIRST_COMPACT_VERSION == 3


@pytest.mark.parametrize("part", ["", "touchpoints", "models", "insights"])
def test_hand_written_readers_notice_another_field_of_the_schema(part: str) -> None:
    source: Any = copy.deepcopy(current_schemas()["result"].source)
    check_fields(source, "somebody")
    fields = source["fields"]
    if part:
        fields = next(field for field in fields if field["name"] == part)["type"]["items"]["fields"]
    fields[0], fields[1] = fields[1], fields[0]
    with pytest.raises(AssertionError, match="other fields than somebody"):
        check_fields(source, "somebody")
