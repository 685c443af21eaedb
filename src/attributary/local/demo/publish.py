"""Publishing the demo's events with the same client that other services use, and remembering when."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from attributary.producers.client import AttributaryProducer
from attributary.producers.config import ProducerConfig
from attributary.producers.simulator.rate import pace
from attributary.schemas.topics import CONVERSIONS, IDENTITIES, TOUCHPOINTS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from attributary.local.broker import Broker

KINDS = {TOUCHPOINTS: "touchpoint", CONVERSIONS: "conversion", IDENTITIES: "identity_link"}
Arrival = tuple[str, dict[str, Any]]
EventKey = tuple[str, str]


@dataclass(frozen=True)
class Pace:
    """How a live part is published: events a second, and so many first ones of which nothing is measured."""

    per_second: float
    warm_up_events: int


@dataclass
class Published:
    """What was published and acknowledged.

    Attributes:
        distinct: distinct (tenant, event id) by topic.
        values: net value of every conversion by (tenant, conversion id), micros; by the events published so far.
        sent: records, duplicates included.
        live_at: when a conversion of the live part was published after the warm-up, seconds of the wall clock.
    """

    distinct: dict[str, set[EventKey]] = field(default_factory=lambda: {topic: set() for topic in KINDS})
    sent: int = 0
    live_at: dict[EventKey, float] = field(default_factory=dict)

    def publish(
        self,
        broker: Broker,
        arrivals: Iterable[Arrival],
        advance: Callable[[int], None],
        live: Pace | None = None,
    ) -> None:
        """Publish events in order and wait until all are acknowledged.

        Args:
            broker: where to.
            arrivals: (topic, record).
            advance: told how many more were published.
            live: pace of a live part; as fast as the broker takes them when None.

        Raises:
            DeliveryFailedError: an event was not acknowledged.
        """
        config = ProducerConfig(
            bootstrap=broker.bootstrap, source="attributary/demo", kafka={**broker.producer_overrides, "log_level": 0}
        )
        paced = arrivals if live is None else pace(arrivals, live.per_second)
        with AttributaryProducer(config) as producer:
            for number, (topic, record) in enumerate(paced, start=1):
                key = (record["tenant_id"], record["event_id"])
                is_measured = live is not None and number > live.warm_up_events and topic == CONVERSIONS
                if is_measured and key not in self.distinct[topic]:
                    self.live_at[key] = time.time()
                producer.publish_mapping(KINDS[topic], record)
                self.distinct[topic].add(key)
                self.sent += 1
                if number % 500 == 0:
                    advance(500)
