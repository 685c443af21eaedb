"""Why a conversion is attributed as it is: person, touches in and out, versions. Reads only, in one snapshot.

Invariant: a touch is "in" by the same rule and the same pinned policy as the attributor's; the verdict of every touch
of the person is a sentence that needs no source code.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import psycopg

from attributary.attribution_core.domain.conversion import ConversionEvent, EventVerdict, judge_events
from attributary.attribution_core.domain.identity import ANONYMOUS_PREFIX, USER_PREFIX
from attributary.attribution_core.domain.lookback import MICROS_PER_DAY, LookbackPolicy
from attributary.consumers.store.identity_sql import device_key, person_key, touchpoints_of

from .attribution_inputs import PendingConversion, conversions_by_id
from .event_reports import EventConflict, conflicts_of_conversion
from .policies import fetch_policy

_UNITS = (("days", MICROS_PER_DAY), ("hours", 3_600_000_000), ("minutes", 60_000_000))


class EventFact(NamedTuple):
    """An event about the conversion, and what it does to its worth: a sentence."""

    event_id: str
    kind: str
    occurred_at: int
    received_at: int
    value_micros: int
    currency: str
    place: str
    verdict: str


class LinkFact(NamedTuple):
    """A statement that an anonymous id belongs to a user; ``decides`` when it is the one that counts."""

    anonymous_id: str
    user_id: str
    linked_at: int
    event_id: str
    decides: bool


class TouchFact(NamedTuple):
    """A touchpoint that is the person's or was credited once, and what decides about it; microseconds UTC."""

    event_id: str
    identity_key: str
    occurred_at: int
    received_at: int
    platform: str
    channel: str
    interaction: str
    campaign: str
    is_in: bool
    verdict: str


class ModelCredit(NamedTuple):
    """What one model credits in a version: to each touch of the version a share and micros, and to nobody the rest."""

    model: str
    model_version: str
    fallback: str | None
    confidence: float | None
    shares: Sequence[float]
    micros: Sequence[int]
    unattributed_micros: int


class CreditedTouch(NamedTuple):
    """A touch that a version credits."""

    event_id: str
    channel: str
    campaign: str


class VersionFact(NamedTuple):
    """A published version."""

    version: int
    reason: str
    is_final: bool
    net_value_micros: int
    delta_micros: int
    touchpoint_count: int
    policy_version: str
    models: Sequence[str]
    computed_at: int
    touches: Sequence[CreditedTouch]
    credits: Sequence[ModelCredit]


@dataclass(frozen=True, slots=True)
class Explanation:
    """Everything that decides about a conversion."""

    conversion: PendingConversion
    events: Sequence[EventFact]
    links: Sequence[LinkFact]
    touches: Sequence[TouchFact]
    versions: Sequence[VersionFact]
    conflicts: Sequence[EventConflict]

    @property
    def is_waiting(self) -> bool:
        """Whether only corrections have arrived: there is no person, time or value yet."""
        return self.conversion.version == 0


_EVENTS = f"""
SELECT e.event_id, e.kind, e.occurred_at_us, e.received_at_us, e.value_micros, e.currency,
       e.source_topic || '[' || e.source_partition || ']@' || e.source_offset,
       {person_key("e.identity_key")}
FROM attribution_conversion_events e
LEFT JOIN attribution_identities i
  ON e.identity_key < 'a;' COLLATE "C" AND i.tenant_id = e.tenant_id AND i.anonymous_id = substr(e.identity_key, 3)
WHERE e.tenant_id = %s AND e.conversion_id = %s ORDER BY e.occurred_at_us, e.event_id
"""

_LINKS = """
WITH ids AS (
    SELECT anonymous_id, link_event_id FROM attribution_identities WHERE tenant_id = %(tenant)s AND user_id = %(user)s
    UNION
    SELECT anonymous_id, link_event_id FROM attribution_identities
    WHERE tenant_id = %(tenant)s AND anonymous_id = %(anonymous)s
), links AS (
    SELECT anonymous_id, user_id, linked_at_us, event_id FROM attribution_identity_links
    WHERE tenant_id = %(tenant)s AND anonymous_id IN (SELECT anonymous_id FROM ids)
    UNION ALL
    SELECT anonymous_id, substr(identity_key, 3), occurred_at_us, event_id FROM attribution_touchpoints
    WHERE tenant_id = %(tenant)s AND anonymous_id IN (SELECT anonymous_id FROM ids)
    UNION ALL
    SELECT anonymous_id, substr(identity_key, 3), occurred_at_us, event_id FROM attribution_conversion_events
    WHERE tenant_id = %(tenant)s AND anonymous_id IN (SELECT anonymous_id FROM ids)
)
SELECT l.anonymous_id, l.user_id, l.linked_at_us, l.event_id, l.event_id = i.link_event_id
FROM links l JOIN ids i USING (anonymous_id) ORDER BY l.anonymous_id, l.linked_at_us, l.event_id
"""

_TOUCHES = f"""
SELECT t.event_id, t.identity_key, t.occurred_at_us, t.received_at_us, t.platform, t.channel, t.interaction, t.campaign,
       t.is_bot
FROM (
    SELECT %(journey)s AS identity_key
    UNION ALL
    SELECT {device_key("anonymous_id")} FROM attribution_identities WHERE tenant_id = %(tenant)s AND user_id = %(user)s
) AS person
JOIN attribution_touchpoints t ON {touchpoints_of("t", "%(tenant)s", "person.identity_key")}
ORDER BY t.occurred_at_us, t.event_id
"""

# Touches that an earlier version credited, and that are not the person's any more.
_GONE = f"""
SELECT DISTINCT ON (n.event_id) n.event_id, COALESCE(t.identity_key, ''),
       COALESCE(t.occurred_at_us, (n.touch ->> 'occurred_at')::int8), COALESCE(t.received_at_us, 0),
       n.touch ->> 'platform', n.touch ->> 'channel', COALESCE(t.interaction, ''), n.touch ->> 'campaign',
       n.version, {person_key("t.identity_key")}
FROM (
    SELECT r.version, touch, touch ->> 'event_id' AS event_id
    FROM attribution_results r, jsonb_array_elements(r.touchpoints) AS touch
    WHERE r.tenant_id = %(tenant)s AND r.conversion_id = %(conversion)s
) AS n
LEFT JOIN attribution_touchpoints t ON t.tenant_id = %(tenant)s AND t.event_id = n.event_id
LEFT JOIN attribution_identities i
  ON t.identity_key < 'a;' COLLATE "C" AND i.tenant_id = %(tenant)s AND i.anonymous_id = substr(t.identity_key, 3)
WHERE n.event_id <> ALL (%(known)s::text[])
ORDER BY n.event_id, n.version DESC
"""

_VERSIONS = """
SELECT version, version_reason, is_final, net_value_micros, delta_micros, touchpoint_count, policy_version,
       computed_at_us, touchpoints, models
FROM attribution_results WHERE tenant_id = %s AND conversion_id = %s ORDER BY version
"""


def explain(connection: psycopg.Connection, tenant_id: str, conversion_id: str) -> Explanation | None:
    """Explain a conversion; None when there is no such one.

    Args:
        connection: in a transaction, best a repeatable one.
        tenant_id: the tenant; nothing of another tenant is looked at.
        conversion_id: which.
    """
    found = conversions_by_id(connection, [(tenant_id, conversion_id)])
    if not found:
        return None
    conversion = found[0]
    key = conversion.journey_key
    user = key.removeprefix(USER_PREFIX) if key.startswith(USER_PREFIX) else None
    anonymous = key.removeprefix(ANONYMOUS_PREFIX) if key.startswith(ANONYMOUS_PREFIX) else None
    keys = {"tenant": tenant_id, "journey": key, "user": user, "anonymous": anonymous}
    policy = fetch_policy(connection, conversion.policy_version)
    touches = [_touch(conversion, policy, row) for row in connection.execute(_TOUCHES, keys).fetchall()]
    more = {"conversion": conversion_id, "known": [touch.event_id for touch in touches]}
    touches += [_gone(row) for row in connection.execute(_GONE, keys | more).fetchall()]
    events = _events(connection.execute(_EVENTS, (tenant_id, conversion_id)).fetchall())
    links = [LinkFact(*row) for row in connection.execute(_LINKS, keys).fetchall()]
    conflicts = conflicts_of_conversion(
        connection, tenant_id, conversion_id, events=[event.event_id for event in events],
        touches=[touch.event_id for touch in touches], links=[link.event_id for link in links],
    )  # fmt: skip
    versions = [_version(row) for row in connection.execute(_VERSIONS, (tenant_id, conversion_id)).fetchall()]
    return Explanation(conversion, events, links, touches, versions, conflicts)


_VERDICTS = {
    EventVerdict.OPENS: "counts: it is the conversion",
    EventVerdict.COUNTS: "counts",
    EventVerdict.SUPERSEDED: "changes nothing: a later restatement replaces it",
    EventVerdict.CANCELLED: "changes nothing: the conversion is cancelled",
    EventVerdict.REPEAT: "changes nothing: a repeat, the earliest conversion event counts",
    EventVerdict.OTHER_PERSON: "changes nothing: of another person, the earliest conversion event counts",
    EventVerdict.OTHER_CURRENCY: "changes nothing: in another currency than the conversion",
    EventVerdict.NOT_OPENED: "waits: no conversion event has arrived",
}


def _events(rows: Sequence[tuple[Any, ...]]) -> list[EventFact]:
    judged = judge_events([(ConversionEvent(row[2], row[0], row[1], row[4], row[5]), row[7]) for row in rows])
    return [EventFact._make([*row[:7], _VERDICTS[verdict]]) for row, verdict in zip(rows, judged, strict=True)]


def _version(row: tuple[Any, ...]) -> VersionFact:
    *facts, computed_at, touchpoints, models = row
    names = [f"{model['model']} {model['model_version']}".strip() for model in models]
    touches = [CreditedTouch(t["event_id"], t["channel"], t.get("campaign") or "") for t in touchpoints]
    credits_ = [
        ModelCredit(
            m["model"], m["model_version"], m.get("fallback"), m.get("confidence"), m["credits"], m["micros"],
            m["unattributed_micros"],
        )
        for m in models
    ]  # fmt: skip
    return VersionFact._make([*facts, names, computed_at, touches, credits_])


def _touch(conversion: PendingConversion, policy: LookbackPolicy | None, row: tuple[Any, ...]) -> TouchFact:
    *facts, is_bot = row
    if policy is None:
        return TouchFact._make([*facts, False, f"the policy {conversion.policy_version} is not stored any more"])
    occurred_at, received_at, channel, interaction = facts[2], facts[3], facts[5], facts[6]
    age = conversion.converted_at - occurred_at
    window = policy.window_micros(channel, conversion.conversion_type, interaction)
    delay = received_at - conversion.received_at
    is_in = policy.counts(age=age, window=window, delay=delay, is_bot=is_bot)
    return TouchFact._make([*facts, is_in, _verdict(age, window, delay - policy.lateness_micros, is_bot=is_bot)])


def _gone(row: tuple[Any, ...]) -> TouchFact:
    *facts, version, person = row
    now = f"it is {person}'s now, by its earliest link" if person else "it is not stored any more"
    return TouchFact._make([*facts, False, f"out: credited up to version {version}; {now}"])


def _verdict(age: int, window: int, too_late: int, *, is_bot: bool) -> str:
    if is_bot:
        return "out: sent by a robot"
    if age < 0:
        return f"out: {_days(-age)} after the conversion"
    if age > window:
        return f"out: {_days(age)} before the conversion, its window is {_days(window)}"
    if too_late > 0:
        return f"out: arrived {_days(too_late)} after the lateness that the policy allows"
    return f"in: {_days(age)} before the conversion, its window is {_days(window)}"


def _days(micros: int) -> str:
    for unit, length in _UNITS:
        if micros >= length:
            return f"{micros / length:.2f} {unit}"
    return f"{micros / 1e6:.2f} seconds"
