"""Files of exchange rates: the European Central Bank's table, or one rate a line.

Contract: the ECB's file has ``Date`` and a column a currency, all of them units for one euro; ``N/A`` says that there
is none. A plain file has the columns ``day``, ``base``, ``quote`` and ``rate``. Rates are read exactly as written.
A ZIP archive may hold either as its one file, as the ECB publishes its own.
"""

from __future__ import annotations

import tempfile
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any, NamedTuple

from attributary.attribution_core.spend.rates import PIVOT, Quote
from attributary.producers.importer.cells import decimal, is_missing
from attributary.producers.importer.plan import PlanError, listed
from attributary.producers.importer.rows import FileError, Row
from attributary.schemas.limits import MINOR_UNIT_MICROS

_PLAIN = ("day", "base", "quote", "rate")
_NONE = frozenset({"N/A", "-", "NA"})
_CODE_LETTERS = 3
_LARGEST, _SMALLEST = Decimal(10) ** 12, Decimal(10) ** -12
_MAX_UNPACKED = 1 << 26
"""Bytes of an archive's file. The ECB's table of all days since 1999 has 2 MiB."""


class RejectedRate(NamedTuple):
    """A cell that is no rate."""

    line: int
    field: str
    rule: str


class RateFile(NamedTuple):
    """What a file of rates holds.

    Attributes:
        quotes: of each pair and day one, the last of the file.
        rejected: cells that are no rates.
        form: ``ecb`` or ``plain``.
        left_out: columns of the ECB's table that are no currency of today, such as those that gave way to the euro.
    """

    quotes: list[Quote]
    rejected: list[RejectedRate]
    form: str
    left_out: tuple[str, ...] = ()


class _RateError(ValueError):
    def __init__(self, name: str, rule: str) -> None:
        super().__init__(rule)
        self.field = name


@contextmanager
def unpacked(path: Path) -> Iterator[Path]:
    """Yield the path of a file of rates: the file itself, or the one file of a ZIP archive, unpacked for so long.

    Raises:
        FileError: the archive is none, holds another number of files than one, or one of more than 64 MiB.
    """
    if path.suffix.lower() != ".zip":
        yield path
        return
    with tempfile.TemporaryDirectory(prefix="attributary-") as folder:
        table = Path(folder, f"{path.stem}.csv")
        try:
            with zipfile.ZipFile(path) as archive:
                members = [each for each in archive.infolist() if not each.is_dir()]
                if len(members) != 1:
                    raise FileError(f"an archive of rates holds one file; this one holds {len(members)}")
                with archive.open(members[0]) as packed:
                    content = packed.read(_MAX_UNPACKED + 1)
        except OSError as error:
            raise FileError(error.strerror or "it cannot be read") from None
        except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, NotImplementedError) as error:
            raise FileError(f"no ZIP archive that can be read: {error}") from None
        if len(content) > _MAX_UNPACKED:
            raise FileError(f"its file unpacks to more than {_MAX_UNPACKED >> 20} MiB; a table of rates has less")
        table.write_bytes(content)
        yield table


def read_rates(rows: Iterable[Row], columns: Sequence[str]) -> RateFile:
    """Return what a file of rates holds.

    Raises:
        PlanError: its columns are neither of the two forms.
    """
    names = {column.casefold(): column for column in columns}
    left_out: tuple[str, ...] = ()
    if set(_PLAIN) <= names.keys():
        form, read = "plain", _plain
        wanted: Mapping[str, str] = names
    else:
        codes = [column for column in columns if len(column) == _CODE_LETTERS and column.isupper()]
        if "date" not in names or not codes:
            raise PlanError(
                "neither the ECB's table (Date, USD, JPY, ...) nor a plain one (day, base, quote, rate): the file has "
                f"{listed(columns)}"
            )
        form, read = "ecb", _of_ecb
        left_out = tuple(code for code in codes if code not in MINOR_UNIT_MICROS)
        wanted = {"date": names["date"], **{code: code for code in codes if code in MINOR_UNIT_MICROS}}
    found: dict[tuple[date, str, str], Quote] = {}
    rejected: list[RejectedRate] = []
    for row in rows:
        try:
            for each in read(_sound(row), wanted):
                if isinstance(each, RejectedRate):
                    rejected.append(each)
                else:
                    found[each.day, each.base, each.quote] = each
        except _RateError as error:
            rejected.append(RejectedRate(row.line, error.field, str(error)))
    return RateFile(list(found.values()), rejected, form, left_out)


def _sound(row: Row) -> Row:
    if row.fault is not None:
        raise _RateError("(row)", row.fault)
    return row


def _of_ecb(row: Row, columns: Mapping[str, str]) -> Iterator[Quote | RejectedRate]:
    day = _day(row.cells.get(columns["date"]))
    for code in columns:
        cell = None if code == "date" else row.cells.get(code)
        if is_missing(cell) or str(cell).strip() in _NONE:
            continue
        try:
            yield Quote(day, PIVOT, code, _rate(cell))
        except _RateError as error:
            yield RejectedRate(row.line, code, str(error))


def _plain(row: Row, columns: Mapping[str, str]) -> Iterator[Quote | RejectedRate]:
    cells = {name: row.cells.get(columns[name]) for name in _PLAIN}
    base, quote = (_currency(str(cells[name] or ""), name) for name in ("base", "quote"))
    if base == quote:
        raise _RateError("quote", "must be another currency than base")
    yield Quote(_day(cells["day"]), base, quote, _rate(cells["rate"]))


def _day(cell: Any) -> date:
    if isinstance(cell, datetime):
        return cell.date()
    if isinstance(cell, date):
        return cell
    for pattern in (None, "%d %B %Y", "%d.%m.%Y"):
        try:
            written = str(cell).strip()
            return (datetime.fromisoformat(written) if pattern is None else datetime.strptime(written, pattern)).date()  # noqa: DTZ007
        except ValueError:
            continue
    raise _RateError("day", "must be a day, such as 2026-11-01")


def _currency(written: str, name: str) -> str:
    code = written.strip().upper()
    if code not in MINOR_UNIT_MICROS:
        raise _RateError(name, "must be an ISO 4217 code that prices something")
    return code


def _rate(cell: Any) -> Decimal:
    try:
        rate = decimal(cell)
    except ValueError as error:
        raise _RateError("rate", str(error)) from None
    if not _SMALLEST <= rate <= _LARGEST:
        raise _RateError("rate", "must be above 0")
    return rate
