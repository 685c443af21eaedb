"""Local stand-ins for the ad platforms that conversions are forwarded to.

Contract: they know nothing of the forwarder's code, only of the APIs, so that what passes here has a chance outside.
Meta's official SDK passes against the Meta stand-in. Both can be scripted with faults and asked what they received,
from Python or over HTTP under /_admin/.
"""

from __future__ import annotations

from attributary.local.fakes.bingads import BingAdsFake
from attributary.local.fakes.faults import Fault
from attributary.local.fakes.ga4 import Ga4Fake
from attributary.local.fakes.google import GoogleFake
from attributary.local.fakes.linkedin import LinkedInFake
from attributary.local.fakes.meta import MetaFake
from attributary.local.fakes.microsoft import MicrosoftFake
from attributary.local.fakes.oauth import OAuthFake
from attributary.local.fakes.pinterest import PinterestFake
from attributary.local.fakes.reddit import RedditFake
from attributary.local.fakes.snap import SnapFake
from attributary.local.fakes.tiktok import TikTokFake
from attributary.local.fakes.x import XFake

__all__ = [
    "BingAdsFake",
    "Fault",
    "Ga4Fake",
    "GoogleFake",
    "LinkedInFake",
    "MetaFake",
    "MicrosoftFake",
    "OAuthFake",
    "PinterestFake",
    "RedditFake",
    "SnapFake",
    "TikTokFake",
    "XFake",
]
