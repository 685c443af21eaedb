"""The collector's settings from the environment."""

from __future__ import annotations

from ipaddress import ip_network
from pathlib import Path
from typing import Literal

from pydantic import Field, SecretStr, field_validator

from attributary.consumers.runtime.settings import Settings
from attributary.producers.collector.config import CollectorConfig, ServerOptions

_SECRET_CHARACTERS = 32


class CollectSettings(Settings):
    """The HTTP collector."""

    host: str = Field(
        default="0.0.0.0",  # noqa: S104  # pages and proxies come from other hosts
        alias="COLLECT_HOST",
        description="Address of the public listener.",
    )
    port: int = Field(
        default=8080, ge=0, le=65_535, alias="COLLECT_PORT", description="Port of the public listener; 0: any."
    )
    keys_file: Path = Field(
        alias="COLLECT_KEYS_FILE",
        description="File with the hashes of write and secret keys (`attributary collect keys new`); read again when "
        "it changes.",
    )
    spool: str = Field(
        alias="COLLECT_SPOOL",
        description="Folder on a disk that outlives the process, for records that Kafka does not take now; or off: "
        "such requests are then answered 503.",
    )
    spool_bytes: int = Field(
        default=1 << 30, ge=1 << 20, alias="COLLECT_SPOOL_BYTES", description="Most bytes of one process's spool."
    )
    drain_rate: float = Field(
        default=2_000.0,
        ge=1,
        alias="COLLECT_DRAIN_RECORDS_PER_SECOND",
        description="Most records a second from the spool back to Kafka.",
    )
    prefix: str = Field(
        default="",
        pattern=r"^(/[A-Za-z0-9._~-]+)*$",
        alias="COLLECT_PREFIX",
        description="Path before all routes, such as /x; for a path of the shop's own host.",
    )
    ack_seconds: float = Field(
        default=2.0,
        gt=0,
        le=60,
        alias="COLLECT_ACK_SECONDS",
        description="How long a request waits for Kafka's acknowledgement before its records are spooled.",
    )
    max_body: int = Field(
        default=1 << 20,
        ge=1 << 10,
        alias="COLLECT_MAX_BODY_BYTES",
        description="Largest body with a write key, before and after inflating.",
    )
    max_body_secret: int = Field(
        default=5 << 20,
        ge=1 << 10,
        alias="COLLECT_MAX_BODY_BYTES_SECRET",
        description="Largest body with a secret key.",
    )
    max_records: int = Field(
        default=1_000, ge=1, le=10_000, alias="COLLECT_MAX_RECORDS", description="Most records in a request."
    )
    max_concurrency: int = Field(
        default=2_000,
        ge=1,
        alias="COLLECT_MAX_CONCURRENCY",
        description="Most requests at once; further ones are answered 503.",
    )
    max_connections: int = Field(
        default=10_000,
        ge=1,
        alias="COLLECT_MAX_CONNECTIONS",
        description="Most open connections; further ones are closed at once.",
    )
    header_seconds: float = Field(
        default=10.0,
        gt=0,
        alias="COLLECT_HEADER_SECONDS",
        description="How long a client may take to send its headers.",
    )
    body_seconds: float = Field(
        default=20.0, gt=0, alias="COLLECT_BODY_SECONDS", description="How long a client may take to send its body."
    )
    requests_per_second: float = Field(
        default=500.0,
        ge=0,
        alias="COLLECT_REQUESTS_PER_SECOND",
        description="Requests a second with one key, in each process; bursts of 5 seconds' worth; 0: no limit.",
    )
    requests_per_second_ip: float = Field(
        default=50.0,
        ge=0,
        alias="COLLECT_REQUESTS_PER_SECOND_IP",
        description="Requests a second with write keys from one address (IPv6: one /64), in each process; 0: no limit.",
    )
    trusted_proxies: str = Field(
        default="",
        alias="COLLECT_TRUSTED_PROXIES",
        description="Networks of own proxies: their X-Forwarded-For is believed, such as 10.0.0.0/8,::1; "
        "comma-separated.",
    )
    ip: Literal["full", "cut", "none"] = Field(
        default="cut",
        alias="COLLECT_IP",
        description="What conversions keep of the visitor's address: full, cut (/24, /48) or none.",
    )
    honour_dnt: bool = Field(
        default=False, alias="COLLECT_DNT", description="Treat the header DNT: 1 as Sec-GPC: 1, which always counts."
    )
    country_header: str = Field(
        default="",
        pattern=r"^[A-Za-z0-9-]*$",
        alias="COLLECT_COUNTRY_HEADER",
        description="Header in which your CDN names the visitor's country, such as CF-IPCountry; anybody can send it "
        "where no CDN replaces it.",
    )
    default_region: str | None = Field(
        default=None,
        pattern=r"^[A-Z]{2}$",
        alias="COLLECT_DEFAULT_REGION",
        description="ISO 3166-1 alpha-2 code for phone numbers without country code.",
    )
    redirect_secret: SecretStr | None = Field(
        default=None,
        alias="COLLECT_REDIRECT_SECRET",
        description="Key of signed redirect targets (`attributary collect link`), 32 characters or more; without it "
        "redirects lead to the hosts of the key alone.",
    )
    cookie: str = Field(
        default="_atb",
        pattern=r"^[A-Za-z0-9_-]+$",
        alias="COLLECT_COOKIE",
        description="Name of the first-party cookie, set with consent to ad_storage only; off: none.",
    )
    webhooks_file: Path | None = Field(
        default=None,
        alias="COLLECT_WEBHOOKS_FILE",
        description="YAML file of the webhook sources (docs/how-to/webhooks.md); read at the start. Without: none.",
    )
    webhooks_unmapped: Path | None = Field(
        default=None,
        alias="COLLECT_WEBHOOKS_UNMAPPED",
        description="Folder for the newest 1,000 signed deliveries of which no record could be made, as they came: "
        "they hold personal data. Without: they are counted and logged, not kept.",
    )
    script_name: str = Field(
        default="attributary.js",
        pattern=r"^([A-Za-z0-9_-]{1,60}\.js|off)$",
        alias="COLLECT_SCRIPT_NAME",
        description="Name of the page script below COLLECT_PREFIX, such as shop.js; off: it is not served.",
    )
    drain_seconds: float = Field(
        default=3.0,
        ge=0,
        alias="COLLECT_LEAVE_SECONDS",
        description="How long requests are still served after SIGTERM, so that a load balancer notices.",
    )

    @field_validator("trusted_proxies")
    @classmethod
    def _check_networks(cls, text: str) -> str:
        for part in filter(None, map(str.strip, text.split(","))):
            try:
                ip_network(part, strict=False)
            except ValueError:
                raise ValueError("must be networks such as 10.0.0.0/8, comma-separated") from None
        return text

    @field_validator("redirect_secret")
    @classmethod
    def _check_secret(cls, secret: SecretStr | None) -> SecretStr | None:
        if secret is not None and len(secret.get_secret_value()) < _SECRET_CHARACTERS:
            raise ValueError(f"must have {_SECRET_CHARACTERS} characters or more")
        return secret

    def config(self) -> CollectorConfig:
        """Return the settings of the requests."""
        networks = filter(None, map(str.strip, self.trusted_proxies.split(",")))
        secret = self.redirect_secret
        return CollectorConfig(
            prefix=self.prefix,
            keys_file=self.keys_file,
            ack_seconds=self.ack_seconds,
            max_body=self.max_body,
            max_body_secret=self.max_body_secret,
            max_records=self.max_records,
            max_concurrency=self.max_concurrency,
            max_connections=self.max_connections,
            header_seconds=self.header_seconds,
            body_seconds=self.body_seconds,
            trusted_proxies=tuple(ip_network(part, strict=False) for part in networks),
            ip=self.ip,
            honour_dnt=self.honour_dnt,
            country_header=self.country_header,
            requests_per_second=self.requests_per_second,
            requests_per_second_ip=self.requests_per_second_ip,
            redirect_secret=secret.get_secret_value() if secret is not None else "",
            cookie_name="" if self.cookie == "off" else self.cookie,
            webhooks_file=self.webhooks_file,
            webhooks_unmapped=self.webhooks_unmapped,
            script_name="" if self.script_name == "off" else self.script_name,
        )

    def options(self) -> ServerOptions:
        """Return the settings of the process."""
        return ServerOptions(
            spool_folder=None if self.spool == "off" else Path(self.spool),
            spool_bytes=self.spool_bytes,
            drain_records_per_second=self.drain_rate,
            drain_seconds=self.drain_seconds,
        )
