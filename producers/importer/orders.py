"""Rows that belong together: one order of a shop in several rows of a file.

Contract: rows with one order number that stand together are one order; so are rows below it that name no order and hold
nothing but a line of one (see ``is_continuation``). Memory does not grow with the file: of an order at most
``MOST_ROWS`` rows are held, the rows beyond them come out as an order with a ``fault``. An order number that comes back
further down is another ``Order`` with the same key; who imports it decides (``importer.run`` refuses other content).

Invariant: every row comes out once, in the file's order; so an import can go on behind any order.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

from attributary.producers.importer.rows import Row
from attributary.schemas.limits import ITEMS

MOST_ROWS = ITEMS
"""As many rows of one order as a conversion has items."""

KeyReader = Callable[[Row], str]


class Order(NamedTuple):
    """Rows that make one conversion; without grouping a single row."""

    rows: tuple[Row, ...]
    key: str | None = None  # the order number; None: without grouping, or the row names none
    fault: str | None = None  # why the rows are no order


def single_rows(rows: Iterator[Row]) -> Iterator[Order]:
    """Return every row for itself."""
    return (Order((row,)) for row in rows)


def grouped(rows: Iterator[Row], read_key: KeyReader, is_continuation: Callable[[Row], bool]) -> Iterator[Order]:
    """Return the orders of a file.

    Args:
        rows: the rows of the file.
        read_key: gives the order number of a row; empty where it names none.
        is_continuation: tells whether a row without a number only adds a line to the order above it.
    """
    held: list[Row] = []
    key = ""
    too_long = False
    for row in rows:
        found = read_key(row)
        if held and key and (found == key or (not found and row.fault is None and is_continuation(row))):
            if len(held) == MOST_ROWS:
                too_long = True
                yield _order(held, key, too_long=True)
                held = []
            held.append(row)
            continue
        if held:
            yield _order(held, key, too_long=too_long)
        held, key, too_long = [row], found, False
    if held:
        yield _order(held, key, too_long=too_long)


def _order(rows: list[Row], key: str, *, too_long: bool) -> Order:
    broken = next((row for row in rows if row.fault is not None), None)
    fault = None
    if too_long:
        fault = f"is an order of more than {MOST_ROWS:,} rows"
    elif broken is not None and len(rows) > 1:
        fault = f"line {broken.line} of the order {broken.fault}"
    elif not key and broken is None:
        fault = "names no order"
    return Order(tuple(rows), key or None, fault)
