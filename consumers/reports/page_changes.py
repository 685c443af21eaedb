"""What changed on the page: what stood at a moment, what changed it since and why, as a whole and by channel.

Invariant: what stood and the changes by reason are what stands now, to the micro.
"""

from __future__ import annotations

import html
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from .cells import amount, moment, money
from .change_reports import NOW, REPORTED
from .definition import OTHER, counted
from .page_charts import Bar, section, table

if TYPE_CHECKING:
    from .page_facts import PageFacts
    from .page_sums import Change

_SHOWN = 12
_NAMED = 3
_REASONS = {
    "new": "new conversions",
    "late_touchpoint": "late touchpoints",
    "identity": "identity links",
    "restated": "restated values",
    "refund": "refunds and cancellations",
    "final": "closed by the lateness policy",
    "model_refit": "attributed again by other models or another policy",
    "repair": "repairs",
    "erasure": "erasures",
    "retirement": "conversions that retired",
}


def changes_finding(facts: PageFacts) -> str:
    """Return in one sentence what changed since the moment, and by which reasons most."""
    stood, later = _parts(facts)
    currency, moved = facts.total.currency, sum(change.net_micros for change in later)
    when = f"{moment(facts.changed_since, clock=True)} UTC"
    if not later:
        return f"Nothing changed since {when}: {amount(stood, currency)} stood then and stands now."
    versions = counted(sum(change.versions for change in later), "new version")
    told = [
        f"{_reason(change.reason)} {_signed(change.net_micros, currency)}"
        for change in later[:_NAMED] if change.net_micros
    ]  # fmt: skip
    why = f": {', '.join(told)}" if told else ""
    by = f" by {_signed(moved, currency)} {currency}" if amount(0, currency) != "no value" else ""
    return (
        f"On {when} these conversions stood at {amount(stood, currency)}; {versions} since then changed that{by}{why}."
    )


def changes_section(facts: PageFacts, end: str) -> str:
    """Return the part about the net value; the end is HTML."""
    stood, later = _parts(facts)
    currency, when = facts.total.currency, f"{moment(facts.changed_since, clock=True)} UTC"
    moved = sum(change.net_micros for change in later)
    rows = [
        [f"stood on {when}", "", money(stood, currency)],
        *([html.escape(_reason(change.reason)), f"{change.versions:,}", money(change.net_micros, currency)]
          for change in later),
        ["stands now", "", money(stood + moved, currency)],
    ]  # fmt: skip
    return section(
        "changes", "What changed, and why", html.escape(changes_finding(facts)),
        table("From then to now", ["reason", "versions", f"net {currency}"], rows, is_open=True),
        "<p>Late touchpoints, identity links and other models move credit between channels and leave the sum.</p>",
        end,
    )  # fmt: skip


def restatement_bars(rows: Sequence[Sequence[Any]]) -> list[Bar]:
    """Return what moved for each name of the report `restatements`, by reason, in its order."""
    of_name: dict[str, list[Sequence[Any]]] = {}
    for row in rows:
        of_name.setdefault(row[0], []).append(row)
    moved = {name: sum(row[3] for row in parts if row[1] not in {REPORTED, NOW}) for name, parts in of_name.items()}
    most = max(map(abs, moved.values()), default=0.0) or 1.0
    found = []
    for name, parts in of_name.items():
        reasons = [row for row in parts if row[1] not in {REPORTED, NOW} and abs(row[3]) >= 0.05]
        reasons.sort(key=lambda row: -abs(row[3]))
        if name != OTHER and reasons:
            why = ", ".join(f"{_reason(row[1])} {row[3]:+,.1f}" for row in reasons[:_NAMED])
            found.append(Bar(name, f"{moved[name]:+,.1f} conversions: {why}", moved[name] / most))
    return found[:_SHOWN]


def _parts(facts: PageFacts) -> tuple[int, list[Change]]:
    """Return what stood, and the changes since, what moved most first."""
    stood = sum(change.net_micros for change in facts.changes if change.reason is None)
    later = [change for change in facts.changes if change.reason is not None]
    return stood, sorted(later, key=lambda change: (-abs(change.net_micros), -change.versions, change.reason))


def _reason(reason: str | None) -> str:
    return _REASONS.get(reason or "", reason or "")


def _signed(micros: int, currency: str) -> str:
    return f"{'+' if micros >= 0 else ''}{money(micros, currency)}"
