"""Channels, platforms, click ids and robots of landings."""

from __future__ import annotations

import itertools
import re
import socket
from datetime import UTC, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from attributary.producers import AttributaryProducer, InvalidRecord, MemoryTransport, ProducerConfig
from attributary.producers.channels import UNASSIGNED, Origin, bundled_rules
from attributary.producers.landing import _is_robot, parse_landing, touchpoint_from_landing
from attributary.producers.sites import is_within, split_host

NOON = datetime(2024, 6, 1, 12, tzinfo=UTC)
NOON_MS = 1_717_243_200_000
PAGE = "https://shop.example.com/shoes"
CHROME = "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/131.0 Safari/537.36"


# Source, medium and campaign, and GA4's answer; the names of the groups are those of Google's help page.
@pytest.mark.parametrize(
    ("source", "medium", "campaign", "channel", "platform"),
    [
        ("(direct)", "(none)", "", "direct", "direct"),
        ("(direct)", "(not set)", "", "direct", "direct"),
        ("google", "cpc", "eu cross-network 1", "cross_network", "google"),
        ("ebay", "ppc", "", "paid_shopping", "ebay"),
        ("anything", "cpc", "Spring Shopping", "paid_shopping", "anything"),
        ("anything", "cpc", "e-shop", "paid_shopping", "anything"),
        ("google", "cpc", "workshop", "paid_search", "google"),
        ("google", "CPC", "", "paid_search", "google"),
        ("bing", "ppc", "", "paid_search", "microsoft"),
        ("Baidu", "paidsearch", "", "paid_search", "baidu"),
        ("facebook", "cpc", "", "paid_social", "meta"),
        ("ig", "paid_social", "", "paid_social", "meta"),
        ("l.facebook.com", "retargeting", "", "paid_social", "meta"),
        ("tiktok", "cpm", "", "paid_social", "tiktok"),
        ("linkedin.com", "cpc", "", "paid_social", "linkedin"),
        ("x", "paid", "", "paid_social", "x"),
        ("pinterest.de", "cpc", "", "paid_social", "pinterest"),
        ("snapchat", "paid-social", "", "paid_social", "snap"),
        ("reddit", "cpc", "", "paid_social", "reddit"),
        ("youtube", "cpv", "", "paid_video", "google"),
        ("youtube", "cpc", "", "paid_video", "google"),
        ("criteo", "display", "", "display", "criteo"),
        ("dv360", "banner", "", "display", "google"),
        ("taboola", "cpc", "", "paid_other", "taboola"),
        ("some-network.co.uk", "cpc", "", "paid_other", "some_network"),
        ("--", "cpc", "", "paid_other", "other"),
        ("chatgpt.com", "(not set)", "", "ai_assistant", "ai_assistant"),
        ("newsletter", "ai-assistant", "", "ai_assistant", "ai_assistant"),
        ("amazon.co.uk", "referral", "", "organic_shopping", "organic"),
        ("facebook.com", "referral", "", "organic_social", "organic"),
        ("anything", "social-media", "", "organic_social", "organic"),
        ("vimeo.com", "referral", "", "organic_video", "organic"),
        ("anything", "product video", "", "organic_video", "organic"),
        ("google", "organic", "", "organic_search", "organic"),
        ("duckduckgo.com", "referral", "", "organic_search", "organic"),
        ("newsletter-june", "email", "", "email", "email"),
        ("e-mail", "crm", "", "email", "email"),
        ("partner.org", "referral", "", "referral", "referral"),
        ("partner", "affiliate", "", "affiliates", "affiliates"),
        ("podcast", "audio", "", "audio", "audio"),
        ("sms", "crm", "", "sms", "sms"),
        ("crm", "web-push", "", "mobile_push", "mobile_push"),
        ("firebase", "crm", "", "mobile_push", "mobile_push"),
        ("leaflet", "qr", "", "unassigned", "unassigned"),
    ],
)
def test_channels_follow_ga4(source: str, medium: str, campaign: str, channel: str, platform: str) -> None:
    rules = bundled_rules()
    found = rules.channel(Origin(source, medium, campaign))
    assert (found, rules.platform(found, source)) == (channel, platform)


@pytest.mark.parametrize(
    ("referrer", "channel", "source"),
    [
        (None, "direct", "(direct)"),
        ("", "direct", "(direct)"),
        ("not a url", "direct", "(direct)"),
        ("https://[broken", "direct", "(direct)"),
        ("https://www.google.com/", "organic_search", "google.com"),
        ("https://www.google.co.jp/search?q=shoes", "organic_search", "google.co.jp"),
        ("android-app://com.google.android.googlequicksearchbox/", "organic_search", None),
        ("https://google.evil.com/", "referral", "google.evil.com"),
        ("https://notgoogle.com/", "referral", "notgoogle.com"),
        ("https://docs.google.com/d/1", "referral", "docs.google.com"),
        ("https://mail.google.com/", "email", "mail.google.com"),
        ("https://L.Facebook.com:443/l.php", "organic_social", "l.facebook.com"),
        ("https://t.co/abc", "organic_social", "t.co"),
        ("https://www.youtube.com/watch", "organic_video", "youtube.com"),
        ("https://chatgpt.com/", "ai_assistant", "chatgpt.com"),
        ("https://www.perplexity.ai/search", "ai_assistant", "perplexity.ai"),
        ("https://gemini.google.com/app", "ai_assistant", "gemini.google.com"),
        ("https://copilot.microsoft.com/", "ai_assistant", "copilot.microsoft.com"),
        ("https://claude.ai/chat", "ai_assistant", "claude.ai"),
        ("https://blog.partner.org/post", "referral", "blog.partner.org"),
    ],
)
def test_channels_by_referrer(referrer: str | None, channel: str, source: str | None) -> None:
    landing = parse_landing(PAGE, referrer)
    assert landing.channel == channel
    assert source in {None, landing.source}
    assert not landing.is_internal


@pytest.mark.parametrize(
    ("referrer", "own_domains"),
    [
        ("https://www.example.com/cart", ()),
        ("https://shop.example.com/cart", ()),
        ("https://checkout.brand.net/", ("brand.net",)),
        ("https://BRAND.net/", ("Brand.net",)),
        ("https://www.paypal.com/checkoutnow", ()),
        ("https://checkout.stripe.com/pay", ()),
        ("https://accounts.google.com/signin", ()),
    ],
)
def test_own_domains_and_payment_pages_are_no_referrers(referrer: str, own_domains: tuple[str, ...]) -> None:
    landing = parse_landing(PAGE, referrer, own_domains=own_domains)
    assert (landing.channel, landing.is_internal, landing.referrer) == ("direct", True, referrer)
    tagged = parse_landing(PAGE + "?utm_source=google&utm_medium=cpc", referrer, own_domains=own_domains)
    assert (tagged.channel, tagged.is_internal) == ("paid_search", False)


def test_one_own_domain_may_be_a_text() -> None:
    assert parse_landing(PAGE, "https://pay.brand.net/", own_domains="brand.net").is_internal
    assert not parse_landing(PAGE, "https://other.net/", own_domains="brand.net").is_internal


def test_a_neighbour_below_a_private_suffix_is_a_stranger() -> None:
    assert parse_landing("https://one.myshopify.com/", "https://two.myshopify.com/").channel == "referral"
    assert (
        parse_landing("https://brand.net/", "https://otherbrand.net/", own_domains=("brand.net",)).channel == "referral"
    )


@pytest.mark.parametrize(
    ("name", "channel", "platform"),
    [
        ("gclid", "paid_search", "google"),
        ("gbraid", "paid_search", "google"),
        ("wbraid", "paid_search", "google"),
        ("dclid", "display", "google"),
        ("ttclid", "paid_social", "tiktok"),
        ("msclkid", "paid_search", "microsoft"),
        ("li_fat_id", "paid_social", "linkedin"),
        ("twclid", "paid_social", "x"),
        ("epik", "paid_social", "pinterest"),
        ("ScCid", "paid_social", "snap"),
        ("rdt_cid", "paid_social", "reddit"),
    ],
)
def test_an_ads_click_id_proves_the_ad(name: str, channel: str, platform: str) -> None:
    for spelling, tags in itertools.product((name, name.upper()), ("", "utm_source=spring&utm_medium=email&")):
        landing = parse_landing(f"{PAGE}?{tags}{spelling}=aB%2Bc+D-_.~=&x=1#top", "https://www.facebook.com/")
        assert (landing.channel, landing.platform) == (channel, platform)
        assert landing.click_ids == {name: "aB%2Bc+D-_.~="}


def test_fbclid_proves_no_ad() -> None:
    landing = parse_landing(PAGE + "?fbclid=IwAR0xYz", "https://l.facebook.com/")
    assert (landing.channel, landing.platform) == ("organic_social", "organic")
    paid = parse_landing(PAGE + "?fbclid=IwAR0xYz&utm_source=fb&utm_medium=paid", "https://l.facebook.com/")
    assert (paid.channel, paid.platform) == ("paid_social", "meta")


def test_paid_tags_say_more_than_a_click_id() -> None:
    landing = parse_landing(PAGE + "?gclid=x&utm_source=youtube&utm_medium=cpc")
    assert (landing.channel, landing.platform) == ("paid_video", "google")


def test_utm_parameters_are_decoded_and_otherwise_as_they_arrived() -> None:
    landing = parse_landing(
        PAGE + "?utm_source=News%20Letter&UTM_Medium=E-Mail&utm_campaign=S%C3%BCd+%26+Nord&utm_term=&utm_term=a"
        "&utm_content=first&utm_content=second&utm_id=7#utm_source=fragment"
    )
    assert landing.utm == {
        "utm_source": "News Letter",
        "utm_medium": "E-Mail",
        "utm_campaign": "Süd & Nord",
        "utm_term": "a",
        "utm_content": "first",
    }
    assert (landing.channel, landing.source) == ("email", "News Letter")


def test_a_touchpoint_holds_the_landing() -> None:
    landing = parse_landing(PAGE + "?utm_source=fb&utm_medium=paid&fbclid=IwAR0_aB", "https://l.facebook.com/", CHROME)
    touchpoint = touchpoint_from_landing(
        landing, occurred_at=NOON, anonymous_id="a1", tenant_id="acme", click_ids={"fbp": "fb.1.1.2"}, device="mobile"
    )
    assert touchpoint.click_ids == {"fbclid": "IwAR0_aB", "fbc": f"fb.1.{NOON_MS}.IwAR0_aB", "fbp": "fb.1.1.2"}
    assert (touchpoint.platform, touchpoint.channel, touchpoint.interaction) == ("meta", "paid_social", "click")
    assert (touchpoint.utm_source, touchpoint.device, touchpoint.is_bot) == ("fb", "mobile", False)
    kept = touchpoint_from_landing(landing, occurred_at=NOON, anonymous_id="a1", click_ids={"fbc": "fb.1.9.IwAR0_aB"})
    assert kept.click_ids["fbc"] == "fb.1.9.IwAR0_aB"
    assert "fbc" not in landing.click_ids
    assert touchpoint_from_landing(parse_landing(PAGE), occurred_at=NOON, user_id="u").interaction == "visit"
    with pytest.raises(InvalidRecord, match="time zone"):
        touchpoint_from_landing(landing, occurred_at=NOON.replace(tzinfo=None), anonymous_id="a1")


@pytest.mark.parametrize(
    ("user_agent", "robot"),
    [
        (None, False),
        ("", False),
        (CHROME, False),
        ("Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)", True),
        (
            "Mozilla/5.0 AppleWebKit/537.36 (KHTML, like Gecko; compatible; GPTBot/1.2; +https://openai.com/gptbot)",
            True,
        ),
        ("facebookexternalhit/1.1", True),
        ("curl/8.5.0", True),
    ],
)
def test_robots(user_agent: str | None, *, robot: bool) -> None:
    assert parse_landing(PAGE, None, user_agent).is_bot is robot


def test_known_agents_are_answered_from_memory() -> None:
    _is_robot.cache_clear()
    for _ in range(3):
        parse_landing(PAGE, None, CHROME)
    assert _is_robot.cache_info().hits == 2


def test_hosts() -> None:
    assert split_host("www.shop.example.co.uk") == ("example.co.uk", "example")
    assert split_host("a.b.shop.internal") == ("shop.internal", "")
    assert split_host("10.1.2.3") == ("10.1.2.3", "")
    assert split_host("localhost") == ("localhost", "")
    assert is_within("a.b.com", "b.com")
    assert not is_within("ab.com", "b.com")


def test_nothing_opens_a_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("opened a connection")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    split_host.cache_clear()
    assert parse_landing("https://www.example.co.uk", "https://news.example.co.uk/").is_internal


_PIECES = st.one_of(
    st.text(max_size=40),
    st.sampled_from(
        ["https://", "?", "&", "=", "#", "%00", "%ff", "utm_source=", "gclid=", "fbclid=", "[", "\0", "\ud800", "."]
    ),
)
_TEXTS = st.lists(_PIECES, max_size=12).map("".join)


@given(_TEXTS, st.none() | _TEXTS, st.none() | st.text(max_size=200))
@settings(max_examples=150, deadline=None)
def test_whatever_a_browser_sends_can_be_published(url: str, referrer: str | None, user_agent: str | None) -> None:
    landing = parse_landing(url, referrer, user_agent, own_domains=("example.com",))
    assert re.fullmatch(r"[a-z_]+", landing.channel)
    transport = MemoryTransport()
    with AttributaryProducer(ProducerConfig(default_tenant="acme"), transport=transport) as producer:
        producer.publish(touchpoint_from_landing(landing, occurred_at=NOON, anonymous_id="a1"))
    assert len(transport.messages) == 1


def test_long_input_is_cut_to_what_the_rules_allow() -> None:
    url = PAGE + "?utm_campaign=" + "%E4%BD%A0" * 5000 + "&gclid=" + "x" * 100_000
    landing = parse_landing(url, "https://" + "a." * 5000 + "com/")
    assert len(landing.utm["utm_campaign"]) == 500
    assert landing.click_ids == {}
    with AttributaryProducer(ProducerConfig(default_tenant="acme"), transport=MemoryTransport()) as producer:
        producer.publish(touchpoint_from_landing(landing, occurred_at=NOON, anonymous_id="a1"))


def test_every_channel_has_a_platform() -> None:
    rules = bundled_rules()
    for channel in [*(name for name, _ in rules._rules), UNASSIGNED]:
        assert rules.platform(channel, "someone")
