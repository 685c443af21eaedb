"""What a landing page's URL and referrer say about the contact that brought the person.

Contract: ``parse_landing`` takes any text and raises nothing. UTM parameters are percent-decoded and otherwise as they
arrived; click ids are kept byte for byte as they stand in the URL, because platforms compare them with case and a
decoded ``+`` or ``%2B`` is another id. An ``fbc`` is built from the case-exact ``fbclid`` at the time of the click.

Order of evidence: UTM parameters; an ad's click id, which overrides UTM parameters that claim an unpaid channel; the
referrer; nothing, which is ``direct``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any
from urllib.parse import unquote_plus, urlsplit

import crawleruseragents

from attributary.producers.channels import DIRECT, ChannelRules, Origin, bundled_rules
from attributary.producers.records import Touchpoint
from attributary.producers.sites import is_within, split_host
from attributary.producers.times import Instant, to_micros

UTM_FIELDS = ("utm_source", "utm_medium", "utm_campaign", "utm_term", "utm_content")
_AD_CHANNELS = ("paid_", "display", "cross_network", "affiliates", "audio")
_LONGEST_UTM = 500  # the schema's limit of texts
_LONGEST_URL = 4096  # the schema's limit of URLs
_LONGEST_CLICK_ID = 4096
_LONGEST_HOST = 253  # RFC 1035
_CACHED_AGENTS = 16_384
_LONGEST_AGENT = 2048


@dataclass(frozen=True, slots=True, kw_only=True)
class Landing:
    """What was read from a landing.

    Attributes:
        url: the URL of the page, as given.
        referrer: the referring URL, as given.
        source: GA4's source: utm_source, the ad platform of a click id, the referring host, or ``(direct)``.
        medium: GA4's medium.
        channel: lower-case name of the default channel group, for example ``paid_search``.
        platform: who was paid, or the kind of contact.
        utm: the UTM parameters that were there, decoded.
        click_ids: the click ids that were there, in the platforms' spelling, byte for byte.
        is_bot: the user agent is that of a known robot.
        is_internal: the referrer is one of the own domains, or a payment or sign-in page, and nothing in the URL names
            a campaign: the visit goes on, there is no new touchpoint.
    """

    url: str
    referrer: str | None
    source: str
    medium: str
    channel: str
    platform: str
    utm: Mapping[str, str] = field(default_factory=dict)
    click_ids: Mapping[str, str] = field(default_factory=dict)
    is_bot: bool = False
    is_internal: bool = False


def parse_landing(
    url: str, referrer: str | None = None, user_agent: str | None = None, own_domains: Iterable[str] = ()
) -> Landing:
    """Read a landing.

    Args:
        url: the URL of the page, with its query.
        referrer: the ``Referer`` header or ``document.referrer``; None or empty when there is none.
        user_agent: the ``User-Agent`` header, for the robot flag.
        own_domains: domains that are yours beside that of ``url``; those below them are too.
    """
    rules = bundled_rules()
    utm, click_ids = _parameters(url, rules)
    referring_host = _host(referrer or "")
    excluded = bool(referring_host) and _is_excluded(referring_host, _host(url), own_domains, rules)
    from_referrer = _from_referrer("" if excluded else referring_host, rules)
    origin, channel = _origin(utm, click_ids, from_referrer, rules)
    return Landing(
        url=url,
        referrer=referrer or None,
        source=origin.source,
        medium=origin.medium,
        channel=channel,
        platform=rules.platform(channel, origin.source),
        utm=utm,
        click_ids=click_ids,
        is_bot=bool(user_agent) and is_robot(str(user_agent)[:_LONGEST_AGENT]),
        is_internal=excluded and channel == "direct" and not utm,
    )


def touchpoint_from_landing(
    landing: Landing, *, occurred_at: Instant, click_ids: Mapping[str, str] | None = None, **others: Any
) -> Touchpoint:
    """Return the touchpoint of a landing.

    Args:
        landing: from ``parse_landing``.
        occurred_at: the time of the click; also goes into ``fbc``, so it must not be the time of some later event.
        click_ids: more ids, for example the cookies ``_fbp`` and ``_fbc`` as ``fbp`` and ``fbc``; they win.
        others: any other field of ``Touchpoint``; ``anonymous_id`` or ``user_id`` is needed.

    Raises:
        InvalidRecord: the time has no zone.
    """
    ids = dict(landing.click_ids)
    touchpoint = Touchpoint(
        occurred_at=occurred_at,
        **{
            "platform": landing.platform,
            "channel": landing.channel,
            "interaction": "visit" if landing.channel == "direct" else "click",
            "landing_url": _storable(landing.url[:_LONGEST_URL]),
            "referrer": landing.referrer and _storable(landing.referrer[:_LONGEST_URL]),
            "is_bot": landing.is_bot,
            **landing.utm,
            **others,
        },
    )
    if fbclid := ids.get("fbclid"):
        ids |= _fbc(fbclid, to_micros(touchpoint.occurred_at) // 1000)
    touchpoint.click_ids = ids | dict(click_ids or {})
    return touchpoint


@lru_cache(maxsize=_CACHED_AGENTS)
def is_robot(user_agent: str) -> bool:
    """Tell whether a user agent is that of a known robot (list of the package crawler-user-agents)."""
    return bool(crawleruseragents.is_crawler(user_agent))


def _parameters(url: str, rules: ChannelRules) -> tuple[dict[str, str], dict[str, str]]:
    """Return UTM parameters and click ids; the first one that is not empty counts, names are without case."""
    utm: dict[str, str] = {}
    click_ids: dict[str, str] = {}
    _, _, query = url.partition("#")[0].partition("?")
    for pair in query.split("&"):
        name, _, value = pair.partition("=")
        lowered = name.lower()
        if not value:
            continue
        if lowered in UTM_FIELDS:
            if text := _decoded(value):
                utm.setdefault(lowered, text)
        elif (known := rules.click_ids.get(lowered)) and len(value) <= _LONGEST_CLICK_ID:
            click_ids.setdefault(known.name, _storable(value))
    return utm, click_ids


def _decoded(value: str) -> str:
    return _storable(unquote_plus(value[: 9 * _LONGEST_UTM]))[:_LONGEST_UTM]


def _storable(text: str) -> str:
    """Leave out what no database can hold: NUL characters and half surrogate pairs; there is no such id."""
    return text.replace("\0", "").encode("utf-8", "ignore").decode()


def _host(url: str) -> str:
    """Return the lower-case host of a URL, without port and user; empty when there is none."""
    try:
        host = (urlsplit(url).hostname or "").rstrip(".")
    except ValueError:  # a bracket that is no IPv6 address, and the like
        return ""
    return host if len(host) <= _LONGEST_HOST else ""


def _is_excluded(referring_host: str, own_host: str, own_domains: Iterable[str], rules: ChannelRules) -> bool:
    if own_host and split_host(referring_host).registrable == split_host(own_host).registrable:
        return True
    if isinstance(own_domains, str):  # one domain; taken apart into letters it would match whole countries
        own_domains = (own_domains,)
    if any(is_within(referring_host, domain.lower().strip(".")) for domain in own_domains):
        return True
    return rules.is_excluded_referrer(referring_host)


def _from_referrer(host: str, rules: ChannelRules) -> Origin:
    if not host:
        return Origin(*DIRECT)
    kind = rules.site_list(host)
    source = host.removeprefix("www.")
    return Origin(source, {"search": "organic", "mailbox": "email"}.get(kind or "", "referral"))


def _origin(
    utm: Mapping[str, str], click_ids: Mapping[str, str], from_referrer: Origin, rules: ChannelRules
) -> tuple[Origin, str]:
    campaign = utm.get("utm_campaign", "")
    if "utm_source" in utm or "utm_medium" in utm:
        origin = Origin(utm.get("utm_source", "(not set)"), utm.get("utm_medium", "(not set)"), campaign)
    else:
        origin = from_referrer._replace(campaign=campaign)
    channel = rules.channel(origin)
    if channel.startswith(_AD_CHANNELS):
        return origin, channel
    for name in click_ids:
        proof = rules.click_ids[name.lower()]
        if proof.medium is not None:
            by_click = Origin(proof.source or origin.source, proof.medium, campaign)
            return by_click, rules.channel(by_click)
    return origin, channel


def _fbc(fbclid: str, clicked_at_ms: int) -> dict[str, str]:
    # Imported on first use: the package holds tables of phone numbers that a landing does not need.
    from attributary.producers.matching import build_fbc  # noqa: PLC0415

    built = build_fbc(fbclid, clicked_at_ms)
    return {} if built is None else {"fbc": built}
