"""Publish touchpoints, conversions, identity links and what ads cost from an existing service.

Contract: importing this package brings in Kafka's client and the Avro codec, never the database driver or the
consumers. Landing pages are read by ``attributary.producers.landing``, files by ``attributary.producers.importer``.
"""

from __future__ import annotations

from attributary.producers.client import AttributaryProducer, Counters
from attributary.producers.config import ProducerConfig
from attributary.producers.errors import BufferFull, DeliveryFailed, FlushTimeout, InvalidRecord, ProducerError
from attributary.producers.memory_transport import MemoryTransport
from attributary.producers.records import Conversion, IdentityLink, Item, Touchpoint, UserData
from attributary.producers.spend import Spend, SpendLine

__all__ = [
    "AttributaryProducer",
    "BufferFull",
    "Conversion",
    "Counters",
    "DeliveryFailed",
    "FlushTimeout",
    "IdentityLink",
    "InvalidRecord",
    "Item",
    "MemoryTransport",
    "ProducerConfig",
    "ProducerError",
    "Spend",
    "SpendLine",
    "Touchpoint",
    "UserData",
]
