"""All destinations: how each is set up from the environment, and how hard it is worked.

Contract: `read_setup` turns variables into the rules, accounts and options of one destination. Invariant: a new
destination is a package with its rules and settings, its fields in `account_fields`, and one entry here; forwarder,
dry run, map and lists go by this catalogue.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import structlog

from attributary.consumers.destinations.ad_platform import PlatformOptions
from attributary.consumers.destinations.ad_platform_settings import purposes
from attributary.consumers.destinations.bingads.destination import BingAdsDestination
from attributary.consumers.destinations.bingads.settings import BingAdsSettings
from attributary.consumers.destinations.credentials import Credentials, load_credentials
from attributary.consumers.destinations.ga4.destination import Ga4Destination, Ga4Options
from attributary.consumers.destinations.google.destination import GoogleDestination
from attributary.consumers.destinations.google.settings import GoogleSettings
from attributary.consumers.destinations.linkedin.destination import LinkedInDestination
from attributary.consumers.destinations.linkedin.settings import LinkedInSettings
from attributary.consumers.destinations.meta.destination import MetaDestination, MetaOptions, is_old_version
from attributary.consumers.destinations.microsoft.destination import MicrosoftDestination
from attributary.consumers.destinations.microsoft.settings import MicrosoftSettings
from attributary.consumers.destinations.pinterest.destination import PinterestDestination
from attributary.consumers.destinations.pinterest.settings import PinterestSettings
from attributary.consumers.destinations.property_filter import PropertyFilter
from attributary.consumers.destinations.reddit.destination import RedditDestination
from attributary.consumers.destinations.reddit.settings import RedditSettings
from attributary.consumers.destinations.settings import ForwardSettings, Ga4Settings, MetaSettings
from attributary.consumers.destinations.snap.destination import SnapDestination
from attributary.consumers.destinations.snap.settings import SnapSettings
from attributary.consumers.destinations.tiktok.destination import TikTokDestination
from attributary.consumers.destinations.tiktok.settings import TikTokSettings
from attributary.consumers.destinations.x.destination import XDestination
from attributary.consumers.destinations.x.settings import XSettings
from attributary.consumers.runtime.settings import load

if TYPE_CHECKING:
    from attributary.consumers.destinations.ad_platform import AdPlatform
    from attributary.consumers.destinations.ad_platform_settings import AdPlatformSettings
    from attributary.consumers.destinations.destination import Destination

_log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Setup:
    """What the environment says about one destination."""

    destination: Destination
    credentials: Credentials
    shared: ForwardSettings
    probe: bool = False
    properties: PropertyFilter | None = None


Read = Callable[[ForwardSettings, str, bool], Setup]


class SampleAccount(NamedTuple):
    """An account that cannot exist, for dry runs: they need none of yours.

    Attributes:
        name: its id.
        options: its settings.
        own: settings that decide what is built; a dry run takes them from the tenant's own account, if it has one.
    """

    name: str
    options: Mapping[str, str] = {}
    own: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Entry:
    """One destination in the catalogue.

    Attributes:
        title: for people.
        variables: what must be set, in words.
        read: makes the setup; takes what all destinations share, the environment's name, and whether to log oddities.
        sample: an account for dry runs.
        concurrency: requests at once unless FORWARD_CONCURRENCY says otherwise.
        batch_size: events of a turn unless FORWARD_BATCH_SIZE says otherwise: about what a turn of the loop can send.
    """

    title: str
    variables: str
    read: Read
    sample: SampleAccount
    concurrency: int = 8
    batch_size: int = 5_000


def read_setup(name: str, environment: str = "development", *, warns: bool = True) -> Setup:
    """Read the settings of one destination.

    Args:
        name: of the destination.
        environment: production or another.
        warns: log what is odd about them.

    Raises:
        ConfigError: a variable is missing or wrong.
    """
    return CATALOG[name].read(load(ForwardSettings), environment, warns)


def _strips(shared: ForwardSettings) -> bool:
    return shared.personal_data == "strip"


def _platform(destination: type[AdPlatform], settings: type[AdPlatformSettings]) -> Read:
    """Return what reads the setup of a destination that is built on `AdPlatform`."""

    def read(shared: ForwardSettings, environment: str, warns: bool) -> Setup:
        found = load(settings)
        if warns and (code := getattr(found, "test_event_code", None)):
            _warn_about_test_code(found.variable("test_event_code"), code, environment, "may count as live")
        options = PlatformOptions(
            (found.base_url or "").rstrip("/"),
            shared.default_region,
            found.names(),
            _strips(shared),
            getattr(found, "api_version", ""),
            getattr(found, "token_url", None) or "",
            getattr(found, "sent_elsewhere", frozenset()),
        )
        properties = getattr(found, "properties", "")
        return Setup(
            destination(
                options, consent_purposes=purposes(found.consent), events_per_request=shared.events_per_request
            ),
            load_credentials(found.destination, found.credentials(), shared.credentials_file),
            shared,
            properties=PropertyFilter.read(properties),
        )

    return read


def _meta(shared: ForwardSettings, environment: str, warns: bool) -> Setup:
    settings = load(MetaSettings)
    if warns:
        _warn_about_test_code("META_TEST_EVENT_CODE", settings.test_event_code, environment, "count as live")
        if is_old_version(settings.api_version):
            _log.warning("META_API_VERSION is near its end or past it", version=settings.api_version)
    options = MetaOptions(
        (settings.base_url or "").rstrip("/"),
        settings.api_version,
        settings.external_id,
        shared.default_region,
        settings.names(),
        _strips(shared),
        settings.types_of_contents(),
        settings.partner_agent,
        settings.upload_tag,
    )
    return Setup(
        MetaDestination(
            options, consent_purposes=purposes(settings.consent), events_per_request=shared.events_per_request
        ),
        load_credentials("meta", settings.credentials(), shared.credentials_file),
        shared,
        properties=PropertyFilter.read(settings.properties),
    )


def _ga4(shared: ForwardSettings, environment: str, warns: bool) -> Setup:  # noqa: ARG001  # as all entries
    settings = load(Ga4Settings)
    options = Ga4Options(
        settings.url, shared.default_region, shared.consent_unknown == "send", settings.names(), _strips(shared)
    )
    return Setup(
        Ga4Destination(
            options, consent_purposes=purposes(settings.consent), events_per_request=shared.events_per_request
        ),
        load_credentials("ga4", settings.credentials(), shared.credentials_file),
        shared,
        probe=settings.probe,
        properties=PropertyFilter.read(settings.properties),
    )


def _warn_about_test_code(variable: str, code: str | None, environment: str, effect: str) -> None:
    if code and environment == "production":
        _log.error(f"{variable} is set in production: events show under Test Events AND {effect}; unset it")


CATALOG: Mapping[str, Entry] = {
    "meta": Entry("Meta", "META_PIXEL_ID and META_ACCESS_TOKEN", _meta, SampleAccount("0")),
    "ga4": Entry(
        "Google Analytics 4",
        "GA4_MEASUREMENT_ID (or GA4_FIREBASE_APP_ID) and GA4_API_SECRET",
        _ga4,
        SampleAccount("G-DRYRUN", {"measurement_id": "G-DRYRUN", "firebase_app_id": "1:0:android:0"}),
        # An answer of GA4 takes 50 ms and holds one person's events: 8 at once would be 160 a second.
        concurrency=64,
        batch_size=1_000,
    ),
    "tiktok": Entry(
        "TikTok",
        "TIKTOK_PIXEL_CODE (or TIKTOK_APP_ID, TIKTOK_OFFLINE_EVENT_SET_ID) and TIKTOK_ACCESS_TOKEN",
        _platform(TikTokDestination, TikTokSettings),
        SampleAccount("DRYRUN", dict.fromkeys(("pixel_code", "app_id", "offline_event_set_id"), "DRYRUN")),
    ),
    "linkedin": Entry(
        "LinkedIn",
        "LINKEDIN_AD_ACCOUNT_ID, and LINKEDIN_ACCESS_TOKEN or LINKEDIN_REFRESH_TOKEN with LINKEDIN_CLIENT_ID and "
        "LINKEDIN_CLIENT_SECRET",
        _platform(LinkedInDestination, LinkedInSettings),
        SampleAccount("0"),
        # 600 requests a minute, and no header says how many are left.
        concurrency=4,
    ),
    "x": Entry(
        "X",
        "X_PIXEL_ID, and X_PIXEL_TOKEN or the four keys X_CONSUMER_KEY, X_CONSUMER_SECRET, X_ACCESS_TOKEN, "
        "X_ACCESS_TOKEN_SECRET",
        _platform(XDestination, XSettings),
        SampleAccount("dryrun"),
    ),
    "reddit": Entry(
        "Reddit",
        "REDDIT_PIXEL_ID and REDDIT_ACCESS_TOKEN",
        _platform(RedditDestination, RedditSettings),
        SampleAccount("dryrun"),
    ),
    "pinterest": Entry(
        "Pinterest",
        "PINTEREST_AD_ACCOUNT_ID and PINTEREST_ACCESS_TOKEN",
        _platform(PinterestDestination, PinterestSettings),
        SampleAccount("0"),
    ),
    "snap": Entry(
        "Snap",
        "SNAP_PIXEL_ID (or SNAP_APP_ID) and SNAP_ACCESS_TOKEN",
        _platform(SnapDestination, SnapSettings),
        SampleAccount("dryrun", dict.fromkeys(("pixel_id", "app_id"), "dryrun")),
    ),
    "google": Entry(
        "Google",
        "GOOGLE_CUSTOMER_ID (or GOOGLE_ANALYTICS_PROPERTY_ID and GOOGLE_MEASUREMENT_ID), and "
        "GOOGLE_SERVICE_ACCOUNT_KEY or GOOGLE_REFRESH_TOKEN with GOOGLE_CLIENT_ID, GOOGLE_CLIENT_SECRET and "
        "GOOGLE_PROJECT_ID",
        _platform(GoogleDestination, GoogleSettings),
        SampleAccount("0", {"customer_id": "0"}, ("customer_id", "analytics_property_id", "measurement_id")),
        # 300 requests a minute for all accounts of a Cloud project.
        concurrency=4,
    ),
    "microsoft": Entry(
        "Microsoft Advertising",
        "MICROSOFT_TAG_ID and MICROSOFT_ACCESS_TOKEN",
        _platform(MicrosoftDestination, MicrosoftSettings),
        SampleAccount("0"),
    ),
    "bingads": Entry(
        "Microsoft offline conversions",
        "BINGADS_ACCOUNT_ID, BINGADS_CUSTOMER_ID, BINGADS_DEVELOPER_TOKEN, and BINGADS_REFRESH_TOKEN with "
        "BINGADS_CLIENT_ID (and BINGADS_CLIENT_SECRET, if the application has one)",
        _platform(BingAdsDestination, BingAdsSettings),
        SampleAccount("0"),
        # Calls of a user are counted by the minute and at once; how many are left is not said.
        concurrency=4,
    ),
}
NAMES = tuple(CATALOG)
