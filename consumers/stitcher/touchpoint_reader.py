"""From a touchpoint's bytes to its row in one pass, by straight-line Python that is made from the schema.

Nearly all records are touchpoints, and what differs between them is little: an event id, a person, a time, click ids.
Tenants, words, campaigns and people come again and again. So nothing is made of a field that the row does not need
(no record, no mapping of details), and what was read and judged once is known by its bytes.

Invariant: the reader returns the row that ``Decoder`` makes of the same record by codec, rules and JSON, or raises one
of ``IRREGULAR``; then ``Decoder`` goes its long way, whose verdict counts. A test compares both on mutated records.
What is remembered is bounded in number and in length, and is a function of the bytes alone.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from functools import cache
from hashlib import blake2b
from json.encoder import encode_basestring
from types import CodeType
from typing import Any, TypeVar

from attributary.attribution_core.domain.identity import ANONYMOUS_PREFIX, USER_PREFIX
from attributary.attribution_core.domain.identity_rules import normalized_id
from attributary.consumers.adapters.tenant_rules import TenantRules
from attributary.consumers.store.events.rows import TouchpointRow
from attributary.schemas.compiled_reader import IRREGULAR, IrregularError
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
from attributary.schemas.schema_catalog import current_schemas

__all__ = ["IRREGULAR", "TouchpointReader", "compile_touchpoint_reader"]

# (value, where its body begins, received at in microseconds, topic, partition, offset)
TouchpointReader = Callable[[bytes, int, int, str, int, int], TouchpointRow]

_MOST_KNOWN = 4_096  # texts of a field
_MOST_PEOPLE = 50_000
_LONGEST_KNOWN = 1_000  # bytes
# They stand beside each other, and an ad has nearly always the same: known together.
_CAMPAIGN = (
    "campaign_id", "campaign_name", "ad_set_id", "ad_set_name", "ad_id", "ad_name", "utm_source", "utm_medium",
    "utm_campaign", "utm_term", "utm_content",
)  # fmt: skip
_TEXTS = ("country", "device")
_WORDS = ("platform", "channel", "interaction")
_LETTERS = 2  # of a country
_SECOND = 2  # branch of a union, zig-zag

T = TypeVar("T")


def compile_touchpoint_reader(tenants: TenantRules) -> TouchpointReader:
    """Return a reader of touchpoints that were written with the bundled schema.

    Args:
        tenants: who may publish, and which ids name nobody.
    """
    known = _Known(tenants)
    names: dict[str, Any] = {
        "Irregular": IrregularError,
        "Row": TouchpointRow,
        "blake2b": blake2b,
        "double": struct.Struct("<d").unpack_from,
        "encode": encode_basestring,
        "user_prefix": USER_PREFIX,
        "device_prefix": ANONYMOUS_PREFIX,
        "whole": int.from_bytes,
        "tenants": known.tenants,
        "tenant_of": known.tenant,
        "people": known.people,
        "person_of": known.person,
        "names": known.names,
        "name_of": known.name,
        "campaigns": known.campaigns,
        "campaign_of": known.campaign,
        "consents": known.consents,
        "consent_of": known.consent,
        **{f"known_{name}": texts for name, texts in known.texts.items()},
        **{f"{name}_of": known.word(name) for name in _WORDS},
        **{f"{name}_of": known.text(name) for name in _TEXTS},
    }
    # The text is made of this file alone: the schema says in which order the fields stand, and no other names.
    exec(_compiled(), names)  # noqa: S102
    reader: TouchpointReader = names["read"]
    return reader


@cache
def _compiled() -> CodeType:
    """Compile once a process: it takes longer than to read ten thousand records."""
    program = _Program([field["name"] for field in current_schemas()["touchpoint"].source["fields"]])
    return compile("\n".join(program.lines), "<reader of touchpoint rows>", "exec")


class _Program:
    """Lines of Python; ``b`` are the bytes, ``i`` the place of the next one, ``d`` collects the details as JSON."""

    def __init__(self, fields: list[str]) -> None:
        self._lines = [f"    d = []; latest = received_at + {AHEAD_MICROS}"]
        first = fields.index(_CAMPAIGN[0])
        if tuple(fields[first : first + len(_CAMPAIGN)]) != _CAMPAIGN:
            raise AssertionError("touchpoint.avsc: the fields of campaign, ad and UTM must stand beside each other")
        for name in fields[:first]:
            self._field(name)
        self._campaign()
        for name in fields[first + len(_CAMPAIGN) :]:
            self._field(name)

    @property
    def lines(self) -> list[str]:
        """The whole function."""
        return [
            "def read(b, i, received_at, topic, partition, offset):",
            "    begin = i",
            *self._lines,
            "    if i != len(b): raise Irregular",
            "    if user is not None: key = user_prefix + user",
            "    elif anonymous is not None: key, anonymous = device_prefix + anonymous, None",
            "    else: raise Irregular",
            "    return Row(",
            "        tenant_id, event_id, key, anonymous, occurred_at, received_at, platform, channel, interaction,",
            "        campaign, is_bot, '{' + ''.join(d)[1:] + '}',",
            "        whole(blake2b(b[begin:], digest_size=8).digest(), 'big', signed=True), topic, partition, offset)",
        ]

    def _field(self, name: str) -> None:
        """Add the lines that read a field; KeyError: nobody has said what the row holds of it."""
        if name in _TEXTS:
            known = f"c = b[i:e]; i = e; d.append(known_{name}.get(c) or {name}_of(c))"
            self._optional(*_SPAN, known)
        elif name in _WORDS:
            self._add(1, *_SPAN, f"c = b[i:e]; i = e; {name} = known_{name}.get(c) or {name}_of(c)")
        else:
            _FIELDS[name](self, name)

    def _add(self, depth: int, *lines: str) -> None:
        self._lines += [f"{'    ' * depth}{line}" for line in lines]

    def _optional(self, *lines: str, otherwise: str = "") -> None:
        self._add(1, "k = b[i]; i += 1", "if k:", "    if k != 2: raise Irregular")
        self._add(2, *lines)
        if otherwise:
            self._add(1, f"else: {otherwise}")

    def _campaign(self) -> None:
        """Find the end of the fields of campaign and ad, and look them up together."""
        zeros = f"{bytes(len(_CAMPAIGN))!r}"
        self._add(
            1, f"if b[i : i + {len(_CAMPAIGN)}] == {zeros}: i += {len(_CAMPAIGN)}; campaign = ''", "else:", "    s = i"
        )
        for _ in _CAMPAIGN:
            self._add(2, "k = b[i]; i += 1", "if k:")
            self._add(3, *_SPAN, "i = e")
        self._add(2, "c = b[s:i]; campaign, c = campaigns.get(c) or campaign_of(c)", "d.append(c)")

    def tenant(self, _name: str) -> None:
        """Tenant: known, or judged."""
        self._add(1, *_SPAN, "c = b[i:e]; i = e; tenant_id, mark = tenants.get(c) or tenant_of(c)")

    def event(self, _name: str) -> None:
        """Event id."""
        self._add(1, *_SPAN, "event_id = b[i:e].decode(); i = e")
        self._add(1, f"if not 0 < len(event_id) <= {ID_CHARACTERS}: raise Irregular")

    def person(self, name: str) -> None:
        """An id of the person, normalised."""
        variable = name.removesuffix("_id")
        self._optional(
            *_SPAN, f"c = b[i:e]; i = e; {variable} = people.get(mark + c) or person_of(c, tenant_id, mark)",
            otherwise=f"{variable} = None",
        )  # fmt: skip

    def time(self, _name: str) -> None:
        """Event time."""
        self._add(
            1,
            "k = b[i]; i += 1; x = k & 127; s = 0",
            "while k > 127:",
            "    k = b[i]; i += 1; s += 7; x |= (k & 127) << s",
            "if s > 56: raise Irregular",
            "occurred_at = (x >> 1) ^ -(x & 1)",
            f"if not {EARLIEST_MICROS} <= occurred_at <= latest: raise Irregular",
        )

    def url(self, name: str) -> None:
        """A URL among the details."""
        self._optional(
            *_SPAN,
            "c = b[i:e].decode(); i = e",
            f"if len(c) > {URL_CHARACTERS}: raise Irregular",
            f"d.append({f',{chr(34)}{name}{chr(34)}:'!r} + encode(c))",
        )

    def seconds(self, name: str) -> None:
        """A number of seconds among the details."""
        self._optional(
            "x, = double(b, i); i += 8",
            "if not 0 <= x < 1e999: raise Irregular",
            f"d.append({f',{chr(34)}{name}{chr(34)}:'!r} + repr(x))",
        )

    def flag(self, name: str) -> None:
        """A flag of the row."""
        self._add(1, "k = b[i]; i += 1", "if k > 1: raise Irregular", f"{name} = k == 1")

    def mapping(self, name: str) -> None:
        """A mapping of texts among the details: one block of up to 63 entries."""
        self._add(1, "k = b[i]; i += 1", "if k:", "    if k & 129: raise Irregular", "    p = []")
        self._add(2, "for _ in range(k >> 1):")
        self._add(3, *_SPAN, "c = b[i:e]; i = e; c = names.get(c) or name_of(c)")
        self._add(3, *_SPAN, "v = b[i:e].decode(); i = e", f"if len(v) > {URL_CHARACTERS}: raise Irregular")
        self._add(3, "p.append(c + encode(v))")
        self._add(2, "if b[i]: raise Irregular", "i += 1")
        self._add(2, f"d.append({f',{chr(34)}{name}{chr(34)}:{{'!r} + ''.join(p)[1:] + '}}')")

    def consent(self, _name: str) -> None:
        """The consent, known by its bytes."""
        self._optional(
            "s = i; k = b[i]; i += 1",
            "if k:",
            "    if k & 129: raise Irregular",
            "    for _ in range(k >> 1):",
            "        k = b[i]; i += 2 + (k >> 1)",
            "        if k & 129: raise Irregular",
            "    if b[i]: raise Irregular",
            "    i += 1; c = b[s:i]; d.append(consents.get(c) or consent_of(c))",
        )


# A length up to 8,191 into ``e``, the end of what follows; odd ones are negative.
_SPAN = (
    "k = b[i]; i += 1",
    "if k & 129:",
    "    m = b[i]; i += 1",
    "    if k & 1 or m & 128: raise Irregular",
    "    k = k & 127 | m << 7",
    "e = i + (k >> 1)",
)
_FIELDS: Mapping[str, Callable[[_Program, str], None]] = {
    "tenant_id": _Program.tenant,
    "event_id": _Program.event,
    "user_id": _Program.person,
    "anonymous_id": _Program.person,
    "occurred_at": _Program.time,
    "landing_url": _Program.url,
    "referrer": _Program.url,
    "engagement_seconds": _Program.seconds,
    "is_bot": _Program.flag,
    "click_ids": _Program.mapping,
    "properties": _Program.mapping,
    "consent": _Program.consent,
}


class _Known:
    """What was judged before, by its bytes."""

    def __init__(self, rules: TenantRules) -> None:
        self._rules = rules
        self.tenants: dict[bytes, tuple[str, bytes]] = {}
        self.people: dict[bytes, str] = {}
        self.names: dict[bytes, str] = {}
        self.campaigns: dict[bytes, tuple[str, str]] = {}
        self.consents: dict[bytes, str] = {}
        self.texts: dict[str, dict[bytes, str]] = {name: {} for name in (*_WORDS, *_TEXTS)}

    def tenant(self, raw: bytes) -> tuple[str, bytes]:
        """Return a tenant, and what marks its people among those that are known."""
        text = raw.decode()
        is_unknown = self._rules.known is not None and text not in self._rules.known
        if not is_tenant(text) or is_unknown or text in self._rules.departed:
            raise IrregularError
        return _keep(self.tenants, raw, (text, raw + b"|"))  # a tenant's name holds no bar

    def person(self, raw: bytes, tenant_id: str, mark: bytes) -> str:
        """Return the normalised form of an id that may name somebody."""
        text = raw.decode()
        if len(text) > ID_CHARACTERS or self._rules.identities.broken(tenant_id, text) is not None:
            raise IrregularError
        return _keep(self.people, mark + raw, normalized_id(text), _MOST_PEOPLE)

    def word(self, name: str) -> Callable[[bytes], str]:
        """Return a function from the bytes of a platform, channel or interaction to its text."""
        known = self.texts[name]

        def word_of(raw: bytes) -> str:
            text = raw.decode()
            if not is_word(text):
                raise IrregularError
            return _keep(known, raw, text)

        return word_of

    def text(self, name: str) -> Callable[[bytes], str]:
        """Return a function from the bytes of a text to its entry among the details."""
        known = self.texts[name]

        def text_of(raw: bytes) -> str:
            text = _text(name, raw)
            if name == "country" and not (len(text) == _LETTERS and is_country(text)):
                raise IrregularError
            return _keep(known, raw, f',"{name}":{encode_basestring(text)}')

        return text_of

    def campaign(self, raw: bytes) -> tuple[str, str]:
        """Return the name of the campaign, and the entries of campaign, ad and UTM fields among the details."""
        found, at = {}, 0
        for name in _CAMPAIGN:
            branch, at = raw[at], at + 1
            if branch:
                if branch != _SECOND:
                    raise IrregularError
                begin, at = _span(raw, at)
                found[name] = _text(name, raw[begin:at])
        entries = "".join(f',"{name}":{encode_basestring(text)}' for name, text in found.items())
        return _keep(self.campaigns, raw, (found.get("campaign_name") or found.get("campaign_id") or "", entries))

    def consent(self, raw: bytes) -> str:
        """Return the entry of a consent of at least one purpose among the details."""
        entries, at = [], 1
        for _ in range(raw[0] >> 1):
            begin, at = _span(raw, at)
            if raw[at] > 1:
                raise IrregularError
            entries.append(f"{self.name(raw[begin:at])}{'true' if raw[at] else 'false'}")
            at += 1
        return _keep(self.consents, raw, f',"consent":{{{"".join(entries)[1:]}}}')

    def name(self, raw: bytes) -> str:
        """Return the name of an entry of a mapping, as JSON."""
        text = raw.decode()
        if len(text) > ID_CHARACTERS:
            raise IrregularError
        return _keep(self.names, raw, f",{encode_basestring(text)}:")


def _span(raw: bytes, at: int) -> tuple[int, int]:
    """Return where a text begins and ends, from the place of its length."""
    length = raw[at]
    if length & 1:
        raise IrregularError
    if length & 128:
        at += 1
        length = length & 127 | raw[at] << 7
    return at + 1, at + 1 + (length >> 1)


def _text(name: str, raw: bytes) -> str:
    text = raw.decode()
    if len(text) > (ID_CHARACTERS if name.endswith("_id") else TEXT_CHARACTERS):
        raise IrregularError
    return text


def _keep(known: dict[bytes, T], raw: bytes, value: T, most: int = _MOST_KNOWN) -> T:
    if len(raw) <= _LONGEST_KNOWN:
        if len(known) >= most:
            known.clear()
        known[raw] = value
    return value
