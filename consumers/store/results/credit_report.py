"""Credit of the newest results, summed up by dimensions and models: what `attributary results` shows.

Invariants: of every conversion the version counts that was the newest at the moment of the report; by its time the
conversion is in the period or not. Currencies are never added. For each model and currency the rows, `(unattributed)`
among them, sum to the conversions that the model credits and to their net value, to the micro. Rows `(erased)` and
`(retired)` hold what is no longer stored one by one, so an erasure and a retirement change no sum.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import psycopg

from attributary.attribution_core.domain.confidence import NORMAL_QUANTILE
from attributary.consumers.store.removed_totals import RemovedSum, read_removed

UNATTRIBUTED = "(unattributed)"

_LOCAL = "to_timestamp(r.converted_at_us / 1000000) AT TIME ZONE %(zone)s"
_OF_CONVERSION = {
    "day": f"to_char({_LOCAL}, 'YYYY-MM-DD')",
    "week": f"to_char({_LOCAL}, 'IYYY-\"W\"IW')",
    "month": f"to_char({_LOCAL}, 'YYYY-MM')",
    "conversion_type": "r.conversion_type",
    "currency": "r.currency",
}
_STORED = "CASE WHEN p.event_id IS NULL THEN '(not stored)' ELSE COALESCE(p.details ->> '{field}', '(none)') END"
_TOUCHPOINT = """
    LEFT JOIN attribution_touchpoints p
      ON p.tenant_id = %(tenant)s AND p.event_id = (t.touch ->> 'event_id') COLLATE "C"
"""
_OF_TOUCH = {
    "channel": "COALESCE(t.touch ->> 'channel', '')",
    "platform": "COALESCE(t.touch ->> 'platform', '')",
    "campaign": "COALESCE(NULLIF(t.touch ->> 'campaign', ''), '(none)')",
    "source": _STORED.format(field="utm_source"),
    "medium": _STORED.format(field="utm_medium"),
}
TIME_DIMENSIONS = ("day", "week", "month")
DIMENSIONS = ("channel", "platform", "campaign", "source", "medium", *_OF_CONVERSION)

# The version that was the newest at the moment; a version may move a conversion to another time, type or currency.
REPORTED = """
WITH reported AS MATERIALIZED (
    SELECT n.* FROM (
        SELECT DISTINCT conversion_id FROM attribution_results
        WHERE tenant_id = %(tenant)s AND converted_at_us >= %(from_us)s AND converted_at_us < %(to_us)s
    ) AS c CROSS JOIN LATERAL (
        SELECT r.conversion_id, r.conversion_type, r.currency, r.converted_at_us, r.net_value_micros, r.touchpoints,
               r.models, r.is_final
        FROM attribution_results r
        WHERE r.tenant_id = %(tenant)s AND r.conversion_id = c.conversion_id AND r.computed_at_us <= %(as_of_us)s
        ORDER BY r.version DESC LIMIT 1
    ) AS n
    WHERE n.converted_at_us >= %(from_us)s AND n.converted_at_us < %(to_us)s
      AND (%(currency)s::text IS NULL OR n.currency = %(currency)s)
      AND (%(types)s::text[] IS NULL OR n.conversion_type = ANY (%(types)s))
)
"""
_SETTINGS = ("SET LOCAL work_mem = '64MB'", "SET LOCAL jit = off")  # a report sorts more than a stage's transaction
_MODELS = """jsonb_to_recordset(r.models) AS m (
        model text, model_version text, credits jsonb, micros jsonb, unattributed_micros int8, fallback text)"""
_TOTALS = f"""{REPORTED}
SELECT currency, count(*), sum(net_value_micros)::int8 FROM reported GROUP BY 1 ORDER BY 2 DESC, 1
"""
_CREDITS = """{reported}, parts AS (
    SELECT r.conversion_id, r.currency, m.model, m.model_version, m.fallback, {touch_keys}, true AS is_touch,
           sum(t.credit::float8) AS credit, sum(t.micros::int8) AS micros
    FROM reported r CROSS JOIN LATERAL {models}
    CROSS JOIN LATERAL ROWS FROM (
        jsonb_array_elements(r.touchpoints), jsonb_array_elements_text(m.credits), jsonb_array_elements_text(m.micros)
    ) AS t (touch, credit, micros){stored}
    WHERE m.model = ANY (%(models)s)
    GROUP BY r.conversion_id, r.currency, m.model, m.model_version, m.fallback, {places}
    UNION ALL
    SELECT conversion_id, currency, model, model_version, fallback, {names}, false, credit, micros FROM (
        SELECT r.conversion_id, r.currency, m.model, m.model_version, m.fallback, {rest_keys},
               1.0 - COALESCE((
                   SELECT sum(c.credit::float8) FROM jsonb_array_elements_text(m.credits) AS c (credit)
               ), 0.0) AS credit, m.unattributed_micros AS micros
        FROM reported r CROSS JOIN LATERAL {models}
        WHERE m.model = ANY (%(models)s)
    ) AS rest WHERE micros <> 0 OR credit > 1e-9
)
SELECT currency, model, model_version, fallback, is_touch, count(*), sum(credit), sum(credit * credit),
       sum(micros)::int8, {names}
FROM parts GROUP BY currency, model, model_version, fallback, is_touch, {names}
"""
# Without a dimension of touchpoints each conversion is in one row, with all of its credit.
_CONVERSIONS = """{reported}
SELECT r.currency, m.model, m.model_version, m.fallback, true, count(*), count(*)::float8, count(*)::float8,
       sum(r.net_value_micros)::int8, {keys}
FROM reported r CROSS JOIN LATERAL {models}
WHERE m.model = ANY (%(models)s) GROUP BY r.currency, m.model, m.model_version, m.fallback, {places}
"""
_KNOWN_MODELS = f"{REPORTED} SELECT DISTINCT m.model FROM reported r CROSS JOIN LATERAL {_MODELS} ORDER BY 1"
_EXTENT = """
SELECT conversion_type, currency, count(DISTINCT conversion_id), min(converted_at_us), max(converted_at_us)
FROM attribution_results WHERE tenant_id = %s GROUP BY 1, 2 ORDER BY 3 DESC, 1, 2
"""


@dataclass(frozen=True, slots=True)
class ReportQuery:
    """What a report is about.

    Attributes:
        tenant_id: the tenant; nothing of another one is read.
        models: names of models.
        by: dimensions, of `DIMENSIONS`.
        period_us: event time of the conversions, from (included) to (excluded), microseconds UTC.
        as_of_us: versions that were computed later are not looked at, microseconds UTC.
        currency: conversions in it only; None: all.
        conversion_types: conversions of these only; empty: all.
        zone: IANA name of the zone in which days, weeks and months begin.
    """

    tenant_id: str
    models: Sequence[str]
    by: Sequence[str]
    period_us: tuple[int, int]
    as_of_us: int
    currency: str | None = None
    conversion_types: Sequence[str] = ()
    zone: str = "UTC"

    def parameters(self) -> dict[str, object]:
        """Return the values of the statements."""
        return {
            "tenant": self.tenant_id, "models": list(self.models), "from_us": self.period_us[0],
            "to_us": self.period_us[1], "as_of_us": self.as_of_us, "currency": self.currency,
            "types": list(self.conversion_types) or None, "zone": self.zone,
        }  # fmt: skip


class Share(NamedTuple):
    """A share of all conversions of a currency, with its 90 % interval for the sampling of conversions."""

    share: float
    low: float
    high: float


class CreditRow(NamedTuple):
    """What one model credits to one group of a report.

    Attributes:
        currency: of the values.
        keys: values of the dimensions, in their order.
        model: the model.
        is_touch: false: the part that no touchpoint gets.
        journeys: conversions with a touchpoint of the group, each counted once, credited or not.
        conversions: sum of credits.
        value_micros: sum of credited net value, micros of the currency.
        share: of all conversions of the currency that the model credits; None: there are none, or a row of removed.
        bucket: `(unattributed)`, `(erased)` or `(retired)`; None: what touchpoints get.
    """

    currency: str
    keys: tuple[str, ...]
    model: str
    is_touch: bool
    journeys: int
    conversions: float
    value_micros: int
    share: Share | None
    bucket: str | None = None


class ReportTotal(NamedTuple):
    """What a report is about in one currency: conversions and their net value in micros.

    Attributes:
        conversions: all, removed ones among them.
        net_micros: of all, micros.
        removed_conversions: those of them in `(erased)` and `(retired)`, which no model credits.
        removed_net_micros: their net value, micros.
    """

    currency: str
    conversions: int
    net_micros: int
    removed_conversions: int = 0
    removed_net_micros: int = 0

    @property
    def kept(self) -> ReportTotal:
        """The part that is stored conversion by conversion."""
        return ReportTotal(
            self.currency, self.conversions - self.removed_conversions, self.net_micros - self.removed_net_micros
        )


class ModelUse(NamedTuple):
    """How many conversions of a report a version of a model credited, and by which rule where it fell back."""

    model: str
    version: str
    fallback: str | None
    conversions: int


class Extent(NamedTuple):
    """What is stored of a tenant, one entry a conversion type and currency; event times in microseconds UTC."""

    conversion_type: str
    currency: str
    conversions: int
    first_at: int
    last_at: int


class Report(NamedTuple):
    """A report: totals, how the models came to their credits, and the rows."""

    totals: Sequence[ReportTotal]
    uses: Sequence[ModelUse]
    rows: Sequence[CreditRow]


def read_report(connection: psycopg.Connection, query: ReportQuery) -> Report:
    """Sum up credits.

    Args:
        connection: in a snapshot.
        query: what is asked.

    Raises:
        ValueError: a dimension is none of `DIMENSIONS`.
    """
    statement = _credits(query.by)
    for setting in _SETTINGS:
        connection.execute(setting)
    parameters = query.parameters()
    kept = [ReportTotal(*row) for row in connection.execute(_TOTALS, parameters).fetchall()]
    # Removed totals keep no history: of a report as of earlier, the days up to then.
    period = (query.period_us[0], min(query.period_us[1], query.as_of_us))
    removed = read_removed(connection, query.tenant_id, period, query.by, query.currency, query.conversion_types)
    rows = connection.execute(statement, parameters).fetchall() if kept else []
    return assembled(query, kept, removed, rows, _uses(rows))


def assembled(
    query: ReportQuery,
    kept: Sequence[ReportTotal],
    removed: Sequence[RemovedSum],
    rows: Sequence[Any],
    uses: Sequence[ModelUse],
) -> Report:
    """Return a report from what is stored conversion by conversion, or summed up from it, and what was removed.

    Args:
        query: what was asked.
        kept: totals of what is stored.
        removed: what was erased and retired.
        rows: currency, model, its version, fallback rule, whether touchpoints get it, journeys, credit, sum of squared
            credits, micros, then a value for each dimension.
        uses: how the models came to their credits.
    """
    return Report(_totals(kept, removed), uses, [*_rows(rows), *_removed_rows(removed, query.models)])


def is_by_touch(by: Sequence[str]) -> bool:
    """Tell whether a dimension is one of touchpoints, which share a conversion."""
    return any(name in _OF_TOUCH for name in by)


def known_models(connection: psycopg.Connection, query: ReportQuery) -> list[str]:
    """Return the names of the models that credit the conversions of a report."""
    return [row[0] for row in connection.execute(_KNOWN_MODELS, query.parameters()).fetchall()]


def stored_extent(connection: psycopg.Connection, tenant_id: str) -> list[Extent]:
    """Return what is stored of a tenant, the most frequent first; empty: no result."""
    return [Extent(*row) for row in connection.execute(_EXTENT, (tenant_id,)).fetchall()]


def _credits(by: Sequence[str]) -> str:
    """Return the statement for some dimensions; its text comes from the constants above alone."""
    if not by or not set(by) <= set(DIMENSIONS):
        raise ValueError(f"dimensions must be of {', '.join(DIMENSIONS)}")
    if not is_by_touch(by):
        keys = ", ".join(f"{_OF_CONVERSION[name]} AS k{place}" for place, name in enumerate(by))
        places = ", ".join(str(10 + place) for place in range(len(by)))
        return _CONVERSIONS.format(reported=REPORTED, models=_MODELS, keys=keys, places=places)
    touch = [f"{_OF_TOUCH.get(name) or _OF_CONVERSION[name]} AS k{place}" for place, name in enumerate(by)]
    nobody = f"'{UNATTRIBUTED}'"
    rest = [f"{_OF_CONVERSION.get(name, nobody)} AS k{place}" for place, name in enumerate(by)]
    names = ", ".join(f"k{place}" for place in range(len(by)))
    return _CREDITS.format(
        reported=REPORTED,
        models=_MODELS,
        touch_keys=", ".join(touch),
        rest_keys=", ".join(rest),
        names=names,
        places=", ".join(str(6 + place) for place in range(len(by))),
        stored=_TOUCHPOINT if {"source", "medium"} & set(by) else "",
    )


def _totals(kept: Sequence[ReportTotal], removed: Sequence[RemovedSum]) -> list[ReportTotal]:
    """Return the totals with what was removed, the most frequent currency first."""
    found = {total.currency: total for total in kept}
    for each in removed:
        old = found.get(each.currency, ReportTotal(each.currency, 0, 0))
        count, net = each.conversions, each.net_micros
        found[each.currency] = ReportTotal(
            each.currency, old.conversions + count, old.net_micros + net,
            old.removed_conversions + count, old.removed_net_micros + net,
        )  # fmt: skip
    return sorted(found.values(), key=lambda total: (-total.conversions, total.currency))


def _removed_rows(removed: Sequence[RemovedSum], models: Sequence[str]) -> list[CreditRow]:
    """Return what was removed as rows of each model: the same for all."""
    return [
        CreditRow(
            each.currency, each.keys, model, False, 0, float(each.conversions), each.net_micros, None, each.bucket
        )
        for each in removed
        for model in models
    ]


def _uses(rows: Sequence[Any]) -> list[ModelUse]:
    """Return how many conversions each version of a model credited: the credits of a conversion sum to 1."""
    found: dict[tuple[str, str, str | None], float] = {}
    for _, model, version, fallback, _, _, credit, *_ in rows:
        found[model, version, fallback] = found.get((model, version, fallback), 0.0) + credit
    uses = [ModelUse(*key, round(conversions)) for key, conversions in found.items()]
    return sorted(uses, key=lambda use: (use.model, -use.conversions, use.version, use.fallback or ""))


def _rows(rows: Sequence[Any]) -> list[CreditRow]:
    """Return the rows, those of the versions of a model added up."""
    groups: dict[tuple[Any, ...], list[float]] = {}
    whole: dict[tuple[str, str], float] = {}
    for currency, model, _, _, is_touch, journeys, credit, squares, micros, *keys in rows:
        sums = groups.setdefault((currency, tuple(keys), model, is_touch), [0, 0.0, 0.0, 0])
        for place, part in enumerate((journeys, credit, squares, micros)):
            sums[place] += part
        whole[currency, model] = whole.get((currency, model), 0.0) + credit
    found = []
    for (currency, keys, model, is_touch), (journeys, credit, squares, micros) in groups.items():
        share = share_of(credit, squares, round(whole[currency, model]))
        bucket = None if is_touch else UNATTRIBUTED
        found.append(CreditRow(currency, keys, model, is_touch, int(journeys), credit, int(micros), share, bucket))
    return found


def share_of(credit: float, squares: float, conversions: int) -> Share | None:
    """Return a sum of credits as a share, with the interval of a mean over conversions; None: there are none.

    Args:
        credit: conversions.
        squares: sum over conversions of the squared credit.
        conversions: that the model credits.
    """
    if conversions < 1:
        return None
    mean = credit / conversions
    error = math.sqrt(max(squares / conversions - mean * mean, 0.0) / conversions)
    return Share(mean, max(mean - NORMAL_QUANTILE * error, 0.0), min(mean + NORMAL_QUANTILE * error, 1.0))
