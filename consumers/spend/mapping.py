"""How the columns of a platform's report become rows of spend: a mapping that ships, or a file of the user's.

Contract: a mapping names candidates for each field, the first that a file has counts; what the caller says goes before
it. A currency is never guessed: a column, the header of the amount (``Amount spent (EUR)``) or an option names it. Each
mapping says in its file where its columns come from.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from decimal import Decimal
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml

from attributary.attribution_core.spend.slices import LEVELS
from attributary.producers.importer.plan import PlanError, listed, parse_pairs, parse_timezone
from attributary.schemas.limits import MINOR_UNIT_MICROS, is_word

SHIPPED = ("google", "meta", "tiktok", "linkedin", "microsoft", "fivetran", "airbyte")
FIELDS = (
    "platform", "account", "time_zone", "day", "campaign_id", "campaign_name", "ad_set_id", "ad_set_name", "ad_id",
    "ad_name", "amount", "amount_micros", "currency", "impressions", "clicks", "conversions", "conversion_value",
)  # fmt: skip
_DOCUMENT = frozenset(
    {"platform", "account", "level", "map", "currency", "time_zone", "tax", "empty", "day_formats", "delimiter",
     "encoding", "skip_lines", "decimal_comma", "thousands", "assumed_thousands", "left_out"}
)  # fmt: skip
_HEADER_CURRENCY = re.compile(r"\(([A-Z]{3})\)$")
_TAX = re.compile(r"included:([0-9]{1,2}(?:\.[0-9]{1,4})?)")
_LEVEL_FIELDS = {"ad": ("ad_id",), "ad_set": ("ad_set_id",), "campaign": ("campaign_id", "campaign_name")}


@dataclass(frozen=True, slots=True, kw_only=True)
class SpendMapping:
    """How a report is read.

    Attributes:
        columns: our field -> columns, of which the first that the file has counts; ``*`` in one stands for anything.
        platform: of rows that name none; as touchpoints call it.
        account: of rows that name none.
        level: what a row is of; None: the finest of which the file has the id.
        currency: of rows that name none.
        time_zone: of accounts of which the file does not say it; IANA name.
        tax_percent: tax that amounts include, percent of the net amount; 0: none.
        empty: texts that say nothing, such as ``--``.
        left_out: beginnings of a row's first cell that make it no row, such as ``Total``.
        day_formats: patterns of strptime, or iso.
        delimiter: between cells of CSV.
        encoding: of CSV.
        skip_lines: above the header.
        decimal_comma: amounts are written 19,99.
        thousands: separator of thousands in amounts.
        assumed_thousands: the same, as a shipped mapping has it: what could be decimals is refused.
    """

    columns: Mapping[str, tuple[str, ...]]
    platform: str | None = None
    account: str | None = None
    level: str | None = None
    currency: str | None = None
    time_zone: str | None = None
    tax_percent: Decimal = Decimal(0)
    empty: frozenset[str] = frozenset()
    left_out: tuple[str, ...] = ()
    day_formats: tuple[str, ...] = ("iso",)
    delimiter: str | None = None
    encoding: str | None = None
    skip_lines: int = 0
    decimal_comma: bool = False
    thousands: str | None = None
    assumed_thousands: str | None = None


@dataclass(frozen=True, slots=True)
class FittedMapping:
    """A mapping on the columns that a file has.

    Attributes:
        mapping: the mapping.
        columns: our field -> the file's column.
        level: what a row is of.
        currency: of rows that name none; None: each row must.
        unused: columns that are not read.
    """

    mapping: SpendMapping
    columns: Mapping[str, str]
    level: str
    currency: str | None
    unused: tuple[str, ...] = field(default=())


@cache
def _shipped(name: str) -> Mapping[str, Any]:
    return dict(yaml.safe_load((files(__package__) / "mappings" / f"{name}.yaml").read_text("utf-8")))


def read_mapping(name: str, options: Mapping[str, Any]) -> SpendMapping:
    """Return a mapping.

    Args:
        name: one of ``SHIPPED``, or the path of a YAML file with the same parts.
        options: parts that go before it; ``map`` as ``our_field=their_column``; None or empty: not given.

    Raises:
        PlanError: there is no such mapping, or it says what cannot be used.
    """
    document = _shipped(name) if name in SHIPPED else _of_file(Path(name))
    columns = _columns(document.get("map") or {})
    columns |= {ours: (theirs,) for ours, theirs in parse_pairs("--map", options.get("map") or ()).items()}
    if unknown := sorted(columns.keys() - set(FIELDS)):
        raise PlanError(f"{unknown[0]}: spend has no such field; it has {', '.join(FIELDS)}")

    def part(wanted: str) -> Any:
        return options.get(wanted) or document.get(wanted)

    mapping = SpendMapping(
        columns=columns,
        platform=part("platform"),
        account=_text(part("account")),
        level=part("level"),
        currency=part("currency"),
        time_zone=part("time_zone"),
        tax_percent=_tax(part("tax")),
        empty=frozenset(_texts("empty", document.get("empty"))),
        left_out=_texts("left_out", document.get("left_out")),
        day_formats=_texts("day_formats", part("day_formats")) or ("iso",),
        delimiter=part("delimiter"),
        encoding=part("encoding"),
        skip_lines=_lines(part("skip_lines")),
        decimal_comma=bool(part("decimal_comma")),
        thousands=part("thousands"),
        assumed_thousands=None if part("thousands") else document.get("assumed_thousands"),
    )
    _check(mapping)
    return mapping


def _of_file(path: Path) -> Mapping[str, Any]:
    if path.suffix.lower() not in {".yaml", ".yml"}:
        raise PlanError(f"mapping {path.name}: there is none; there are {', '.join(SHIPPED)}, or name a .yaml file")
    try:
        document: Any = yaml.safe_load(path.read_text("utf-8")) or {}
    except OSError as error:
        raise PlanError(f"{path.name}: {error.strerror}") from None
    except (yaml.YAMLError, UnicodeDecodeError):
        raise PlanError(f"{path.name}: is not YAML") from None
    if not isinstance(document, dict):
        raise PlanError(f"{path.name}: must be a mapping of {', '.join(sorted(_DOCUMENT))}")
    if unknown := sorted(str(key) for key in document.keys() - _DOCUMENT):
        raise PlanError(f"{path.name}: {unknown[0]} is not known; expected {', '.join(sorted(_DOCUMENT))}")
    return document


def _columns(given: Any) -> dict[str, tuple[str, ...]]:
    if not isinstance(given, Mapping):
        raise PlanError("map: must hold our_field: their_column, or a list of columns")
    return {str(name): _texts(f"map: {name}", candidates) for name, candidates in given.items()}


def _texts(name: str, given: Any) -> tuple[str, ...]:
    texts = [given] if isinstance(given, str) else list(given or ())
    if not all(isinstance(text, str) for text in texts):
        raise PlanError(f"{name}: must be a text or a list of texts")
    return tuple(texts)


def _text(given: Any) -> str | None:
    return None if given is None else str(given)


def _lines(given: Any) -> int:
    if given is None:
        return 0
    if not isinstance(given, int) or given < 0:
        raise PlanError("skip_lines: must be a number of lines")
    return given


def _tax(given: Any) -> Decimal:
    """Return the percent of tax that amounts include; `excluded` and nothing: none."""
    if given in (None, "", "excluded"):
        return Decimal(0)
    found = _TAX.fullmatch(str(given))
    if found is None:
        raise PlanError("tax: must be excluded, or included:PERCENT, for example included:19")
    return Decimal(found[1])


def _check(mapping: SpendMapping) -> None:
    if mapping.level is not None and mapping.level not in LEVELS:
        raise PlanError(f"level: must be one of {', '.join(LEVELS)}")
    if mapping.platform is not None and not is_word(str(mapping.platform)):
        raise PlanError("platform: must be a lower-case word, as touchpoints have it: google, meta, tiktok, ...")
    if mapping.currency is not None and mapping.currency not in MINOR_UNIT_MICROS:
        raise PlanError("currency: must be an upper-case ISO 4217 code, for example EUR")
    parse_timezone(mapping.time_zone)


def fitted(mapping: SpendMapping, columns: Sequence[str]) -> FittedMapping:
    """Return a mapping on the columns of a file.

    Raises:
        PlanError: the file lacks a column that every report needs; says which were looked for.
    """
    found = {ours: theirs for ours, names in mapping.columns.items() if (theirs := _first(names, columns))}
    for name, candidates in (("day", mapping.columns.get("day", ())), ("amount", _amounts(mapping))):
        if name not in found and not (name == "amount" and "amount_micros" in found):
            raise PlanError(_missing(name, candidates, columns))
    if mapping.platform is None and "platform" not in found:
        raise PlanError(_missing("platform", mapping.columns.get("platform", ()), columns, "--platform"))
    if mapping.account is None and "account" not in found:
        raise PlanError(_missing("account", mapping.columns.get("account", ()), columns, "--account"))
    header = _HEADER_CURRENCY.search(found.get("amount", ""))
    currency = header[1] if header and header[1] in MINOR_UNIT_MICROS else None
    if currency and mapping.currency not in (None, currency):
        raise PlanError(f"currency: the column {found['amount']} is in {currency}, not {mapping.currency}")
    if mapping.currency is None and currency is None and "currency" not in found:
        raise PlanError(_missing("currency", mapping.columns.get("currency", ()), columns, "--currency"))
    level = mapping.level or _finest(found)
    if level != "account" and not any(name in found for name in _LEVEL_FIELDS[level]):
        raise PlanError(_missing(_LEVEL_FIELDS[level][0], mapping.columns.get(_LEVEL_FIELDS[level][0], ()), columns))
    unused = tuple(column for column in columns if column not in found.values())
    return FittedMapping(replace(mapping), found, level, mapping.currency or currency, unused)


def _finest(found: Mapping[str, str]) -> str:
    return next((level for level, names in _LEVEL_FIELDS.items() if any(name in found for name in names)), "account")


def _amounts(mapping: SpendMapping) -> tuple[str, ...]:
    return (*mapping.columns.get("amount", ()), *mapping.columns.get("amount_micros", ()))


def _first(candidates: Iterable[str], columns: Sequence[str]) -> str | None:
    """Return the first candidate that the file has, whatever its case; ``*`` stands for anything."""
    by_name = {column.casefold(): column for column in reversed(columns)}
    for candidate in candidates:
        wanted = candidate.casefold()
        if "*" in wanted:
            begin, _, end = wanted.partition("*")
            found = next((by_name[name] for name in by_name if name.startswith(begin) and name.endswith(end)), None)
        else:
            found = by_name.get(wanted)
        if found is not None:
            return found
    return None


def _missing(name: str, candidates: Sequence[str], columns: Sequence[str], option: str = "") -> str:
    looked = f" (looked for {', '.join(candidates)})" if candidates else ""
    cure = f"--map {name}=COLUMN" + (f", or give {option}" if option else "")
    return f"no column gives {name}{looked}; name it: {cure}. The file has {listed(columns)}"
