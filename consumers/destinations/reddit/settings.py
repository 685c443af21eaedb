"""Reddit's settings from the environment: the default account, and what all accounts share."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from attributary.consumers.destinations.ad_platform_settings import (
    AdPlatformSettings,
    BaseUrl,
    Token,
    base_url_field,
    consent_field,
    event_names_field,
)
from attributary.consumers.destinations.reddit.destination import RedditDestination


class RedditSettings(AdPlatformSettings):
    """Reddit's Conversions API: the default account, and what all accounts share."""

    destination: ClassVar[str] = "reddit"
    pixel_id: str | None = Field(
        default=None,
        alias="REDDIT_PIXEL_ID",
        pattern=r"^[a-z0-9_]{1,40}$",
        description="Pixel to send to, such as a2_abc123.",
    )
    access_token: Token = Field(
        default=None,
        alias="REDDIT_ACCESS_TOKEN",
        description="Conversion token of the Events Manager; needed with a pixel.",
    )
    test_event_code: str | None = Field(
        default=None,
        alias="REDDIT_TEST_ID",
        pattern=r"^[A-Za-z0-9_-]{1,50}$",
        description="Shows one event of a request in the Events Manager, 10 events a second. Not for production.",
    )
    base_url: BaseUrl = base_url_field("reddit", RedditDestination.base_url)
    event_names: str = event_names_field("reddit", "Reddit", "trial_started=TrialStarted (or one of Reddit's types)")
    consent: str = consent_field("reddit", "Reddit")
