"""What a landing page's URL and referrer say about the contact that brought the person.

Contract: ``parse_landing`` takes any text and raises nothing. UTM parameters are percent-decoded and otherwise as they
arrived; click ids are kept byte for byte as they stand in the URL, because platforms compare them with case and a
decoded ``+`` or ``%2B`` is another id. An ``fbc`` is built from the case-exact ``fbclid`` at the time of the click.

Order of evidence: UTM parameters; an ad's click id, which overrides UTM parameters that claim an unpaid channel; the
referrer; weaker marks in the URL (``fbclid``, a newsletter's id, a campaign without a source), which only say that the
contact was not direct; nothing, which is ``direct``. Texts are trimmed for the rules; a template that was not filled in
is no evidence.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, NamedTuple
from urllib.parse import unquote, unquote_plus

import crawleruseragents

from attributary.attribution_core.domain.identity_rules import OBJECT, TEMPLATE, normalized_id, placeholder
from attributary.producers.channels import DIRECT, ChannelRules, Origin, bundled_rules
from attributary.producers.records import Touchpoint
from attributary.producers.sites import is_within, own_domain, split_host, web_host
from attributary.producers.times import Instant, to_micros

UTM_FIELDS = ("utm_source", "utm_medium", "utm_campaign", "utm_term", "utm_content")
_AD_CHANNELS = ("paid_", "display", "cross_network", "affiliates", "audio")
_LONGEST_UTM = 500  # the schema's limit of texts
_LONGEST_URL = 4096  # the schema's limit of URLs
_LONGEST_CLICK_ID = 4096
_LONGEST_ID = 200  # the schema's limit of ids
_CACHED_DOMAINS = 1_024
_NOT_SET = "(not set)"
# Matomo's own campaign parameters, as its tracker reads them.
_MATOMO = {
    f"{prefix}_{name}": f"utm_{ours}"
    for prefix in ("mtm", "matomo", "pk", "piwik")
    for name, ours in (
        ("campaign", "campaign"), ("source", "source"), ("medium", "medium"), ("kwd", "term"), ("keyword", "term"),
        ("content", "content"),
    )
}  # fmt: skip
_CAMPAIGN_IDS = frozenset({"utm_id", "mtm_cid", "pk_cid"})
# "&" as templates of mails leave it, and a second "?" in the place of "&".
_BETWEEN = re.compile(
    r"&(?:amp;)*|\?(?=(?:utm|mtm|pk)_[a-z]+=|[a-z_]*cl(?:id|kid)=|g(?:ad_source|braid)=|wbraid=)", re.IGNORECASE
)
_PARAMETERS = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]*=")
_NOT_FILLED_IN = frozenset({"null", "undefined", "nan", "none"})
_CACHED_AGENTS = 16_384
_LONGEST_AGENT = 512


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
        utm: the UTM parameters that were there, decoded; Matomo's ``mtm_`` and ``pk_`` stand in for missing ones.
        campaign_id: GA4's ``utm_id``, decoded.
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
    campaign_id: str | None = None
    click_ids: Mapping[str, str] = field(default_factory=dict)
    is_bot: bool = False
    is_internal: bool = False

    @property
    def interaction(self) -> str:
        """What the person did: ``visit`` without any sign of marketing, else ``click``."""
        return "visit" if self.channel == "direct" else "click"


def parse_landing(
    url: str, referrer: str | None = None, user_agent: str | None = None, own_domains: Iterable[str] = ()
) -> Landing:
    """Read a landing.

    Args:
        url: the URL of the page, with its query.
        referrer: the ``Referer`` header or ``document.referrer``; None or empty when there is none.
        user_agent: the ``User-Agent`` header, for the robot flag.
        own_domains: domains that are yours beside that of ``url``; those below them are too. ``https://acme.io/``,
            ``www.acme.io`` and ``*.acme.io`` all mean ``acme.io``.

    Raises:
        ValueError: an own domain names no host; nothing in a landing does.
    """
    rules = bundled_rules()
    found = _parameters(url, rules)
    utm, click_ids = found.utm, found.click_ids
    referring_host = web_host(referrer or "")
    excluded = _is_excluded(referring_host, web_host(url), _own(own_domains))
    named = (utm.get("utm_source"), utm.get("utm_medium"), utm.get("utm_campaign"))
    from_host = "" if excluded else referring_host
    origin, channel, platform = _classified(named, tuple(click_ids), found.campaign_id is not None, from_host)
    return Landing(
        url=url,
        referrer=referrer or None,
        source=origin.source,
        medium=origin.medium,
        channel=channel,
        platform=platform,
        utm=utm,
        campaign_id=found.campaign_id,
        click_ids=click_ids,
        is_bot=bool(user_agent) and is_robot(str(user_agent)),
        is_internal=excluded and channel == "direct",
    )


def touchpoint_from_landing(
    landing: Landing, *, occurred_at: Instant, click_ids: Mapping[str, str] | None = None, **others: Any
) -> Touchpoint:
    """Return the touchpoint of a landing.

    Args:
        landing: from ``parse_landing``.
        occurred_at: the time of the click; also goes into ``fbc``, so it must not be the time of some later event.
        click_ids: more ids, for example the cookies ``_fbp`` and ``_fbc`` as ``fbp`` and ``fbc``; they win,
            unless they are placeholders.
        others: any other field of ``Touchpoint``; ``anonymous_id`` or ``user_id`` is needed.

    Raises:
        InvalidRecord: the time has no zone.
    """
    touchpoint = Touchpoint(
        occurred_at=occurred_at,
        **{
            "platform": landing.platform,
            "channel": landing.channel,
            "interaction": landing.interaction,
            "landing_url": _storable(landing.url[:_LONGEST_URL]),
            "referrer": landing.referrer and _storable(landing.referrer[:_LONGEST_URL]),
            "is_bot": landing.is_bot,
            "campaign_id": landing.campaign_id,
            **landing.utm,
            **others,
        },
    )
    touchpoint.click_ids = click_ids_at(landing, to_micros(touchpoint.occurred_at), click_ids)
    return touchpoint


def click_ids_at(landing: Landing, occurred_micros: int, more: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return the click ids of a landing, with the ``fbc`` of its ``fbclid``.

    Args:
        landing: from ``parse_landing``.
        occurred_micros: the time of the click, microseconds UTC.
        more: as ``click_ids`` of ``touchpoint_from_landing``.
    """
    ids = dict(landing.click_ids)
    if fbclid := ids.get("fbclid"):
        ids |= _fbc(fbclid, occurred_micros // 1000)
    if more:
        ids |= {name: text for name, text in more.items() if _is_click_id(text)}
    return ids


def is_robot(user_agent: str) -> bool:
    """Tell whether a user agent is that of a known robot (list of the package crawler-user-agents).

    The first ``512`` characters decide: the list's pattern takes a millisecond for 100, and a robot names itself there.
    """
    return _is_robot(user_agent[:_LONGEST_AGENT])


@lru_cache(maxsize=_CACHED_AGENTS)
def _is_robot(user_agent: str) -> bool:
    return bool(crawleruseragents.is_crawler(user_agent))


class _Parameters(NamedTuple):
    """What stands in a URL."""

    utm: dict[str, str]
    click_ids: dict[str, str]
    campaign_id: str | None


def _parameters(url: str, rules: ChannelRules) -> _Parameters:
    """Return UTM parameters and click ids; the first one that is not empty counts, names are without case.

    The fragment of a page that routes by it (``#/signup?utm_source=...``) is read where the query has none of them.
    """
    address, _, fragment = url.partition("#")
    found = _of_query(address.partition("?")[2], rules)
    if fragment and not (found.utm or found.click_ids or found.campaign_id):
        before, mark, query = fragment.partition("?")
        if mark or _PARAMETERS.match(before):
            found = _of_query(query if mark else before, rules)
    return found


def _of_query(query: str, rules: ChannelRules) -> _Parameters:
    utm: dict[str, str] = {}
    others: dict[str, str] = {}
    click_ids: dict[str, str] = {}
    campaign_id = None
    for pair in _BETWEEN.split(query):
        name, _, value = pair.partition("=")
        lowered = name.strip().lower()
        if not value:
            continue
        if lowered in UTM_FIELDS:
            if text := _decoded(value):
                utm.setdefault(lowered, text)
        elif ours := _MATOMO.get(lowered):
            if text := _decoded(value):
                others.setdefault(ours, text)
        elif lowered in _CAMPAIGN_IDS:
            campaign_id = campaign_id or _decoded(value)[:_LONGEST_ID].strip() or None
        elif (known := rules.click_ids.get(lowered)) and _is_click_id(value):
            click_ids.setdefault(known.name, _storable(value))
    return _Parameters(others | utm, click_ids, campaign_id)


def _is_click_id(value: str) -> bool:
    """Tell whether a text may be a click id: not ``undefined``, ``{gclid}`` or ``fb.1.1717243200000.undefined``."""
    if len(value) > _LONGEST_CLICK_ID:
        return False
    decoded = unquote(value)
    parts = decoded.split(".", 3) if decoded.startswith("fb.") else [decoded]
    return placeholder(parts[-1]) is None


def _decoded(value: str) -> str:
    return _storable(unquote_plus(value[: 9 * _LONGEST_UTM]))[:_LONGEST_UTM]


def _storable(text: str) -> str:
    """Leave out what no database can hold: NUL characters and half surrogate pairs; there is no such id."""
    return text.replace("\0", "").encode("utf-8", "ignore").decode()


def _own(domains: Iterable[str]) -> tuple[str, ...]:
    # One domain as a text, taken apart into letters, would match whole countries.
    return _normalized((domains,) if isinstance(domains, str) else tuple(domains))


@lru_cache(maxsize=_CACHED_DOMAINS)
def _normalized(domains: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(map(own_domain, domains))


@lru_cache(maxsize=_CACHED_DOMAINS)
def _is_excluded(referring_host: str, own_host: str, own_domains: tuple[str, ...]) -> bool:
    """Tell whether a visit goes on: the referrer is an own domain, or a payment or sign-in page."""
    if not referring_host:
        return False
    if own_host and split_host(referring_host).registrable == split_host(own_host).registrable:
        return True
    if any(is_within(referring_host, domain) for domain in own_domains):
        return True
    return bundled_rules().is_excluded_referrer(referring_host)


@lru_cache(maxsize=_CACHED_DOMAINS)
def _classified(
    named: tuple[str | None, str | None, str | None],
    click_ids: tuple[str, ...],
    has_campaign_id: bool,  # the arguments are the key of the cache
    referring_host: str,
) -> tuple[Origin, str, str]:
    """Return origin, channel and platform. Kept: landings of one campaign differ by the bytes of click ids alone.

    Args:
        named: utm_source, utm_medium and utm_campaign.
        click_ids: names of the click ids.
        has_campaign_id: whether ``utm_id`` or the like is there.
        referring_host: host of the referrer; empty for none.
    """
    rules = bundled_rules()
    utm = {name: text for name, text in zip(UTM_FIELDS, named, strict=False) if text is not None}
    found = _Parameters(utm, dict.fromkeys(click_ids, ""), "given" if has_campaign_id else None)
    origin, channel = _origin(found, _from_referrer(referring_host, rules), rules)
    return origin, channel, rules.platform(channel, origin.source)


def _from_referrer(host: str, rules: ChannelRules) -> Origin:
    if not host:
        return Origin(*DIRECT)
    kind = rules.site_list(host)
    source = host.removeprefix("www.")
    return Origin(source, {"search": "organic", "mailbox": "email"}.get(kind or "", "referral"))


def _origin(found: _Parameters, from_referrer: Origin, rules: ChannelRules) -> tuple[Origin, str]:
    campaign, source, medium = (
        _for_rules(found.utm.get(name)) for name in ("utm_campaign", "utm_source", "utm_medium")
    )
    if source or medium:
        origin = Origin(source or _NOT_SET, medium or _NOT_SET, campaign)
    else:
        origin = from_referrer._replace(campaign=campaign)
    channel = rules.channel(origin)
    if channel.startswith(_AD_CHANNELS):
        return origin, channel
    proofs = [proof for name in found.click_ids if (proof := rules.click_ids[name.lower()]).medium is not None]
    strong = next((proof for proof in proofs if not proof.weak), None)
    if strong is None and channel == "direct":
        if not proofs and (campaign or found.campaign_id) and not (source or medium):
            return (tagged := Origin(_NOT_SET, _NOT_SET, campaign)), rules.channel(tagged)
        strong = proofs[0] if proofs and not (source or medium) else None
    if strong is None:
        return origin, channel
    by_click = Origin(strong.source or origin.source, strong.medium or _NOT_SET, campaign)
    return by_click, rules.channel(by_click)


def _for_rules(text: str | None) -> str:
    """Return a UTM parameter as the rules read it: trimmed; empty when it is a template that was not filled in."""
    trimmed = normalized_id(text or "")
    if trimmed.lower() in _NOT_FILLED_IN or (placeholder(trimmed) in {TEMPLATE, OBJECT} and trimmed[:1] != "("):
        return ""
    return trimmed


def _fbc(fbclid: str, clicked_at_ms: int) -> dict[str, str]:
    # Imported on first use: the package holds tables of phone numbers that a landing does not need.
    from attributary.producers.matching import build_fbc  # noqa: PLC0415

    built = build_fbc(fbclid, clicked_at_ms)
    return {} if built is None else {"fbc": built}
