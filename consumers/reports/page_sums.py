"""The page's own parts as sums of one source: the roll-up, or the results one by one.

Invariants: rows of credit and `(unattributed)` sum to the conversions that a model credits; days sum to the total; what
stood at a moment and the changes since are what stands now, to the micro.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from attributary.consumers.store.results.credit_report import UNATTRIBUTED, CreditRow, share_of
from attributary.consumers.store.results.report_reads import CurrencyTotal

from .definition import Source

_NOTHING = 1e-9  # of a conversion: what floating point leaves of no credit


class Day(NamedTuple):
    """A day or month: YYYY-MM-DD or YYYY-MM, conversions, net micros, and how many cannot change any more."""

    day: str
    conversions: int
    net_micros: int
    final: int


class Change(NamedTuple):
    """Versions of one reason, and by how much they changed the net value; reason None: what stood before."""

    reason: str | None
    versions: int
    net_micros: int


def credit_rows(source: Source, currency: str) -> list[CreditRow]:
    """Return what models credit to each name, and what they leave to no touchpoint, in a currency."""
    rests = {rest.model: rest for rest in source.rests()}
    rows = [
        CreditRow(currency, (name,), model, True, touched, credit, micros,
                  share_of(credit, squares, rests[model].conversions if model in rests else 0))
        for model, name, touched, credit, squares, micros in source.credits()
    ]  # fmt: skip
    for rest in rests.values():
        credit, micros = rest.untouched + rest.baseline, rest.untouched_micros + rest.baseline_micros
        if credit > _NOTHING or micros:
            share = share_of(credit, rest.squares, rest.conversions)
            rows.append(CreditRow(currency, (UNATTRIBUTED,), rest.model, False, 0, credit, micros, share, UNATTRIBUTED))
    return rows


def days_of(source: Source) -> list[Day]:
    """Return the days with a conversion, in order."""
    found = [Day(str(day), conversions, net, final) for day, conversions, final, net, *_ in source.conversion_days()]
    return sorted(found)


def changes_of(source: Source, total: CurrencyTotal) -> Sequence[Change]:
    """Return what stood at the moment of the request (reason None), and what changed since by reason.

    Args:
        source: asked about one model: each model's credits sum to the net value, so any says by how much it changed.
        total: what stands now.
    """
    moved: dict[str, list[int]] = {}
    for name, reason, versions, _, micros in source.changes():
        sums = moved.setdefault(reason, [0, 0])
        sums[0] += versions if name == UNATTRIBUTED else 0  # every version counts once there
        sums[1] += micros
    later = [Change(reason, *sums) for reason, sums in sorted(moved.items())]
    return [Change(None, 0, total.net_micros - sum(change.net_micros for change in later)), *later]
