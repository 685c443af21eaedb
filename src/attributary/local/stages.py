"""The processes of the pipeline, in the order in which they start.

Contract: one entry a process, each a command of `attributary`; the compose file and the Kubernetes manifests
run the same ones (a test compares them). Stopping goes through the list forwards, too: sources first, so
that what is in flight still finds its readers.
"""

from __future__ import annotations

import importlib.util
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

FIRST_METRICS_PORT = 9464


@dataclass(frozen=True)
class StageProcess:
    """One process of the pipeline.

    Attributes:
        name: What people and container names call it.
        arguments: The command line after `attributary`.
        doc: What it does, in a few words.
        enabled_by: Environment variables of which one must be set; without, it would only say that it is off.
        packages: What must be installed, of the extra `collect`.
        is_optional: Whether `enabled_by` names a choice and no credentials.
    """

    name: str
    arguments: tuple[str, ...]
    doc: str
    enabled_by: tuple[str, ...] = ()
    packages: tuple[str, ...] = ()
    is_optional: bool = False

    @property
    def is_installed(self) -> bool:
        """Whether the packages that it needs are there."""
        return all(importlib.util.find_spec(name) is not None for name in self.packages)

    @property
    def why_off(self) -> str:
        """What turns it on when it is off."""
        if not self.is_installed:
            return "off: pip install 'attributary[collect]'"
        if self.is_optional:
            return f"off unless {' or '.join(self.enabled_by)} is set"
        return f"off without credentials: {', '.join(self.enabled_by)}"

    def is_enabled(self, environment: Mapping[str, str]) -> bool:
        """Whether the environment (or a NAME_FILE in it) turns this process on, and it is installed."""
        if not self.is_installed:
            return False
        if not self.enabled_by:
            return True
        return any(environment.get(name) or environment.get(f"{name}_FILE") for name in self.enabled_by)


_FILE = "FORWARD_CREDENTIALS_FILE"
COLLECT_PACKAGES = ("starlette", "uvicorn", "httptools", "msgspec")

STAGES: tuple[StageProcess, ...] = (
    StageProcess("stitcher", ("stitcher",), "joins events to people, decides what must be attributed"),
    StageProcess("attributor", ("attributor",), "computes results and publishes them"),
    StageProcess("auditor", ("auditor",), "stores results, checks that credits equal revenue"),
    StageProcess("reporter", ("reporter",), "keeps the sums that reports read"),
    StageProcess("spender", ("spender",), "stores what ads cost"),
    StageProcess("sweeper", ("sweeper",), "repairs what was missed, makes results final"),
    StageProcess("trainer", ("trainer",), "analyses, trains and activates models"),
    StageProcess(
        "forwarder-meta",
        ("forwarder", "meta"),
        "relays conversions to Meta",
        ("META_PIXEL_ID", "META_ACCESS_TOKEN", _FILE),
    ),
    StageProcess(
        "forwarder-ga4",
        ("forwarder", "ga4"),
        "relays conversions to Google Analytics 4",
        ("GA4_MEASUREMENT_ID", "GA4_FIREBASE_APP_ID", "GA4_API_SECRET", _FILE),
    ),
    StageProcess(
        "forwarder-tiktok",
        ("forwarder", "tiktok"),
        "relays conversions to TikTok",
        ("TIKTOK_PIXEL_CODE", "TIKTOK_APP_ID", "TIKTOK_OFFLINE_EVENT_SET_ID", "TIKTOK_ACCESS_TOKEN", _FILE),
    ),
    StageProcess(
        "forwarder-linkedin",
        ("forwarder", "linkedin"),
        "relays conversions to LinkedIn",
        ("LINKEDIN_AD_ACCOUNT_ID", "LINKEDIN_ACCESS_TOKEN", _FILE),
    ),
    StageProcess(
        "forwarder-x",
        ("forwarder", "x"),
        "relays conversions to X",
        ("X_PIXEL_ID", "X_ACCESS_TOKEN_SECRET", "X_PIXEL_TOKEN", _FILE),
    ),
    StageProcess(
        "forwarder-reddit",
        ("forwarder", "reddit"),
        "relays conversions to Reddit",
        ("REDDIT_PIXEL_ID", "REDDIT_ACCESS_TOKEN", _FILE),
    ),
    StageProcess(
        "forwarder-pinterest",
        ("forwarder", "pinterest"),
        "relays conversions to Pinterest",
        ("PINTEREST_AD_ACCOUNT_ID", "PINTEREST_ACCESS_TOKEN", _FILE),
    ),
    StageProcess(
        "forwarder-snap",
        ("forwarder", "snap"),
        "relays conversions to Snap",
        ("SNAP_PIXEL_ID", "SNAP_APP_ID", "SNAP_ACCESS_TOKEN", _FILE),
    ),
    StageProcess(
        "forwarder-google",
        ("forwarder", "google"),
        "relays conversions to Google's Data Manager API",
        (
            "GOOGLE_CUSTOMER_ID",
            "GOOGLE_ANALYTICS_PROPERTY_ID",
            "GOOGLE_SERVICE_ACCOUNT_KEY",
            "GOOGLE_REFRESH_TOKEN",
            _FILE,
        ),
    ),
    StageProcess(
        "forwarder-microsoft",
        ("forwarder", "microsoft"),
        "relays conversions to Microsoft Advertising",
        ("MICROSOFT_TAG_ID", "MICROSOFT_ACCESS_TOKEN", _FILE),
    ),
    StageProcess(
        "forwarder-bingads",
        ("forwarder", "bingads"),
        "relays conversions to Microsoft Advertising's offline goals",
        ("BINGADS_ACCOUNT_ID", "BINGADS_REFRESH_TOKEN", _FILE),
    ),
    StageProcess("collector", ("collect",), "takes events over HTTP", ("COLLECT_KEYS_FILE",), COLLECT_PACKAGES),
    StageProcess("api", ("serve",), "answers questions over HTTP", ("SERVE_KEYS_FILE",), COLLECT_PACKAGES),
    StageProcess(
        "express",
        ("express",),
        "stores out of turn what waits behind another tenant's flood",
        ("EXPRESS_RATE",),
        is_optional=True,
    ),
)


def command_line(*arguments: str) -> list[str]:
    """Argument list that runs `attributary` with the interpreter of this process."""
    script = Path(sys.executable).with_name("attributary")
    if script.exists():
        return [str(script), *arguments]
    return [sys.executable, "-c", "from attributary.cli.main import run; run()", *arguments]
