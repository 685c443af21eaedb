"""Settings from the environment: one class per concern, every field with its variable's name and a sentence.

Invariant: a missing or bad variable stops the start with exit code 78 and its name; its value is never shown. Every
secret can also be given as a file, ``NAME_FILE=/path``. ``docs/reference/settings.md`` is generated from these classes.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient
from pydantic import Field, SecretStr, field_validator, model_validator
from pydantic_settings import NoDecode

from .errors import ConfigError
from .kafka_credential_settings import KafkaCredentialSettings
from .kafka_errors import check_servers, refused_setting
from .settings_source import MUST_BE_SET, Settings, load, problems, variable_of

__all__ = [
    "MUST_BE_SET",
    "DatabaseSettings",
    "InstallationSettings",
    "KafkaSettings",
    "ProcessSettings",
    "ReadySettings",
    "Settings",
    "TenantSettings",
    "load",
    "problems",
    "variable_of",
]


class TenantSettings(Settings):
    """What commands take for granted."""

    tenant: str | None = Field(
        default=None,
        alias="ATTRIBUTION_TENANT",
        description="Tenant of commands that need one and get no --tenant. Commands with a filter by tenant show all "
        "tenants without --tenant.",
    )


class InstallationSettings(Settings):
    """Which installation this is, where several share a Kafka."""

    # Read and checked in schemas/installation.py, before anything else; here it is named for people.
    prefix: str = Field(
        default="",
        alias="ATTRIBUTION_PREFIX",
        description="How the names of all topics, consumer groups, transactional ids and default principals of this "
        "installation begin, for example eu. (with the point). The same for every process of an installation and "
        "everybody who publishes to it; never changed later.",
    )


_READY_URL = re.compile(r"([a-z0-9][a-z0-9.-]{0,63})=(https?://[^\s@/]+)/?")
_READY_RULE = "must be name=http://host:port, several by commas; no user, no path"


class ReadySettings(Settings):
    """Processes that `attributary status` asks."""

    urls: str | None = Field(
        default=None,
        alias="STATUS_READY_URLS",
        description="Processes that `attributary status` asks whether they are ready: "
        "stitcher=http://host:9464,auditor=http://host:9466. `attributary up` sets it in its env.",
    )

    @field_validator("urls")
    @classmethod
    def _check_urls(cls, value: str | None) -> str | None:
        if value is not None and not all(_READY_URL.fullmatch(each.strip()) for each in value.split(",")):
            raise ValueError(_READY_RULE)
        return value

    def by_name(self) -> Mapping[str, str]:
        """Return the addresses by the name of the process."""
        found = (_READY_URL.fullmatch(each.strip()) for each in (self.urls or "").split(",") if each.strip())
        return {each[1]: each[2] for each in found if each is not None}


class KafkaSettings(KafkaCredentialSettings):
    """How to reach Kafka."""

    bootstrap_servers: str = Field(alias="KAFKA_BOOTSTRAP_SERVERS", description="Brokers to start from, host:port,...")
    group_protocol: Literal["classic", "consumer"] = Field(
        default="classic",
        alias="KAFKA_GROUP_PROTOCOL",
        description="classic or consumer (KIP-848). A stage of several topics uses the assignor range.",
    )
    session_timeout_ms: int = Field(
        default=45_000,
        ge=1_000,
        alias="KAFKA_SESSION_TIMEOUT_MS",
        description="After so long without a heartbeat a consumer is out; milliseconds. Classic protocol only.",
    )
    transaction_timeout_ms: int = Field(
        default=30_000,
        ge=1_000,
        alias="KAFKA_TRANSACTION_TIMEOUT_MS",
        description="After so long the broker aborts an open transaction; milliseconds, below the session timeout.",
    )
    max_poll_interval_ms: int = Field(
        default=120_000,
        ge=1_000,
        alias="KAFKA_MAX_POLL_INTERVAL_MS",
        description="After so long without a read a consumer is out, and so long a rebalance waits for one that does "
        "not answer; milliseconds, not below the session timeout.",
    )
    extra: Annotated[dict[str, Any], NoDecode] = Field(  # decoded below, so that a bad one is named like any other
        default_factory=dict,
        alias="KAFKA_EXTRA",
        description="Further librdkafka settings for every client, a JSON object.",
    )

    @field_validator("bootstrap_servers")
    @classmethod
    def _check_servers(cls, value: str) -> str:
        return check_servers(value)

    @field_validator("extra", mode="before")
    @classmethod
    def _parse_extra(cls, value: Any) -> Any:
        if isinstance(value, str):
            try:
                value = json.loads(value)
            except (ValueError, RecursionError):
                value = None
        if not isinstance(value, dict):
            raise ValueError("must be a JSON object")  # noqa: TRY004  # pydantic takes a ValueError as a broken rule
        if not all(isinstance(each, str | int | float) for each in value.values()):
            raise ValueError("each value must be a text, a number, true or false")
        return value

    @model_validator(mode="after")
    def _agree(self) -> Self:
        if self.transaction_timeout_ms >= self.session_timeout_ms:
            raise ValueError("KAFKA_TRANSACTION_TIMEOUT_MS: must be below KAFKA_SESSION_TIMEOUT_MS")
        if self.group_protocol == "classic" and self.max_poll_interval_ms < self.session_timeout_ms:
            raise ValueError("KAFKA_MAX_POLL_INTERVAL_MS: must not be below KAFKA_SESSION_TIMEOUT_MS")
        self.check_credentials(self.extra)
        return self

    @classmethod
    def load(cls) -> Self:
        """Read the settings from the environment, and let librdkafka check them before a stage is built on them.

        Raises:
            ConfigError: names the variable and, where it is known, librdkafka's setting; never a value.
        """
        found = load(cls)
        try:
            AdminClient({**found.client_config(), "log_level": 0})
        except KafkaException as error:
            raise refused_setting(error, frozenset(found.extra)) from None
        except (TypeError, ValueError):
            raise ConfigError("KAFKA_EXTRA", "a value is no text, number or truth value") from None
        return found

    def client_config(self) -> dict[str, Any]:
        """Return the librdkafka settings that every client shares."""
        return {"bootstrap.servers": self.bootstrap_servers} | self.credential_config() | self.extra


class DatabaseSettings(Settings):
    """How to reach Postgres."""

    url: SecretStr = Field(alias="DATABASE_URL", description="Postgres, postgresql://user:password@host:port/database.")
    statement_seconds: float = Field(
        default=100.0,
        ge=0,
        alias="DATABASE_STATEMENT_SECONDS",
        description="After so long a statement of a stage is ended and tried again; seconds, 0: never. "
        "Sweeper and trainer have none.",
    )
    lock_seconds: float = Field(
        default=15.0,
        ge=0,
        alias="DATABASE_LOCK_SECONDS",
        description="So long a stage waits for a lock, then it tries again; seconds, 0: for ever.",
    )


class ProcessSettings(Settings):
    """How a process lives."""

    environment: Literal["development", "production"] = Field(
        default="development",
        alias="ATTRIBUTION_ENVIRONMENT",
        description="production refuses test brokers and warns of test codes.",
    )
    instance: str = Field(
        default="0",
        alias="ATTRIBUTION_INSTANCE",
        pattern=r"^[A-Za-z0-9._-]{1,60}$",
        description="Stable ordinal of this process among its equals; part of the transactional id.",
    )
    first_start: Literal["earliest", "latest"] | None = Field(
        default=None,
        alias="ATTRIBUTION_FIRST_START",
        description="Where a group without stored offsets begins. Needed on the first start only, on purpose.",
    )
    quarantine_starts: int = Field(
        default=3,
        ge=0,
        alias="ATTRIBUTION_QUARANTINE_STARTS",
        description="After so many starts without progress a stage looks for the one record at which it ends, and sets "
        "it aside as a dead letter (stage quarantine); 0: never.",
    )
    skip_batches: str = Field(
        default="",
        alias="ATTRIBUTION_SKIP_BATCHES",
        description="Batches of the log that cannot be unpacked and are given up, TOPIC[PARTITION]@OFFSET, or with the "
        "last offset TOPIC[PARTITION]@FIRST-LAST, comma-separated; a dead letter (stage read) notes each.",
    )
    recreated_topic: Literal["stop", "earliest"] = Field(
        default="stop",
        alias="ATTRIBUTION_RECREATED_TOPIC",
        description="What to do when a topic was deleted and made anew, or the cluster is another one: stored offsets "
        "mean nothing in its log. stop: refuse to start. earliest: read the new log from its beginning.",
    )
    batch_size: int = Field(
        default=5_000, ge=1, le=100_000, alias="ATTRIBUTION_BATCH_SIZE", description="Most records in a batch."
    )
    linger_ms: int = Field(
        default=10,
        ge=0,
        le=10_000,
        alias="ATTRIBUTION_LINGER_MS",
        description="How long a batch waits for more records after its first; milliseconds.",
    )
    max_poison_share: float = Field(
        default=0.5,
        gt=0,
        le=1,
        alias="ATTRIBUTION_MAX_POISON_SHARE",
        description="Stop when more of a batch of at least 100 records than this share is poison.",
    )
    grace_seconds: float = Field(
        default=25.0, gt=0, alias="ATTRIBUTION_GRACE_SECONDS", description="Time for a graceful stop; seconds."
    )
    metrics_port: int = Field(
        default=9464, ge=0, le=65_535, alias="METRICS_PORT", description="Port of /metrics, /livez, /readyz; 0: any."
    )
    metrics_host: str = Field(
        default="0.0.0.0",  # noqa: S104  # probes and Prometheus come from other hosts
        alias="METRICS_HOST",
        description="Address of that port.",
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        default="info", alias="LOG_LEVEL", description="Least level of the logs."
    )
