"""Rows of a platform's report become slices of spend.

Invariant: a row is one amount of one entity and day, or it is refused with its line, the field and the rule. Rows of
one entity and day are added up, because reports may be broken down by device or network; a row that is another's copy,
cell for cell, counts once. A report that is called complete is taken whole or not at all.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import date, datetime
from decimal import ROUND_HALF_EVEN, Decimal, InvalidOperation
from typing import Any, NamedTuple

from attributary.attribution_core.spend.slices import (
    LEVELS,
    NAMED,
    Given,
    SliceKey,
    SpendRow,
    added,
    entity_of,
    without_tax,
)
from attributary.consumers.store.spend.slices import Slice
from attributary.producers.importer.amounts import amount_reader
from attributary.producers.importer.cells import is_missing, text
from attributary.producers.importer.plan import ImportPlan, PlanError, parse_timezone
from attributary.producers.importer.rows import Row
from attributary.schemas.limits import (
    ID_CHARACTERS,
    MINOR_UNIT_MICROS,
    MOST_CLAIMED,
    MOST_VALUE_MICROS,
    TEXT_CHARACTERS,
    is_word,
)

from .mapping import FittedMapping, SpendMapping, fitted

_MICROS = 1_000_000
_SHARE = Decimal("0.000001")  # of a conversion that a platform claims: finer is not kept
_EARLIEST, _LATEST = date(2000, 1, 1), date(2100, 1, 1)
# How others spell platforms that touchpoints call otherwise.
_PLATFORMS = {
    "facebook": "meta",
    "instagram": "meta",
    "bing": "microsoft",
    "twitter": "x",
    "snapchat": "snap",
    "adwords": "google",
}


class Rejected(NamedTuple):
    """A row that was refused."""

    row: Row
    field: str
    rule: str


class _RuleError(ValueError):
    def __init__(self, name: str, rule: str) -> None:
        super().__init__(rule)
        self.field = name


@dataclass(slots=True)
class SpendFile:
    """What a report holds.

    Attributes:
        slices: its slices, by key.
        rejected: rows that were refused.
        rows: how many were read, totals and copies among them.
        totals: rows that are sums of others, left out.
        copies: rows that repeat another one, left out.
        merged: rows that were added to another one of the same entity and day.
        fitted: the mapping on the columns of the file; None: the file has no rows.
    """

    slices: dict[SliceKey, dict[str, SpendRow]] = field(default_factory=dict)
    zones: dict[SliceKey, str] = field(default_factory=dict)
    rejected: list[Rejected] = field(default_factory=list)
    rows: int = 0
    totals: int = 0
    copies: int = 0
    merged: int = 0
    fitted: FittedMapping | None = None

    def as_slices(self, report_id: str, reported_at_us: int, *, is_complete: bool) -> Iterator[Slice]:
        """Return the slices as they are stored.

        Args:
            report_id: which report it is, for people.
            reported_at_us: when it was made, microseconds UTC.
            is_complete: it has all that its accounts' days cost.
        """
        for key, rows in self.slices.items():
            given = Given(list(rows.values()), is_complete, reported_at_us)
            yield Slice(key, given, self.zones[key], report_id)

    def sums(self) -> dict[str, tuple[int, int]]:
        """Return net amount and tax by currency, micros."""
        found: Counter[str] = Counter()
        tax: Counter[str] = Counter()
        for rows in self.slices.values():
            for row in rows.values():
                found[row.currency] += row.net_micros
                tax[row.currency] += row.tax_micros
        return {currency: (micros, tax[currency]) for currency, micros in sorted(found.items())}


def read_spend(
    rows: Iterable[Row], columns: tuple[str, ...] | None, mapping: SpendMapping, zone: str | None = None
) -> SpendFile:
    """Return what a report holds.

    Args:
        rows: of the file.
        columns: of the file; None: each row names its own (JSON lines).
        mapping: how it is read.
        zone: the time zone that the file names itself.

    Raises:
        PlanError: the file lacks a column.
    """
    found = SpendFile()
    reader: _RowReader | None = None
    seen: set[tuple[Any, ...]] = set()
    for given in rows:
        found.rows += 1
        row = _unpacked(given)
        if reader is None:
            names = columns if columns is not None else tuple(map(str, row.cells))
            found.fitted = fitted(mapping, names)
            reader = _RowReader(found.fitted, zone)
        if reader.is_total(row):
            found.totals += 1
            continue
        try:
            key, spend, row_zone = reader.read(row)
        except _RuleError as error:
            found.rejected.append(Rejected(row, error.field, str(error)))
            continue
        copy = tuple((name, str(cell)) for name, cell in row.cells.items())
        if copy in seen:
            found.copies += 1
            continue
        seen.add(copy)
        _add(found, key, spend, row_zone, row)
    return found


def _add(found: SpendFile, key: SliceKey, spend: SpendRow, zone: str, row: Row) -> None:
    entities = found.slices.setdefault(key, {})
    before = entities.get(spend.entity)
    try:
        entities[spend.entity] = spend if before is None else added(before, spend)
    except ValueError as error:
        found.rejected.append(Rejected(row, "currency", str(error).partition(": ")[2]))
        return
    found.merged += before is not None
    found.zones[key] = zone


def _unpacked(row: Row) -> Row:
    """Return a raw row of Airbyte, whose cells stand in one object, as a row of these cells."""
    inner = row.cells.get("_airbyte_data")
    return row._replace(cells=inner) if isinstance(inner, Mapping) else row


class _RowReader:
    """Reads rows under a mapping."""

    def __init__(self, fit: FittedMapping, zone: str | None) -> None:
        mapping = fit.mapping
        self._fit, self._mapping = fit, mapping
        self._zone = zone or mapping.time_zone or ""
        self._amount = amount_reader(
            ImportPlan(kind="conversion", decimal_comma=mapping.decimal_comma, thousands=mapping.thousands,
                       assumed_thousands=mapping.assumed_thousands)
        )  # fmt: skip
        self._depth = LEVELS.index(fit.level)

    def is_total(self, row: Row) -> bool:
        """Tell whether a row is a sum of others, by its first cell."""
        first = next((str(cell) for cell in row.cells.values() if not is_missing(cell)), "")
        return any(first.startswith(begin) for begin in self._mapping.left_out)

    def read(self, row: Row) -> tuple[SliceKey, SpendRow, str]:
        """Return slice, row and time zone.

        Raises:
            _RuleError: a cell breaks a rule.
        """
        if row.fault is not None:
            raise _RuleError("(row)", row.fault)
        written = self._text(row, "platform").lower().replace(" ", "_").removesuffix("_ads")
        platform = _PLATFORMS.get(written, written) or self._mapping.platform or ""
        if not is_word(platform):
            raise _RuleError("platform", "must be given, a lower-case word: google, meta, tiktok, ...")
        account = self._text(row, "account") or self._mapping.account or ""
        if not account:
            raise _RuleError("account", "must be given")
        key = SliceKey(platform, account, self._day(row), self._fit.level)
        currency = (self._text(row, "currency") or self._fit.currency or "").upper()
        if currency not in MINOR_UNIT_MICROS:
            raise _RuleError("currency", "must be an ISO 4217 code, for example EUR")
        names = self._names(row)
        net, tax = self._billed(row)
        spend = SpendRow(
            entity=entity_of(self._fit.level, account, names),
            currency=currency,
            net_micros=net,
            tax_micros=tax,
            campaign_id=names["campaign_id"],
            campaign_name=names["campaign_name"],
            ad_set_id=names["ad_set_id"],
            ad_set_name=names["ad_set_name"],
            ad_id=names["ad_id"],
            ad_name=names["ad_name"],
            impressions=self._count(row, "impressions"),
            clicks=self._count(row, "clicks"),
            claimed_conversions=self._claimed(row),
            claimed_value_micros=_micros(self._number(row, "conversion_value"), "conversion_value"),
        )
        zone = self._text(row, "time_zone") or self._zone
        try:
            parse_timezone(zone)
        except PlanError:
            raise _RuleError("time_zone", "must be a name of the IANA database, such as Europe/Berlin") from None
        return key, spend, zone

    def _names(self, row: Row) -> dict[str, str]:
        """Return ids and names down to the level; a campaign without an id is known by its name."""
        found = dict.fromkeys(("campaign_id", "campaign_name", "ad_set_id", "ad_set_name", "ad_id", "ad_name"), "")
        for depth, kind in enumerate(LEVELS[1:], 1):
            if depth <= self._depth:
                name = self._text(row, f"{kind}_name", TEXT_CHARACTERS)
                number = self._text(row, f"{kind}_id")
                if not number and name:
                    number = f"{NAMED}{name}"[:ID_CHARACTERS]
                if not number and (depth == self._depth or kind == "campaign"):
                    raise _RuleError(f"{kind}_id", "must be given, or a name")
                found[f"{kind}_id"], found[f"{kind}_name"] = number, name
        return found

    def _cell(self, row: Row, name: str) -> Any:
        column = self._fit.columns.get(name)
        found = None if column is None else row.cells.get(column)
        return None if is_missing(found) or (isinstance(found, str) and found.strip() in self._mapping.empty) else found

    def _text(self, row: Row, name: str, longest: int = ID_CHARACTERS) -> str:
        cell = self._cell(row, name)
        try:
            found = "" if cell is None else text(cell).strip()
        except ValueError as error:
            raise _RuleError(name, str(error)) from None
        if len(found) > longest:
            raise _RuleError(name, f"must have {longest} characters at most")
        if "\0" in found or any("\ud800" <= each <= "\udfff" for each in found):
            raise _RuleError(name, "must be text without NUL, of the file's encoding")
        return found

    def _day(self, row: Row) -> date:
        cell = self._cell(row, "day")
        if cell is None:
            raise _RuleError("day", "must be given")
        if isinstance(cell, datetime):
            cell = cell.date()
        found = cell if isinstance(cell, date) else _parsed_day(str(cell).strip(), self._mapping.day_formats)
        if not _EARLIEST <= found < _LATEST:
            raise _RuleError("day", "must be between 2000 and 2099")
        return found

    def _billed(self, row: Row) -> tuple[int, int]:
        if self._cell(row, "amount") is None and self._cell(row, "amount_micros") is not None:
            units = self._number(row, "amount_micros") / _MICROS
        else:
            units = self._number(row, "amount")
        _micros(units, "amount")
        return without_tax(units, self._mapping.tax_percent)

    def _number(self, row: Row, name: str) -> Decimal:
        cell = self._cell(row, name)
        if cell is None:
            return Decimal(0)
        try:
            return self._amount(cell)
        except (ValueError, InvalidOperation) as error:
            raise _RuleError(name, str(error) if isinstance(error, ValueError) else "must be a number") from None

    def _claimed(self, row: Row) -> Decimal:
        number = self._number(row, "conversions")
        if abs(number) > MOST_CLAIMED:
            raise _RuleError("conversions", "must be less than a billion")
        return number.quantize(_SHARE, ROUND_HALF_EVEN)

    def _count(self, row: Row, name: str) -> int:
        number = self._number(row, name)
        if number != number.to_integral_value() or not 0 <= number < 2**62:
            raise _RuleError(name, "must be a whole number of 0 or more")
        return int(number)


def _micros(units: Decimal, name: str) -> int:
    if abs(units) > MOST_VALUE_MICROS // _MICROS:
        raise _RuleError(name, "must be less than 100 billion units")
    return int((units * _MICROS).to_integral_value(ROUND_HALF_EVEN))


def _parsed_day(written: str, formats: tuple[str, ...]) -> date:
    for pattern in formats:
        try:
            if pattern == "iso":
                return datetime.fromisoformat(written).date()
            return datetime.strptime(written, pattern).date()  # noqa: DTZ007 - a day of the account's own zone
        except ValueError:
            continue
    wanted = " or ".join("2026-11-01" if each == "iso" else each for each in formats)
    raise _RuleError("day", f"must be a day in the form {wanted}")
