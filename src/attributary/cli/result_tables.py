"""What `attributary results` writes: tables that fit a width, CSV for spreadsheets, a JSON document.

Invariant: the rows of a table add up to its total: `(unattributed)`, `(erased)`, `(retired)` and what is not shown
are rows among them.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

from attributary.attribution_core.domain.time_grammar import BEGINNING, END
from attributary.cli.block_table import Column, block_table, wrapped
from attributary.cli.tables import amount, csv_cell, money, plural, safe
from attributary.consumers.reports.answer import origin_document
from attributary.consumers.reports.fallback_notes import fallback_cause, fallback_cure
from attributary.consumers.reports.origin import Origin, origin_text
from attributary.consumers.store.removed_totals import ERASED, RETIRED
from attributary.consumers.store.results.credit_report import (
    TIME_DIMENSIONS,
    UNATTRIBUTED,
    CreditRow,
    Report,
    ReportQuery,
    ReportTotal,
    Share,
    is_by_touch,
)

_CSV_COLUMNS = (
    "bucket", "currency", "model", "conversions", "share", "share_low", "share_high", "net_value", "journeys_with_it",
)  # fmt: skip
_LEGEND = (
    "conversions: credit, it adds up. journeys with it: conversions with at least one touchpoint of the row, it does "
    "not add up."
)
_INTERVAL = " 90 % interval: of the share, for the sampling of conversions alone."


class _Sum(NamedTuple):
    conversions: float
    value_micros: int


class _Group(NamedTuple):
    """One row of a table: the credits of each model."""

    keys: tuple[str, ...]
    bucket: str | None
    of_model: dict[str, CreditRow]

    @property
    def is_touch(self) -> bool:
        return self.bucket is None

    def name(self, place: int, *, is_first: bool) -> str:
        """Return a name as a table shows it: the first one says the bucket where no name does."""
        if is_first and self.bucket is not None and self.bucket not in self.keys:
            return f"{self.keys[place]} {self.bucket}"
        return self.keys[place]

    @property
    def journeys(self) -> int:
        return max(row.journeys for row in self.of_model.values())


def table_text(query: ReportQuery, report: Report, width: int, limit: int, origin: Origin) -> str:
    """Return the tables of a report, one a currency, and the sentences that a reader of the numbers needs.

    Args:
        query: what was asked.
        report: the answer.
        width: places in a line.
        limit: rows a table; the rest is summed up in one row. 0: all.
        origin: what it was computed from.
    """
    parts = [wrapped(_head(query), width)]
    for total in report.totals:
        groups = _groups(query, report, total.currency)
        parts.append(f"{_total_text(total)}\n\n{_table(query, total, groups, width, limit)}")
    legend = [_LEGEND + (_INTERVAL if len(query.models) == 1 else "")] if is_by_touch(query.by) else []
    complete_to = origin.complete_to_us
    told = [origin_text(origin, "" if complete_to is None else f"{_moment(complete_to)} UTC")]
    parts.append("\n".join(wrapped(note, width) for note in [*legend, *_notes(query, report), *told] if note))
    return "\n\n".join(filter(None, parts))


def csv_text(query: ReportQuery, report: Report) -> str:
    """Return one line a row and model, without totals; no cell is a formula to a spreadsheet."""
    lines = io.StringIO()
    names = [name for name in query.by if name != "currency"]
    writer = csv.writer(lines, lineterminator="\n")
    writer.writerow([*names, *_CSV_COLUMNS])
    for total in report.totals:
        for group in _groups(query, report, total.currency):
            keys = dict(zip(query.by, group.keys, strict=True))
            for model in query.models:
                row = group.of_model.get(model)
                if row is None:
                    continue
                share = row.share
                writer.writerow(
                    [
                        *(csv_cell(keys[name]) for name in names), group.bucket, row.currency, csv_cell(model),
                        f"{row.conversions:.9g}", *(f"{part:.6f}" for part in share or ()),
                        *([] if share else [""] * 3), money(row.value_micros, row.currency, group=False), row.journeys,
                    ]
                )  # fmt: skip
    return lines.getvalue()


def document(query: ReportQuery, report: Report, origin: Origin) -> dict[str, Any]:
    """Return a report for JSON: money in micros, times in microseconds UTC."""
    start, end = query.period_us
    return {
        "tenant": query.tenant_id,
        "by": list(query.by),
        "from": None if start == BEGINNING else start,
        "to": None if end == END else end,
        "as_of": None if query.as_of_us == END else query.as_of_us,
        "time_zone": query.zone,
        "source": origin_document(origin),
        "totals": [total._asdict() for total in report.totals],
        "models": [use._asdict() for use in report.uses],
        "rows": [
            {
                "currency": row.currency,
                **dict(zip(query.by, row.keys, strict=True)),
                "model": row.model,
                "is_unattributed": row.bucket == UNATTRIBUTED,
                "bucket": row.bucket,
                "conversions": row.conversions,
                "share": row.share.share if row.share else None,
                "share_interval": [row.share.low, row.share.high] if row.share else None,
                "net_micros": row.value_micros,
                "journeys_with_it": row.journeys,
            }
            for total in report.totals
            for group in _groups(query, report, total.currency)
            for row in group.of_model.values()
        ],
    }


def _groups(query: ReportQuery, report: Report, currency: str) -> list[_Group]:
    """Return the rows of a currency: times in order, in them what gets most of the first model first."""
    found: dict[tuple[tuple[str, ...], str | None], dict[str, CreditRow]] = {}
    for row in report.rows:
        if row.currency == currency:
            found.setdefault((row.keys, row.bucket), {})[row.model] = row
    groups = [
        _Group(keys, bucket, {model: rows[model] for model in query.models if model in rows})
        for (keys, bucket), rows in found.items()
    ]
    times = [place for place, name in enumerate(query.by) if name in TIME_DIMENSIONS]

    def order(group: _Group) -> tuple[Any, ...]:
        first = group.of_model.get(query.models[0])
        most = (-first.value_micros, -first.conversions) if first else (0, 0.0)
        is_removed = group.bucket in {ERASED, RETIRED}
        return tuple(group.keys[place] for place in times), is_removed, not group.is_touch, *most, group.keys

    return sorted(groups, key=order)


def _head(query: ReportQuery) -> str:
    start, end = query.period_us
    period = "all conversions"
    if (start, end) != (BEGINNING, END):
        bounds = _bound("from", start, BEGINNING, query.zone), _bound("to", end, END, query.zone)
        period = " ".join(text for text in ("conversions", *bounds) if text)
    kept = "" if query.as_of_us == END else f", as reported at {_moment(query.as_of_us, query.zone)}"
    types = f", {', '.join(map(safe, query.conversion_types))} only" if query.conversion_types else ""
    return (
        f"{query.tenant_id} by {', '.join(query.by)}: {', '.join(query.models)}; {period}{types}{kept} ({query.zone})"
    )


def _bound(word: str, micros: int, none: int, zone: str) -> str:
    return "" if micros == none else f"{word} {_moment(micros, zone)}"


def _moment(micros: int, zone: str = "UTC") -> str:
    moment = datetime.fromtimestamp(micros / 1e6, UTC).astimezone(ZoneInfo(zone))
    return moment.strftime("%Y-%m-%d" if (moment.hour, moment.minute) == (0, 0) else "%Y-%m-%d %H:%M")


def _total_text(total: ReportTotal) -> str:
    return f"{plural(total.conversions, 'conversion')}, {amount(total.net_micros, total.currency)}{_net(total)}"


def _net(total: ReportTotal) -> str:
    return "" if _has_no_value(total.currency) else " net"


def _has_no_value(currency: str) -> bool:
    return amount(0, currency) == "no value"


def _table(query: ReportQuery, total: ReportTotal, groups: Sequence[_Group], width: int, limit: int) -> str:
    shown = groups if limit == 0 or len(groups) <= limit else groups[:limit]
    rest = groups[len(shown) :]
    more = [f"({len(rest):,} more)"] if rest else []
    places = [place for place, name in enumerate(query.by) if name != "currency" or len(query.by) == 1]
    names = [
        Column(
            query.by[place].replace("_", " "),
            [
                *(safe(group.name(place, is_first=place == places[0])) for group in shown),
                *(more if place == places[0] else [""] * len(more)),
            ],
            "total" if place == places[0] else "",
        )
        for place in places
    ]
    columns: list[Column] = []
    for model in query.models:
        rows = [group.of_model.get(model) for group in shown]
        left = [_sum(model, rest)] if rest else []
        columns += _columns(query, total.currency, model, [*rows, *left], _sum(model, groups))
    if is_by_touch(query.by):
        journeys = [f"{group.journeys:,}" if group.is_touch else "" for group in shown]
        columns.append(Column("journeys\nwith it", [*journeys, *([""] * len(more))]))
    return block_table(names, columns, width)


def _columns(
    query: ReportQuery, currency: str, model: str, rows: Sequence[CreditRow | _Sum | None], whole: _Sum
) -> Iterator[Column]:
    """Yield the columns of one model; side by side with others it has one column of two numbers."""

    def conversions(row: CreditRow | _Sum | None) -> str:
        return f"{row.conversions:,.2f}" if row else ""

    def value(row: CreditRow | _Sum | None) -> str:
        return money(row.value_micros, currency) if row else ""

    if len(query.models) == 1:
        yield Column("conversions", list(map(conversions, rows)), conversions(whole))
        shares = [row.share if isinstance(row, CreditRow) else None for row in rows]
        yield Column("share", [_percent(share) for share in shares])
        if is_by_touch(query.by):
            yield Column("90 % interval", [_interval(share) for share in shares])
        if not _has_no_value(currency):
            yield Column(f"net {currency}", list(map(value, rows)), value(whole))
        return
    left = max(map(len, ["conv.", conversions(whole), *map(conversions, rows)]))
    right = max(map(len, [currency, value(whole), *map(value, rows)]))
    if _has_no_value(currency):
        yield Column(f"{model}\nconv.", list(map(conversions, rows)), conversions(whole))
        return

    def both(one: str, other: str) -> str:
        return f"{one:>{left}}  {other:>{right}}"

    cells = [both(conversions(row), value(row)) for row in rows]
    yield Column(f"{model}\n{both('conv.', currency)}", cells, both(conversions(whole), value(whole)))


def _sum(model: str, groups: Sequence[_Group]) -> _Sum:
    rows = [group.of_model[model] for group in groups if model in group.of_model]
    return _Sum(sum(row.conversions for row in rows), sum(row.value_micros for row in rows))


def _percent(share: Share | None) -> str:
    return "" if share is None else f"{share.share:.1%}".replace("%", " %")


def _interval(share: Share | None) -> str:
    return "" if share is None else f"{100 * share.low:.1f} to {100 * share.high:.1f}"


def _notes(query: ReportQuery, report: Report) -> Iterator[str]:
    """Yield what a reader must know of the models: where another rule credited, and where a model is missing."""
    whole = sum(total.kept.conversions for total in report.totals)
    for model in query.models:
        uses = [use for use in report.uses if use.model == model]
        credited = sum(use.conversions for use in uses)
        for use in uses:
            if use.fallback is not None:
                cause = fallback_cause(model, use.version, use.fallback)
                cure = fallback_cure(model, use.version, query.tenant_id)
                yield f"{model}: {use.conversions:,} of {plural(whole, 'conversion')} {cause}. {cure}"
        if credited < whole:
            yield (
                f"{model}: {whole - credited:,} of {plural(whole, 'conversion')} have no credit by it: their newest "
                f"version is older than the model. To change it: attributary refit --tenant {query.tenant_id}."
            )
    if any(UNATTRIBUTED in group.keys for total in report.totals for group in _groups(query, report, total.currency)):
        yield f"{UNATTRIBUTED}: no touchpoint in the lookback window, or a model's baseline."
    removed = {row.bucket for row in report.rows} & {ERASED, RETIRED}
    if ERASED in removed:
        yield f"{ERASED}: conversions of people who were erased on request. No model credits them."
    if RETIRED in removed:
        yield (
            f"{RETIRED}: conversions that are kept no longer: attributary retention status. Their credits by channel "
            "are in the view reporting.retired_credit."
        )
    if removed:
        kept = "" if query.as_of_us == END else " They keep no history: these are the amounts of today."
        yield f"Both count by whole days (UTC) that begin in the period, and in no share.{kept}"
