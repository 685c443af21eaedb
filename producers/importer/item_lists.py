"""Lines of an order that stand in one cell each, or in one cell together.

Contract: three forms are read, ``name:Socks|sku:SO-1|quantity:2|total:30.00`` as exporters of WooCommerce write it
(several of them apart by ``;``), JSON, and lists of objects. Which part is which of our fields says the plan
(``item_parts``); other parts are left out. ``line_total`` is the price of the whole line: divided by the quantity where
that is exact.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal
from fnmatch import fnmatchcase
from typing import Any

from attributary.producers.importer import cells
from attributary.producers.importer.amounts import amount_reader
from attributary.producers.importer.columns import cell
from attributary.producers.importer.fields import FieldReaders
from attributary.producers.importer.outcomes import RowRefused
from attributary.producers.importer.plan import LINE_TOTAL, ImportPlan
from attributary.producers.importer.rows import Row

_NEXT_ITEM = re.compile(r";\s*(?=(?:id|name|product_id|sku):)")


class ItemLists:
    """Reads the items of the columns that hold them.

    Args:
        plan: names the columns (patterns such as ``line_item_*`` may be among them) and the parts.
        file_columns: the columns of the file, when it names them all at its start.
    """

    def __init__(self, plan: ImportPlan, file_columns: Sequence[str] | None) -> None:
        self.columns = [
            name
            for pattern in plan.item_lists
            for name in (_matching(pattern, file_columns) if file_columns is not None else [pattern])
        ]
        readers = FieldReaders(plan)
        self._empty = plan.empty
        self._parts = [
            (ours, theirs, amount_reader(plan) if ours == LINE_TOTAL else readers.reader(f"items.{ours}"))
            for ours, theirs in plan.item_parts.items()
        ]

    def items(self, rows: Sequence[Row]) -> list[dict[str, Any]]:
        """Return the lines of an order.

        Raises:
            RowRefused: a part cannot be read.
        """
        found = []
        for row in rows:
            for column in self.columns:
                given = cell(row.cells, column)
                if cells.is_missing(given):
                    continue
                try:
                    found += [item for element in _elements(given) if (item := self._item(element))]
                except ValueError as error:
                    raise RowRefused("items", str(error), column, row.line) from None
        return found

    def _item(self, element: Mapping[str, Any]) -> dict[str, Any] | None:
        item: dict[str, Any] = {}
        for ours, theirs, read in self._parts:
            given = next((element[name] for name in theirs if self._says(element.get(name))), None)
            if given is None:
                continue
            try:
                item[ours] = read(given)
            except ValueError as error:
                raise ValueError(f"{ours} {error}") from None
        total, quantity = item.pop(LINE_TOTAL, None), item.get("quantity", 1)
        if not item or quantity == 0:
            return None
        if "item_id" not in item:
            raise ValueError("item_id must be set")
        if "price" in item:
            item["price_micros"] = item.pop("price")
        elif total is not None and (micros := _price(total, quantity)) is not None:
            item["price_micros"] = micros
        return item

    def _says(self, given: Any) -> bool:
        return not cells.is_missing(given) and given not in self._empty


def _matching(pattern: str, file_columns: Sequence[str]) -> Iterator[str]:
    """Return the columns of a pattern, ``line_item_2`` before ``line_item_10``; a path needs its first name only."""
    named = [name for name in file_columns if fnmatchcase(name, pattern)]
    if not named and pattern.partition(".")[0] in file_columns:
        named = [pattern]
    return iter(sorted(named, key=lambda name: [int(part) if part.isdigit() else part for part in _split(name)]))


def _split(name: str) -> list[str]:
    return re.split(r"([0-9]+)", name)


def _elements(given: Any) -> Iterator[Mapping[str, Any]]:
    if isinstance(given, str) and given.lstrip()[:1] not in {"[", "{"}:
        for text in _NEXT_ITEM.split(given):
            yield dict(pair.strip().split(":", 1) for pair in text.split("|") if ":" in pair)
        return
    parsed = cells.parsed(given)
    for element in parsed if isinstance(parsed, list) else [parsed]:
        if not isinstance(element, Mapping):
            raise ValueError("must be a list of objects")  # noqa: TRY004 - one class for all faults of cells
        yield element


def _price(total: Decimal, quantity: float) -> int | None:
    """Return the price of one piece in micros; None where it is no whole number of them."""
    price = total * 1_000_000 / Decimal(str(quantity))
    return int(price) if price == price.to_integral_value() else None
