"""The text of `attributary explain`: at most as wide as asked, a verdict on a line of its own, no id cut."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from attributary.cli.block_table import Column, block_table, wrapped
from attributary.cli.explain_notices import notices
from attributary.cli.tables import amount, money, plural, safe

if TYPE_CHECKING:
    from attributary.consumers.store.events.explain import Explanation, ModelCredit, TouchFact, VersionFact

_UNATTRIBUTED = "(unattributed)"
_LEAST = 0.0005  # a share that is shown as 0.0 %


def explanation_text(found: Explanation, moment: int | None, width: int) -> str:
    """Return everything that decides about a conversion, in lines that fit.

    Args:
        found: the explanation.
        moment: mark the version that was reported then, microseconds UTC; None: mark none.
        width: places in a line.
    """
    return "\n".join(line.rstrip() for text in _lines(found, moment) for line in _fitted(text, width))


def reported_version(found: Explanation, moment: int) -> int | None:
    """Return the version that was the newest at a moment (microseconds UTC); None: there was none yet."""
    return max((v.version for v in found.versions if v.computed_at <= moment), default=None)


def _fitted(text: str | tuple[Column, ...], width: int) -> list[str]:
    """Return a line in lines that fit, further ones indented; or the lines of a table of a name and numbers."""
    if isinstance(text, tuple):
        return block_table(text[:1], text[1:], width).split("\n")
    inner = text.lstrip(" ")
    indent = " " * (len(text) - len(inner))
    if len(text) <= width:
        return [text]
    first, *more = wrapped(inner, width - len(indent) - 4).split("\n")
    return [indent + first, *(f"{indent}    {line}" for line in more)]


def _lines(found: Explanation, moment: int | None) -> Iterator[str | tuple[Column, ...]]:
    c = found.conversion
    if found.is_waiting:
        yield f"{safe(c.conversion_id)} of {c.tenant_id} waits: only corrections of it have arrived."
    else:
        yield (
            f"{safe(c.conversion_type)} {safe(c.conversion_id)} of {c.tenant_id}: "
            f"{amount(c.net_value_micros, c.currency)} net, {amount(c.gross_value_micros, c.currency)} gross"
        )
        yield f"  converted {_time(c.converted_at)} by {safe(c.journey_key)}"
        yield f"  version {c.version}, because: {c.version_reason}{', final' if c.is_final else ''}"
        yield f"  policy {c.policy_version}, model set {c.model_set}"
    for notice in notices(found):
        yield ""
        yield f"! {notice}"
    yield from _events(found)
    yield from _links(found)
    yield from _touches(found)
    if found.versions:
        yield from _credits(found, found.versions[-1])
    yield from _versions(found, moment)


def _events(found: Explanation) -> Iterator[str]:
    yield ""
    yield "Events about it"
    for event in found.events:
        yield (
            f"  {safe(event.event_id)}: {event.kind}, {amount(event.value_micros, event.currency)}, "
            f"{_time(event.occurred_at)}, {event.place}"
        )
        yield f"      {event.verdict}"
    if found.conflicts:
        yield ""
        yield "Contents that were set aside: the first record in the log has their event id"
        for k in found.conflicts:
            worth = "" if k.value_micros is None else f", {amount(k.value_micros, k.currency or '')}"
            yield f"  {k.record} {safe(k.event_id)}{worth}"
            yield f"      {safe(str(k.set_aside))} is set aside, {safe(str(k.stored))} is kept"


def _links(found: Explanation) -> Iterator[str]:
    if found.links:
        yield ""
        yield "Why it is this person"
    for link in found.links:
        decides = "; decides, it is the earliest" if link.decides else ""
        yield (
            f"  {safe(link.anonymous_id)} belongs to {safe(link.user_id)}: {safe(link.event_id)}, "
            f"{_time(link.linked_at)}{decides}"
        )


def _touches(found: Explanation) -> Iterator[str]:
    if found.is_waiting:
        return
    inside = sum(touch.is_in for touch in found.touches)
    yield ""
    yield f"Touchpoints of the person: {inside} in, {len(found.touches) - inside} out"
    for touch in found.touches:
        yield f"  {safe(touch.event_id)}: {_named(touch)}, {_time(touch.occurred_at)}, as {safe(touch.identity_key)}"
        yield f"      {touch.verdict}"


def _named(touch: TouchFact) -> str:
    campaign = f" ({safe(touch.campaign)})" if touch.campaign else ""
    return f"{safe(touch.channel)}{campaign} {touch.interaction}".rstrip()


def _credits(found: Explanation, version: VersionFact) -> Iterator[str | tuple[Column, ...]]:
    """Yield the credits of a version: a row a touch, a column a model."""
    currency = found.conversion.currency
    yield ""
    worth = "" if amount(0, currency) == "no value" else f", and net value in {currency}"
    yield f"Credits of version {version.version}: share{worth}"
    names = [f"{safe(touch.event_id)} {safe(touch.channel)}" for touch in version.touches]
    rests = [model for model in version.credits if model.unattributed_micros or not version.touches]
    columns = [Column("touchpoint", [*names, *([_UNATTRIBUTED] if rests else [])], "total")]
    for model in version.credits:
        cells = [
            f"{_percent(share)}  {money(micros, currency)}"
            for share, micros in zip(model.shares, model.micros, strict=True)
        ]
        if rests:
            rest = 1.0 - sum(model.shares)
            cells.append(f"{_percent(rest)}  {money(model.unattributed_micros, currency)}" if rest > _LEAST else "")
        title = f"{model.model}\n{'by ' + model.fallback if model.fallback else model.model_version}"
        columns.append(Column(title, cells, money(sum(model.micros) + model.unattributed_micros, currency)))
    yield tuple(columns)


def _versions(found: Explanation, moment: int | None) -> Iterator[str]:
    currency = found.conversion.currency
    yield ""
    yield "Published versions" if found.versions else "No version is published."
    reported = None if moment is None else reported_version(found, moment)
    before: VersionFact | None = None
    for version in found.versions:
        mark = f"  <- reported at {_time(moment)}" if moment is not None and version.version == reported else ""
        yield (
            f"  {version.version}  {version.reason}{', final' if version.is_final else ''}, "
            f"{_time(version.computed_at)}: {amount(version.net_value_micros, currency)} net, "
            f"{plural(version.touchpoint_count, 'touchpoint')}{mark}"
        )
        if before is not None:
            yield from (f"      {change}" for change in _changes(before, version, currency))
        before = version
    if moment is not None and reported is None:
        yield f"Reported at {_time(moment)}: nothing yet"


def _changes(before: VersionFact, after: VersionFact, currency: str) -> Iterator[str]:
    """Yield what a version changed: value, touchpoints, policy, versions of models, and each model's shares."""
    delta = after.net_value_micros - before.net_value_micros
    if delta:
        yield f"net {'+' if delta > 0 else ''}{amount(delta, currency)}"
    old = {touch.event_id: touch for touch in before.touches}
    new = {touch.event_id: touch for touch in after.touches}
    for sign, gained, other in (("+", new, old), ("-", old, new)):
        moved = [f"{safe(t.event_id)} ({safe(t.channel)})" for key, t in gained.items() if key not in other]
        if moved:
            yield f"{sign} {', '.join(moved)}"
    if before.policy_version != after.policy_version:
        yield f"policy {before.policy_version} -> {after.policy_version}"
    earlier = {model.model: model for model in before.credits}
    nothing = not delta and old == new
    for model in after.credits:
        was = earlier.get(model.model)
        if was is None:
            yield f"{model.model}: new"
            continue
        if was.model_version != model.model_version:
            yield f"{model.model}: version {was.model_version} -> {model.model_version}"
            nothing = False
        shares = _moved(_by_channel(before, was), _by_channel(after, model))
        if shares:
            nothing = False
            yield f"{model.model}: {shares}"
    if nothing:
        yield "the same credits"


def _by_channel(version: VersionFact, model: ModelCredit) -> dict[str, float]:
    found: dict[str, float] = {}
    for touch, share in zip(version.touches, model.shares, strict=True):
        found[touch.channel] = found.get(touch.channel, 0.0) + share
    rest = 1.0 - sum(model.shares)
    return found | ({_UNATTRIBUTED: rest} if rest > _LEAST else {})


def _moved(before: Mapping[str, float], after: Mapping[str, float]) -> str:
    names = sorted({*before, *after}, key=lambda name: (-before.get(name, 0.0), -after.get(name, 0.0), name))
    return ", ".join(
        f"{safe(name)} {_percent(before.get(name, 0.0))} -> {_percent(after.get(name, 0.0))}"
        for name in names
        if abs(before.get(name, 0.0) - after.get(name, 0.0)) > _LEAST
    )


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def _time(micros: int) -> str:
    return datetime.fromtimestamp(micros / 1e6, UTC).isoformat(sep=" ", timespec="seconds")[:19]
