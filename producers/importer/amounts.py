"""Amounts of money as files write them: a decimal point or comma, and thousands separators where the plan names one.

Invariant: a text is one amount or it is refused. Groups between separators have three digits; where the plan only
assumes a separator (a preset does), ``1,249`` is refused, because it could be 1.249.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from decimal import Decimal
from typing import Any

from attributary.producers.importer import cells
from attributary.producers.importer.plan import ImportPlan

AmountReader = Callable[[Any], Decimal]

_MARKS = {"space": " \u00a0\u202f\u2009", " ": " \u00a0\u202f\u2009", "'": "'\u2019"}
"""Separators that are written with several characters."""


def amount_reader(plan: ImportPlan) -> AmountReader:
    """Return the reader of amounts."""
    thousands = plan.thousands or plan.assumed_thousands
    plain = _with_comma if plan.decimal_comma else cells.decimal
    if thousands is None or (plan.thousands is None and thousands == ("," if plan.decimal_comma else ".")):
        return plain
    mark = "," if plan.decimal_comma else "."
    separators = re.escape(_MARKS.get(thousands, thousands))
    grouped = re.compile(rf"([+-]?[0-9]{{1,3}})((?:[{separators}][0-9]{{3}})+)((?:{re.escape(mark)}[0-9]+)?)")
    has_separator = re.compile(rf"[{separators}]")

    def read(cell: Any) -> Decimal:
        bare = cell.strip() if isinstance(cell, str) else ""
        if not has_separator.search(bare):
            return plain(cell)
        found = grouped.fullmatch(bare)
        if found is None:
            raise ValueError(f"must be a number with {mark!r} for decimals and {thousands!r} before groups of 3 digits")
        if plan.thousands is None and len(found[2]) == len("000") + 1 and not found[3]:
            raise ValueError(
                f"could be thousands or decimals: say --thousands {thousands!r}, or --decimal-comma where it is one"
            )
        return plain(found[1] + has_separator.sub("", found[2]) + found[3])

    return read


def _with_comma(cell: Any) -> Decimal:
    """Return a number that is written with a decimal comma: 19,99."""
    if isinstance(cell, str):
        if "." in cell:
            raise ValueError("must be a number with a decimal comma and no points")
        return cells.decimal(cell.replace(",", "."))
    return cells.decimal(cell)
