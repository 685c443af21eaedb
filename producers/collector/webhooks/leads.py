"""Lead forms of Meta and Google: a lead is a conversion, and the ad that it came from a touchpoint.

Meta's delivery names the lead and carries none of its answers; they need a call to Meta's API, which a receiver must
not make before it answers. ``lead_id`` stays in the properties, because Meta's Conversions API asks for it back.

Google's delivery has no time, so the lead's time is the hour in which it arrived: a retry within the hour is the same
record. One that arrives in a later hour has the same id and other bytes; the first in the log wins.

Source: Meta, "Webhooks for leads"; Google Ads, "Lead form webhook: implementation".
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from attributary.producers.records import Conversion, PublishedRecord, Touchpoint, UserData

from .outcome import LeftOut
from .payload import (
    Skipped,
    Unmapped,
    decimal_of,
    micros_of,
    object_id,
    object_in,
    objects_in,
    seconds_of,
    text_of,
    user_data_of,
)
from .source import LeadOptions, WebhookSource

_HOUR = 3_600_000_000
_GOOGLE_FIELDS = {
    "EMAIL": "email", "WORK_EMAIL": "email", "PHONE_NUMBER": "phone", "WORK_PHONE": "phone",
    "FIRST_NAME": "first_name", "LAST_NAME": "last_name", "STREET_ADDRESS": "street", "CITY": "city",
    "REGION": "region", "POSTAL_CODE": "postal_code", "COUNTRY": "country",
}  # fmt: skip


def map_meta(body: Mapping[str, Any], source: WebhookSource) -> tuple[list[PublishedRecord], list[LeftOut]]:
    """Return the records of one delivery, which may hold many changes, and what was not recorded.

    Raises:
        Unmapped: it is no delivery of a page's changes.
    """
    if body.get("object") != "page" or not isinstance(body.get("entry"), list):
        raise Unmapped("object, entry", "must be the changes of a page")
    records: list[PublishedRecord] = []
    left_out = []
    for entry in objects_in(body["entry"]):
        for change in objects_in(entry.get("changes")):
            what = text_of(change.get("field"), 50) or "change"
            try:
                records += _meta_lead(change, source)
            except Skipped as skipped:
                left_out.append(LeftOut(what if skipped.reason != "other_type" else "change", skipped.reason))
            except Unmapped as error:
                left_out.append(LeftOut("leadgen", "unmapped", error.field, error.rule))
    return records, left_out


def _meta_lead(change: Mapping[str, Any], source: WebhookSource) -> list[PublishedRecord]:
    if change.get("field") != "leadgen":
        raise Skipped("other_type")
    lead = object_in(change.get("value"))
    lead_id = object_id(lead.get("leadgen_id"), "leadgen_id")
    if set(lead_id) == {"4"} and not source.option(LeadOptions).allow_test:  # ids of the app dashboard's test button
        raise Skipped("test_data")
    name = f"meta-lead-{lead_id}"
    occurred_at = seconds_of(lead.get("created_time"), "created_time")
    form_id = text_of(lead.get("form_id"), 200)
    ad_id = text_of(lead.get("ad_id"), 200)
    properties = {"lead_id": lead_id, "form_id": form_id, "page_id": text_of(lead.get("page_id"), 200)}
    conversion = _lead(name, occurred_at, form_id, properties, source)
    if ad_id is None or ad_id == "0":
        return [conversion]
    return [_touch(name, occurred_at, "meta", "paid_social", source, ad_id=ad_id), conversion]


def map_google(body: Mapping[str, Any], source: WebhookSource, now: float) -> list[PublishedRecord]:
    """Return the records of one lead.

    Args:
        body: the lead, with its key checked.
        source: the settings.
        now: seconds since 1970, when it arrived.

    Raises:
        Skipped: there is nothing to record.
        Unmapped: it should be recorded, and cannot.
    """
    if body.get("is_test") is True and not source.option(LeadOptions).allow_test:
        raise Skipped("test_data")
    name = f"google-lead-{object_id(body.get('lead_id'), 'lead_id')}"
    occurred_at = int(now * 1_000_000) // _HOUR * _HOUR
    ids = {key: text_of(body.get(key), 200) for key in ("campaign_id", "adgroup_id", "creative_id", "asset_group_id")}
    form_id = text_of(body.get("form_id"), 200)
    conversion = _lead(name, occurred_at, form_id, {**ids, "lead_id": name[12:], "form_id": form_id}, source)
    click_id = text_of(body.get("gcl_id"), 4096)
    conversion.click_ids = {"gclid": click_id} if click_id else {}
    conversion.user_data = _google_answers(body)
    touch = _touch(
        name,
        occurred_at,
        "google",
        "paid_search",
        source,
        campaign_id=ids["campaign_id"],
        ad_set_id=ids["adgroup_id"] or ids["asset_group_id"],
        ad_id=ids["creative_id"],
        click_ids=dict(conversion.click_ids),
    )
    return [touch, conversion] if ids["campaign_id"] or click_id else [conversion]


def _google_answers(body: Mapping[str, Any]) -> UserData | None:
    answers: dict[str, object] = {}
    for column in objects_in(body.get("user_column_data")):
        answer = column.get("string_value")
        field = _GOOGLE_FIELDS.get(str(column.get("column_id")))
        if field is not None:
            answers.setdefault(field, answer)
        elif column.get("column_id") == "FULL_NAME" and isinstance(answer, str) and " " in answer.strip():
            first, _, last = answer.strip().rpartition(" ")
            answers.setdefault("first_name", first)
            answers.setdefault("last_name", last)
    return user_data_of(answers)


def _lead(
    name: str, occurred_at: int, form_id: str | None, properties: Mapping[str, str | None], source: WebhookSource
) -> Conversion:
    options = source.option(LeadOptions)
    worth = options.form_values.get(form_id or "", options.value)
    value = micros_of(decimal_of(worth, "value"), options.currency, "value") if worth else 0
    return Conversion(
        event_id=name,
        conversion_id=name,
        tenant_id=source.tenant_id,
        conversion_type="lead",
        occurred_at=occurred_at,
        value_micros=value,
        currency=options.currency if worth else "XXX",
        anonymous_id=name,
        action_source="system_generated",
        properties={key: text for key, text in properties.items() if text is not None},
        consent=source.consent,
    )


def _touch(name: str, occurred_at: int, platform: str, channel: str, source: WebhookSource, **ids: Any) -> Touchpoint:
    return Touchpoint(
        event_id=f"{name}-touch",
        tenant_id=source.tenant_id,
        occurred_at=occurred_at,
        platform=platform,
        channel=channel,
        anonymous_id=name,
        consent=source.consent,
        **ids,
    )
