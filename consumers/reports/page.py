"""The report page: one HTML file without a script, a font, a picture or an address to load.

Invariants: the Content-Security-Policy in the file allows nothing but its own style; the rows of every chart and table,
`(other)` and `(unattributed)` among them, add up to the total on top; a sentence that ranks stands only where the
intervals and all models agree.
"""

from __future__ import annotations

import html
import re
from collections.abc import Collection, Sequence
from datetime import date, timedelta

from attributary.attribution_core.domain.time_grammar import BEGINNING, END
from attributary.consumers.store.results.credit_report import UNATTRIBUTED, CreditRow
from attributary.consumers.store.results.report_reads import LONGEST_PATH, Path

from .cells import amount, moment, money
from .definition import OTHER
from .definition import counted as plural
from .fallback_notes import fallback_cause
from .origin import Origin
from .page_changes import changes_finding, changes_section
from .page_charts import Bar, bars, columns, section, table, text
from .page_facts import PageFacts
from .page_sections import origin_line, report_section, report_table
from .page_spend import lonely_finding, spend_sections
from .page_style import STYLE

_SHOWN = 12
_BETWEEN = {"path-lengths", "lag", "assists", "positions", "cohorts"}
_STEPS = 6
_DECIMALS = 6  # of credit where names are ranked: the roll-up has billionths, so equal ones stand in the order of names


def page_text(facts: PageFacts) -> str:
    """Return the page."""
    title = f"Attribution of {facts.query.tenant_id}"
    body = "".join(
        [
            _channels(facts),
            _days(facts),
            *_reports(facts, {"maturity"}),
            _campaigns(facts),
            "" if facts.spend is None else spend_sections(facts.spend),
            _paths(facts),
            *_reports(facts, _BETWEEN),
            changes_section(facts, _other_origin(facts, facts.changes_origin)),
            *_reports(facts, {"restatements", "unattributed"}),
            _quality(facts),
        ]
    )
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">"
        '<meta name="viewport" content="width=device-width, initial-scale=1"><meta name="robots" content="noindex">'
        f"<title>{html.escape(title)}</title><style>{STYLE}</style></head><body><main>"
        f"<h1>{html.escape(title)}</h1>{_head(facts)}{_in_short(facts, body)}{body}{_FOOT}</main></body></html>\n"
    )


def _reports(facts: PageFacts, names: Collection[str]) -> list[str]:
    """Return reports of the catalogue; one that is from elsewhere than the page's own parts says so."""
    return [
        report_section(found, _other_origin(facts, found.origin))
        for found in facts.answers
        if found.report.name in names
    ]


def _other_origin(facts: PageFacts, origin: Origin) -> str:
    return origin_line(origin) if origin.source != facts.origin.source else ""


def _in_short(facts: PageFacts, body: str) -> str:
    """Return what most readers ask first, each with a link to its part, and links to all parts."""
    said = [
        ("channels", "Ranks", html.escape(_certain(facts))),
        ("changes", "Changes", html.escape(changes_finding(facts))),
    ]
    if facts.spend is not None and facts.spend.matched is not None:
        said.append(("spend-lonely", "Spend that matches nothing", lonely_finding(facts.spend.matched)))
    items = "".join(
        f'<li><a href="#{anchor}">{name}</a>: {sentence}</li>' for anchor, name, sentence in said if sentence
    )
    parts = re.findall(r'<h2 id="([\w-]+)">([^<]+)', body)
    links = " \u00b7 ".join(f'<a href="#{anchor}">{name}</a>' for anchor, name in parts)
    return (
        f'<section aria-labelledby="short"><h2 id="short">In short</h2><ul>{items}</ul></section>'
        f'<nav aria-label="Parts of this page"><p>{links}</p></nav>'
    )


def _head(facts: PageFacts) -> str:
    start, end = facts.query.period_us
    first, last = (facts.days[0].day, facts.days[-1].day) if facts.days else ("", "")
    period = f"{moment(start) if start != BEGINNING else first} to {moment(end) if end != END else last}"
    rest = sum(row.conversions for row in facts.channels if row.model == facts.model and not row.is_touch)
    cards = [
        ("conversions", f"{facts.total.conversions:,}"),
        ("net revenue" if _has_value(facts) else "value", amount(facts.total.net_micros, facts.total.currency)),
        (f"unattributed by {facts.model}", _percent(rest / max(facts.total.conversions, 1))),
        ("cannot change any more", _percent(sum(d.final for d in facts.days) / max(facts.total.conversions, 1))),
    ]
    others = ", ".join(
        f"{plural(t.conversions, 'conversion')} ({amount(t.net_micros, t.currency)})" for t in facts.others
    )
    also = f" Not on this page, because currencies are never added: {others}." if others else ""
    removed = ", ".join(
        f"{plural(each.conversions, 'conversion')} ({amount(each.net_micros, each.currency)}) {each.bucket}"
        for each in facts.removed
    )
    also += f" Beside these numbers, no longer stored one by one: {removed}." if removed else ""
    items = "".join(f"<div><dt>{html.escape(name)}</dt><dd>{html.escape(value)}</dd></div>" for name, value in cards)
    return (
        f"<p>Conversions from {period}, by the day of the conversion ({html.escape(facts.zone)}), as they stand on "
        f"{moment(facts.query.as_of_us, clock=True)} UTC.{html.escape(also)}</p><dl>{items}</dl>"
        f"{origin_line(facts.origin)}"
    )


def _channels(facts: PageFacts) -> str:
    """Channels by model: the spread over the models around the bar of one, then every number."""
    by_channel = _by_name(facts.channels)
    ranked = sorted(
        by_channel, key=lambda key: (not key[1], key[0] == OTHER, -_credit(by_channel[key], facts.model), key)
    )
    touched = [key for key in ranked if key[1]]
    shown, rest = [*touched[:_SHOWN], *(key for key in ranked if not key[1])], touched[_SHOWN:]
    others = sum(_credit(by_channel[key], facts.model) for key in rest)
    ends = [_drawn_interval(by_channel[key].get(facts.model), 1.0) or (0.0, 0.0) for key in shown]
    credits_ = [row.conversions for rows in by_channel.values() for row in rows.values()]
    most = max([others, *credits_, *(end[1] for end in ends)]) or 1.0
    drawn = []
    for key in shown:
        credits_ = [_credit(by_channel[key], model) for model in facts.models]
        mine = by_channel[key].get(facts.model)
        drawn.append(
            Bar(
                key[0], f"{_credit(by_channel[key], facts.model):,.1f} conversions{_interval(mine)}",
                _credit(by_channel[key], facts.model) / most, (min(credits_) / most, max(credits_) / most),
                interval=_drawn_interval(mine, most),
            )
        )  # fmt: skip
    if rest:
        drawn.append(Bar(OTHER, f"{others:,.1f} conversions", others / most))
    rows = [
        [text(key[0]), *(_both(by_channel[key].get(model), facts.total.currency) for model in facts.models),
         f"{max(row.journeys for row in by_channel[key].values()):,}" if key[1] and key[0] != OTHER else ""]
        for key in ranked
    ]  # fmt: skip
    sums = [
        f"{sum(_credit(by_channel[key], model) for key in ranked):,.2f}<br>"
        f"{money(sum(row.value_micros for row in facts.channels if row.model == model), facts.total.currency)}"
        for model in facts.models
    ]
    head = ["channel", *(html.escape(model) for model in facts.models), "journeys with it"]
    return section(
        "channels",
        "Which channels get the credit",
        _ranking(facts, touched, by_channel),
        bars(drawn, f"Conversions by channel, {facts.model}"),
        f"<p>The bar is {html.escape(facts.model)}. The line over it reaches from the lowest to the highest of "
        f"{plural(len(facts.models), 'model')}: that spread is no sampling error, more data does not reduce it. "
        f"The thick line below is the 90 % interval of {html.escape(facts.model)} for the sampling of conversions.</p>"
        f"<p>{html.escape(_certain(facts))}</p>",
        table("Conversions and net value by channel and model", head, [*rows, ["total", *sums, ""]]),
    )


def _certain(facts: PageFacts) -> str:
    """Say which ranks all models and their intervals agree on."""
    found = next((each.table for each in facts.answers if each.report.name == "models"), None)
    return found.finding if found else ""


def _drawn_interval(row: CreditRow | None, most: float) -> tuple[float, float] | None:
    if row is None or row.share is None or row.share.share <= 0.0:
        return None
    whole = row.conversions / row.share.share
    return row.share.low * whole / most, row.share.high * whole / most


def _ranking(
    facts: PageFacts, ranked: Sequence[tuple[str, bool]], by_channel: dict[tuple[str, bool], dict[str, CreditRow]]
) -> str:
    """Say who is first only where the intervals are apart and all models agree."""
    if len(ranked) < 2:
        return "There are fewer than two channels to compare."
    first, second = ranked[0], ranked[1]
    shares = [by_channel[key][facts.model].share for key in (first, second) if facts.model in by_channel[key]]
    leaders = {max(ranked, key=lambda key: _credit(by_channel[key], model)) for model in facts.models}
    if len(shares) == 2 and shares[0] and shares[1] and shares[0].low > shares[1].high and leaders == {first}:
        return f"{text(first[0])} is first under every model, and apart from {text(second[0])} by more than chance."
    if leaders == {first}:
        return f"{text(first[0])} is first under every model, but {text(second[0])} is within chance of it."
    names = ", ".join(sorted(text(key[0]) for key in leaders))
    return f"The models disagree about the first channel: {names}. Do not rank them by one model alone."


def _days(facts: PageFacts) -> str:
    worth = _has_value(facts)
    unit = "day" if len(facts.days[0].day) > len("2026-01") else "month"
    values = [day.net_micros if worth else day.conversions for day in facts.days]
    most = max(map(abs, values), default=0) or 1
    best = max(facts.days, key=lambda day: day.net_micros if worth else day.conversions)
    still = sum(day.conversions - day.final for day in facts.days)
    finding = (
        f"The highest {unit} is {best.day} with "
        f"{amount(best.net_micros, facts.total.currency) if worth else plural(best.conversions, 'conversion')}. "
        + (
            f"{plural(still, 'conversion')} may still change: their {unit}s are hatched."
            if still
            else "Nothing can change."
        )
    )
    drawn = _without_gaps(
        [
            Bar(day.day, "", value / most, is_open=day.final < day.conversions)
            for day, value in zip(facts.days, values, strict=True)
        ]
    )
    rows = [
        [day.day, f"{day.conversions:,}", money(day.net_micros, facts.total.currency), f"{day.final:,}"]
        for day in facts.days
    ]
    label = f"{'Net revenue' if worth else 'Conversions'} a {unit}"
    return section(
        "days", label, html.escape(finding), columns(drawn, label, finding),
        table(f"Conversions and net value a {unit}", [f"{unit} (UTC)", "conversions", _net(facts), "final"], rows),
    )  # fmt: skip


def _campaign_order(row: CreditRow) -> tuple[object, ...]:
    return not row.is_touch, row.keys == (OTHER,), -row.value_micros, -round(row.conversions, _DECIMALS), row.keys


def _without_gaps(bars_: Sequence[Bar]) -> list[Bar]:
    """Return the bars of days with those between that have none, so that places are times; months as they are."""
    if len(bars_[0].name) == len("2026-01"):
        return list(bars_)
    of_day = {bar.name: bar for bar in bars_}
    first, last = (date.fromisoformat(bar.name) for bar in (bars_[0], bars_[-1]))
    days = [(first + timedelta(days=number)).isoformat() for number in range((last - first).days + 1)]
    return [of_day.get(day, Bar(day, "", 0.0)) for day in days]


def _campaigns(facts: PageFacts) -> str:
    rows = sorted(facts.campaigns, key=_campaign_order)
    shown, rest = rows[:_SHOWN], rows[_SHOWN:]
    worth = _has_value(facts)

    def size(row: CreditRow) -> float:
        return row.value_micros if worth else row.conversions

    others = sum(map(size, rest))
    most = max([abs(others), *(abs(size(row)) for row in rows)]) or 1
    drawn = [Bar(row.keys[0], _worth(row, facts.total.currency), size(row) / most) for row in shown]
    if rest:
        micros, credit = sum(row.value_micros for row in rest), sum(row.conversions for row in rest)
        named = f"{amount(micros, facts.total.currency)}, {credit:,.1f} conversions"
        drawn.append(Bar(OTHER, named, others / most))
    unnamed = sum(row.conversions for row in rows if row.keys[0] == "(none)")
    finding = (
        f"{unnamed:,.1f} of {plural(facts.total.conversions, 'conversion')} came by touchpoints without a campaign's "
        f"name, by {facts.model}."
    )
    cells = [
        [
            text(row.keys[0]),
            f"{row.conversions:,.2f}",
            money(row.value_micros, facts.total.currency),
            f"{row.journeys:,}" if row.is_touch and row.keys != (OTHER,) else "",
        ]
        for row in rows
    ]
    return section(
        "campaigns", "Campaigns", html.escape(finding), bars(drawn, f"Campaigns, {facts.model}"),
        table(
            "Conversions and net value by campaign",
            ["campaign", "conversions", _net(facts), "journeys with it"], cells,
        ),
    )  # fmt: skip


def _paths(facts: PageFacts) -> str:
    shown, rest = facts.paths[:_SHOWN], facts.paths[_SHOWN:]
    others = sum(path.conversions for path in rest)
    most = max([others, *(path.conversions for path in facts.paths)]) or 1
    drawn = [Bar(_steps(path), plural(path.conversions, "conversion"), path.conversions / most) for path in shown]
    if rest:
        drawn.append(Bar(OTHER, plural(others, "conversion"), others / most))
    part = _percent(facts.several / max(facts.total.conversions, 1))
    finding = f"{part} of the conversions have more than one touchpoint: only for them the models can differ."
    rows = [
        [text(_steps(path)), f"{path.conversions:,}", money(path.micros, facts.total.currency)] for path in facts.paths
    ]
    return section(
        "paths", "Paths before the conversion", html.escape(finding),
        "<p>Touchpoints of one channel in a row are one step.</p>", bars(drawn, "Most frequent paths"),
        table("Conversions and net value by path", ["path", "conversions", _net(facts)], rows),
    )  # fmt: skip


def _quality(facts: PageFacts) -> str:
    checks = next((each for each in facts.answers if each.report.name == "quality" and each.table), None)
    notes = [
        f"{use.model}: {use.conversions:,} of {plural(facts.total.conversions, 'conversion')} "
        f"{fallback_cause(use.model, use.version, use.fallback)}. Its numbers are then those of the rule."
        for use in facts.uses
        if use.fallback is not None
    ]
    credited: dict[str, int] = {}
    for use in facts.uses:
        credited[use.model] = credited.get(use.model, 0) + use.conversions
    notes += [
        f"{model}: {facts.total.conversions - count:,} conversions have no credit by it, their results are older."
        for model, count in credited.items()
        if count < facts.total.conversions
    ]
    items = "".join(f"<li>{html.escape(note)}</li>" for note in notes)
    finding = (
        f"{plural(len(notes), 'note')} on the models." if notes else "Every model credited every conversion by itself."
    )
    parts = [f"<ul>{items}</ul>" if items else ""]
    if checks is not None and checks.table is not None:
        parts += [f"<p>{html.escape(checks.table.finding)}</p>", report_table(checks, checks.table.rows)]
        parts += [f"<p>{html.escape(note)}</p>" for note in checks.table.notes]
    return section("quality", "Data quality", finding, *parts)


_FOOT = (
    "<footer><h2>What the words mean</h2><p><b>Conversions</b> of a channel are credit: a conversion with two "
    "touchpoints is a half in each by linear. They add up to the total. <b>Journeys with it</b> are conversions "
    "with at least one touchpoint of the row; they cannot be added up. <b>(unattributed)</b> is what no "
    "touchpoint gets: none lies in the lookback window, or a model keeps it as its baseline. The <b>interval</b> "
    "is 90 % for the sampling of conversions alone. None of these numbers says what would have happened without a "
    "channel; only an experiment does.</p></footer>"
)


def _by_name(rows: Sequence[CreditRow]) -> dict[tuple[str, bool], dict[str, CreditRow]]:
    found: dict[tuple[str, bool], dict[str, CreditRow]] = {}
    for row in rows:
        found.setdefault((row.keys[0] if row.is_touch else UNATTRIBUTED, row.is_touch), {})[row.model] = row
    return found


def _credit(rows: dict[str, CreditRow], model: str) -> float:
    row = rows.get(model)
    return round(row.conversions, _DECIMALS) if row else 0.0


def _both(row: CreditRow | None, currency: str) -> str:
    return "" if row is None else f"{row.conversions:,.2f}<br>{money(row.value_micros, currency)}"


def _interval(row: CreditRow | None) -> str:
    share = row.share if row else None
    return f", {100 * share.share:.1f} % ({100 * share.low:.1f} to {100 * share.high:.1f})" if share else ""


def _worth(row: CreditRow, currency: str) -> str:
    return f"{amount(row.value_micros, currency)}, {row.conversions:,.1f} conversions"


def _steps(path: Path) -> str:
    if path.steps > LONGEST_PATH:
        return f"({path.steps} steps)"
    if not path.names:
        return "(no touchpoint)"
    left = len(path.names) - _STEPS
    return (f"({left} before) \u2192 " if left > 0 else "") + " \u2192 ".join(path.names[-_STEPS:])


def _has_value(facts: PageFacts) -> bool:
    return amount(0, facts.total.currency) != "no value"


def _net(facts: PageFacts) -> str:
    return f"net {facts.total.currency}" if _has_value(facts) else "value"


def _percent(part: float) -> str:
    return f"{100 * part:.1f} %"
