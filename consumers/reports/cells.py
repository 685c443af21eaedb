"""Cells of reports as text: amounts, shares, names; the same on a terminal, in CSV and on the page."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import ROUND_HALF_EVEN
from typing import TYPE_CHECKING, Any

from attributary.schemas.limits import MINOR_UNIT_MICROS, NO_CURRENCY

if TYPE_CHECKING:
    from decimal import Decimal

    from attributary.attribution_core.spend.ratios import Estimate
    from attributary.consumers.spend.returns import ReturnRow

    from .definition import Unit

_LONGEST = 90
_MICROS = 1_000_000
_FORMS = {"credit": ",.2f", "ratio": ".2f", "count": ",", "days": ",", "months": ","}
_DECIMALS = {10 ** (6 - decimals): decimals for decimals in range(7)}


def cell_text(value: Any, unit: Unit, currency: str) -> str:
    """Return a cell for people: amounts in the currency's unit, shares in percent; nothing where there is no number."""
    if value is None:
        return ""
    if unit == "micros":
        return money(value, currency)
    if unit == "share":
        return f"{100 * value:.1f} %"
    return format(value, _FORMS.get(unit, ""))


def csv_text(value: Any, unit: Unit, currency: str) -> str:
    """Return a cell for programs and spreadsheets: amounts in the currency's unit, exact, shares from 0 to 1."""
    if value is None:
        return ""
    if unit == "micros":
        return money(value, currency, group=False)
    if isinstance(value, float):
        return f"{value:.9f}".rstrip("0").rstrip(".")
    return csv_cell(str(value)) if isinstance(value, str) else str(value)


def money(micros: int, currency: str, *, group: bool = True) -> str:
    """Return an amount in units of its currency: exact, with the decimals that the currency has, and more if need be.

    Args:
        micros: the amount.
        currency: ISO 4217: JPY has no decimals, EUR two, KWD three; one that prices nothing has none.
        group: with commas between thousands.
    """
    decimals = _DECIMALS[MINOR_UNIT_MICROS.get(currency, _MICROS)]
    units, rest = divmod(abs(micros), _MICROS)
    part = f"{rest:06d}"
    part = part[:decimals] + part[decimals:].rstrip("0")
    return f"{'-' if micros < 0 else ''}{units:{',' if group else ''}}{'.' if part else ''}{part}"


def amount(micros: int, currency: str) -> str:
    """Return an amount with its currency; "no value" of an event without one (XXX in ISO 4217)."""
    return "no value" if currency in {NO_CURRENCY, ""} else f"{money(micros, currency)} {currency}"


def units(value: Decimal, currency: str, *, group: bool = True) -> str:
    """Return an amount in units, rounded once, to the minor unit of its currency."""
    unit = MINOR_UNIT_MICROS.get(currency, 1)
    micros = int((value * _MICROS / unit).to_integral_value(ROUND_HALF_EVEN)) * unit
    return money(micros, currency, group=group)


def estimate(found: Estimate, form: str = ",.2f") -> str:
    """Return a ratio with its interval; a bound says so."""
    low, high = (None if part is None else format(part, form) for part in found[1:])
    if found.value is None:
        return "" if low is None else f"at least {low}"
    between = f" [{low}, {high}]" if low is not None and high is not None else ""
    return f"{format(found.value, form)}{between}"


def return_label(row: ReturnRow) -> str:
    """Return what a row of a report over spend is of."""
    platform, account, campaign, channel = row.key
    if channel:
        return channel
    if not platform and not campaign:
        return "total"
    if campaign.startswith("("):
        return f"{platform} {account} {campaign}".replace("  ", " ")
    return " ".join(filter(None, (platform, account, campaign, f"'{row.name}'" if row.name else "")))


def moment(micros: int, *, clock: bool = False) -> str:
    """Return the day of microseconds UTC, with hours and minutes if asked for."""
    return datetime.fromtimestamp(micros / 1e6, UTC).strftime("%Y-%m-%d %H:%M" if clock else "%Y-%m-%d")


def short(name: str) -> str:
    """Return a name of 90 characters at most: a page stays small whatever campaigns and channels are called."""
    return name if len(name) <= _LONGEST else f"{name[:_LONGEST]}\u2026"


def safe(text: str) -> str:
    """Return a text with its line ends, escape codes and other unprintable characters written out."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


# How spreadsheets know a formula, in full width too.
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "\uff1d", "\uff0b", "\uff0d", "\uff20")


def csv_cell(text: str) -> str:
    """Return a cell that no spreadsheet takes for a formula: one that begins like it gets an apostrophe in front."""
    return f"'{text}" if text.startswith(_FORMULA) else text
