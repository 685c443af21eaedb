"""The forwarder's settings from the environment: Meta, GA4, and what all destinations share.

Invariant: secrets are also read from NAME_FILE. Credentials never come from a topic. The other destinations have their
settings beside them, on `AdPlatformSettings`.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Annotated, ClassVar, Literal

import httpx
from pydantic import AfterValidator, Field, SecretStr

from attributary.consumers.destinations.ad_platform_settings import (
    MAX_PORT,
    AdPlatformSettings,
    BaseUrl,
    PropertyList,
    Token,
    base_url_field,
    consent_field,
    event_names_field,
    properties_field,
    purposes,
)
from attributary.consumers.destinations.ga4.destination import DEFAULT_BASE_URL as GA4_URL
from attributary.consumers.destinations.ga4.destination import EU_BASE_URL
from attributary.consumers.destinations.meta.destination import DEFAULT_API_VERSION
from attributary.consumers.destinations.meta.destination import DEFAULT_BASE_URL as META_URL
from attributary.consumers.runtime.errors import ConfigError
from attributary.consumers.runtime.settings import Settings

_CONTENT_TYPE = re.compile(r"[a-z][a-z_]{0,49}")


def _checked_proxy(secret: SecretStr | None) -> SecretStr | None:
    """Return the proxy; raise ValueError when it is no address of one."""
    if secret is None:
        return None
    try:
        url = httpx.URL(secret.get_secret_value())
        good = url.scheme in {"http", "https"} and bool(url.host) and (url.port is None or 0 < url.port <= MAX_PORT)
    except (httpx.InvalidURL, ValueError):
        good = False
    if not good:
        raise ValueError("must be the address of an HTTP proxy, such as http://user:password@proxy.example:3128")
    return secret


def _checked_folder(folder: Path | None) -> Path | None:
    """Return a folder; raise ValueError when no file can be made in it."""
    if folder is not None and not (folder.is_dir() and os.access(folder, os.W_OK | os.X_OK)):
        raise ValueError("must be a folder that exists and that this process can write to")
    return folder


_Proxy = Annotated[SecretStr | None, AfterValidator(_checked_proxy)]


class MetaSettings(AdPlatformSettings):
    """Meta's Conversions API: the default account, and what all accounts share."""

    destination: ClassVar[str] = "meta"
    pixel_id: str | None = Field(
        default=None,
        alias="META_PIXEL_ID",
        pattern=r"^[0-9]{1,30}$",
        description="Pixel or data set to send to; digits.",
    )
    access_token: Token = Field(
        default=None, alias="META_ACCESS_TOKEN", description="Access token of the Conversions API; needed with a pixel."
    )
    test_event_code: str | None = Field(
        default=None,
        alias="META_TEST_EVENT_CODE",
        pattern=r"^[A-Za-z0-9_-]{1,50}$",
        description="Shows events under Test Events as well; they still count. Not for production.",
    )
    api_version: str = Field(
        default=DEFAULT_API_VERSION,
        alias="META_API_VERSION",
        pattern=r"^v[0-9]{1,3}\.[0-9]$",
        description="Version of the Graph API.",
    )
    app_secret: SecretStr | None = Field(
        default=None, alias="META_APP_SECRET", description="App secret: every request is then signed (appsecret_proof)."
    )
    base_url: BaseUrl = base_url_field("meta", META_URL)
    external_id: Literal["hashed", "raw", "both"] = Field(
        default="hashed",
        alias="FORWARD_META_EXTERNAL_ID",
        description="How the external id travels to Meta: hashed, raw or both.",
    )
    event_names: str = event_names_field("meta", "Meta")
    content_types: str = Field(
        default="",
        alias="FORWARD_META_CONTENT_TYPES",
        description="Meta's content types by category of an order's lines: Flights=flight, comma-separated; else "
        "product.",
    )
    partner_agent: str = Field(
        default="",
        alias="META_PARTNER_AGENT",
        pattern=r"^[A-Za-z0-9._/-]{0,50}$",
        description="Who sends, for Meta's partners: a short name in every request (partner_agent). Unset: nobody.",
    )
    upload_tag: str = Field(
        default="",
        alias="META_UPLOAD_TAG",
        pattern=r"^[A-Za-z0-9 ._/-]{0,100}$",
        description="Name of the upload in every request to Meta (upload_tag), for offline events. Unset: none.",
    )
    properties: PropertyList = properties_field("meta", "Meta")
    consent: str = consent_field("meta", "Meta")

    def types_of_contents(self) -> dict[str, str]:
        """Return content types by category, lower case.

        Raises:
            ConfigError: they are no pairs, or no content types.
        """
        found: dict[str, str] = {}
        for part in purposes(self.content_types):
            category, mark, kind = (piece.strip() for piece in part.rpartition("="))
            if not mark or not category or _CONTENT_TYPE.fullmatch(kind) is None:
                rule = "must be pairs such as Flights=flight, separated by commas; a type is a word in lower case"
                raise ConfigError("FORWARD_META_CONTENT_TYPES", rule)
            found[category.lower()] = kind
        return found


class Ga4Settings(AdPlatformSettings):
    """GA4's Measurement Protocol: the default account, and what all accounts share."""

    destination: ClassVar[str] = "ga4"
    measurement_id: str | None = Field(
        default=None,
        alias="GA4_MEASUREMENT_ID",
        pattern=r"^G-[A-Z0-9]{1,20}$",
        description="Web stream to send to, G-...",
    )
    firebase_app_id: str | None = Field(
        default=None,
        alias="GA4_FIREBASE_APP_ID",
        pattern=r"^[0-9]+:[0-9]+:[a-z]+:[0-9a-f]+$",
        description="App stream to send events with an app instance id to.",
    )
    api_secret: Token = Field(
        default=None, alias="GA4_API_SECRET", description="API secret of the stream; needed with a stream."
    )
    base_url: BaseUrl = base_url_field("ga4", None)
    eu: bool = Field(default=False, alias="GA4_EU", description="Send to Google's endpoint in the EU.")
    event_names: str = event_names_field("ga4", "GA4")
    properties: PropertyList = properties_field("ga4", "GA4")
    consent: str = consent_field("ga4", "GA4", "analytics_storage")
    probe: bool = Field(
        default=True,
        alias="FORWARD_GA4_PROBE",
        description="Ask Google's validation endpoint once for every new shape of event; it records nothing.",
    )

    @property
    def url(self) -> str:
        """Scheme and host."""
        return (self.base_url or (EU_BASE_URL if self.eu else GA4_URL)).rstrip("/")


class ForwardSettings(Settings):
    """What all destinations share."""

    batch_size: int | None = Field(
        default=None,
        ge=1,
        le=100_000,
        alias="FORWARD_BATCH_SIZE",
        description="Most events taken from Kafka at once; 1,000 for GA4 and 5,000 for the others unless set.",
    )
    events_per_request: int = Field(
        default=1_000,
        ge=1,
        alias="FORWARD_EVENTS_PER_REQUEST",
        description="Most events in a request; the destination's own limit (GA4 25, X 500, else 1,000) is the most.",
    )
    linger_ms: int = Field(
        default=500,
        ge=0,
        le=10_000,
        alias="FORWARD_LINGER_MS",
        description="How long a batch waits for more events after its first; milliseconds.",
    )
    concurrency: int | None = Field(
        default=None,
        ge=1,
        le=64,
        alias="FORWARD_CONCURRENCY",
        description="Most requests at once to a destination; 64 for GA4, 4 for LinkedIn and Google, 8 for the "
        "others unless set.",
    )
    attempts: int = Field(
        default=4,
        ge=1,
        le=20,
        alias="FORWARD_ATTEMPTS",
        description="Tries of a request before the partition is paused.",
    )
    rate_percent: int = Field(
        default=90,
        ge=1,
        le=100,
        alias="FORWARD_RATE_PERCENT",
        description="Share of a rate limit of LinkedIn, Google, TikTok and Reddit that this process may use, for all "
        "accounts of an app, project or token together; two processes of a destination take 45 each.",
    )
    timeout_seconds: float = Field(
        default=10.0,
        gt=0,
        le=60,
        alias="FORWARD_TIMEOUT_SECONDS",
        description="How long a request and its whole answer may take.",
    )
    proxy: _Proxy = Field(
        default=None,
        alias="FORWARD_PROXY_URL",
        description="HTTP proxy to the destinations, http://user:password@host:port. HTTP_PROXY, HTTPS_PROXY and netrc "
        "are not used.",
    )
    consent_unknown: Literal["skip", "send"] = Field(
        default="skip",
        alias="FORWARD_CONSENT_UNKNOWN",
        description="When a purpose was never asked about: skip the event, or send it on another legal ground.",
    )
    default_region: str | None = Field(
        default=None,
        alias="FORWARD_DEFAULT_REGION",
        pattern=r"^[A-Z]{2}$",
        description="ISO 3166-1 alpha-2 code for phone numbers without country code; without it they are dropped.",
    )
    personal_data: Literal["strip", "keep"] = Field(
        default="strip",
        alias="FORWARD_PERSONAL_DATA",
        description="E-mail addresses and the like in URLs and free properties: take them out, or send them.",
    )
    uncertain: Literal["hold", "resend"] = Field(
        default="hold",
        alias="FORWARD_UNCERTAIN",
        description="An event that was perhaps sent and would count twice: hold it as uncertain, or send it again.",
    )
    credentials_file: str | None = Field(
        default=None,
        alias="FORWARD_CREDENTIALS_FILE",
        description="YAML or JSON file with credentials per tenant; see docs/how-to/forward.md.",
    )
    token_dir: Annotated[Path | None, AfterValidator(_checked_folder)] = Field(
        default=None,
        alias="FORWARD_TOKEN_DIR",
        description="Folder, writable and kept, for refresh tokens that a platform replaces at every use; without it "
        "they are kept in memory, and a restart begins with the one in the settings.",
    )
