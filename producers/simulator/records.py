"""Columns to records: the only place that knows the fields of the schemas.

Invariant: the record of an event depends on the event alone, so a duplicate is built again and equals its original.
Ids look like a service's own: UUIDv7 event ids in the order of time, UUID devices; e-mail addresses, IP addresses and
hosts are of the ranges that are reserved for documentation.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from attributary.producers.simulator.config import SimulatorConfig
from attributary.producers.simulator.creatives import creative_table, pick_creatives
from attributary.producers.simulator.outcomes import (
    CORRECTION_KINDS,
    CURRENCIES,
    Conversions,
    CorrectionEvents,
    Links,
)
from attributary.producers.simulator.population import ANONYMOUS, LINKED, SIGNED_IN, Ints, Population, stream
from attributary.schemas.topics import CONVERSIONS, IDENTITIES, TOUCHPOINTS, partition_key

_COUNTRIES = ("DE", "US", "FR", "JP", "GB", "NL", "ES", "IT")
_DEVICES = ("mobile", "desktop", "tablet")
_PURPOSES = ("ad_storage", "ad_user_data", "ad_personalization", "analytics_storage")
_USER_AGENT = "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"


class Outcomes(NamedTuple):
    """All that is not a touch."""

    conversions: Conversions
    corrections: CorrectionEvents
    links: Links


class Records:
    """Builds the record of any distinct event by its number: touches, conversions, corrections, then links."""

    def __init__(self, config: SimulatorConfig, population: Population, outcomes: Outcomes) -> None:
        people, journeys, touches = population.people, population.journeys, population.touches
        conversions, corrections, links = outcomes
        self.occurred_at: Ints = np.concatenate(
            (touches.occurred_at, journeys.end[conversions.journey], corrections.occurred_at, links.linked_at)
        )
        counts = (len(touches.journey), len(conversions.journey), len(corrections.conversion), len(links.person))
        self.ends: tuple[int, ...] = tuple(np.cumsum(counts).tolist())
        self.groups: Ints = np.repeat(np.array([0, 1, 1, 2], dtype=np.int64), counts)
        self.event_ids = _event_ids(config.seed, self.occurred_at)
        self._at: list[int] = self.occurred_at.tolist()
        self._people = _People(config, population)
        self._table, start, count = creative_table(config.channels)
        creative = pick_creatives(start, count, touches.channel, touches.pick)
        engagement = np.round(touches.pick * 1_000 % 120, 1)
        self._touch: list[tuple[int, int, int, bool, bool, float]] = list(
            zip(population.touch_person().tolist(), creative.tolist(), touches.device.tolist(),
                touches.passive.tolist(), touches.robot.tolist(), engagement.tolist(), strict=True)
        )  # fmt: skip
        types = tuple(config.money.types)
        last_touch = journeys.first[conversions.journey + 1] - 1
        self._conversion: list[tuple[int, str, str, int, int]] = list(
            zip(journeys.person[conversions.journey].tolist(), [types[t] for t in conversions.type.tolist()],
                [CURRENCIES[c] for c in conversions.currency.tolist()], conversions.value_micros.tolist(),
                last_touch.tolist(), strict=True)
        )  # fmt: skip
        self._correction: list[tuple[int, ...]] = list(
            zip(
                corrections.conversion.tolist(),
                corrections.kind.tolist(),
                corrections.value_micros.tolist(),
                strict=True,
            )
        )
        self._link: list[tuple[int, int, bool]] = list(
            zip(links.person.tolist(), links.device.tolist(), links.borrowed.tolist(), strict=True)
        )
        self._kind: list[int] = people.kind.tolist()

    def build(self, number: int) -> tuple[str, bytes, dict[str, Any]]:
        """Topic, key and record of an event."""
        touches, conversions, corrections, _ = self.ends
        if number < touches:
            topic, record = TOUCHPOINTS, self._touchpoint(number)
        elif number < conversions:
            topic, record = CONVERSIONS, self._converted(number - touches)
        elif number < corrections:
            topic, record = CONVERSIONS, self._corrected(number - conversions)
        else:
            topic, record = IDENTITIES, self._linked(number - corrections)
        return topic, partition_key(record["tenant_id"], record["anonymous_id"], record["user_id"]), record

    def topic_ids(self, number: int) -> tuple[str, str]:
        """Tenant and event id of an event, without building it."""
        touches, conversions, corrections, _ = self.ends
        if number < touches:
            person = self._touch[number][0]
        elif number < conversions:
            person = self._conversion[number - touches][0]
        elif number < corrections:
            person = self._conversion[self._correction[number - conversions][0]][0]
        else:
            person = self._link[number - corrections][0]
        return self._people.tenant[person], self.event_ids[number]

    def conversion_id(self, conversion: int) -> str:
        """Event id of a conversion, by its number among them."""
        return self.event_ids[self.ends[0] + conversion]

    def owner(self, person: int, device: int) -> tuple[str, str, str | None]:
        """Tenant, anonymous id and the known user behind a device; None for somebody who stays anonymous."""
        people = self._people
        known = people.user_id[person] if self._kind[person] != ANONYMOUS else None
        return people.tenant[person], people.devices[device][person], known

    def journey_key(self, person: int) -> str:
        """The person as the store names it: u: and the user id, or a: and the anonymous id."""
        if self._kind[person] == ANONYMOUS:
            return "a:" + self._people.devices[0][person]
        return "u:" + self._people.user_id[person]

    def _touchpoint(self, number: int) -> dict[str, Any]:
        person, creative, device, passive, robot, engagement = self._touch[number]
        made = self._table[creative]
        people, event_id = self._people, self.event_ids[number]
        clicked = not (passive and made.passive)
        click_ids = {made.click_id: _click_value(made.click_id, event_id)} if clicked and made.click_id else {}
        source = made.platform if made.medium != "(none)" else None
        medium = made.medium if source else None
        landing = None
        if clicked:
            landing = "https://shop.example/"
            if made.campaign_name:
                landing += f"?utm_source={source}&utm_medium={medium}&utm_campaign={made.campaign_name}"
                for name, value in click_ids.items():
                    landing += f"&{name}={value}"
        return {
            "tenant_id": people.tenant[person],
            "event_id": event_id,
            "user_id": people.user_id[person] if self._kind[person] == SIGNED_IN else None,
            "anonymous_id": people.devices[device][person],
            "occurred_at": self._at[number],
            "platform": made.platform,
            "channel": made.channel,
            "interaction": "click" if clicked else made.passive,
            "campaign_id": made.campaign_id,
            "campaign_name": made.campaign_name,
            "ad_set_id": made.ad_set_id,
            "ad_set_name": made.ad_set_name,
            "ad_id": made.ad_id,
            "ad_name": made.ad_name,
            "utm_source": source if clicked and made.campaign_name else None,
            "utm_medium": medium if clicked and made.campaign_name else None,
            "utm_campaign": made.campaign_name if clicked else None,
            "utm_term": None,
            "utm_content": made.ad_name if clicked else None,
            "click_ids": click_ids,
            "landing_url": landing,
            "referrer": made.referrer if clicked else None,
            "country": people.country(person),
            "device": _DEVICES[(person + device) % len(_DEVICES)],
            "engagement_seconds": engagement if clicked else None,
            "is_bot": robot,
            "properties": {},
            "consent": people.consent(person),
        }

    def _converted(self, number: int) -> dict[str, Any]:
        person, kind, currency, value, last_touch = self._conversion[number]
        people, event_id = self._people, self.conversion_id(number)
        click_ids = self._touchpoint(last_touch)["click_ids"]
        record = self._conversion_record(person, self.ends[0] + number)
        record.update(
            conversion_type=kind,
            value_micros=value,
            currency=currency,
            order_id=f"order-{event_id[-12:]}" if kind == "purchase" else None,
            items=[{"item_id": f"sku-{person % 500}", "item_category": f"category-{person % 20}", "quantity": 1.0}]
            if kind in ("purchase", "add_to_cart")
            else [],
            user_data={"email": f"{people.user_id[person]}@example.com", "country": people.country(person).lower()}
            if self._kind[person] != ANONYMOUS and kind != "page_view"
            else None,
            event_source_url="https://shop.example/thanks",
            client_ip_address=f"192.0.2.{person % 254 + 1}",
            client_user_agent=_USER_AGENT,
            click_ids=click_ids,
            ga_client_id=f"{people.same[person] + 10**8}.{self._at[last_touch] // 10**6}",
            consent=people.consent(person),
        )
        return record

    def _corrected(self, number: int) -> dict[str, Any]:
        conversion, kind, value = self._correction[number]
        person, conversion_type, currency, _, _ = self._conversion[conversion]
        record = self._conversion_record(person, self.ends[1] + number)
        record.update(
            conversion_id=self.conversion_id(conversion),
            kind=CORRECTION_KINDS[kind],
            conversion_type=conversion_type,
            value_micros=value,
            currency=currency,
            action_source="system_generated",
        )
        return record

    def _conversion_record(self, person: int, number: int) -> dict[str, Any]:
        """The part that conversions and their corrections share; what is not set takes the schema's default."""
        people, known = self._people, self._kind[person]
        return {
            "tenant_id": people.tenant[person],
            "event_id": self.event_ids[number],
            "conversion_id": None,
            "kind": "conversion",
            "user_id": None if known == ANONYMOUS else people.user_id[person],
            # Linked people buy where only the account is known: their devices are joined by the links alone.
            "anonymous_id": None if known == LINKED else people.devices[0][person],
            "occurred_at": self._at[number],
            "action_source": "website",
        }

    def _linked(self, number: int) -> dict[str, Any]:
        person, device, borrowed = self._link[number]
        people = self._people
        user_id = people.user_id[person]
        return {
            "tenant_id": people.tenant[person],
            "event_id": self.event_ids[self.ends[2] + number],
            "anonymous_id": people.devices[device][person],
            "user_id": "guest-of-" + user_id if borrowed else user_id,
            "linked_at": self._at[self.ends[2] + number],
            "source": "login",
        }


class _People:
    """Ids and habits of people, by their number."""

    def __init__(self, config: SimulatorConfig, population: Population) -> None:
        people = population.people
        self.same: list[int] = people.same.tolist()
        names = config.volume.tenant_names()
        self.tenant = [names[number] for number in people.tenant.tolist()]
        distinct = int(people.same.max()) + 1
        text: str = stream(config.seed, "ids").bytes(distinct * 40).hex()
        users = [f"user-{text[80 * n : 80 * n + 16]}" for n in range(distinct)]
        firsts = [_uuid4(text[80 * n + 16 : 80 * n + 48]) for n in range(distinct)]
        seconds = [_uuid4(text[80 * n + 48 : 80 * n + 80]) for n in range(distinct)]
        self.user_id: list[str] = [users[n] for n in self.same]
        self.devices: tuple[list[str], list[str]] = ([firsts[n] for n in self.same], [seconds[n] for n in self.same])

    def country(self, person: int) -> str:
        """ISO 3166-1 alpha-2."""
        return _COUNTRIES[self.same[person] % len(_COUNTRIES)]

    def consent(self, person: int) -> dict[str, bool] | None:
        """Most agree to all, some to measurement only, some were never asked."""
        habit = self.same[person] % 20
        if habit == 0:
            return None
        return {purpose: habit > 3 or purpose == "analytics_storage" for purpose in _PURPOSES}


def _event_ids(seed: int, occurred_at: Ints) -> list[str]:
    """UUIDv7 texts: milliseconds of the event, then random bits."""
    text: str = stream(seed, "event ids").bytes(10 * len(occurred_at)).hex()
    ids = []
    for number, micros in enumerate(occurred_at.tolist()):
        stamp = f"{micros // 1_000:012x}"
        tail = text[20 * number : 20 * number + 20]
        ids.append(f"{stamp[:8]}-{stamp[8:]}-7{tail[1:4]}-{'89ab'[int(tail[0], 16) & 3]}{tail[5:8]}-{tail[8:]}")
    return ids


def _uuid4(text: str) -> str:
    return f"{text[:8]}-{text[8:12]}-4{text[13:16]}-a{text[17:20]}-{text[20:32]}"


def _click_value(name: str, event_id: str) -> str:
    """A click id that looks like the platform's own: letters of both cases, 40 to 50 characters."""
    return f"{name[:2].title()}w{event_id[24:].upper()}_{event_id.replace('-', '')}"
