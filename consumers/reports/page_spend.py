"""Spend on the page: return and cost by campaign, spend that no credit belongs to, and credit that belongs to no spend.

Invariants: the numbers are those of `attributary spend report` and `spend match`, from the same functions; a ratio is a
sum over a sum, and rows that are summed up for want of room have none; without spend in the period there is no part.
"""

from __future__ import annotations

import html
import shlex
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, NamedTuple
from zoneinfo import ZoneInfo

from attributary.attribution_core.domain.time_grammar import BEGINNING, END, midnight
from attributary.consumers.spend.match import Audit, audit
from attributary.consumers.spend.returns import ReturnQuery, ReturnRow, Returns, read_returns
from attributary.consumers.store.spend.campaigns import may_read
from attributary.consumers.store.spend.credits import has_more_than
from attributary.consumers.store.spend.rolled_credits import rolled_credits
from attributary.consumers.store.spend.slices import accounts
from attributary.schemas.limits import NO_CURRENCY

from .cells import amount, estimate, return_label, short, units
from .definition import OTHER, counted
from .page_channel_returns import channel_section
from .page_charts import Bar, bars, section, table, text

if TYPE_CHECKING:
    import psycopg

    from attributary.attribution_core.spend.campaigns import Campaign, Suggestion
    from attributary.consumers.spend.channels import By
    from attributary.consumers.store.results.credit_report import ReportQuery

MAX_READ = 5_000
"""Results that are read one by one for the page where no roll-up can answer, at most."""

_SHOWN = 12
_SUGGESTED_OF = 1_000  # names are compared with all others: of more campaigns the page proposes none
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_WORDS = (
    "<p>ROAS is credited net value per unit of spend, CPA spend per credited conversion; in brackets their 90 % "
    "intervals for who converts. Spend is taken as exact. Without a conversion a cost is at least so much. Buyers who "
    "would have bought without an ad are credited to it as well.</p>"
)


class SpendFacts(NamedTuple):
    """What the page says of spend.

    Attributes:
        query: what the numbers are about.
        found: return and cost by campaign, of the page's model; None: too many results would have to be read.
        matched: what matches; None with it.
        by_channel: return and cost by channel, of all models; None with it.
    """

    query: ReturnQuery
    found: Returns | None
    matched: Audit | None
    by_channel: Returns | None

    @property
    def model(self) -> str:
        """The page's model."""
        return self.query.models[0]


def read_spend(connection: psycopg.Connection, query: ReportQuery, model: str, zone: str) -> SpendFacts | None:
    """Return what the page says of spend; None: there is none in the period, or the login may not read it.

    Args:
        connection: in a snapshot.
        query: of the page; its models are all that credit its conversions, its currency is the page's.
        model: the page's.
        zone: IANA name of the zone in which days begin.
    """
    days = _days(connection, query, zone) if may_read(connection) else None
    if days is None:
        return None
    period = midnight(days[0], ZoneInfo(zone)), midnight(days[1], ZoneInfo(zone))
    currency = query.currency if query.currency != NO_CURRENCY else None
    asked = ReturnQuery(
        query.tenant_id, (model,), days, period, zone, by="campaign", currency=currency,
        conversion_types=tuple(query.conversion_types),
    )  # fmt: skip
    credit = asked.credit(asked.dating)
    rolled = rolled_credits(connection, credit, days)
    if rolled is None and has_more_than(connection, credit, MAX_READ):
        return SpendFacts(asked, None, None, None)
    found = read_returns(connection, asked)
    if not any(row.spend for row in found.rows):
        return None
    by_channel = read_returns(connection, replace(asked, models=query.models, by="channel"))
    if rolled is None:
        return SpendFacts(asked, found, audit(connection, credit, days, model), by_channel)
    every = ReturnQuery(query.tenant_id, query.models, days, period, zone, conversion_types=asked.conversion_types)
    touching = every.credit(asked.dating)
    rolled = rolled_credits(connection, touching, days)
    return SpendFacts(asked, found, audit(connection, touching, days, model, rolled), by_channel)


def _days(connection: psycopg.Connection, query: ReportQuery, zone: str) -> tuple[date, date] | None:
    """Return the days of the page's period, without limits those that have spend; None: none of them has any."""
    stored = accounts(connection, query.tenant_id)
    if not stored:
        return None
    first, last = min(each.first_day for each in stored), max(each.last_day for each in stored)
    start, end = query.period_us
    since = first if start == BEGINNING else _day(start, zone)
    until = last if end == END else _day(end - 1, zone)
    return (since, until + timedelta(days=1)) if since <= until and since <= last and until >= first else None


def _day(micros: int, zone: str) -> date:
    return (_EPOCH + timedelta(microseconds=micros)).astimezone(ZoneInfo(zone)).date()


def spend_sections(facts: SpendFacts) -> str:
    """Return the parts of the page about spend."""
    if facts.found is None or facts.matched is None or facts.by_channel is None:
        return section(
            "spend", "Spend and return", "There is spend in this period; its return is not computed on this page.",
            f"<p>No current roll-up of the tenant has these days, and more than {MAX_READ:,} results would have to be "
            f"read one by one. These answer: {_command(facts, 'report')} and {_command(facts, 'match')}. With the "
            "reporter running, the page has it.</p>",
        )  # fmt: skip
    channels = channel_section(facts.query, facts.by_channel, facts.model, _command(facts, "report", by="channel"))
    return _returns(facts, facts.found) + channels + _lonely(facts, facts.matched) + _unmatched(facts, facts.matched)


def _returns(facts: SpendFacts, found: Returns) -> str:
    mine = facts.query.currency
    rows = sorted(found.rows, key=lambda row: (row.currency != mine, row.currency, -row.spend, -row.value, row.key))
    shown, rest = rows[:_SHOWN], rows[_SHOWN:]
    most: dict[str, float] = defaultdict(float)
    for row in shown:
        most[row.currency] = max(most[row.currency], abs(float(row.spend)))
    drawn = [
        Bar(short(return_label(row)), _told(row), float(row.spend) / most[row.currency]) for row in shown if row.spend
    ]  # fmt: skip
    cells = [_cells(row, text(short(return_label(row)))) for row in shown]
    currencies = dict.fromkeys(row.currency for row in rest)
    cells += [_pooled([row for row in rest if row.currency == currency], currency) for currency in currencies]
    cells += [_cells(row, f"total of platforms with spend, {html.escape(row.currency)}") for row in found.totals]
    paid = [row for row in found.rows if row.spend > 0]
    nothing = sum(row.conversions <= 0 for row in paid)
    finding = "; ".join(_sum_told(row) for row in found.totals if row.spend) or "Spend and its refunds come to 0"
    dated = "days of the ads; credit lies on the day of the touchpoint, not on that of the order"
    return section(
        "spend", "Spend and return",
        f"{html.escape(finding)}. {nothing:,} of {counted(len(paid), 'campaign')} with spend have no conversion that "
        f"matches them, by {html.escape(facts.model)}.",
        f"<p>{facts.query.days[0]} to {facts.query.days[1] - timedelta(days=1)} ({html.escape(facts.query.zone)}), "
        f"{dated}. All campaigns: {_command(facts, 'report')}</p>",
        bars(drawn, f"Spend by campaign, with its return by {facts.model}"),
        _WORDS,
        table(
            "Spend, return and cost by campaign",
            ["campaign", "spend", "net value", "currency", "ROAS", "conversions", "CPA", "note"], cells,
            numbers={1, 2, 4, 5, 6},
        ),
        "".join(f"<p>{html.escape(_sentence(note))}</p>" for note in found.notes[:_SHOWN]),
    )  # fmt: skip


def _told(row: ReturnRow) -> str:
    parts = [f"spend {units(row.spend, row.currency)} {row.currency}"]
    for name, ratio in (("ROAS", estimate(row.roas)), ("CPA", estimate(row.cpa))):
        parts += [f"{name} {ratio}"] if ratio else []
    return ", ".join(parts)


def _sum_told(row: ReturnRow) -> str:
    return (
        f"{units(row.spend, row.currency)} {row.currency} of spend was credited with "
        f"{units(row.value, row.currency)} {row.currency}: ROAS {estimate(row.roas) or 'none'}"
    )


def _cells(row: ReturnRow, name: str) -> list[str]:
    return [
        name, units(row.spend, row.currency), units(row.value, row.currency), html.escape(row.currency),
        estimate(row.roas), f"{row.conversions:,.2f}", estimate(row.cpa), html.escape(row.note),
    ]  # fmt: skip


def _pooled(rows: Sequence[ReturnRow], currency: str) -> list[str]:
    spend = sum((row.spend for row in rows), Decimal(0))
    value = sum((row.value for row in rows), Decimal(0))
    return [
        f"{OTHER}: {counted(len(rows), 'row')}", units(spend, currency), units(value, currency),
        html.escape(currency), "",
        f"{sum(row.conversions for row in rows):,.2f}", "", "summed up for want of room",
    ]  # fmt: skip


def lonely_finding(matched: Audit) -> str:
    """Return in one sentence how much spend no touchpoint points at, and of which campaign most is; HTML."""
    rows = matched.lonely()
    whole = html.escape(_sums((currency, micros) for (_, currency), micros in matched.spend.items()))
    if not rows:
        return f"Touchpoints with credit point at every campaign with spend: nothing of {whole} matches nothing."
    (campaign, currency), micros = rows[0]
    return (
        f"{html.escape(_sums((key[1], each) for key, each in rows))} of {whole} is spend of "
        f"{counted(len(rows), 'campaign')} that no touchpoint with credit points at; the most is "
        f"{text(short(_named(campaign, matched)))} with {html.escape(amount(micros, currency))}."
    )


def _lonely(facts: SpendFacts, matched: Audit) -> str:
    rows, finding = matched.lonely(), lonely_finding(matched)
    if not rows:
        return section("spend-lonely", "Spend that matches nothing", finding)
    campaign = rows[0][0][0]
    cells = [[text(short(_named(each, matched))), amount(part, code)] for (each, code), part in rows[:_SHOWN]]
    if rest := rows[_SHOWN:]:
        cells.append([f"{OTHER}: {counted(len(rest), 'campaign')}", _sums((key[1], part) for key, part in rest)])
    return section(
        "spend-lonely", "Spend that matches nothing", finding,
        table("Spend that no touchpoint points at", ["campaign", "spend"], cells, is_open=True),
        "<p>Next step: tag the ads with the campaign's id. Where touchpoints have another name for it, say so: "
        f"{_alias(facts, campaign, None)}. All of it: {_command(facts, 'match')}</p>",
    )  # fmt: skip


def _unmatched(facts: SpendFacts, matched: Audit) -> str:
    rows = matched.unmatched()
    title = "Credit that matches no spend"
    if not rows:
        return section("spend-unmatched", title, "All credit of platforms with spend belongs to a campaign.")
    may_suggest = len(matched.names) <= _SUGGESTED_OF
    near = [(matched.suggestions(*pair, 1) if may_suggest else []) for pair in rows[:_SHOWN]]
    finding = (
        f"{_sums((said.currency, said.micros) for said, _ in rows)} of credit by {facts.model}, on platforms with "
        f"spend, belongs to no campaign of the spend: {_reasons(match.how for _, match in rows)}."
    )
    cells = [
        [text(short(" ".join(filter(None, said.named)))), html.escape(match.how), amount(said.micros, said.currency),
         text(short(_suggested(found[0]))) if found else ""]
        for (said, match), found in zip(rows, near, strict=False)
    ]  # fmt: skip
    if rest := rows[_SHOWN:]:
        left = _sums((said.currency, said.micros) for said, _ in rest)
        cells.append([f"{OTHER}: {counted(len(rest), 'name')}", "", left, ""])
    step = "import the missing account, or send campaign ids with the touchpoints"
    for (said, _), found in zip(rows, near, strict=False):
        if found and found[0].campaign.platform == said.named.platform:
            step = f"{_alias(facts, found[0].campaign, said.named.name)}, if that is the campaign; else {step}"
            break
    return section(
        "spend-unmatched", title, html.escape(finding),
        table(
            "Credit that belongs to no spend", ["touchpoints say", "why", "credit", "perhaps"], cells, is_open=True,
            numbers={2},
        ),
        f"<p>Next step: {step}.</p>",
    )  # fmt: skip


def _reasons(hows: Iterable[str]) -> str:
    found: dict[str, int] = defaultdict(int)
    for how in hows:
        found[how] += 1
    return ", ".join(f"{how} ({count:,})" for how, count in sorted(found.items(), key=lambda each: (-each[1], each[0])))


def _suggested(found: Suggestion) -> str:
    platform, account, campaign_id = found.campaign
    return f"{platform} {account}/{campaign_id} '{found.name}'"


def _named(campaign: Campaign, matched: Audit) -> str:
    platform, account, campaign_id = campaign
    name = matched.names.get(campaign, "")
    return f"{platform} {account}/{campaign_id or '(account)'}" + (f" '{name}'" if name else "")


def _sums(pairs: Iterable[tuple[str, int]]) -> str:
    found: dict[str, int] = defaultdict(int)
    for currency, micros in pairs:
        found[currency] += micros
    return ", ".join(amount(micros, currency) for currency, micros in sorted(found.items())) or "0"


def _command(facts: SpendFacts, name: str, by: By = "campaign") -> str:
    """Return the command that gives the same numbers in full."""
    query = facts.query
    rows = facts.by_channel.rows if by == "channel" and facts.by_channel else ()
    models = ",".join(dict.fromkeys(row.model for row in rows))
    words = ["attributary", "spend", name, "--tenant", query.tenant_id]
    words += ["--models", models] if models else ["--model", facts.model]
    words += ["--from", str(query.days[0]), "--to", str(query.days[1])]
    if name == "report":
        words += ["--by", by, "--currency", query.currency or "each"]
        words += [word for kind in query.conversion_types for word in ("--conversion-type", kind)]
    return f"<code>{text(shlex.join(words))}</code>"


def _alias(facts: SpendFacts, campaign: Campaign, name: str | None) -> str:
    words = ["attributary", "spend", "aliases", "set", campaign.platform, f"{campaign.account}/{campaign.campaign_id}"]
    named = "NAME" if name is None else shlex.quote(name)
    line = f"{shlex.join(words)} --name {named} --tenant {shlex.quote(facts.query.tenant_id)}"
    return f"<code>{text(line)}</code>"


def _sentence(note: str) -> str:
    return f"{note[:1].upper()}{note[1:]}."
