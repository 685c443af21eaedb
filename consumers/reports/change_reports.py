"""Reports about the data itself: what changed since a moment and why, and how good the data is."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from .definition import OTHER, UNATTRIBUTED, Asked, Column, ReportTable, Source, counted, percent

CHANGE_COLUMNS = (
    Column("name", "name", "The channel, platform or campaign; (unattributed): what no touchpoint gets."),
    Column("reason", "text", "reported: as it stood then; why it changed; now: as it stands."),
    Column(
        "touched", "count", "Versions of conversions with the name that the reason raised, each once; not additive."
    ),
    Column("conversions", "credit", "Credit; for one name reported plus the reasons is now."),
    Column("value", "micros", "Its net value; for one name reported plus the reasons is now, to the micro."),
)
QUALITY_COLUMNS = (
    Column("check", "text", "What is counted."),
    Column("count", "count", "How many."),
    Column("of", "count", "Of how many."),
    Column("share", "share", "count / of."),
    Column("advice", "text", "What it means, and what to do."),
)
_FORGOTTEN = (
    "The roll-up shows what erasures and retirements took as reasons; the results forget such conversions whole, also "
    "as they were reported."
)
REPORTED, NOW = "reported", "now"
_ORDER = ("new", "late_touchpoint", "identity", "restated", "refund", "final", "model_refit", "repair")


def restatements(source: Source, asked: Asked) -> ReportTable:
    """Return what stood at a moment, what changed it, and what stands now, by name."""
    now: dict[str, tuple[float, int]] = {}
    for model, name, _, credit, _, micros in source.credits():
        if model == asked.model:
            now[name] = (credit, micros)
    for rest in source.rests():
        if rest.model == asked.model:
            now[UNATTRIBUTED] = (rest.untouched + rest.baseline, rest.untouched_micros + rest.baseline_micros)
    changes: dict[str, dict[str, tuple[int, float, int]]] = {}
    for name, reason, touched, credit, micros in source.changes():
        changes.setdefault(name, {})[reason] = (touched, credit, micros)
    moved = {name: sum(abs(part[2]) or abs(part[1]) for part in parts.values()) for name, parts in changes.items()}
    ranked = sorted(
        now.keys() | changes.keys(), key=lambda name: (-moved.get(name, 0), -now.get(name, (0.0, 0))[0], name)
    )
    limit = asked.request.limit or len(ranked)
    rows: list[Any] = []
    for name in ranked[:limit]:
        rows += _bridge(name, now.get(name, (0.0, 0)), changes.get(name, {}))
    if rare := ranked[limit:]:
        pooled: dict[str, tuple[int, float, int]] = {}
        for name in rare:
            for reason, (_, credit, micros) in changes.get(name, {}).items():
                before = pooled.get(reason, (0, 0.0, 0))
                pooled[reason] = (0, before[1] + credit, before[2] + micros)
        stands = [now.get(name, (0.0, 0)) for name in rare]
        rows += _bridge(OTHER, (sum(each[0] for each in stands), sum(each[1] for each in stands)), pooled)
    return ReportTable(rows, _finding(rows, asked), [
        "Late touchpoints, identity links and refits move credit between names and leave the sum; refunds lower it.",
        _FORGOTTEN,
    ])  # fmt: skip


def _bridge(name: str, now: tuple[float, int], parts: dict[str, tuple[int, float, int]]) -> list[Sequence[Any]]:
    credit = now[0] - sum(part[1] for part in parts.values())
    micros = now[1] - sum(part[2] for part in parts.values())
    known = [reason for reason in _ORDER if reason in parts] + sorted(set(parts) - set(_ORDER))
    return [
        (name, REPORTED, None, _round(credit), micros),
        *(
            (name, reason, parts[reason][0] or None, _round(parts[reason][1]), parts[reason][2])
            for reason in known
            if abs(parts[reason][1]) > 1e-9 or parts[reason][2]
        ),
        (name, NOW, None, _round(now[0]), now[1]),
    ]


def _round(credit: float) -> float:
    """Return a sum of credits without what floating point left of a difference."""
    return round(credit, 9) + 0.0


def _finding(rows: Sequence[Any], asked: Asked) -> str:
    moment = datetime.fromtimestamp(asked.request.since_us / 1e6, UTC).strftime("%Y-%m-%d %H:%M")
    sums: dict[str, float] = {}
    for _, reason, _, credit, _ in rows:
        sums[reason] = sums.get(reason, 0.0) + credit
    by_reason: dict[str, float] = {}
    for _, reason, _, credit, _ in rows:
        if reason not in {REPORTED, NOW}:
            by_reason[reason] = by_reason.get(reason, 0.0) + abs(credit)
    stood, stands = sums.get(REPORTED, 0.0), sums.get(NOW, 0.0)
    if not by_reason and not any(reason not in {REPORTED, NOW} for reason in sums):
        return f"Nothing changed since {moment} UTC: {stands:,.1f} conversions stood then and stand now."
    most = max(by_reason, key=lambda reason: (by_reason[reason], reason))
    return f"{stood:,.1f} conversions stood on {moment} UTC and {stands:,.1f} stand now; most credit moved by {most}."


def quality(source: Source, asked: Asked) -> ReportTable:
    """Return counts of what makes numbers less sure, the period's touchpoints and conversions beside them."""
    found = source.quality()
    touches, conversions, conflicts, most = found
    rests = {rest.model: rest for rest in source.rests()}
    rows: list[Any] = []

    def check(name: str, count: int, of: int, advice: str) -> None:
        rows.append((name, count, of, count / of if of else None, advice))

    check("touchpoints of robots", touches[1], touches[0], "kept, never credited")
    check("touchpoints without a campaign", touches[2], touches[0], "name campaigns in the URLs of ads")
    check("touchpoints of no known channel", touches[3], touches[0], "map source and medium to channels")
    check("touchpoints a day late or more", touches[4], touches[0], "credit moves when they arrive; see maturity")
    check(
        "conversions a day late or more", conversions[3], conversions[0], "recent days are not complete; see maturity"
    )
    check("conversions without a currency", conversions[2], conversions[0], "counted, without a value")
    check("conversions below zero", conversions[4], conversions[0], "refunds are above the value: check them")
    check("conversions with a newer version on its way", conversions[1], conversions[0], "attributary status says why")
    check("contents set aside", conflicts, touches[0] + conversions[0], "one event id came with several contents")
    for model in asked.request.models:
        rest = rests.get(model)
        if rest is not None:
            check(f"no touchpoint, {model}", round(rest.untouched), rest.conversions, "no touch in the lookback window")
            check(f"another rule, {model}", rest.fallbacks, rest.conversions, "train the model: docs/how-to/train.md")
    worst = max((row for row in rows if row[1]), key=lambda row: row[3] or 0.0, default=None)
    finding = (
        f"The largest share is of {worst[0]}: {percent(worst[3])}."
        if worst and worst[3]
        else "No check counted anything."
    )
    notes = ["Touchpoints and conversions are of the period in every currency and type; models are of this report's."]
    if found.is_cut:
        notes.append(
            f"Of touchpoints, conversions and contents the first {most:,} that were found were checked; there are "
            "more. With --source results all are."
        )
    return ReportTable([row for row in rows if row[2]], f"{finding} {counted(len(rows), 'check')} were made.", notes)
