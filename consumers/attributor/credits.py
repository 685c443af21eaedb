"""From a conversion's stored state to its result: pure.

Invariant: a result, apart from ``computed_at``, is a function of the conversion's row at its version, the touchpoints
stored then, the pinned policy and the pinned models; computed twice it has the same content hash. For every model the
micros of the touchpoints and the unattributed rest sum to the net value.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from operator import attrgetter
from typing import Any, NamedTuple

import numpy as np

from attributary.attribution_core.analysis.insights import Insight
from attributary.attribution_core.analysis.journey_insights import journey_insights
from attributary.attribution_core.domain.journeys import ChannelIndex, JourneyBatch
from attributary.attribution_core.domain.lookback import LookbackPolicy
from attributary.attribution_core.domain.money import split_micros, split_with_baseline
from attributary.attribution_core.models.model_set import Attribution, Model, ModelSet
from attributary.consumers.store.events.attribution_inputs import MAX_DEVICES, PendingConversion, ReachedTouchpoint

Record = dict[str, Any]

# A record takes at most 1 MiB (schemas/codec.py, and what brokers accept); insights and the frame need the rest.
_MOST_TOUCHPOINT_BYTES = 900_000
_BYTES_BESIDE_NAMES = 30  # time of a touchpoint, and lengths of its texts
_BYTES_A_MODEL = 18  # a credit and micros
# So many touchpoints with the longest ids and names that the rules allow fit, at most 6,030 bytes each, when up to so
# many models credit them.
_SURELY_FITS, _SURE_MODELS = 100, 100


@dataclass(frozen=True, slots=True)
class CreditedTouchpoints:
    """The touchpoints that count, by conversion, and where each conversion's begin."""

    touchpoints: Sequence[ReachedTouchpoint]
    offsets: np.ndarray[Any, np.dtype[np.int64]]

    def of(self, conversions: Sequence[int]) -> CreditedTouchpoints:
        """Return those of some conversions alone, by index."""
        offsets = self.offsets.tolist()
        parts = [self.touchpoints[offsets[number] : offsets[number + 1]] for number in conversions]
        counts = np.fromiter(map(len, parts), np.int64, len(parts))
        return CreditedTouchpoints(
            [touch for part in parts for touch in part], np.concatenate(([0], np.cumsum(counts))).astype(np.int64)
        )


def within_policy(
    conversions: Sequence[PendingConversion],
    touchpoints: Sequence[ReachedTouchpoint],
    policies: Mapping[str, LookbackPolicy],
) -> CreditedTouchpoints:
    """Keep the touchpoints that may share their conversion, with the channels that the policy reports them under.

    Args:
        conversions: as read.
        touchpoints: sorted by conversion, time, event id.
        policies: by version; every conversion's is among them.
    """
    kept: list[ReachedTouchpoint] = []
    counts = np.zeros(len(conversions), dtype=np.int64)
    for touch in touchpoints:
        conversion = conversions[touch.conversion]
        policy = policies[conversion.policy_version]
        window = policy.window_micros(touch.channel, conversion.conversion_type, touch.interaction)
        if policy.counts(
            age=conversion.converted_at - touch.occurred_at,
            window=window,
            delay=touch.received_at - conversion.received_at,
            is_bot=touch.is_bot,
        ):
            if policy.parts.channels:
                reported = policy.reported_channel(touch.platform, touch.channel, touch.campaign)
                touch = touch._replace(reported=reported)  # noqa: PLW2901  # the same touchpoint, with its name
            kept.append(touch)
            counts[touch.conversion] += 1
    return CreditedTouchpoints(kept, np.concatenate(([0], np.cumsum(counts))).astype(np.int64))


def within_size(credited: CreditedTouchpoints, models: int) -> CreditedTouchpoints:
    """Keep of each journey the newest touchpoints that fit into a record: nearly always all of them.

    A journey of a thousand touchpoints is a robot's more often than a person's, and must not stop the others. What is
    kept depends on the touchpoints alone.

    Args:
        credited: what counts.
        models: how many models credit it.
    """
    sure = _SURELY_FITS if models <= _SURE_MODELS else 0
    counts = np.diff(credited.offsets)
    if counts.size == 0 or int(counts.max()) <= sure:
        return credited
    kept: list[ReachedTouchpoint] = []
    for number, first in enumerate(credited.offsets[:-1].tolist()):
        start = last = int(credited.offsets[number + 1])
        left = _MOST_TOUCHPOINT_BYTES
        if last - first <= sure:
            start = first
        while start > first and (left := left - _bytes_of(credited.touchpoints[start - 1], models)) >= 0:
            start -= 1
        kept += credited.touchpoints[start:last]
        counts[number] = last - start
    return CreditedTouchpoints(kept, np.concatenate(([0], np.cumsum(counts))).astype(np.int64))


def _bytes_of(touch: ReachedTouchpoint, models: int) -> int:
    """Return what a touchpoint takes in a result of so many models: an upper bound."""
    names = len(f"{touch.event_id}{touch.reported_channel}{touch.platform}{touch.campaign}".encode())
    ids = len(f"{touch.campaign_id or ''}{touch.ad_set_id or ''}{touch.ad_id or ''}".encode())
    return names + ids + _BYTES_BESIDE_NAMES + models * _BYTES_A_MODEL


def journeys(conversions: Sequence[PendingConversion], credited: CreditedTouchpoints) -> JourneyBatch:
    """Encode the journeys of the conversions."""
    names = [touch.channel for touch in credited.touchpoints]
    index = ChannelIndex.of(names)
    channels = index.encode(names)
    return JourneyBatch(
        offsets=credited.offsets,
        channels=channels,
        times=np.fromiter((touch.occurred_at for touch in credited.touchpoints), np.int64, len(names)),
        converted_at=np.fromiter((conversion.converted_at for conversion in conversions), np.int64, len(conversions)),
        direct=index.direct(channels),
        index=index,
    )


class CreditedModel(NamedTuple):
    """What one model says of a conversion: credits and micros in the order of its touchpoints."""

    name: str
    version: str
    credits: Sequence[float]
    micros: Sequence[int]
    unattributed_micros: int
    confidence: float | None
    fallback: str | None


class CreditedResult(NamedTuple):
    """A conversion with what every model says of it; what they share stands once."""

    conversion: PendingConversion
    touchpoints: Sequence[ReachedTouchpoint]
    models: Sequence[CreditedModel]
    insights: Sequence[Insight]

    @property
    def delta_micros(self) -> int:
        """Net value less that of the version before."""
        conversion = self.conversion
        return conversion.net_value_micros - conversion.previous_net_micros if conversion.version > 1 else 0

    def record(self) -> Record:
        """Return the record of the results topic, still without ``computed_at`` and ``content_hash``."""
        record = _frame(self.conversion, len(self.touchpoints), self.delta_micros)
        record["touchpoints"] = [_touchpoint(touch) for touch in self.touchpoints]
        record["models"] = [
            {
                "model": model.name,
                "model_version": model.version,
                "credits": list(model.credits),
                "micros": list(model.micros),
                "unattributed_micros": model.unattributed_micros,
                "confidence": model.confidence,
                "fallback": model.fallback,
            }
            for model in self.models
        ]
        record["insights"] = [_insight(found) for found in self.insights]
        return record


def results(
    conversions: Sequence[PendingConversion],
    credited: CreditedTouchpoints,
    models: ModelSet,
    minor_unit_micros: Callable[[str], int],
    *,
    at_limit: Collection[int] = (),
    max_devices: int = MAX_DEVICES,
) -> list[CreditedResult]:
    """Return the result of each conversion.

    A result that leaves touchpoints out says so: insights ``journey.cut`` and ``journey.devices``.

    Args:
        conversions: all with the same model set and policy.
        credited: their touchpoints that count.
        models: to credit with.
        minor_unit_micros: micros of a currency's minor unit.
        at_limit: indexes of the conversions of which older touchpoints were not read.
        max_devices: of a user's anonymous ids so many were looked at.
    """
    counting = np.diff(credited.offsets).tolist()
    credited = within_size(credited, len(models.models))
    batch = journeys(conversions, credited)
    units = np.fromiter((minor_unit_micros(c.currency) for c in conversions), np.int64, len(conversions))
    values = np.fromiter((c.net_value_micros for c in conversions), np.int64, len(conversions))
    attributions = models.attribute(batch)
    insights = journey_insights(batch, models, attributions)
    per_model = []
    for model in models.models:
        attribution = attributions[model.name]
        if attribution.baseline is None:
            micros, rest = split_micros(attribution.credits, batch.offsets, values, units), np.zeros_like(values)
        else:
            micros, rest = split_with_baseline(attribution.credits, attribution.baseline, batch.offsets, values, units)
        per_model.append((model, attribution, attribution.credits.tolist(), micros.tolist(), rest.tolist()))
    offsets = batch.offsets.tolist()
    done = []
    for number, conversion in enumerate(conversions):
        first, last = offsets[number], offsets[number + 1]
        touchpoints = credited.touchpoints[first:last]
        said = [
            CreditedModel(
                model.name,
                model.version,
                credits_[first:last],
                micros[first:last],
                rest[number] if touchpoints else conversion.net_value_micros,
                *_confidence_and_fallback(model, attribution, number),
            )
            for model, attribution, credits_, micros, rest in per_model
        ]
        left_out = _left_out(conversion, len(touchpoints), counting[number], number in at_limit, max_devices)
        told = [found for found in (*insights[number], *left_out) if found.text is not None]
        done.append(CreditedResult(conversion, touchpoints, said, told))
    return done


def _frame(conversion: PendingConversion, touchpoint_count: int, delta: int) -> Record:
    return {
        "tenant_id": conversion.tenant_id,
        "conversion_id": conversion.conversion_id,
        "conversion_type": conversion.conversion_type,
        "converted_at": conversion.converted_at,
        "journey_key": conversion.journey_key,
        "version": conversion.version,
        "version_reason": conversion.version_reason,
        "is_final": conversion.is_final,
        "net_value_micros": conversion.net_value_micros,
        "gross_value_micros": conversion.gross_value_micros,
        "delta_micros": delta,
        "currency": conversion.currency,
        "policy_version": conversion.policy_version,
        "touchpoint_count": touchpoint_count,
    }


def _touchpoint(touch: ReachedTouchpoint) -> Record:
    return {
        "event_id": touch.event_id,
        "channel": touch.reported_channel,
        "platform": touch.platform,
        "campaign": touch.campaign,
        "campaign_id": touch.campaign_id,
        "ad_set_id": touch.ad_set_id,
        "ad_id": touch.ad_id,
        "occurred_at": touch.occurred_at,
    }


def _confidence_and_fallback(model: Model, attribution: Attribution, number: int) -> tuple[float | None, str | None]:
    fell_back = attribution.fallback is not None and bool(attribution.fallback[number])
    confidence = None if attribution.confidence is None else float(attribution.confidence[number])
    return None if confidence is None or np.isnan(
        confidence
    ) else confidence, model.fallback_rule if fell_back else None


def _left_out(
    conversion: PendingConversion, kept: int, counting: int, is_at_limit: bool, max_devices: int
) -> list[Insight]:
    """Return what a reader must know of a result that does not credit all touchpoints of the person."""
    found = []
    if kept < counting or is_at_limit:
        number = f"{'more than ' if is_at_limit else ''}{counting:,}"
        text = f"only the newest {kept:,} of {number} touchpoints are credited: a result holds no more"
        found.append(Insight("journey.cut", (), float(kept), None, None, counting, text))
    if conversion.devices > max_devices:
        text = f"only touchpoints of the {max_devices:,} anonymous ids that were linked last count: the user has more"
        found.append(Insight("journey.devices", (), float(max_devices), None, None, conversion.devices, text))
    return found


def _insight(insight: Insight) -> Record:
    return {
        "rule_id": insight.rule_id,
        "text": insight.text,
        "estimate": insight.estimate,
        "low": insight.low,
        "high": insight.high,
        "n": insight.n,
    }


def by_model_set(conversions: Sequence[PendingConversion]) -> list[list[PendingConversion]]:
    """Group conversions by (tenant, pinned model set, pinned policy): each group is credited as one batch."""
    key = attrgetter("tenant_id", "model_set", "policy_version")
    return [list(group) for _, group in groupby(sorted(conversions, key=key), key=key)]
