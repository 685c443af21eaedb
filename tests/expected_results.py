"""What must come out, computed once, straightforwardly, from everything that was published.

Nothing of the stages or the store is used: events as dictionaries, `attribution_core` for the arithmetic. The order of
the input is of no consequence (received_at and coordinates travel with each record).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from attributary.attribution_core.domain.conversion import ConversionEvent, ConversionState, fold
from attributary.attribution_core.domain.identity import Link, identity_key, journey_key, owner
from attributary.attribution_core.domain.journeys import ChannelIndex, JourneyBatch
from attributary.attribution_core.domain.lookback import DEFAULT_POLICY, LookbackPolicy
from attributary.attribution_core.domain.money import split_micros, split_with_baseline
from attributary.attribution_core.models.model_set import ModelSet, model_set
from attributary.schemas.codec import Codec, DecodeError
from attributary.schemas.limits import MINOR_UNIT_MICROS
from attributary.schemas.rules import CHECKS, find_unstorable_text
from attributary.schemas.topics import CONVERSIONS, ERASURE_REQUESTS, IDENTITIES, TOUCHPOINTS
from tests.expected_erasures import Erasures, Event

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

NAMES = {
    TOUCHPOINTS: "touchpoint", CONVERSIONS: "conversion", IDENTITIES: "identity_link",
    ERASURE_REQUESTS: "erasure_request",
}  # fmt: skip
REQUEST = NAMES[ERASURE_REQUESTS]
Key = tuple[str, str]


class InputRecord(NamedTuple):
    """A record of an input topic, as a reader of that topic sees it."""

    topic: str
    partition: int
    offset: int
    timestamp_ms: int
    value: bytes | None

    @property
    def place(self) -> tuple[str, int, int]:
        return self.topic, self.partition, self.offset


@dataclass(frozen=True)
class Expected:
    """The attribution of one conversion on the complete set of events."""

    journey_key: str
    conversion_type: str
    converted_at: int
    gross_micros: int
    net_micros: int
    currency: str
    touches: tuple[str, ...]  # event ids, by time and event id
    credits: dict[str, tuple[float, ...]]  # by model
    micros: dict[str, tuple[int, ...]]
    newest: Callable[[int], Expected] = field(compare=False)  # the same on so many of the newest touchpoints alone


@dataclass
class Truth:
    """Everything that must be found."""

    stored: dict[str, dict[Key, tuple[str, int, int]]] = field(default_factory=dict)  # record name -> id -> place
    records: dict[tuple[str, int, int], tuple[str, Key]] = field(default_factory=dict)  # place -> name, id
    refused: set[tuple[str, int, int]] = field(default_factory=set)
    conversions: dict[Key, Expected] = field(default_factory=dict)
    waiting: set[Key] = field(default_factory=set)  # conversions of which only corrections are known
    conflicts: set[tuple[str, Key, int]] = field(default_factory=set)  # record name, id, content that was set aside
    named: set[Key] = field(default_factory=set)  # conversions that any record names, also one whose content lost
    erased: set[tuple[str, Key]] = field(default_factory=set)  # record name, id of events of erased people
    erased_conversions: set[Key] = field(default_factory=set)
    erased_micros: dict[Key, int] = field(default_factory=dict)  # net value by tenant and currency


@cache
def codec() -> Codec:
    return Codec()


@cache
def default_policy() -> LookbackPolicy:
    return LookbackPolicy.parse(DEFAULT_POLICY)


@cache
def default_models() -> ModelSet:
    return model_set()


def readable(record: InputRecord) -> dict[str, Any] | None:
    """The fields of a record that every rule accepts, else None."""
    name = NAMES[record.topic]
    try:
        fields = codec().decode(name, record.value)
    except DecodeError:
        return None
    if CHECKS[name](fields, now_micros=record.timestamp_ms * 1000) or find_unstorable_text(fields):
        return None
    return fields


def tell(records: Iterable[InputRecord], policy: LookbackPolicy | None = None, models: ModelSet | None = None) -> Truth:
    """Compute the truth about a set of records."""
    truth = Truth()
    contents: dict[tuple[str, Key], dict[int, InputRecord]] = {}
    winners: dict[str, dict[Key, tuple[Any, dict[str, Any], InputRecord]]] = {name: {} for name in NAMES.values()}
    for record in records:
        fields = readable(record)
        if fields is None:
            truth.refused.add(record.place)
            continue
        name = NAMES[record.topic]
        key = (fields["tenant_id"], fields["request_id" if name == REQUEST else "event_id"])
        truth.records[record.place] = (name, key)
        if name == "conversion":
            truth.named.add((fields["tenant_id"], fields["conversion_id"] or fields["event_id"]))
        rank = (record.timestamp_ms, *record.place)  # the first in the log wins
        contents.setdefault((name, key), {}).setdefault(_content(record), record)
        if key not in winners[name] or rank < winners[name][key][0]:
            winners[name][key] = (rank, fields, record)
    for (name, key), several in contents.items():
        stored = _content(winners[name][key][2])
        truth.conflicts |= {(name, key, content) for content in several if content != stored}
    events = _erase(
        truth,
        {name: [(fields, record) for _, fields, record in found.values()] for name, found in winners.items()},
    )
    for name, kept in events.items():
        truth.stored[name] = {(fields["tenant_id"], fields["event_id"]): record.place for fields, record in kept}
    _attribute(truth, events, _owners(events), policy or default_policy(), models or default_models())
    return truth


def _content(record: InputRecord) -> int:
    """The hash of what a record says, without the framing before it."""
    value = record.value or b""
    digest = blake2b(value[10:] if value[:1] == b"\xc3" else value[5:], digest_size=8).digest()
    return int.from_bytes(digest, "big", signed=True)


Events = dict[str, list[tuple[dict[str, Any], InputRecord]]]


def _erase(truth: Truth, events: Events) -> Events:
    """Return the events that are left after the requests to erase people; what went is noted in the truth."""
    requests = events.pop(REQUEST)
    if not requests:
        return events
    erasures = Erasures([Event(name, *each) for name, found in events.items() for each in found])
    erasures.run(requests)
    left: Events = {name: [] for name in events}
    for event in erasures.left():
        left[event.name].append((event.fields, event.record))
    truth.erased_conversions = erasures.erased_conversions()
    for name, found in events.items():
        kept = {(fields["tenant_id"], fields["event_id"]) for fields, _ in left[name]}
        truth.erased |= {(name, key) for f, _ in found if (key := (f["tenant_id"], f["event_id"])) not in kept}
    for tenant, conversion_id in truth.erased_conversions:
        state = fold(
            ConversionEvent(f["occurred_at"], f["event_id"], f["kind"], f["value_micros"], f["currency"])
            for f, _ in events["conversion"]
            if (f["tenant_id"], f["conversion_id"] or f["event_id"]) == (tenant, conversion_id)
        )
        if state.opened_by is not None:
            known = truth.erased_micros.get((tenant, state.currency), 0)
            truth.erased_micros[tenant, state.currency] = known + state.net_value_micros
    return left


def _owners(events: Events) -> dict[Key, str]:
    links: dict[Key, list[Link]] = {}
    for name in ("touchpoint", "conversion"):
        for fields, _ in events[name]:
            if fields["user_id"] is not None and fields["anonymous_id"] is not None:
                link = Link(fields["occurred_at"], fields["event_id"], fields["user_id"])
                links.setdefault((fields["tenant_id"], fields["anonymous_id"]), []).append(link)
    for fields, _ in events["identity_link"]:
        link = Link(fields["linked_at"], fields["event_id"], fields["user_id"])
        links.setdefault((fields["tenant_id"], fields["anonymous_id"]), []).append(link)
    return {key: best.user_id for key, found in links.items() if (best := owner(found)) is not None}


def _person(fields: dict[str, Any], owners: dict[Key, str]) -> Key:
    key = identity_key(fields["user_id"], fields["anonymous_id"])
    owned_by = owners.get((fields["tenant_id"], fields["anonymous_id"] or ""))
    return fields["tenant_id"], journey_key(key, owned_by)


def _attribute(truth: Truth, events: Events, owners: dict[Key, str], policy: LookbackPolicy, models: ModelSet) -> None:
    touches: dict[Key, list[tuple[dict[str, Any], InputRecord]]] = {}
    for fields, record in events["touchpoint"]:
        touches.setdefault(_person(fields, owners), []).append((fields, record))
    about: dict[Key, list[tuple[dict[str, Any], InputRecord]]] = {}
    for fields, record in events["conversion"]:
        about.setdefault((fields["tenant_id"], fields["conversion_id"] or fields["event_id"]), []).append(
            (fields, record)
        )
    for key, found in about.items():
        state = fold(
            ConversionEvent(f["occurred_at"], f["event_id"], f["kind"], f["value_micros"], f["currency"])
            for f, _ in found
        )
        if state.opened_by is None:
            truth.waiting.add(key)
            continue
        opening, opened = next((f, record) for f, record in found if f["event_id"] == state.opened_by)
        person = _person(opening, owners)
        counting = sorted(
            (
                touch
                for touch, record in touches.get(person, [])
                if policy.counts(
                    age=opening["occurred_at"] - touch["occurred_at"],
                    window=policy.window_micros(touch["channel"], opening["conversion_type"], touch["interaction"]),
                    delay=(record.timestamp_ms - opened.timestamp_ms) * 1000,
                    is_bot=touch["is_bot"],
                )
            ),
            key=lambda touch: (touch["occurred_at"], touch["event_id"]),
        )
        truth.conversions[key] = _expected(person[1], opening, state, counting, models)


def _expected(
    journey_key: str, opening: dict[str, Any], state: ConversionState, counting: list[dict[str, Any]], models: ModelSet
) -> Expected:
    credits_, micros = _credit(counting, opening["occurred_at"], state.net_value_micros, state.currency, models)
    return Expected(
        journey_key, opening["conversion_type"], opening["occurred_at"], state.gross_value_micros,
        state.net_value_micros, state.currency, tuple(touch["event_id"] for touch in counting), credits_, micros,
        lambda number: _expected(journey_key, opening, state, counting[len(counting) - number :], models),
    )  # fmt: skip


def _credit(
    touches: list[dict[str, Any]], converted_at: int, net_micros: int, currency: str, models: ModelSet
) -> tuple[dict[str, tuple[float, ...]], dict[str, tuple[int, ...]]]:
    names = [touch["channel"] for touch in touches]
    index = ChannelIndex.of(names)
    channels = index.encode(names)
    batch = JourneyBatch(
        offsets=np.array([0, len(touches)], np.int64),
        channels=channels,
        times=np.array([touch["occurred_at"] for touch in touches], np.int64),
        converted_at=np.array([converted_at], np.int64),
        direct=index.direct(channels),
        index=index,
    )
    unit = np.array([MINOR_UNIT_MICROS.get(currency, 1)], np.int64)
    credits_: dict[str, tuple[float, ...]] = {}
    micros: dict[str, tuple[int, ...]] = {}
    for name, attribution in models.attribute(batch).items():
        net = np.array([net_micros], np.int64)
        if attribution.baseline is None:
            parts = split_micros(attribution.credits, batch.offsets, net, unit)
        else:
            parts, _ = split_with_baseline(attribution.credits, attribution.baseline, batch.offsets, net, unit)
        credits_[name], micros[name] = tuple(attribution.credits.tolist()), tuple(parts.tolist())
    return credits_, micros
