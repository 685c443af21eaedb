"""The forwarder's settings from the environment.

Invariant: a destination is either off (nothing set) or whole; half a credential is a `ConfigError` that names the
missing variable. Secrets are also read from NAME_FILE. Credentials never come from a topic.
"""

from __future__ import annotations

import ipaddress
import re
from typing import TYPE_CHECKING, Annotated, Literal

import httpx
from pydantic import AfterValidator, Field, SecretStr

from attributary.consumers.destinations.account_fields import broken_event_name
from attributary.consumers.destinations.ga4.destination import DEFAULT_BASE_URL as GA4_URL
from attributary.consumers.destinations.ga4.destination import EU_BASE_URL
from attributary.consumers.destinations.meta.destination import DEFAULT_API_VERSION
from attributary.consumers.destinations.meta.destination import DEFAULT_BASE_URL as META_URL
from attributary.consumers.destinations.property_filter import PropertyFilter
from attributary.consumers.runtime.errors import ConfigError
from attributary.consumers.runtime.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Iterable

_HOST_LABEL = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?")
_LOOPBACK_NAMES = frozenset(("localhost", "ip6-localhost"))
_MAX_PORT = 65_535


def is_loopback(host: str) -> bool:
    """Return whether a host is this machine, without asking any name server."""
    name = host.strip("[]").rstrip(".").lower()
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return name in _LOOPBACK_NAMES or name.endswith(".localhost")


def _checked_url(text: str | None) -> str | None:
    """Return a base URL; raise ValueError when no request could be made of it."""
    if text is None:
        return None
    rule = "must be a web address such as https://proxy.example/path, without user, query and fragment"
    try:
        url = httpx.URL(text)
        port = url.port
    except (httpx.InvalidURL, ValueError):
        raise ValueError(rule) from None
    odd = (
        url.userinfo or url.query or url.fragment or "#" in text or "?" in text or not text.isprintable() or " " in text
    )
    if url.scheme not in {"http", "https"} or not url.host or odd or (port is not None and not 0 < port <= _MAX_PORT):
        raise ValueError(rule)
    try:
        ipaddress.ip_address(url.host)
    except ValueError:
        labels = url.raw_host.decode("ascii").removesuffix(".").split(".")
        if not all(_HOST_LABEL.fullmatch(label) for label in labels):
            raise ValueError(rule) from None
    if url.scheme == "http" and not is_loopback(url.host):
        raise ValueError("must begin with https://: secrets and personal data would travel in clear")
    return text


def _checked_proxy(secret: SecretStr | None) -> SecretStr | None:
    """Return the proxy; raise ValueError when it is no address of one."""
    if secret is None:
        return None
    try:
        url = httpx.URL(secret.get_secret_value())
        good = url.scheme in {"http", "https"} and bool(url.host) and (url.port is None or 0 < url.port <= _MAX_PORT)
    except (httpx.InvalidURL, ValueError):
        good = False
    if not good:
        raise ValueError("must be the address of an HTTP proxy, such as http://user:password@proxy.example:3128")
    return secret


def _checked_secret(secret: SecretStr | None) -> SecretStr | None:
    """Return a secret that can stand in a header; raise ValueError for any other."""
    if secret is not None and not is_printable_ascii(secret.get_secret_value()):
        raise ValueError("must be printable ASCII without spaces")
    return secret


def _checked_properties(text: str) -> str:
    """Return a list of properties; raise ValueError when it is none."""
    PropertyFilter.read(text)
    return text


def is_printable_ascii(text: str) -> bool:
    """Return whether a text can stand in a header: printable ASCII without spaces."""
    return text.isascii() and text.isprintable() and " " not in text


BaseUrl = Annotated[str | None, AfterValidator(_checked_url)]
Token = Annotated[SecretStr | None, AfterValidator(_checked_secret)]
PropertyList = Annotated[str, AfterValidator(_checked_properties)]
_Proxy = Annotated[SecretStr | None, AfterValidator(_checked_proxy)]


class MetaSettings(Settings):
    """Meta's Conversions API: the default account, and what all accounts share."""

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
    base_url: Annotated[str, AfterValidator(_checked_url)] = Field(
        default=META_URL,
        alias="META_BASE_URL",
        description="Scheme and host, for a fake or a relay; https, on this machine http too.",
    )
    external_id: Literal["hashed", "raw", "both"] = Field(
        default="hashed",
        alias="FORWARD_META_EXTERNAL_ID",
        description="How the external id travels to Meta: hashed, raw or both.",
    )
    event_names: str = Field(
        default="",
        alias="FORWARD_META_EVENT_NAMES",
        description="Own event names at Meta by conversion type: trial_started=TrialStarted, comma-separated.",
    )
    properties: PropertyList = Field(
        default="",
        alias="FORWARD_META_PROPERTIES",
        description="Free properties that may go to Meta: names with *, comma-separated; -name keeps one back. All "
        "unless set.",
    )
    consent: str = Field(
        default="ad_storage,ad_user_data",
        alias="FORWARD_META_CONSENT",
        description="Purposes that a person must have agreed to before an event goes to Meta; comma-separated.",
    )

    def check_whole(self) -> bool:
        """Say whether Meta is on.

        Raises:
            ConfigError: one half of the credentials is missing.
        """
        return whole((("META_PIXEL_ID", self.pixel_id),), ("META_ACCESS_TOKEN", self.access_token))


class Ga4Settings(Settings):
    """GA4's Measurement Protocol: the default account, and what all accounts share."""

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
    base_url: BaseUrl = Field(
        default=None,
        alias="GA4_BASE_URL",
        description="Scheme and host, for a fake or a relay; https, on this machine http too.",
    )
    eu: bool = Field(default=False, alias="GA4_EU", description="Send to Google's endpoint in the EU.")
    event_names: str = Field(
        default="",
        alias="FORWARD_GA4_EVENT_NAMES",
        description="Own event names at GA4 by conversion type: trial_started=TrialStarted, comma-separated.",
    )
    properties: PropertyList = Field(
        default="",
        alias="FORWARD_GA4_PROPERTIES",
        description="Free properties that may go to GA4: names with *, comma-separated; -name keeps one back. All "
        "unless set.",
    )
    consent: str = Field(
        default="analytics_storage",
        alias="FORWARD_GA4_CONSENT",
        description="Purposes that a person must have agreed to before an event goes to GA4; comma-separated.",
    )
    probe: bool = Field(
        default=True,
        alias="FORWARD_GA4_PROBE",
        description="Ask Google's validation endpoint once for every new shape of event; it records nothing.",
    )

    @property
    def url(self) -> str:
        """Scheme and host."""
        return (self.base_url or (EU_BASE_URL if self.eu else GA4_URL)).rstrip("/")

    def check_whole(self) -> bool:
        """Say whether GA4 is on.

        Raises:
            ConfigError: one half of the credentials is missing.
        """
        streams = (("GA4_MEASUREMENT_ID", self.measurement_id), ("GA4_FIREBASE_APP_ID", self.firebase_app_id))
        return whole(streams, ("GA4_API_SECRET", self.api_secret))


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
        description="Most requests at once to a destination; 32 for GA4, 4 for LinkedIn, 8 for the others unless set.",
    )
    attempts: int = Field(
        default=4,
        ge=1,
        le=20,
        alias="FORWARD_ATTEMPTS",
        description="Tries of a request before the partition is paused.",
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


def event_names(variable: str, destination: str, text: str) -> dict[str, str]:
    """Read pairs `type=Name`, comma-separated.

    Args:
        variable: where they stand.
        destination: decides what a name may be.
        text: the pairs.

    Raises:
        ConfigError: a part is no such pair; names the variable.
    """
    names: dict[str, str] = {}
    for part in purposes(text):
        kind, mark, name = (piece.strip() for piece in part.partition("="))
        if not mark or not kind or not name:
            raise ConfigError(variable, "must be pairs such as trial_started=TrialStarted, separated by commas")
        names[kind] = name
    if rule := broken_event_name(destination, names):
        raise ConfigError(variable, f"{rule}; pairs such as trial_started=TrialStarted, separated by commas")
    return names


def purposes(text: str) -> tuple[str, ...]:
    """Read a comma-separated list."""
    return tuple(part for part in (word.strip() for word in text.split(",")) if part)


def whole(streams: Iterable[tuple[str, object]], secret: tuple[str, object]) -> bool:
    """Say whether a destination is on.

    Args:
        streams: variables that name an account, with their values; one is enough.
        secret: the variable of its secret, with its value.

    Raises:
        ConfigError: one is set without the other; names the variable.
    """
    streams = list(streams)
    named = [variable for variable, value in streams if value]
    if named and not secret[1]:
        raise ConfigError(secret[0], f"must be set when {named[0]} is")
    if secret[1] and not named:
        raise ConfigError(streams[0][0], f"must be set when {secret[0]} is")
    return bool(named)
