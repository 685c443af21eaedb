"""The timelines of all people, streamed for training and batch analysis.

Invariants: everything is read in one snapshot. The rows of a person follow one another in the order of time; at one
time touchpoints come before conversions, then ids in order. No more than a chunk and one person are in memory.
Touchpoints of robots are left out. A person is a known user with all owned anonymous ids, or an anonymous id without
owner.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Any, Literal, NamedTuple

import psycopg

from attributary.attribution_core.domain.identity import ANONYMOUS_PREFIX, journey_key
from attributary.attribution_core.domain.lookback import LookbackPolicy
from attributary.consumers.store.identity_sql import device_key, touchpoints_of

MAX_PERSON_ROWS = 50_000
"""Events of a person beyond which the person is left out."""
_journey_key = attrgetter("journey_key")


def _ignore(_journey_key: str) -> None:
    pass


class TimelineRow(NamedTuple):
    """A touchpoint or a conversion of a person. Times are microseconds UTC."""

    journey_key: str
    known_until: int  # the person's latest event
    is_closed: bool  # closed by the sweeper, or silent since `Selection.silent_since`
    is_conversion: bool
    at: int
    received_at: int
    id: str  # event id, or conversion id
    kind: str  # channel, or conversion type
    detail: str  # interaction, or the pinned policy's version
    group: str  # platform, or currency
    campaign: str  # or empty
    value_micros: int  # net value of a conversion, else 0


@dataclass(frozen=True, slots=True)
class Selection:
    """The people to read.

    Attributes:
        tenant_id: the tenant.
        journey_key: this person only.
        since: people with an event at or after it, microseconds UTC.
        until: people with an event before it, microseconds UTC.
        silent_since: people with their last arrival at or before it count as closed, microseconds UTC; None: only
            those that the sweeper closed.
        people: these people only; None: all.
    """

    tenant_id: str
    journey_key: str | None = None
    since: int | None = None
    until: int | None = None
    silent_since: int | None = None
    people: Sequence[str] | None = None

    def parameters(self) -> dict[str, Any]:
        """Return the parameters of the statements."""
        return {
            "tenant": self.tenant_id,
            "person": self.journey_key,
            "since": self.since,
            "until": self.until,
            "silent": self.silent_since,
            "people": None if self.people is None else list(self.people),
        }


# People in the order of the primary key and look-ups by index for each: the first rows come at once and nothing is
# sorted but one person's events, however many people there are.
_STREAM_SETTINGS = """
SET LOCAL enable_hashjoin = off; SET LOCAL enable_mergejoin = off; SET LOCAL enable_seqscan = off;
SET LOCAL enable_bitmapscan = off; SET LOCAL jit = off;
"""

# Keys of anonymous ids end before 'a;', keys of users come after it.
_PEOPLE = f"""
SELECT j.tenant_id, j.journey_key,
       GREATEST(j.last_event_us, devices.last_event_us) AS known_until,
       (j.closed_at IS NOT NULL AND COALESCE(devices.is_closed, true))
           OR COALESCE(GREATEST(j.last_received_us, devices.last_received_us) <= %(silent)s, false) AS is_closed
FROM attribution_journeys j
LEFT JOIN LATERAL (
    SELECT max(o.last_event_us) AS last_event_us, max(o.last_received_us) AS last_received_us,
           min(o.first_event_us) AS first_event_us, bool_and(o.closed_at IS NOT NULL) AS is_closed
    FROM attribution_identities i
    JOIN attribution_journeys o
      ON o.tenant_id = i.tenant_id AND o.journey_key = {device_key("i.anonymous_id")} COLLATE "C"
    WHERE j.journey_key > 'a;' AND i.tenant_id = j.tenant_id AND i.user_id = substr(j.journey_key, 3)
) AS devices ON true
WHERE j.tenant_id = %(tenant)s
  AND (%(person)s::text IS NULL OR j.journey_key = %(person)s)
  AND (%(people)s::text[] IS NULL OR j.journey_key = ANY (%(people)s))
  AND (%(since)s::int8 IS NULL OR GREATEST(j.last_event_us, devices.last_event_us) >= %(since)s)
  AND (%(until)s::int8 IS NULL OR LEAST(j.first_event_us, devices.first_event_us) < %(until)s)
  AND NOT (j.journey_key < 'a;' AND EXISTS (
      SELECT FROM attribution_identities i
      WHERE i.tenant_id = j.tenant_id AND i.anonymous_id = substr(j.journey_key, 3)))
"""

_TIMELINES = f"""
SELECT p.journey_key, p.known_until, p.is_closed, e.*
FROM ({_PEOPLE}) AS p
CROSS JOIN LATERAL (
    SELECT false AS is_conversion, t.occurred_at_us AS at, t.received_at_us, t.event_id AS id, t.channel,
           t.interaction, t.platform, t.campaign, 0::int8
    FROM (
        SELECT p.journey_key AS identity_key
        UNION ALL
        SELECT {device_key("i.anonymous_id")} FROM attribution_identities i
        WHERE p.journey_key > 'a;' AND i.tenant_id = p.tenant_id AND i.user_id = substr(p.journey_key, 3)
    ) AS k
    JOIN attribution_touchpoints t ON {touchpoints_of("t", "p.tenant_id", "k.identity_key")}
    WHERE NOT t.is_bot
    UNION ALL
    SELECT true, c.converted_at_us, c.received_at_us, c.conversion_id, c.conversion_type, c.policy_version, c.currency,
           '', c.net_value_micros
    FROM attribution_conversions c
    WHERE c.tenant_id = p.tenant_id AND c.journey_key = p.journey_key AND c.version > 0
) AS e
ORDER BY p.journey_key, e.at, e.is_conversion, e.id
"""

_COUNT_PEOPLE = f"SELECT count(*) FROM ({_PEOPLE}) AS p"

_CURRENCIES = """
SELECT currency, count(*) FROM attribution_conversions
WHERE tenant_id = %(tenant)s AND version > 0
  AND (%(since)s::int8 IS NULL OR converted_at_us >= %(since)s)
  AND (%(until)s::int8 IS NULL OR converted_at_us < %(until)s)
GROUP BY currency ORDER BY count(*) DESC, currency
"""

_NAMES = {
    column: f"""
SELECT {column}, count(*) OVER () FROM attribution_touchpoints WHERE tenant_id = %s AND NOT is_bot
GROUP BY {column} ORDER BY count(*) DESC, {column} COLLATE "C" LIMIT %s
"""
    for column in ("channel", "platform", "campaign")
}

_POLICIES = "SELECT policy_version, document FROM attribution_policies WHERE tenant_id = '*' ORDER BY created_at DESC"


def stream_timelines(
    connection: psycopg.Connection,
    selection: Selection,
    *,
    chunk_rows: int = 50_000,
    max_person_rows: int = MAX_PERSON_ROWS,
    on_left_out: Callable[[str], None] = _ignore,
) -> Iterator[Sequence[TimelineRow]]:
    """Yield the timelines in chunks of whole people.

    Args:
        connection: in a snapshot (REPEATABLE READ), which stays open until the last chunk.
        selection: the people.
        chunk_rows: a chunk ends with the person that reaches so many rows.
        max_person_rows: a person with more rows is left out: a kiosk or a test robot, no person.
        on_left_out: called with the journey key of each person that is left out.
    """
    connection.execute(_STREAM_SETTINGS)
    with connection.cursor("attribution_timelines", binary=True) as cursor:
        cursor.execute(_TIMELINES, selection.parameters())
        kept: list[TimelineRow] = []
        left_out = None  # the person that the rows to come may still be of
        while chunk := cursor.fetchmany(chunk_rows):
            kept += (row for row in map(TimelineRow._make, chunk) if row.journey_key != left_out)
            end = len(kept)
            for start, stop in _large_people(kept, max_person_rows):
                if stop == end:
                    left_out = kept[start].journey_key
                on_left_out(kept[start].journey_key)
                del kept[start:stop]
            cut = _last_person(kept)
            if cut > 0:
                yield kept[:cut]
                del kept[:cut]
        if kept:
            yield kept


def _large_people(rows: Sequence[TimelineRow], max_rows: int) -> list[tuple[int, int]]:
    """Return where the rows of people with too many rows begin and end, the last person first."""
    found, start = [], 0
    while start + max_rows < len(rows):
        stop = start + 1
        if rows[start + max_rows].journey_key == rows[start].journey_key:
            stop = bisect_right(rows, rows[start].journey_key, start, key=_journey_key)
            found.append((start, stop))
        else:
            while rows[stop].journey_key == rows[start].journey_key:
                stop += 1
        start = stop
    return found[::-1]


def _last_person(rows: Sequence[TimelineRow]) -> int:
    """Return where the rows of the last person begin: more of them may come."""
    place = len(rows) - 1
    while place > 0 and rows[place - 1].journey_key == rows[-1].journey_key:
        place -= 1
    return place


def count_people(connection: psycopg.Connection, selection: Selection) -> int:
    """Return how many people the selection has."""
    row = connection.execute(_COUNT_PEOPLE, selection.parameters()).fetchone()
    return int(row[0]) if row else 0


def count_names(
    connection: psycopg.Connection, tenant_id: str, column: Literal["channel", "platform", "campaign"], limit: int
) -> tuple[list[str], int]:
    """Return the most frequent names of a column of a tenant's touchpoints, and the number of all its names.

    Args:
        connection: anywhere.
        tenant_id: the tenant.
        column: of which names.
        limit: at most so many; equally frequent ones by name.
    """
    rows = connection.execute(_NAMES[column], (tenant_id, limit)).fetchall()
    return [row[0] for row in rows], int(rows[0][1]) if rows else 0


def conversions_by_currency(connection: psycopg.Connection, selection: Selection) -> dict[str, int]:
    """Return the number of conversions in the window by currency, the commonest first, equal ones by name."""
    return dict(connection.execute(_CURRENCIES, selection.parameters()).fetchall())


def newest_arrival(connection: psycopg.Connection, tenant_id: str) -> int | None:
    """Return the latest log-append time of the tenant's events, microseconds UTC; None without any."""
    row = connection.execute(
        "SELECT max(last_received_us) FROM attribution_journeys WHERE tenant_id = %s", (tenant_id,)
    ).fetchone()
    return row[0] if row else None


def stored_policies(connection: psycopg.Connection) -> Mapping[str, LookbackPolicy]:
    """Return all lookback policies by version, the one that came into use last first."""
    rows = connection.execute(_POLICIES).fetchall()
    return {version: LookbackPolicy.parse(document) for version, document in rows}


def person_of_conversion(connection: psycopg.Connection, tenant_id: str, conversion_id: str) -> str | None:
    """Return the journey key of a conversion, or None when it is not known (yet)."""
    row = connection.execute(
        "SELECT journey_key FROM attribution_conversions WHERE tenant_id = %s AND conversion_id = %s AND version > 0",
        (tenant_id, conversion_id),
    ).fetchone()
    return row[0] if row else None


def person_of_key(connection: psycopg.Connection, tenant_id: str, key: str) -> str:
    """Return the journey key of an identity key now: the key of the owner for an owned anonymous id, else the same."""
    if not key.startswith(ANONYMOUS_PREFIX):
        return key
    row = connection.execute(
        "SELECT user_id FROM attribution_identities WHERE tenant_id = %s AND anonymous_id = %s",
        (tenant_id, key.removeprefix(ANONYMOUS_PREFIX)),
    ).fetchone()
    return journey_key(key, row[0] if row else None)
