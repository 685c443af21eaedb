"""From a touchpoint's values to its message in one pass: rules, Avro, key and headers together.

Nearly all records are touchpoints, and what differs between them is little: an event id, a person, a time, click ids.
Tenants, words, campaigns and people come again and again: what was judged and written once is known by its texts.

Invariant: the sealer returns the message that ``Envelope`` makes of the same record by rules and codec, or raises one
of ``NOT_PLAIN``; then ``Envelope`` goes its long way: its verdict, field and rule count. A test
compares both on mutated records. What is remembered is bounded in number and in length, and depends on texts alone.
"""

from __future__ import annotations

import struct
import time
from collections.abc import Callable, Hashable, Mapping, Sequence
from math import inf
from operator import attrgetter, itemgetter
from typing import Any, TypeVar

from attributary.attribution_core.domain.identity_rules import IdentityRules, normalized_id
from attributary.producers.times import rfc3339_bytes
from attributary.producers.transport import Header, Message
from attributary.schemas.compiled_writer import PAIRS, NotPlainError, zigzag
from attributary.schemas.limits import (
    AHEAD_MICROS,
    EARLIEST_MICROS,
    ID_CHARACTERS,
    TEXT_CHARACTERS,
    URL_CHARACTERS,
    is_country,
    is_tenant,
    is_word,
)
from attributary.schemas.topics import partition_key, topic_of

__all__ = ["FIELDS", "NOT_PLAIN", "Sealer", "touchpoint_sealer", "values_of_mapping", "values_of_object"]

Sealer = Callable[[tuple[Any, ...]], Message]
"""From the values in the order of ``FIELDS`` to the message."""

FIELDS = (
    "tenant_id", "event_id", "user_id", "anonymous_id", "occurred_at",
    # Known together, as an ad has nearly always the same.
    "platform", "channel", "interaction", "campaign_id", "campaign_name", "ad_set_id", "ad_set_name", "ad_id",
    "ad_name", "utm_source", "utm_medium", "utm_campaign", "utm_term", "utm_content",
    "click_ids", "landing_url", "referrer", "country", "device", "engagement_seconds", "is_bot", "properties",
    "consent",
)  # fmt: skip
"""As they stand in touchpoint.avsc; a test keeps both equal."""

values_of_mapping = itemgetter(*FIELDS)
values_of_object = attrgetter(*FIELDS)

_AD = slice(FIELDS.index("platform"), FIELDS.index("utm_content") + 1)
_WORDS = 3  # the first of them
_MOST_KNOWN = 4_096  # of a kind
_MOST_PEOPLE = 16_384
_LONGEST_KNOWN = 1_000  # characters
_LONG = 1_024  # bytes of a text that is left to the long way
_MANY = 64  # entries of a mapping that is left to the long way
_LENGTHS = [zigzag(length) for length in range(_LONG)]
_PRESENT = [b"\x02" + length for length in _LENGTHS]  # second branch of a union with null, then the length
# All times that the rules allow take eight bytes; these are the last two.
_LAST_PAIRS = [bytes((bits & 127 | 128, bits >> 7)) for bits in range(128, 1 << 14)]

# A value that is missing, of another type, too long for the tables, or not UTF-8.
NOT_PLAIN = (NotPlainError, LookupError, AttributeError, TypeError, UnicodeEncodeError)

T = TypeVar("T")
_double = struct.Struct("<d").pack


def touchpoint_sealer(
    framing: bytes, most_bytes: int, headers: Sequence[Header], default_tenant: str, identities: IdentityRules
) -> Sealer:
    """Return a function that makes messages of touchpoints.

    Args:
        framing: what stands before the body of a record.
        most_bytes: longer values are left to the long way.
        headers: those that all messages have.
        default_tenant: tenant of touchpoints that name none.
        identities: which ids name nobody.
    """
    known = _Known(framing, default_tenant, identities)
    tenants, ads, places, entries, consents = known.tenants, known.ads, known.places, known.entries, known.consents
    tenant_of, person_of, ad_of, place_of = known.tenant, known.person, known.ad, known.place
    topic = topic_of("touchpoint")
    new, join = tuple.__new__, b"".join
    lengths, pairs, last_pairs, optional, seconds = _LENGTHS, PAIRS, _LAST_PAIRS, _optional, _seconds

    def seal(values: tuple[Any, ...]) -> Message:
        tenant_id, event_id, user_id, anonymous_id, at = values[:5]
        click_ids, landing_url, referrer, country, device, engagement, is_bot, properties, consent = values[19:]
        head, people = tenants.get(tenant_id) or tenant_of(tenant_id)
        event = event_id.encode()
        if not 0 < len(event) <= ID_CHARACTERS or b"\0" in event:
            raise NotPlainError
        if anonymous_id is None:
            user, key = people.get(user_id) or person_of(user_id, tenant_id, people)
            anonymous = b"\0"
        else:
            anonymous, key = people.get(anonymous_id) or person_of(anonymous_id, tenant_id, people)
            user = b"\0" if user_id is None else (people.get(user_id) or person_of(user_id, tenant_id, people))[0]
        if type(at) is not int or not EARLIEST_MICROS <= at <= time.time_ns() // 1000 + AHEAD_MICROS:
            raise NotPlainError
        if type(is_bot) is not bool:
            raise NotPlainError
        ad, place, bits = values[_AD], (country, device), at << 1
        value = join((
            head, lengths[len(event)], event, user, anonymous,
            pairs[bits & 16383], pairs[bits >> 14 & 16383], pairs[bits >> 28 & 16383], last_pairs[(bits >> 42) - 128],
            ads.get(ad) or ad_of(ad), entries(click_ids),
            b"\0" if landing_url is None else optional(landing_url, URL_CHARACTERS),
            b"\0" if referrer is None else optional(referrer, URL_CHARACTERS),
            places.get(place) or place_of(place), b"\0" if engagement is None else seconds(engagement),
            b"\x01" if is_bot else b"\0", entries(properties), b"\0" if consent is None else consents(consent),
        ))  # fmt: skip
        if len(value) > most_bytes:
            raise NotPlainError
        return new(Message, (topic, key, value, [*headers, ("ce_id", event), ("ce_time", rfc3339_bytes(at))]))

    return seal


class _Known:
    """What was judged and written before, by its texts."""

    def __init__(self, framing: bytes, default_tenant: str, identities: IdentityRules) -> None:
        self._framing = framing
        self._default_tenant = default_tenant
        self._identities = identities
        self._people = 0
        self.tenants: dict[str, tuple[bytes, dict[str, tuple[bytes, bytes]]]] = {}
        self.ads: dict[tuple[str | None, ...], bytes] = {}
        self.places: dict[tuple[str | None, ...], bytes] = {}
        self.names: dict[str, bytes] = {}
        self.granted: dict[str, bytes] = {}
        self.denied: dict[str, bytes] = {}

    def tenant(self, given: str) -> tuple[bytes, dict[str, tuple[bytes, bytes]]]:
        """Return what begins the values of a tenant, and its people that are known: an optional text and a key."""
        text = given or self._default_tenant
        if not is_tenant(text):
            raise NotPlainError
        return _keep(self.tenants, given, (self._framing + _text(text), {}), longest=len(text))

    def person(self, given: str, tenant_id: str, people: dict[str, tuple[bytes, bytes]]) -> tuple[bytes, bytes]:
        """Return an id that may name somebody as an optional text, and the key of its messages."""
        tenant_id = tenant_id or self._default_tenant
        text = normalized_id(given)
        if len(text) > ID_CHARACTERS or self._identities.broken(tenant_id, text) is not None:
            raise NotPlainError
        if self._people >= _MOST_PEOPLE:
            self._people = 0
            for _, others in list(self.tenants.values()):
                others.clear()
        self._people += 1
        written = b"\x02" + _text(text), partition_key(tenant_id, text, None)
        return _keep(people, given, written, _MOST_PEOPLE, longest=len(given))

    def entries(self, texts: Mapping[str, str]) -> bytes:
        """Return a mapping of texts."""
        if type(texts) is not dict or len(texts) >= _MANY:
            raise NotPlainError
        if not texts:
            return b"\0"
        parts, names = [_LENGTHS[len(texts)]], self.names
        for name, text in texts.items():
            raw = text.encode()
            if b"\0" in raw:
                raise NotPlainError
            parts += (names.get(name) or self.name(name), _LENGTHS[len(raw)], raw)
        parts.append(b"\0")
        return b"".join(parts)

    def consents(self, consent: Mapping[str, bool]) -> bytes:
        """Return an optional mapping of verdicts, which is there."""
        if type(consent) is not dict or not 0 < len(consent) < _MANY:
            raise NotPlainError
        parts, granted, denied = [_PRESENT[len(consent)]], self.granted, self.denied
        for purpose, is_granted in consent.items():
            if is_granted is True:
                parts.append(granted.get(purpose) or self.purpose(purpose, b"\x01", granted))
            elif is_granted is False:
                parts.append(denied.get(purpose) or self.purpose(purpose, b"\0", denied))
            else:
                raise NotPlainError
        parts.append(b"\0")
        return b"".join(parts)

    def ad(self, texts: tuple[str | None, ...]) -> bytes:
        """Return the fields from platform to UTM content."""
        words, others = texts[:_WORDS], texts[_WORDS:]
        if not all(word is not None and is_word(word) for word in words):
            raise NotPlainError
        names = FIELDS[_AD][_WORDS:]
        parts = [_text(word) for word in words if word]
        parts += [
            b"\0" if text is None else _optional(text, ID_CHARACTERS if name.endswith("_id") else TEXT_CHARACTERS)
            for name, text in zip(names, others, strict=True)
        ]
        return _keep(self.ads, texts, b"".join(parts), longest=sum(map(len, parts)))

    def place(self, texts: tuple[str | None, ...]) -> bytes:
        """Return country and device."""
        country, _ = texts
        if country is not None and not (len(country) == 2 and is_country(country)):
            raise NotPlainError
        limits = (ID_CHARACTERS, TEXT_CHARACTERS)
        written = b"".join(
            b"\0" if text is None else _optional(text, limit) for text, limit in zip(texts, limits, strict=True)
        )
        return _keep(self.places, texts, written, longest=len(written))

    def name(self, text: str) -> bytes:
        """Return the name of an entry of a mapping."""
        if len(text) > ID_CHARACTERS:
            raise NotPlainError
        return _keep(self.names, text, _text(text), longest=len(text))

    def purpose(self, text: str, verdict: bytes, known: dict[str, bytes]) -> bytes:
        """Return an entry of a consent."""
        return _keep(known, text, _text(text) + verdict, longest=len(text))


def _text(text: str) -> bytes:
    raw = text.encode()
    if len(raw) >= _LONG or b"\0" in raw:
        raise NotPlainError
    return _LENGTHS[len(raw)] + raw


def _optional(text: str, most_characters: int) -> bytes:
    """Return an optional text, which is there."""
    raw = text.encode()
    if len(text) > most_characters or b"\0" in raw:
        raise NotPlainError
    return _PRESENT[len(raw)] + raw


def _seconds(number: float) -> bytes:
    """Return an optional number of seconds, which is there."""
    if type(number) is not float or not 0 <= number < inf:
        raise NotPlainError
    return b"\x02" + _double(number)


K = TypeVar("K", bound=Hashable)


def _keep(known: dict[K, T], key: K, value: T, most: int = _MOST_KNOWN, *, longest: int = 0) -> T:
    if longest <= _LONGEST_KNOWN:
        if len(known) >= most:
            known.clear()
        known[key] = value
    return value
