"""Landings as the field reports them (facts/field-cases.md): each test is named after its entry and tries its kind."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from attributary.producers.landing import parse_landing, touchpoint_from_landing
from attributary.producers.sites import own_domain

NOON = datetime(2024, 6, 1, 12, tzinfo=UTC)
PAGE = "https://shop.example.com/shoes"
PAYMENT = """
    www.paypal.com pay.amazon.de pay.amazon.com pay.amazon.co.uk pay.amazon.co.jp apay-eu.amazon.com payments.amazon.de
    payments-eu.amazon.com secure.ogone.com payment-services.worldline-solutions.com sis.redsys.es ideal.ing.nl
    tikkie.me
    checkout.paystack.com buy.paddle.com checkout.lemonsqueezy.com mobilepay.dk payfast.co.za pagseguro.uol.com.br
    iyzico.com robokassa.ru yookassa.ru p.monetico-services.com payzen.eu tpeweb.paybox.com checkout.buckaroo.nl
    checkout.sumup.com payengine.de acme.payrexx.com acs3.3dsecure.no venmo.com cash.app commerce.coinbase.com
    secure.tpay.com pay.vipps.no secure.wayforpay.com www.liqpay.ua secure.nets.eu checkout.flutterwave.com skrill.com
    acs2.bank.example 3ds.somebank.example authentication-acs.bank.example www.barion.com gate.gopay.cz
    sites.fastspring.com
""".split()  # noqa: SIM905  # a list of hosts reads better so
SIGN_IN = """
    acme.auth.eu-west-1.amazoncognito.com login.salesforce.com accounts.google.com login.yahoo.co.jp login.yahoo.com
    acme.okta.com acme.eu.auth0.com login.microsoftonline.com acme.b2clogin.com nid.naver.com access.line.me
    passport.yandex.ru acme.onelogin.com login.live.com idmsa.apple.com
""".split()  # noqa: SIM905


@pytest.mark.parametrize("host", PAYMENT + SIGN_IN)
def test_b3_payment_and_sign_in_pages_make_no_touch(host: str) -> None:
    landing = parse_landing(PAGE, f"https://{host}/return")
    assert (landing.channel, landing.is_internal) == ("direct", True)


@pytest.mark.parametrize(
    "host",
    [
        "www.amazon.de",
        "sellerpays.example",
        "www.google.com",
        "blog.partner.org",
        "mypayzen.eu.evil.example",
        "yahoo.co.jp",
    ],
)
def test_b3_others_are_not_taken_for_payment_pages(host: str) -> None:
    assert not parse_landing(PAGE, f"https://{host}/").is_internal


NOTHING = [
    "undefined",
    "null",
    "none",
    "0",
    "-",
    "NaN",
    "(not set)",
    "{gclid}",
    "%7Bgclid%7D",
    "__CLICKID__",
    "{{gclid}}",
]


@pytest.mark.parametrize("name", ["gclid", "msclkid", "ttclid", "wbraid", "fbclid", "gad_campaignid", "mc_eid"])
@pytest.mark.parametrize("value", NOTHING)
def test_b7_a_placeholder_is_no_click_id(name: str, value: str) -> None:
    landing = parse_landing(f"{PAGE}?{name}={value}")
    assert (landing.channel, dict(landing.click_ids)) == ("direct", {})
    touch = touchpoint_from_landing(landing, occurred_at=NOON, anonymous_id="a1")
    assert touch.click_ids == {}


@pytest.mark.parametrize("value", ["fb.1.1717243200000.undefined", "null", "fb.1.1717243200000.{fbclid}", "undefined"])
def test_b7_a_placeholder_in_a_cookie_is_left_out(value: str) -> None:
    touch = touchpoint_from_landing(
        parse_landing(PAGE), occurred_at=NOON, anonymous_id="a1", click_ids={"fbc": value, "fbp": "fb.1.1.2"}
    )
    assert touch.click_ids == {"fbp": "fb.1.1.2"}


@pytest.mark.parametrize(
    ("query", "referrer", "channel", "platform"),
    [
        ("gad_source=1&gad_campaignid=22", None, "paid_search", "google"),
        ("gad_source=1", "https://www.google.com/", "paid_search", "google"),
        ("gad_campaignid=22", None, "paid_search", "google"),
        ("gclsrc=aw.ds", None, "paid_search", "google"),
        ("fbclid=IwAR0", None, "organic_social", "organic"),
        ("igshid=abc1", None, "organic_social", "organic"),
        ("igsh=abc1", None, "organic_social", "organic"),
        ("mc_eid=abc1", None, "email", "email"),
        ("mc_cid=abc1", None, "email", "email"),
        ("_hsenc=p2A", None, "email", "email"),
        ("_hsmi=123", None, "email", "email"),
        ("_kx=ab.c1", None, "email", "email"),
        ("mkt_tok=eyJ1", None, "email", "email"),
        ("srsltid=AfmB1", None, "organic_search", "organic"),
        ("ysclid=lq1", None, "organic_search", "organic"),
        ("fbclid=IwAR0", "https://www.google.com/", "organic_search", "organic"),  # a link that was passed on
        ("fbclid=IwAR0", "https://blog.partner.org/", "referral", "referral"),
        ("fbclid=IwAR0&utm_source=news&utm_medium=email", None, "email", "email"),
        ("gclid=aB1&fbclid=IwAR0", None, "paid_search", "google"),
    ],
)
def test_b12_evidence_in_the_url_disproves_direct(
    query: str, referrer: str | None, channel: str, platform: str
) -> None:
    landing = parse_landing(f"{PAGE}?{query}", referrer)
    assert (landing.channel, landing.platform) == (channel, platform)
    assert touchpoint_from_landing(landing, occurred_at=NOON, anonymous_id="a1").interaction == "click"


@pytest.mark.parametrize(
    "url",
    [
        "https://app.example.com/#/signup?utm_source=google&utm_medium=cpc&gclid=Cj0K",
        "https://app.example.com/#utm_source=google&utm_medium=cpc&gclid=Cj0K",
        "https://app.example.com/docs#section?utm_source=google&utm_medium=cpc&gclid=Cj0K",
        "https://app.example.com/?page=2#!/a/b?utm_source=google&utm_medium=cpc&gclid=Cj0K",
        "https://app.example.com/#?utm_source=google&utm_medium=cpc&gclid=Cj0K",
    ],
)
def test_b13_parameters_behind_a_hash_are_read(url: str) -> None:
    landing = parse_landing(url)
    assert (landing.channel, landing.click_ids) == ("paid_search", {"gclid": "Cj0K"})


def test_b13_the_query_wins_over_the_fragment() -> None:
    landing = parse_landing(PAGE + "?utm_source=news&utm_medium=email#utm_source=google&utm_medium=cpc")
    assert landing.channel == "email"
    assert parse_landing(PAGE + "#chapter=2").channel == "direct"


@pytest.mark.parametrize(
    ("query", "channel", "platform"),
    [
        ("utm_source=news&utm_medium=email%20", "email", "email"),
        ("utm_source=news&utm_medium=%20email", "email", "email"),
        ("utm_source=news&utm_medium=email+", "email", "email"),
        ("utm_source=google%20&utm_medium=cpc", "paid_search", "google"),
        ("utm_source=google+&utm_medium=cpc", "paid_search", "google"),
        ("utm_source=google%C2%A0&utm_medium=cpc", "paid_search", "google"),
        ("utm_source=google%E2%80%8B&utm_medium=cpc", "paid_search", "google"),
        ("utm_source=x1&utm_medium=sms%20", "sms", "sms"),
        ("utm_source=chatgpt.com%20&utm_medium=x", "ai_assistant", "ai_assistant"),
        ("utm_source=%09facebook%0A&utm_medium=cpc", "paid_social", "meta"),
    ],
)
def test_b14_blanks_around_utm_values_change_nothing(query: str, channel: str, platform: str) -> None:
    landing = parse_landing(f"{PAGE}?{query}")
    assert (landing.channel, landing.platform) == (channel, platform)


def test_b14_the_value_is_kept_as_it_came() -> None:
    assert parse_landing(PAGE + "?utm_source=google%20&utm_medium=cpc").utm["utm_source"] == "google "


OFFICES = """
    tagmanager datastudio chat keep merchants business myaccount admin contacts adwords optimize colab.research hangouts
    photos calendar maps one fi store
""".split()  # noqa: SIM905


@pytest.mark.parametrize(
    ("host", "channel"),
    [
        *((f"{name}.google.com", "referral") for name in OFFICES),
        *((host, "email") for host in ("mail.yahoo.co.jp", "mail.yandex.com", "mail.aol.co.uk", "email.seznam.cz",
                                       "mail.virgilio.it", "mail.rambler.ru", "mail.daum.net", "mail.naver.com",
                                       "webmail.freenet.de", "deref-gmx.at", "email.t-online.de")),
        *((host, "organic_social") for host in ("blog.naver.com", "cafe.naver.com", "tieba.baidu.com")),
        *((host, "organic_shopping") for host in ("market.yandex.ru", "auctions.yahoo.co.jp")),
        *((host, "referral") for host in ("ads.bing.com", "sports.yahoo.com", "an.yandex.ru", "pan.baidu.com")),
        *((host, "organic_search") for host in ("www.google.co.uk", "google.com.br", "images.google.de",
        "lens.google.com",
                                                "r.search.yahoo.com", "de.search.yahoo.com", "www.bing.com",
                                                "cn.bing.com",
                                                "m.baidu.com", "search.naver.com", "yandex.ru", "ya.ru",
                                                "search.daum.net",
                                                "search.seznam.cz", "duckduckgo.com", "www.ecosia.org",
                                                "www.startpage.com",
                                                "search.aol.com", "m.so.com", "ricerca.virgilio.it", "yandex.com.tr")),
    ],
)  # fmt: skip
def test_b15_only_search_hosts_are_search(host: str, channel: str) -> None:
    assert parse_landing(PAGE, f"https://{host}/x").channel == channel


@pytest.mark.parametrize(
    ("setting", "referrer"),
    [
        ("https://acme.io/", "https://acme.io/a"), ("www.acme.io", "https://acme.io/"), ("*.acme.io",
        "https://b.acme.io/"),
        ("bücher.de", "https://xn--bcher-kva.de/"), ("xn--bcher-kva.de", "https://bücher.de/"), ("acme.io:8443",
        "http://acme.io:80/"),
        ("HTTP://WWW.ACME.IO/shop?x=1", "https://www.acme.io/"), (".acme.io", "https://acme.io/"), ("acme.io.",
        "https://acme.io./"),
        ("straße.de", "https://xn--strae-oqa.de/"),
    ],
)  # fmt: skip
def test_b16_own_domains_are_understood_in_every_spelling(setting: str, referrer: str) -> None:
    assert parse_landing(PAGE, referrer, own_domains=[setting]).is_internal


@pytest.mark.parametrize(
    "setting", ["", " ", "https://", "*", "com", "co.uk", "github.io", "acme io", "/shop", "*.com", "a..b"]
)
def test_b16_what_names_no_host_is_refused(setting: str) -> None:
    with pytest.raises(ValueError, match="own domain"):
        own_domain(setting)
    with pytest.raises(ValueError, match="own domain"):
        parse_landing(PAGE, "https://acme.io/", own_domains=[setting])


@pytest.mark.parametrize(
    ("url", "channel"),
    [
        ("?utm_campaign=spring", "unassigned"), ("?utm_id=123", "unassigned"),
        ("?utm_source=news&amp;utm_medium=email", "email"), ("?utm_source=news&amp;amp;utm_medium=email", "email"),
        ("?id=3?utm_source=google&utm_medium=cpc", "paid_search"), ("?id=3?gclid=aB1", "paid_search"),
        ("?mtm_source=google&mtm_medium=cpc", "paid_search"), ("?pk_source=news&pk_medium=email&pk_campaign=x1",
        "email"),
        ("?utm_source={{site_source_name}}", "direct"), ("?utm_source=%7B%7Bsource%7D%7D&utm_medium=cpc", "paid_other"),
        ("?utm_source=undefined&utm_medium=undefined", "direct"),
    ],
)  # fmt: skip
def test_b21_parameters_as_templates_leave_them(url: str, channel: str) -> None:
    landing = parse_landing(PAGE + url)
    assert landing.channel == channel
    assert "site_source" not in landing.platform


def test_b21_utm_id_is_the_campaign_id() -> None:
    landing = parse_landing(PAGE + "?utm_source=google&utm_medium=cpc&utm_id=123")
    assert touchpoint_from_landing(landing, occurred_at=NOON, anonymous_id="a1").campaign_id == "123"


@pytest.mark.parametrize(
    "referrer",
    ["chrome-extension://abc", "http://localhost:3000/", "http://127.0.0.1/", "http://192.168.1.10/", "http://[::1]/",
     "about:blank", "file:///home/x", "moz-extension://a/b", "http://10.0.0.1/"],
)  # fmt: skip
def test_b21_what_is_no_site_refers_nobody(referrer: str) -> None:
    landing = parse_landing(PAGE, referrer)
    assert (landing.channel, landing.is_internal) == ("direct", False)


@pytest.mark.parametrize(
    ("referrer", "channel"),
    [
        ("android-app://com.whatsapp/", "organic_social"), ("android-app://org.telegram.messenger.web/",
        "organic_social"),
        ("android-app://com.yahoo.mobile.client.android.mail/", "email"), ("android-app://com.microsoft.bing/",
        "organic_search"),
        ("android-app://com.duckduckgo.mobile.android/", "organic_search"), ("https://copilot.com/", "ai_assistant"),
        ("https://edgeservices.bing.com/", "ai_assistant"), ("https://nimble.ai/", "ai_assistant"),
        ("https://app.writesonic.com/", "ai_assistant"), ("https://yiyan.baidu.com/", "ai_assistant"),
        ("android-app://com.instagram.barcelona/", "organic_social"), ("android-app://com.snapchat.android/",
        "organic_social"),
        ("https://odnoklassniki.ru/", "organic_social"), ("https://t.umblr.com/redirect", "organic_social"),
    ],
)  # fmt: skip
def test_b24_lists(referrer: str, channel: str) -> None:
    assert parse_landing(PAGE, referrer).channel == channel


@pytest.mark.parametrize("source", ["copilot.com", "whisk", "chatgpt.com", "perplexity"])
def test_b24_assistants_by_source(source: str) -> None:
    assert parse_landing(f"{PAGE}?utm_source={source}").channel == "ai_assistant"


HOSTS = st.sampled_from(
    ["www.google.com", "pay.amazon.de", "tagmanager.google.com", "bücher.de", "localhost", "[::1]", "t.co", "a..b"]
)
NAMES = st.sampled_from(
    [
        "utm_source",
        "utm_medium",
        "utm_campaign",
        "utm_id",
        "mtm_source",
        "gclid",
        "fbclid",
        "mc_eid",
        "id",
        "amp;utm_term",
    ]
)
VALUES = st.sampled_from(
    [
        *NOTHING,
        "google",
        " google ",
        "cpc",
        "email%20",
        "%C2%A0x",
        "a?gclid=b1",
        "%",
        "%ZZ",
        "\0",
        "\U0001d4a2",
        "1e+21",
    ]
)
QUERIES = st.lists(st.tuples(NAMES, VALUES), max_size=5).flatmap(
    lambda pairs: st.sampled_from(["&", "&amp;", "?", ";"]).map(lambda mark: mark.join(f"{n}={v}" for n, v in pairs))
)
URLS = st.builds("https://{}/{}{}".format, HOSTS, st.sampled_from(["", "#", "#/p?", "?x=1&", "?"]), QUERIES)
REFERRERS = st.none() | st.builds(
    "{}://{}/".format, st.sampled_from(["https", "android-app", "chrome-extension", "file"]), HOSTS
)


@given(URLS, REFERRERS, st.lists(st.sampled_from(["acme.io", "*.google.com", "https://bücher.de"]), max_size=2))
@settings(max_examples=200, deadline=None)
def test_landings_of_these_kinds_hold_no_placeholder_and_agree_with_themselves(
    url: str, referrer: str | None, own_domains: list[str]
) -> None:
    landing = parse_landing(url, referrer, own_domains=own_domains)
    assert not set(landing.click_ids.values()) & set(NOTHING)
    assert landing.is_internal <= (landing.channel == "direct")
    if landing.channel == "direct":
        assert (landing.platform, landing.click_ids.keys() & {"gclid", "fbclid", "mc_eid"}) == ("direct", set())
    assert landing == parse_landing(url, referrer, own_domains=own_domains)
