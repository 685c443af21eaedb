"""What of an explanation needs an action: state, cause, next step, one sentence or two each."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from attributary.cli.tables import amount, plural, safe
from attributary.consumers.reports.fallback_notes import fallback_cause, fallback_cure

if TYPE_CHECKING:
    from attributary.consumers.store.events.explain import Explanation

_CORRECTIONS = ("refund", "cancellation", "restatement")


def notices(found: Explanation) -> Iterator[str]:
    """Yield what a reader of the numbers must know before them."""
    c = found.conversion
    if found.is_waiting:
        waiting = ", ".join(f"a {event.kind} ({safe(event.event_id)})" for event in found.events) or "a correction"
        yield (
            f"Nothing is published: {waiting} waits for its order. Publish the conversion event with the id "
            f"{safe(c.conversion_id)}; if it was sent, look for it with: attributary dlq list."
        )
        return
    if c.net_value_micros < 0 <= c.gross_value_micros:
        refunded = c.gross_value_micros - c.net_value_micros
        events = [event for event in found.events if event.kind == "refund" and event.verdict == "counts"]
        ids = f" by {', '.join(safe(event.event_id) for event in events)}" if events else ""
        yield (
            f"Over-refunded: {amount(refunded, c.currency)} are refunded{ids}, the value is "
            f"{amount(c.gross_value_micros, c.currency)}. The net value of {amount(c.net_value_micros, c.currency)} is "
            "credited as it is. If a refund is a repeat or wrong, publish a restatement with the true value."
        )
    ignored = [
        e for e in found.events if e.kind in _CORRECTIONS and e.verdict.startswith("changes nothing: in another")
    ]
    if ignored:
        ids = ", ".join(safe(event.event_id) for event in ignored)
        yield (
            f"{plural(len(ignored), 'correction')} in another currency than {c.currency} changes nothing: {ids}. "
            f"Publish it in {c.currency}."
        )
    if c.observed_version < c.version:
        newest = f"version {c.observed_version} is the newest" if c.observed_version else "none is published yet"
        yield (
            f"Version {c.version} is on its way: {newest}. If it does not come within minutes, look at the attributor, "
            "the auditor and the sweeper."
        )
    if not found.versions:
        return
    newest_version = found.versions[-1]
    if not newest_version.touches:
        yield "No touchpoint is in the lookback window: the whole value is unattributed. See the verdicts below."
    for model in newest_version.credits:
        if model.fallback is not None:
            cause = fallback_cause(model.model, model.model_version, model.fallback)
            cure = fallback_cure(model.model, model.model_version, c.tenant_id)
            yield f"{model.model} is credited {cause}. {cure}"
