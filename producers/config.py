"""What a publishing client is set up with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from attributary.attribution_core.domain.identity_rules import BUILT_IN, IdentityRules
from attributary.schemas.codec import Codec


@dataclass(frozen=True, slots=True, kw_only=True)
class ProducerConfig:
    """Settings of an ``AttributaryProducer``.

    Attributes:
        bootstrap: ``host:port`` of one or more Kafka brokers, separated by commas. Not used when the producer is given
            a transport of its own.
        source: name of the service that publishes; becomes ``ce_source``, so that a bad record can be traced back.
        kafka: librdkafka settings to add or change, for example ``{"security.protocol": "SASL_SSL"}``. The ones on
            which the guarantees rest cannot be changed.
        default_tenant: tenant of records that name none.
        default_region: ISO 3166-1 alpha-2 country of phone numbers that are written without a country code.
        hash_user_data: replace e-mail, phone and the like by hashes before the record leaves the service.
        identities: which ids name nobody: the built-in rules, with what your tenants add and take back.
        codec: how records become bytes; by default Avro single-object encoding, which needs no registry.
        full_buffer_timeout_seconds: how long ``publish`` waits for room in a full queue.
        flush_timeout_seconds: how long leaving the ``with`` block waits for acknowledgements.
    """

    bootstrap: str = ""
    source: str = "attributary"
    kafka: Mapping[str, Any] = field(default_factory=dict)
    default_tenant: str = ""
    default_region: str | None = None
    hash_user_data: bool = True
    identities: IdentityRules = BUILT_IN
    codec: Codec | None = None
    full_buffer_timeout_seconds: float = 30.0
    flush_timeout_seconds: float = 30.0

    def __post_init__(self) -> None:
        if self.full_buffer_timeout_seconds <= 0 or self.flush_timeout_seconds <= 0:
            raise ValueError("full_buffer_timeout_seconds, flush_timeout_seconds: must be above zero")
        if not self.source:
            raise ValueError("source: name the service that publishes")
