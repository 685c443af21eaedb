"""Results for tests of the roll-up, and what they come to, counted once and straightforwardly."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING, Any, NamedTuple
from zoneinfo import ZoneInfo

from attributary.consumers.store.rollup.apply import prepare_rollup
from attributary.consumers.store.rollup.cells import RolledResult, cells_of
from attributary.consumers.store.rollup.rebuild import rebuild_rollup
from attributary.schemas.topics import group_name

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    import psycopg

# The rows of the roll-up, one a model.
DAYS_BY_MODEL = """(
    SELECT d.*, m.model, COALESCE(d.credit_billionths[m.number], 0) AS credit,
           COALESCE(d.value_micros[m.number], 0) AS micros
    FROM attribution_rollup_days d JOIN attribution_rollup_models m USING (tenant_id)
) AS d"""
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Sale(NamedTuple):
    """One version of a conversion; a touch is channel, platform, campaign id, campaign, time (microseconds UTC)."""

    tenant_id: str
    conversion_id: str
    version: int
    reason: str
    person: str
    conversion_type: str
    currency: str
    converted_at: int
    computed_at: int
    net_micros: int
    touches: Sequence[tuple[str, str, str, str, int]]

    @property
    def models(self) -> list[dict[str, Any]]:
        """What three models credit: the last touch; all alike; all alike but a fifth."""
        count, net = len(self.touches), self.net_micros
        last = [0] * (count - 1) + [net] if count else []
        alike = [net // count + (place < net % count) for place in range(count)]
        low = [net // 5 * 4 // count for _ in range(count)]
        return [
            {"model": "last", "credits": [0.0] * (count - 1) + [1.0] * (count > 0), "micros": last,
             "unattributed_micros": 0 if count else net},
            {"model": "linear", "credits": [1 / count] * count if count else [], "micros": alike,
             "unattributed_micros": 0 if count else net},
            {"model": "poisson", "credits": [0.8 / count] * count if count else [], "micros": low,
             "unattributed_micros": net - sum(low)},
        ]  # fmt: skip

    @property
    def touchpoints(self) -> list[dict[str, Any]]:
        """The touchpoints as results have them."""
        return [
            {"event_id": str(number), "channel": channel, "platform": platform, "campaign": name, "occurred_at": at}
            | ({"campaign_id": campaign_id} if campaign_id else {})
            for number, (channel, platform, campaign_id, name, at) in enumerate(self.touches)
        ]

    def rolled(self) -> RolledResult:
        """Return what the reporter makes of it."""
        cells = cells_of(self.touchpoints, self.models, is_final=False)
        return RolledResult(
            self.tenant_id, self.conversion_id, self.version, self.reason, self.conversion_type, self.currency,
            self.converted_at, self.person, self.net_micros, self.computed_at, *cells,
        )  # fmt: skip


def day_of(micros: int, zone: str) -> date:
    return (_EPOCH + timedelta(microseconds=micros)).astimezone(ZoneInfo(zone)).date()


def fold(newest: Iterable[Sale], zones: Mapping[str, str]) -> dict[tuple[Any, ...], tuple[int, int]]:
    """Return billionths and micros of every row and model: a sum over the newest results."""
    sales = list(newest)
    first: dict[tuple[str, str, str], Sale] = {}
    for sale in sales:
        person = (sale.tenant_id, sale.person, sale.conversion_type)
        if person not in first or _rank(sale) < _rank(first[person]):
            first[person] = sale
    credits_: Counter[tuple[Any, ...]] = Counter()
    micros: Counter[tuple[Any, ...]] = Counter()
    for sale in sales:
        zone = zones.get(sale.tenant_id, "UTC")
        cash = day_of(sale.converted_at, zone)
        is_new = first[sale.tenant_id, sale.person, sale.conversion_type] is sale
        for model in sale.models:
            shares = _shares(model["credits"])
            rows = [
                (channel, platform, campaign_id, "" if campaign_id else name, day_of(at, zone))
                for channel, platform, campaign_id, name, at in sale.touches
            ]
            parts = list(zip(rows, shares, model["micros"], strict=True))
            rest = ("(unattributed)", "(unattributed)", "", "", cash)
            parts.append((rest, 1_000_000_000 - sum(shares), model["unattributed_micros"]))
            for (*names, accrual), share, value in parts:
                for dating, day in (("cash", cash), ("accrual", accrual)):
                    key = (sale.tenant_id, dating, day, sale.conversion_type, sale.currency, is_new, model["model"],
                           *names)  # fmt: skip
                    credits_[key] += share
                    micros[key] += value
    return {key: (credits_[key], micros[key]) for key in credits_ if credits_[key] or micros[key]}


def _rank(sale: Sale) -> tuple[int, bytes]:
    from hashlib import md5

    return sale.converted_at, md5(sale.conversion_id.encode(), usedforsecurity=False).digest()


def _shares(credits_: Sequence[float]) -> list[int]:
    """Return billionths; equal credits that should be a whole get what rounding leaves from the first one on."""
    parts = [round(credit * 1e9) for credit in credits_]
    rest = 1_000_000_000 - sum(parts)
    if abs(rest) <= len(parts):
        for place in range(abs(rest)):
            parts[place] += 1 if rest > 0 else -1
    return parts


def rolled_up(connection: psycopg.Connection) -> dict[tuple[Any, ...], tuple[int, int]]:
    """Return the rows of the roll-up that are not zero, one a model."""
    rows = connection.execute(
        "SELECT tenant_id, dating, day, conversion_type, currency, is_new, model, channel, platform, campaign_id, "
        f"campaign, credit, micros FROM {DAYS_BY_MODEL} WHERE credit <> 0 OR micros <> 0".encode()
    ).fetchall()
    return {tuple(row[:-2]): (row[-2], row[-1]) for row in rows}


def roll_up(connection: psycopg.Connection, *tenants: str) -> None:
    """Make the roll-up of some tenants from their stored results, within the transaction in hand."""
    prepare_rollup(connection)
    for tenant in tenants:
        rebuild_rollup(connection, tenant, (group_name("reporter"), group_name("auditor")))
