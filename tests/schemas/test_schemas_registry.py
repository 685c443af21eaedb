from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from typing import Any

import pytest

from attributary.schemas.codec import Codec, DecodeError, EncodeError, RegistryUnavailableError
from attributary.schemas.registry import ConfluentRegistry, RegistryExtraMissingError, connect, subject_of
from attributary.schemas.schema_catalog import registered_text

LINK = {"tenant_id": "acme", "event_id": "l-1", "anonymous_id": "d-1", "user_id": "u-1", "linked_at": 1}
HAS_EXTRA = all(importlib.util.find_spec(name) for name in ("authlib", "cachetools", "attrs"))


@dataclass
class Schema:
    schema_str: str
    schema_id: int = 0


class RegistryAnswerError(Exception):
    def __init__(self, http_status_code: int) -> None:
        super().__init__(f"HTTP {http_status_code}")
        self.http_status_code = http_status_code


class Client:
    """The part of confluent_kafka's client that is used, in memory."""

    def __init__(self) -> None:
        self.subjects: dict[str, list[Schema]] = {}
        self.fails_with: Exception | None = None

    def get_schema(self, schema_id: int) -> Schema:
        return self._find(lambda schema: schema.schema_id == schema_id)

    def lookup_schema(self, subject: str, wanted: Schema) -> Schema:
        known = self.subjects.get(subject, [])
        return self._find(lambda schema: schema in known and schema.schema_str == wanted.schema_str)

    def register_schema(self, subject: str, wanted: Schema) -> int:
        schema_id = 100 + sum(map(len, self.subjects.values()))
        self.subjects.setdefault(subject, []).append(Schema(wanted.schema_str, schema_id))
        return schema_id

    def _find(self, matches: Any) -> Schema:
        if self.fails_with:
            raise self.fails_with
        for schemas in self.subjects.values():
            for schema in schemas:
                if matches(schema):
                    return schema
        raise RegistryAnswerError(404)


def registry(client: Client, *, register: bool = False) -> ConfluentRegistry:
    return ConfluentRegistry(client, Schema, (RegistryAnswerError, OSError), register=register)


def test_registered_records_round_trip() -> None:
    client = Client()
    value = Codec(registry(client, register=True)).encode("identity_link", LINK)
    assert list(client.subjects) == ["attribution.identities.v1-value"]
    codec = Codec(registry(client))
    assert codec.encode("identity_link", LINK) == value
    assert codec.decode("identity_link", value) == LINK | {"source": None}


def test_nothing_is_registered_unless_it_was_asked_for() -> None:
    client = Client()
    with pytest.raises(EncodeError, match="the identity_link schema is not registered"):
        Codec(registry(client)).encode("identity_link", LINK)
    assert client.subjects == {}


def test_what_the_registry_does_not_know_is_the_records_fault() -> None:
    with pytest.raises(DecodeError, match="unknown schema id 9"):
        Codec(registry(Client())).decode("identity_link", b"\0\0\0\0\x09")


@pytest.mark.parametrize("failure", [RegistryAnswerError(503), RegistryAnswerError(401), ConnectionRefusedError()])
def test_a_registry_that_does_not_answer_is_not(failure: Exception) -> None:
    client = Client()
    client.fails_with = failure
    with pytest.raises(RegistryUnavailableError, match="the schema registry"):
        Codec(registry(client)).decode("identity_link", b"\0\0\0\0\x09")


def test_the_subject_follows_the_topic() -> None:
    assert subject_of("touchpoint") == "attribution.touchpoints.v1-value"


@pytest.mark.skipif(HAS_EXTRA, reason="the extra `registry` is installed")
def test_a_missing_extra_says_how_to_get_it() -> None:
    with pytest.raises(RegistryExtraMissingError, match=r"attributary\[registry\]"):
        connect({"url": "http://127.0.0.1:1"})


@pytest.mark.skipif(not HAS_EXTRA, reason="needs the extra `registry`")
def test_the_library_s_own_mock_round_trips() -> None:
    resolver = connect({"url": "mock://attributary"}, register=True)
    codec = Codec(resolver)
    value = codec.encode("identity_link", LINK)
    assert codec.decode("identity_link", value) == LINK | {"source": None}
    assert resolver.schema(int.from_bytes(value[1:5], "big")) == registered_text("identity_link")
    with pytest.raises(DecodeError, match="unknown schema id 999"):
        codec.decode("identity_link", b"\0" + (999).to_bytes(4, "big"))


@pytest.mark.skipif(not HAS_EXTRA, reason="needs the extra `registry`")
def test_the_library_s_client_that_reaches_nobody_is_unavailable() -> None:
    resolver = connect({"url": "http://127.0.0.1:9", "timeout": 0.2, "max.retries": 0})
    with pytest.raises(RegistryUnavailableError, match="does not answer"):
        resolver.schema(1)
