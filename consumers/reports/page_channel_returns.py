"""Return by channel on the page: what each channel's spend brought by every model, the spread over models first.

Invariants: the numbers are those of `attributary spend report --by channel`; a sentence that ranks channels stands only
where all models agree, and says "apart" only where by every model the interval of the first lies above all others.
"""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import NamedTuple

from attributary.consumers.spend.channels import NO_SPEND, ReturnKey
from attributary.consumers.spend.returns import ReturnQuery, ReturnRow, Returns

from .cells import estimate, return_label, short, units
from .definition import OTHER, counted
from .page_charts import Bar, bars, section, table, text

_SHOWN = 12
_HEAD = ["channel", "model", "spend", "net value", "currency", "ROAS", "conversions", "CPA", "note"]


class _Row(NamedTuple):
    """The rows of one channel and currency, by model."""

    name: str
    spend: Decimal
    of_model: Mapping[str, ReturnRow]

    def roas(self, model: str) -> float:
        """Return the return by a model; 0 without credit."""
        row = self.of_model.get(model)
        return 0.0 if row is None or row.roas.value is None else row.roas.value


def channel_section(query: ReturnQuery, found: Returns, model: str, command: str) -> str:
    """Return the part.

    Args:
        query: of the page's spend; its currency is the page's.
        found: by channel and all models.
        model: of the bars.
        command: that gives all of it, HTML.
    """
    models = list(dict.fromkeys(row.model for row in found.rows))
    mine = query.currency or next((row.currency for row in found.totals if row.spend), "")
    # What platforms without spend are credited with is in no total, and other currencies stand here with their spend.
    told = [row for row in found.rows if row.spend or (row.currency == mine and row.key.campaign_id != NO_SPEND)]
    rows = _by_key(told)
    paid = [row for (key, currency), row in rows.items() if row.spend > 0 and key.channel and currency == mine]
    shown = dict(list(rows.items())[:_SHOWN])
    most = max((abs(row.roas(name)) for row in paid for name in models), default=0.0)
    most = max([most, *(_high(row, model) for row in paid)]) or 1.0
    cells = [_cells(row.of_model[name], text(short(row.name))) for row in shown.values() for name in models]
    cells += _pooled([row for key, row in rows.items() if key not in shown], models)
    cells += [
        _cells(row, f"total of platforms with spend, {html.escape(row.currency)}")
        for row in found.totals
        if row.spend or row.currency == mine
    ]
    return section(
        "spend-channels", "Return by channel", _ranking(paid, models),
        f"<p>The bar is ROAS by {html.escape(model)}, the line over it reaches from the lowest to the highest of "
        f"{counted(len(models), 'model')}, the thick line below is its 90 % interval for who converts. A channel has "
        "the campaigns that most credit comes to by its touchpoints, with their spend; credit that means no campaign "
        f"of the spend is (unmatched), and in no return. All rows: {command}</p>",
        bars([_bar(row, models, model, most) for row in paid[:_SHOWN]], f"ROAS by channel, {model}"),
        table("Return and cost by channel and model", _HEAD, cells, numbers={2, 3, 5, 6, 7}),
    )  # fmt: skip


def _by_key(rows: Sequence[ReturnRow]) -> dict[tuple[ReturnKey, str], _Row]:
    """Return the rows of each channel and currency: channels first, what costs most first."""
    found: dict[tuple[ReturnKey, str], dict[str, ReturnRow]] = {}
    for row in rows:
        found.setdefault((row.key, row.currency), {})[row.model] = row
    made = []
    for key, of_model in found.items():
        first = next(iter(of_model.values()))
        made.append((key, _Row(return_label(first), first.spend, of_model)))
    made.sort(key=lambda item: (not item[0][0].channel, item[0][1], -item[1].spend, item[1].name))
    return dict(made)


def _high(row: _Row, model: str) -> float:
    return row.of_model[model].roas.high or 0.0


def _bar(row: _Row, models: Sequence[str], model: str, most: float) -> Bar:
    mine = row.of_model[model]
    values = [row.roas(name) / most for name in models]
    low, high = mine.roas.low, mine.roas.high
    told = [f"ROAS {estimate(mine.roas) or 'none'}"]
    told += [f"CPA {estimate(mine.cpa)}"] if estimate(mine.cpa) else []
    told += [f"{mine.conversions:,.1f} conversions for {units(mine.spend, mine.currency)} {mine.currency}"]
    return Bar(
        short(row.name), ", ".join(told), row.roas(model) / most, (min(values), max(values)),
        interval=None if low is None or high is None else (low / most, high / most),
    )  # fmt: skip


def _ranking(paid: Sequence[_Row], models: Sequence[str]) -> str:
    """Return a sentence, HTML: who returns most, only where all models say so."""
    if not paid:
        return "No spend can be given to a channel: no touchpoint with credit points at a campaign with spend."
    if len(paid) == 1:
        return f"Only one channel has spend: {text(short(paid[0].name))}."
    leaders = {max(paid, key=lambda row: row.roas(model)).name for model in models}
    if len(leaders) > 1:
        names = ", ".join(text(short(name)) for name in sorted(leaders))
        return (
            f"The models disagree about the channel that returns most: {names}. Do not move spend by one model alone."
        )
    first = next(row for row in paid if row.name in leaders)
    near = [row.name for row in paid if row is not first and not all(_is_apart(first, row, each) for each in models)]
    said = f"{text(short(first.name))} returns most per unit of spend by every model"
    if near:
        return f"{said}, but {', '.join(text(short(name)) for name in near[:3])} may be within chance of it."
    return f"{said}, and by each apart from all others by more than chance."


def _is_apart(first: _Row, other: _Row, model: str) -> bool:
    low, high = first.of_model[model].roas.low, other.of_model[model].roas.high
    return low is not None and high is not None and low > high  # of a channel without a conversion nobody knows it


def _cells(row: ReturnRow, name: str) -> list[str]:
    return [
        name, html.escape(row.model), units(row.spend, row.currency), units(row.value, row.currency),
        html.escape(row.currency), estimate(row.roas), f"{row.conversions:,.2f}", estimate(row.cpa),
        html.escape(row.note),
    ]  # fmt: skip


def _pooled(rows: Sequence[_Row], models: Sequence[str]) -> list[list[str]]:
    """Return what there is no room for, added up by currency and model; a ratio of several rows would mislead."""
    cells = []
    for currency in dict.fromkeys(each.currency for row in rows for each in row.of_model.values()):
        for model in models:
            mine = [row.of_model[model] for row in rows if row.of_model[model].currency == currency]
            cells.append([
                f"{OTHER}: {counted(len(mine), 'row')}", html.escape(model),
                units(sum((each.spend for each in mine), Decimal(0)), currency),
                units(sum((each.value for each in mine), Decimal(0)), currency), html.escape(currency), "",
                f"{sum(each.conversions for each in mine):,.2f}", "", "summed up for want of room",
            ])  # fmt: skip
    return cells
