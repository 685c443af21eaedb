"""Stand-ins for the ad platforms beside a local stack, so that forwarding can be watched without an account.

Contract: `start_fake_services` returns when both answer, with the variables that lead the forwarders to them.
Invariant: those variables replace every credential of the environment, so no real one is ever used with a
stand-in, and no event of a local stack reaches a real account.
"""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING

from attributary.local.ports import LOOPBACK, free_port, is_free
from attributary.local.process import ManagedProcess, spawn, wait_until_ready
from attributary.local.stages import command_line

if TYPE_CHECKING:
    from attributary.local.folder import StackFolder

PORTS = {
    "meta": 9801,
    "ga4": 9802,
    "tiktok": 9803,
    "linkedin": 9804,
    "x": 9805,
    "reddit": 9806,
    "pinterest": 9807,
    "snap": 9808,
    "google": 9809,
    "microsoft": 9810,
    "bingads": 9811,
}
_START_SECONDS = 180.0
# A forwarder for each is too many for a laptop: those of Meta and GA4 run, the others are off, without a real account.
_OTHERS = {
    f"{name}{ending}": ""
    for name in (
        "TIKTOK_PIXEL_CODE", "TIKTOK_APP_ID", "TIKTOK_OFFLINE_EVENT_SET_ID", "TIKTOK_ACCESS_TOKEN",
        "LINKEDIN_AD_ACCOUNT_ID", "LINKEDIN_ACCESS_TOKEN", "LINKEDIN_REFRESH_TOKEN", "LINKEDIN_CLIENT_ID",
        "LINKEDIN_CLIENT_SECRET",
        "GOOGLE_CUSTOMER_ID", "GOOGLE_ANALYTICS_PROPERTY_ID", "GOOGLE_SERVICE_ACCOUNT_KEY", "GOOGLE_REFRESH_TOKEN",
        "GOOGLE_CLIENT_ID", "GOOGLE_CLIENT_SECRET",
        "MICROSOFT_TAG_ID", "MICROSOFT_ACCESS_TOKEN",
        "BINGADS_ACCOUNT_ID", "BINGADS_DEVELOPER_TOKEN", "BINGADS_REFRESH_TOKEN", "BINGADS_CLIENT_SECRET",
        "REDDIT_PIXEL_ID", "REDDIT_ACCESS_TOKEN",
        "PINTEREST_AD_ACCOUNT_ID", "PINTEREST_ACCESS_TOKEN",
        "SNAP_PIXEL_ID", "SNAP_APP_ID", "SNAP_ACCESS_TOKEN",
        "X_PIXEL_ID", "X_CONSUMER_KEY", "X_CONSUMER_SECRET", "X_ACCESS_TOKEN", "X_ACCESS_TOKEN_SECRET", "X_PIXEL_TOKEN",
    )
    for ending in ("", "_FILE")
}  # fmt: skip


def start_fake_services(folder: StackFolder) -> tuple[ManagedProcess, dict[str, str]]:
    """Start the stand-ins as one process; returns it and the forwarders' variables."""
    ports = {name: folder.port(f"stand-in-{name}", free_port(port)) for name, port in PORTS.items()}
    options = [text for name, port in ports.items() for text in (f"--{name}-port", str(port))]
    child = spawn(
        command_line("fake-destinations", *options), name="stand-ins for destinations", log=folder.log("stand-ins")
    )

    def refusal() -> str | None:
        return "they do not listen yet" if any(is_free(port) for port in ports.values()) else None

    with ExitStack() as undo:
        undo.callback(child.kill)
        wait_until_ready(child, refusal, timeout_seconds=_START_SECONDS)
        undo.pop_all()  # they are up: keep them
    addresses = {f"{name.upper()}_BASE_URL": f"http://{LOOPBACK}:{port}" for name, port in ports.items()}
    return child, addresses | {
        "META_PIXEL_ID": "1",
        "META_ACCESS_TOKEN": "stand-in",
        "META_APP_SECRET": "",
        "META_APP_SECRET_FILE": "",
        "GA4_MEASUREMENT_ID": "G-STANDIN",
        "GA4_API_SECRET": "stand-in",
        **_OTHERS,
        "FORWARD_CREDENTIALS_FILE": "",
    }
