"""From a record to a message: validate, encode, address.

Invariant: a sealed message is one that the consumers accept; what they would put aside is refused here, with the field
and the rule, before it leaves the service. Headers are CloudEvents 1.0 in Kafka's binary mode.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from attributary.attribution_core.domain.identity_rules import BUILT_IN, IdentityRules
from attributary.producers.errors import InvalidRecord
from attributary.producers.times import rfc3339_bytes
from attributary.producers.touchpoint_sealer import NOT_PLAIN, Sealer, touchpoint_sealer
from attributary.producers.transport import Message
from attributary.schemas.codec import Codec, EncodeError
from attributary.schemas.rules import CHECKS, find_unstorable_text
from attributary.schemas.schema_catalog import current_schemas, defaults
from attributary.schemas.topics import partition_key, spend_key, topic_of

TIME_FIELDS = {
    "touchpoint": "occurred_at", "conversion": "occurred_at", "identity_link": "linked_at", "spend": "reported_at",
}  # fmt: skip


class Envelope:
    """Seals the records of one service.

    Args:
        codec: how records become bytes.
        source: ``ce_source`` of every message.
        identities: which ids name nobody.
        default_tenant: tenant of touchpoints that name none.
    """

    def __init__(
        self, codec: Codec, source: str, identities: IdentityRules = BUILT_IN, default_tenant: str = ""
    ) -> None:
        self._codec = codec
        self._encode = codec.encode
        self._default_tenant = default_tenant
        self._sealer: Sealer | None = None  # made once the codec has shown that it can write touchpoints
        self._identities = identities
        self._kinds = {
            name: (
                topic_of(name),
                CHECKS[name],
                time_field,
                [
                    ("content-type", b"application/avro"),
                    ("ce_specversion", b"1.0"),
                    ("ce_type", f"attributary.{name}.v1".encode()),
                    ("ce_source", source.encode()),
                ],
                len(current_schemas()[name].source["fields"]),
                dict(defaults(name)),
            )
            for name, time_field in TIME_FIELDS.items()
        }

    def seal_touchpoint(self, values: tuple[Any, ...], traceparent: str | None = None) -> Message | None:
        """Return the message of an ordinary touchpoint, quickly; None: let ``seal`` judge the record.

        Args:
            values: of the fields in the order of ``touchpoint_sealer.FIELDS``.
            traceparent: W3C trace context of the request that the record comes from.
        """
        if self._sealer is None:
            return None
        try:
            message = self._sealer(values)
        except NOT_PLAIN:
            return None
        if traceparent is not None:
            message.headers.append(("traceparent", traceparent.encode()))
        return message

    def seal(self, name: str, record: Mapping[str, Any], traceparent: str | None = None) -> Message:
        """Return the message of a record.

        Args:
            name: touchpoint, conversion, identity_link or spend.
            record: all fields that have no default in the schema, times in microseconds UTC.
            traceparent: W3C trace context of the request that the record comes from.

        Raises:
            InvalidRecord: when the record breaks a rule.
        """
        topic, check, time_field, constant_headers, fields, when_missing = self._kinds[name]
        if len(record) < fields:
            record = {**when_missing, **record}
        violation = check(record, now_micros=time.time_ns() // 1000, identities=self._identities)
        if violation is None and _may_hold_nul(record):
            violation = find_unstorable_text(record)
        if violation is not None:
            raise InvalidRecord(name, violation.field, violation.rule, _event_id(record))
        try:
            value = self._encode(name, record)
        except EncodeError as error:
            field, rule = find_unstorable_text(record) or _field_and_rule(error)
            raise InvalidRecord(name, field, rule, _event_id(record)) from None
        if name == "touchpoint" and self._sealer is None:
            self._sealer = touchpoint_sealer(
                self._codec.framing(name), self._codec.max_bytes, constant_headers, self._default_tenant,
                self._identities,
            )  # fmt: skip
        headers = [
            *constant_headers,
            ("ce_id", record["event_id"].encode()),
            ("ce_time", rfc3339_bytes(record[time_field])),
        ]
        if traceparent is not None:
            headers.append(("traceparent", traceparent.encode()))
        return Message(topic, _key(name, record), value, headers)


def _key(name: str, record: Mapping[str, Any]) -> bytes:
    if name == "spend":
        return spend_key(record["tenant_id"], record["platform"], record["account"], record["day"])
    return partition_key(record["tenant_id"], record.get("anonymous_id"), record.get("user_id"))


def _event_id(record: Mapping[str, Any]) -> str | None:
    event_id = record.get("event_id")
    return event_id if isinstance(event_id, str) and event_id.isprintable() else None


def _field_and_rule(error: EncodeError) -> tuple[str, str]:
    field, separator, rule = error.rule.partition(": ")
    return (field, rule) if separator else ("record", error.rule)


def _may_hold_nul(record: Mapping[str, Any]) -> bool:
    """Tell, ten times quicker than the full walk, whether that walk is needed; encoding finds broken surrogates."""
    for value in record.values():
        if type(value) is str:
            if "\0" in value:
                return True
        elif value and type(value) not in _NUMBERS and "\\x00" in repr(value):
            return True
    return False


_NUMBERS = frozenset({int, float, bool})
