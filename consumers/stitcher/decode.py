"""From records to rows, by pure functions.

Invariant: each record of the batch ends as exactly one of: a row, a repeat of a row of the same batch, a dead letter,
and where its tenant moves to another installation, one that the relay takes there.
Of several contents under one event id the first in the log wins, in whatever order they are processed: see ``rank``.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from operator import itemgetter
from typing import Any, NamedTuple

from attributary.attribution_core.domain.identity import ANONYMOUS_PREFIX, USER_PREFIX
from attributary.attribution_core.domain.identity_rules import normalized_id
from attributary.consumers.adapters.departures import Departure, Fate
from attributary.consumers.adapters.tenant_rules import TenantRules
from attributary.consumers.runtime.records import DeadLetter, Record
from attributary.consumers.store.erasure.amounts import AmountRow
from attributary.consumers.store.erasure.entries import Entry, Identifier, RequestRow
from attributary.consumers.store.erasure.removal import StatedLink
from attributary.consumers.store.events.rows import (
    ConversionEventRow,
    EventRow,
    LinkCandidate,
    LinkRow,
    StoredEvent,
    TouchpointRow,
)
from attributary.schemas.codec import Codec, DecodeError
from attributary.schemas.rules import (
    RuleViolation,
    check_conversion,
    check_erasure_request,
    check_identity_link,
    check_touchpoint,
    find_unstorable_text,
)
from attributary.schemas.topics import CONVERSIONS, ERASURE_REQUESTS, IDENTITIES, TOUCHPOINTS

from .touchpoint_reader import IRREGULAR, compile_touchpoint_reader

_TOUCHPOINT_DETAILS = (
    "campaign_id", "campaign_name", "ad_set_id", "ad_set_name", "ad_id", "ad_name", "utm_source", "utm_medium",
    "utm_campaign", "utm_term", "utm_content", "click_ids", "landing_url", "referrer", "country", "device",
    "engagement_seconds", "properties", "consent",
)  # fmt: skip
# User data for matching, IP address and user agent are personal and stay in the topic.
_CONVERSION_DETAILS = (
    "items", "properties", "action_source", "event_source_url", "referrer", "click_ids", "ga_client_id",
    "ga_app_instance_id", "ga_session_id", "engagement_time_msec", "consent", "opt_out", "data_processing_options",
    "data_processing_country", "data_processing_state",
)  # fmt: skip
# Postgres never sees these, so it cannot refuse a NUL in them: they are looked at in every conversion, so that its
# verdict does not depend on the records beside it.
_NOT_STORED = ("user_data", "client_ip_address", "client_user_agent")
UNKNOWN_TENANT = RuleViolation("tenant_id", "must be a known tenant: `attributary tenants set` adds one")
_touchpoint_details = itemgetter(*_TOUCHPOINT_DETAILS)
_conversion_details = itemgetter(*_CONVERSION_DETAILS)
_json = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), check_circular=False).encode


@dataclass(slots=True)
class Erased:
    """What a batch left out because the ledger of erasures names it.

    Attributes:
        counts: records by kind.
        amounts: events about erased conversions.
        conversions: conversions that are erased from now on.
        requests: requests that follow: what was named beside an erased identifier.
        links: devices that users named in events that are only dropped: a later erasure takes them along.
        entries: what the ledger said of the users and devices of these links.
        source: the batch before anything was left out.
    """

    counts: Counter[str] = field(default_factory=Counter)
    amounts: list[AmountRow] = field(default_factory=list)
    conversions: set[Identifier] = field(default_factory=set)
    requests: list[RequestRow] = field(default_factory=list)
    links: list[StatedLink] = field(default_factory=list)
    entries: dict[Identifier, Entry] = field(default_factory=dict)
    source: StitchBatch | None = None


@dataclass(slots=True)
class StitchBatch:
    """The distinct events of a batch, in the order of their first appearance.

    ``repeats`` holds the other records with an event id that the batch has, too; ``requests`` are requests to erase
    people. ``erased`` says what was left out because of the ledger of erasures, ``relayed`` how many records of each
    kind are those of another installation, to which their tenant moved.
    """

    touchpoints: list[TouchpointRow] = field(default_factory=list)
    conversion_events: list[ConversionEventRow] = field(default_factory=list)
    links: list[LinkRow] = field(default_factory=list)
    dead_letters: list[DeadLetter] = field(default_factory=list)
    repeats: list[EventRow] = field(default_factory=list)
    requests: list[RequestRow] = field(default_factory=list)
    erased: Erased = field(default_factory=Erased)
    relayed: Counter[str] = field(default_factory=Counter)


def rank(row: EventRow | StoredEvent) -> tuple[int, str, int, int]:
    """Return where a row's record stands in the log: log-append time in microseconds, topic, partition, offset.

    Of several records with one event id the smallest wins. All four are facts of the log, so the winner is the same in
    every order of processing.
    """
    return row.received_at, row.topic, row.partition, row.offset


def content_hash(value: bytes) -> int:
    """Return the signed 64-bit BLAKE2b of an event's Avro bytes, without the framing (10 or 5 bytes) before them."""
    body = value[10:] if value[:1] == b"\xc3" else value[5:]
    return int.from_bytes(blake2b(body, digest_size=8).digest(), "big", signed=True)


def link_candidates(rows: Sequence[EventRow]) -> list[LinkCandidate]:
    """Return what the rows say about the owners of anonymous ids: link events, and events that name both ids."""
    found = []
    for row in rows:
        if isinstance(row, LinkRow):
            found.append(LinkCandidate(row.tenant_id, row.anonymous_id, row.user_id, row.linked_at, row.event_id))
        elif row.anonymous_id is not None:
            user_id = row.identity_key.removeprefix(USER_PREFIX)
            found.append(LinkCandidate(row.tenant_id, row.anonymous_id, user_id, row.occurred_at, row.event_id))
    return found


class Decoders(NamedTuple):
    """The decoder of the hot path, and the slow one for a batch in which Postgres refused something."""

    quick: Decoder
    strict: Decoder

    @classmethod
    def of(cls, codec: Codec, tenants: TenantRules, *, by_order: bool) -> Decoders:
        """Return both with the same rules."""
        return cls(
            Decoder(codec, tenants=tenants, by_order=by_order),
            Decoder(codec, strict=True, tenants=tenants, by_order=by_order),
        )


class Decoder:
    """Turns records of the three input topics into rows.

    Args:
        codec: reads both framings.
        strict: look for text that Postgres cannot hold (NUL, lone surrogates) in every record: slow, for the batch in
            which Postgres found one.
        tenants: who may publish, and which ids name nobody; a record against them becomes a dead letter.
        by_order: an event that names an order is about the conversion with that id, whatever its conversion id says.
    """

    def __init__(
        self,
        codec: Codec,
        *,
        strict: bool = False,
        tenants: TenantRules | None = None,
        by_order: bool = False,
    ) -> None:
        self._codec = codec
        self._by_order = by_order
        self._tenants = tenants or TenantRules()
        self._strict = strict
        self._read_touchpoint = None if strict else compile_touchpoint_reader(self._tenants)

    def decode(self, records: Sequence[Record]) -> StitchBatch:
        """Decode, check and deduplicate a batch."""
        batch = StitchBatch()
        touchpoints: dict[tuple[str, str], TouchpointRow] = {}
        conversion_events: dict[tuple[str, str], ConversionEventRow] = {}
        links: dict[tuple[str, str], LinkRow] = {}
        requests: dict[tuple[str, str], RequestRow] = {}
        into: dict[str, tuple[str, Any, Any, dict[tuple[str, str], Any]]] = {
            TOUCHPOINTS: ("touchpoint", check_touchpoint, _touchpoint_row, touchpoints),
            CONVERSIONS: ("conversion", check_conversion, _conversion_row, conversion_events),
            IDENTITIES: ("identity_link", check_identity_link, _link_row, links),
            ERASURE_REQUESTS: ("erasure_request", check_erasure_request, _request_row, requests),
        }
        decode, strict, tenants, identities, departed = (
            self._codec.decode, self._strict, self._tenants.known, self._tenants.identities, self._tenants.departed
        )  # fmt: skip
        for record in records:
            if record.topic == TOUCHPOINTS and (touchpoint := self._touchpoint(record)) is not None:
                _add(batch, touchpoints, touchpoint)
                continue
            name, check, make_row, rows = into[record.topic]
            try:
                fields = decode(name, record.value)
            except DecodeError as error:
                batch.dead_letters.append(DeadLetter(record, "decode", None, str(error)))
                continue
            if departed and _has_left(batch, departed.get(fields["tenant_id"]), name, record):
                continue
            # Events are judged by the broker's clock, so that a replay next year judges alike.
            broken = check(fields, now_micros=record.timestamp_ms * 1000, identities=identities)
            if broken is None and (strict or name == "conversion"):
                broken = find_unstorable_text(fields if strict else {each: fields[each] for each in _NOT_STORED})
            if broken is None and tenants is not None and fields["tenant_id"] not in tenants:
                broken = UNKNOWN_TENANT
            if broken is not None:
                batch.dead_letters.append(_dead_letter(record, name, broken))
                continue
            if self._by_order and name == "conversion" and fields["order_id"]:
                fields["conversion_id"] = fields["order_id"]
            _add(batch, rows, make_row(fields, record))
        batch.touchpoints = list(touchpoints.values())
        batch.conversion_events = list(conversion_events.values())
        batch.links = list(links.values())
        batch.requests = list(requests.values())
        return batch

    def _touchpoint(self, record: Record) -> TouchpointRow | None:
        """Return the row of an ordinary touchpoint in one pass; None: decode it, and say what is wrong with it."""
        value = record.value
        if value is None or self._read_touchpoint is None:
            return None
        body = self._codec.body_of("touchpoint", value)
        if body is None:
            return None
        try:
            return self._read_touchpoint(
                value, body, record.timestamp_ms * 1000, record.topic, record.partition, record.offset
            )
        except IRREGULAR:
            return None


def _has_left(batch: StitchBatch, departure: Departure | None, name: str, record: Record) -> bool:
    """Tell whether a record is not stored here because its tenant has moved; note what becomes of it."""
    fate = Fate.STORED if departure is None else departure.fate(record)
    if fate is Fate.RELAYED:
        batch.relayed[name] += 1
    elif departure is not None and fate is Fate.REFUSED:
        batch.dead_letters.append(_dead_letter(record, name, departure.refusal()))
    return fate is not Fate.STORED


def _add(batch: StitchBatch, rows: dict[tuple[str, str], Any], row: EventRow) -> None:
    """Keep a row, or of two with one event id the first in the log."""
    key = row[:2]
    known = rows.get(key)
    if known is None:
        rows[key] = row
    else:
        winner, loser = (row, known) if rank(row) < rank(known) else (known, row)
        rows[key] = winner
        batch.repeats.append(loser)


def _dead_letter(record: Record, name: str, broken: RuleViolation) -> DeadLetter:
    return DeadLetter(record, "validate", broken.field, f"{name}: {broken.field}: {broken.rule}")


def _identity(fields: Mapping[str, Any]) -> tuple[str, str | None]:
    """Return the identity key, and the anonymous id if the event names a user as well."""
    user_id, anonymous_id = fields["user_id"], fields["anonymous_id"]
    if user_id is None:
        return ANONYMOUS_PREFIX + normalized_id(anonymous_id), None
    return USER_PREFIX + normalized_id(user_id), None if anonymous_id is None else normalized_id(anonymous_id)


def _touchpoint_row(fields: Mapping[str, Any], record: Record) -> TouchpointRow:
    identity_key, anonymous_id = _identity(fields)
    details = {
        name: value
        for name, value in zip(_TOUCHPOINT_DETAILS, _touchpoint_details(fields), strict=True)
        if value not in (None, {})
    }
    return TouchpointRow(
        fields["tenant_id"],
        fields["event_id"],
        identity_key,
        anonymous_id,
        fields["occurred_at"],
        record.timestamp_ms * 1000,
        fields["platform"],
        fields["channel"],
        fields["interaction"],
        fields["campaign_name"] or fields["campaign_id"] or "",
        fields["is_bot"],
        _json(details),
        content_hash(record.value or b""),
        record.topic,
        record.partition,
        record.offset,
    )


def _conversion_row(fields: Mapping[str, Any], record: Record) -> ConversionEventRow:
    identity_key, anonymous_id = _identity(fields)
    details = {
        name: value
        for name, value in zip(_CONVERSION_DETAILS, _conversion_details(fields), strict=True)
        if value not in (None, {}, [])
    }
    return ConversionEventRow(
        fields["tenant_id"],
        fields["event_id"],
        fields["conversion_id"] or fields["event_id"],
        fields["kind"],
        fields["conversion_type"],
        identity_key,
        anonymous_id,
        fields["occurred_at"],
        record.timestamp_ms * 1000,
        fields["value_micros"],
        fields["currency"],
        fields["order_id"],
        _json(details),
        content_hash(record.value or b""),
        record.topic,
        record.partition,
        record.offset,
    )


def _link_row(fields: Mapping[str, Any], record: Record) -> LinkRow:
    return LinkRow(
        fields["tenant_id"],
        fields["event_id"],
        normalized_id(fields["anonymous_id"]),
        normalized_id(fields["user_id"]),
        fields["linked_at"],
        fields["source"],
        record.timestamp_ms * 1000,
        content_hash(record.value or b""),
        record.topic,
        record.partition,
        record.offset,
    )


def _request_row(fields: Mapping[str, Any], record: Record) -> RequestRow:
    kind, identifier = fields["kind"], fields["identifier"]
    received_at = record.timestamp_ms * 1000
    return RequestRow(
        fields["tenant_id"],
        fields["request_id"],
        kind,
        fields["mode"],
        normalized_id(identifier) if kind in {"user", "anonymous"} else identifier,
        received_at,
        received_at,
        None,
        record.topic,
        record.partition,
        record.offset,
    )
