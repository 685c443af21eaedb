"""Signatures: the providers' published vectors, and everything that must not pass."""

from __future__ import annotations

import base64
import hashlib
import hmac

import pytest
from hypothesis import given
from hypothesis import strategies as st

from attributary.producers.collector.webhooks import WebhookReceiver, WebhookSource
from attributary.producers.collector.webhooks import signatures as sign
from attributary.producers.collector.webhooks.settings_file import NOT_READ
from attributary.producers.collector.webhooks.source import PROVIDERS, Provider, SourceError
from tests.factories.webhooks import NOW, SECRET, deliver, encoded, receiver, shopify_order, signed, stripe_payment

WITH_DEFAULTS = tuple(provider for provider in PROVIDERS if provider not in {"standard", "signed_json"})

# Svix, "Verifying webhooks manually": the example that Standard Webhooks' own implementations are tested with.
STANDARD = (
    "plJ3nmyCDGBKInavdOK15jsl",
    "msg_loFOjxBNrRLzqYUf",
    1731705121,
    b'{"event_type":"ping","data":{"success":true}}',
    "rAvfW3dJ/X/qxhsaXPOyyCGmRKsaKWcsNccKXlIktD0=",
)
# Svix's libraries, test "webhook verification is valid".
STANDARD_OLDER = ("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330,
                  b'{"test": 2432232314}', "g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=")  # fmt: skip
# stripe-dotnet, EventUtilityTest with the resource event_test_signature.json.
STRIPE_BODY = b"""{
  "id": "evt_123",
  "object": "event",
  "account": "acct_123",
  "api_version": "2017-05-25",
  "created": 1533204620,
  "data": {
    "object": {
      "id": "cus_123",
      "object": "customer",
      "created": 123456789,
      "email": "test@stripe.com",
      "livemode": false,
      "metadata": {}
    }
  },
  "livemode": false,
  "pending_webhooks": 1,
  "request": {
    "id": "req_123",
    "idempotency_key": "idempotency-key-123"
  },
  "type": "customer.created"
}
"""
STRIPE_V1 = "2220f87ef101a04665f11cdf770523143f875572008577fa0f20882ddb9cc3c7"
STRIPE_HEADER = f"t=1533204620,v1={STRIPE_V1},v0=63f3a72374a733066c4be69ed7f8e5ac85c22c9f0a6a612ab9a025a9e4ee7eef"
STRIPE_SIGNED_AT = 1533204620
# GitHub, "Validating webhook deliveries", section "Testing the webhook payload validation": the scheme that Meta uses.
HUB = ("It's a Secret to Everybody", b"Hello, World!",
       "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17")  # fmt: skip
# SQLPage, documentation of its function hmac, which checks Shopify's scheme (Shopify publishes no vector).
SHOPIFY = ("test-webhook-secret", b'{"id":1234567890,"email":"customer@example.com","total_price":"123.45"}',
           "QNyObTlKbMx2qDlPF/ZOZcBqg5OgPg+2oky3zldc0Gw=")  # fmt: skip


@pytest.mark.parametrize("prefix", ["webhook-", "svix-"])
@pytest.mark.parametrize("vector", [STANDARD, STANDARD_OLDER])
def test_published_vectors_of_standard_webhooks(vector: tuple[str, str, int, bytes, str], prefix: str) -> None:
    key, identity, stamp, body, expected = vector
    headers = {f"{prefix}id": identity, f"{prefix}timestamp": str(stamp), f"{prefix}signature": f"v1,{expected}"}
    for secret in (f"whsec_{key}", key):
        assert sign.broken_standard([secret], body, headers, stamp) is None
        assert sign.broken_standard([secret], body + b" ", headers, stamp) == sign.WRONG
    several = {**headers, f"{prefix}signature": f"v1a,AAAA v1,AAAA v1,{expected}"}
    assert sign.broken_standard([f"whsec_{key}"], body, several, stamp) is None


# RFC 8032, section 7.1, the key pair of TEST 1; the signature is that of the delivery, as OpenSSL makes it as well.
PUBLIC = "whpk_11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo="
PRIVATE = bytes.fromhex("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60")
ED25519 = "G9EqSJw1B3ndWNOgWUMgh56W+0nNxEWqX/egWPl+EXgMn6D/99aQk0r3QjMg5iZZ//usnYKC7W745w97PcpyDA=="


def test_standard_webhooks_with_a_public_key() -> None:
    _, identity, stamp, body, mac = STANDARD
    headers = {"webhook-id": identity, "webhook-timestamp": str(stamp)}

    def broken(secrets: list[str], signature: str, sent: bytes = body, now: float = stamp) -> str | None:
        return sign.broken_standard(secrets, sent, {**headers, "webhook-signature": signature}, now)

    shared = f"whsec_{STANDARD[0]}"
    assert broken([PUBLIC], f"v1a,{ED25519}") is None
    assert broken([shared, PUBLIC], f"v1,AAAA v1a,{ED25519}") is None
    assert broken([shared, PUBLIC], f"v1,{mac} v1a,AAAA") is None
    assert broken([PUBLIC], f"v1a,AAAA v1a,{ED25519}") is None
    assert broken([PUBLIC], f"v1a,{ED25519}", body + b" ") == sign.WRONG
    assert broken([PUBLIC], f"v1,{ED25519}") == sign.MALFORMED  # of a kind for which there is no key
    assert broken([PUBLIC], f"v1,{mac}") == sign.MALFORMED
    assert broken([shared], f"v1a,{ED25519}") == sign.WRONG
    assert broken([PUBLIC], f"v1a,{ED25519}", now=stamp + 301) == sign.OUT_OF_TIME
    for text in ("", "=", "AAAA", "\u20ac", ED25519[:-4], ED25519 + "AAAA", "A" * 10_000):
        assert broken([PUBLIC], f"v1a,{text}") == sign.WRONG
    # The public key is no secret: whoever knows it must not be able to sign with it as a shared key.
    public_bytes = base64.b64decode(PUBLIC.removeprefix("whpk_"))
    forged = hmac.new(public_bytes, b"%b.%d.%b" % (identity.encode(), stamp, body), hashlib.sha256).digest()
    assert broken([PUBLIC], f"v1,{base64.b64encode(forged).decode()}") == sign.MALFORMED


@pytest.mark.parametrize("key", ["whpk_", "whpk_AAAA", "whpk_!", PUBLIC + "AAAA"])
def test_a_public_key_that_is_none_is_refused_at_the_start(key: str) -> None:
    with pytest.raises(SourceError, match="secrets"):
        WebhookSource(name="s", provider="standard", tenant_id="acme", path_id="path-of-it", secrets=(key + " " * 9,))


def test_published_vector_of_stripe() -> None:
    assert sign.broken_stripe(["webhook_secret"], STRIPE_BODY, STRIPE_HEADER, STRIPE_SIGNED_AT) is None
    reserialised = STRIPE_BODY.replace(b"\n", b"")
    assert sign.broken_stripe(["webhook_secret"], reserialised, STRIPE_HEADER, STRIPE_SIGNED_AT) == sign.WRONG
    two = f"t=1533204620,v1=00,v1={STRIPE_V1}"
    assert sign.broken_stripe(["other", "webhook_secret"], STRIPE_BODY, two, STRIPE_SIGNED_AT) is None


def test_published_vector_of_the_hub_signature() -> None:
    secret, body, expected = HUB
    assert sign.broken_hex([secret], body, expected) is None
    assert sign.broken_hex([secret], body, expected.upper().replace("SHA256", "sha256")) is None
    assert sign.broken_hex([secret], body, expected.removeprefix("sha256=")) == sign.MALFORMED
    assert sign.broken_hex([secret], body, "sha1=" + expected[7:]) == sign.MALFORMED


# Slack, "Verifying requests from Slack", the worked example.
SLACK = (
    "8f742231b10e8888abcd99yyyzzz85a5",
    (
        b"token=xyzz0WbapA4vBCDEFasx0q6G&team_id=T1DC2JH3J&team_domain=testteamnow&channel_id=G8PSS9T3V&channel_name=foobar"
        b"&user_id=U2CERLKJA&user_name=roadrunner&command=%2Fwebhook-collect&text=&response_url=https%3A%2F%2Fhooks.slack.com"
        b"%2Fcommands%2FT1DC2JH3J%2F397700885554%2F96rGlfmibIGlgcZRskXaIFfN&trigger_id=398738663015.47445629121."
        b"803a0bc887a14d10d2c447fce8b6703c"
    ),
    "v0=a2114d57b48eac39b9ad189dd8316235a7b4a8d21a10bd27519666489c69b503",
)


def test_published_vector_of_slack_by_a_scheme_of_signed_json() -> None:
    secret, body, expected = SLACK
    scheme = sign.Scheme(signed="v0:{timestamp}:{body}", prefix="v0=", has_time=True)
    assert sign.broken_scheme([secret], body, expected, "1531420618", 1531420618, scheme) is None
    assert sign.broken_scheme([secret], body, expected, "1531420619", 1531420618, scheme) == sign.WRONG
    assert sign.broken_scheme([secret], body, expected, "1531420618", 1531420919, scheme) == sign.OUT_OF_TIME


def test_vector_of_shopify() -> None:
    secret, body, expected = SHOPIFY
    assert sign.broken_base64([secret], body, expected) is None
    assert sign.broken_base64([secret], body.replace(b":", b": "), expected) == sign.WRONG


def test_woocommerce_signs_with_the_decoded_secret() -> None:
    """WordPress keeps ``a&b"c`` escaped and signs with the text that was entered."""
    mac = base64.b64encode(hmac.new(b'it\'s "a" & <b>!', b"{}", hashlib.sha256).digest()).decode()
    assert sign.broken_woocommerce(['it\'s "a" & <b>!'], b"{}", mac) is None
    assert sign.broken_woocommerce(["it&#039;s &quot;a&quot; &amp; &lt;b&gt;!"], b"{}", mac) is None


@pytest.mark.parametrize(("seconds", "broken"), [(-301, True), (-300, False), (299, False), (300, False), (301, True)])
def test_the_tolerance_holds_both_ways(seconds: int, broken: bool) -> None:
    key, identity, stamp, body, expected = STANDARD
    headers = {"webhook-id": identity, "webhook-timestamp": str(stamp), "webhook-signature": f"v1,{expected}"}
    reason = sign.OUT_OF_TIME if broken else None
    assert sign.broken_standard([key], body, headers, stamp + seconds) == reason
    assert sign.broken_stripe(["webhook_secret"], STRIPE_BODY, STRIPE_HEADER, STRIPE_SIGNED_AT + seconds) == reason
    for template, at in (
        ("{timestamp}.{body}", "1000"),
        ("v0:{timestamp}:{body}", "1000"),
        ("{body}|{timestamp}", "1767225600000"),  # milliseconds
    ):
        mac = hmac.new(b"secret", template.format(timestamp=at, body="{}").encode(), hashlib.sha256).hexdigest()
        now = (1_767_225_600 if len(at) == 13 else 1000) + seconds
        scheme = sign.Scheme(signed=template, prefix="v0=", has_time=True)
        assert sign.broken_scheme(["secret"], b"{}", f"v0={mac.upper()}", at, now, scheme) == reason


@pytest.mark.parametrize(
    "header",
    [
        "", "t=", "t=1533204620", f"v1={STRIPE_V1}", f"t=1,t=2,v1={STRIPE_V1}", f"t=-1533204620,v1={STRIPE_V1}",
        f"t=1533204620.0,v1={STRIPE_V1}", f"t=0x1,v1={STRIPE_V1}", f"t={'9' * 5000},v1={STRIPE_V1}", "t=١٥٣,v1=00",
        f"t=1533204620,v0={STRIPE_V1}", "t=1533204620,v1=", "é" * 40, "\ud800", ",,,,", "=" * 100,
    ],
)  # fmt: skip
def test_malformed_headers_of_stripe_are_refused(header: str) -> None:
    assert sign.broken_stripe(["webhook_secret"], STRIPE_BODY, header, STRIPE_SIGNED_AT) in {sign.MALFORMED, sign.WRONG}


@pytest.mark.parametrize("signature", ["", "v1", "v1,", "v2,AAAA", "v1a,AAAA", "v1 AAAA", "é", "v1,\ud800", "v1,é"])
def test_malformed_headers_of_standard_webhooks_are_refused(signature: str) -> None:
    key, identity, stamp, body, _ = STANDARD
    headers = {"webhook-id": identity, "webhook-timestamp": str(stamp), "webhook-signature": signature}
    assert sign.broken_standard([key], body, headers, stamp) in {sign.MALFORMED, sign.WRONG}


def test_a_missing_part_of_standard_webhooks_is_missing() -> None:
    key, identity, stamp, body, expected = STANDARD
    headers = {"webhook-id": identity, "webhook-timestamp": str(stamp), "webhook-signature": f"v1,{expected}"}
    for name in headers:
        assert sign.broken_standard([key], body, {k: v for k, v in headers.items() if k != name}, stamp) == sign.MISSING


def test_a_rotation_takes_the_old_and_the_new_secret_until_the_old_is_gone() -> None:
    body = encoded(shopify_order())
    headers = signed("shopify", body, "orders/paid")
    for secrets, outcome in (
        (("the new secret", SECRET), "accepted"),
        ((SECRET,), "accepted"),
        (("the new secret",), "refused"),
    ):
        assert receiver("shopify", secrets=secrets).receive(body, headers, NOW).outcome == outcome


def test_a_refused_delivery_is_401_and_says_no_value() -> None:
    for provider in WITH_DEFAULTS:
        outcome = receiver(provider).receive(b'{"google_key": "wrong"}', {}, NOW)
        assert (outcome.outcome, outcome.status, outcome.records) == ("refused", 401, ())
        assert "wrong" not in repr(outcome).replace("signature_wrong", "")


@pytest.mark.parametrize("provider", ["shopify", "woocommerce", "stripe", "meta_leads"])
def test_one_changed_byte_breaks_every_scheme(provider: Provider) -> None:
    body = encoded({"id": 1})
    headers = signed(provider, body, "orders/paid")
    to = receiver(provider)

    def broken(raw: bytes) -> str | None:
        return to.broken_signature(raw, headers, NOW)

    assert broken(body) is None
    for at in range(len(body)):
        assert broken(body[:at] + bytes([body[at] ^ 1]) + body[at + 1 :]) == sign.WRONG


def test_an_empty_secret_signs_nothing() -> None:
    body = b"{}"
    mac = base64.b64encode(hmac.new(b"", body, hashlib.sha256).digest()).decode()
    assert sign.broken_base64([""], body, mac) == sign.NO_SECRET
    assert sign.broken_woocommerce([""], body, mac) == sign.NO_SECRET
    assert sign.broken_hex([""], body, "sha256=" + hmac.new(b"", body, hashlib.sha256).hexdigest()) == sign.NO_SECRET
    headers = {"webhook-id": "m", "webhook-timestamp": "1", "webhook-signature": "v1,AA=="}
    assert sign.broken_standard(["whsec_"], body, headers, 1) == sign.NO_SECRET
    assert sign.broken_shared_key([""], "") == sign.MISSING
    for secrets in ((), ("",), ("       ",), ("short",)):
        with pytest.raises(SourceError, match="secrets"):
            receiver("woocommerce", secrets=secrets)


def test_googles_key_is_compared_whole() -> None:
    for text, reason in (
        (SECRET, None),
        (SECRET[:-1], sign.WRONG),
        (SECRET + " ", sign.WRONG),
        ("", sign.MISSING),
        (None, sign.MISSING),
        (7, sign.MISSING),
    ):
        assert sign.broken_shared_key(["an old key of it", SECRET], text) == reason


def test_secrets_are_in_no_text() -> None:
    to = receiver("stripe", path_id="a-path-nobody-guesses", guest_key="the guests' key")
    for text in (repr(to.source), str(to.source), repr(deliver(to, stripe_payment(100)))):
        assert SECRET not in text
        assert "nobody-guesses" not in text
        assert "the guests' key" not in text


header = st.text(max_size=200) | st.sampled_from([STRIPE_HEADER, HUB[2], SHOPIFY[2], "v1," + STANDARD[4], "t=1,v1="])


@given(body=st.binary(max_size=50), value=header, other=header, third=header)
def test_no_header_makes_any_scheme_raise_or_pass(body: bytes, value: str, other: str, third: str) -> None:
    headers = {
        "x-shopify-hmac-sha256": value, "x-wc-webhook-signature": value, "x-hub-signature-256": value,
        "stripe-signature": value, "webhook-id": other, "webhook-timestamp": third, "webhook-signature": value,
    }  # fmt: skip
    for provider in WITH_DEFAULTS:
        assert receiver(provider).broken_signature(body, headers, NOW) is not None
    assert sign.broken_standard(["whsec_" + STANDARD[0]], body, headers, NOW) is not None
    for in_base64 in (False, True):
        scheme = sign.Scheme(signed="{timestamp}{body}", in_base64=in_base64, has_time=True)
        assert sign.broken_scheme([SECRET], body, value, third, NOW, scheme) is not None
        assert sign.broken_scheme([SECRET], body, sign.pairs_of(value).get("v1"), None, NOW, sign.Scheme()) is not None


def test_a_source_read_without_secrets_can_be_built() -> None:
    for provider in WITH_DEFAULTS:
        assert isinstance(receiver(provider, secrets=(NOT_READ,)), WebhookReceiver)
    with pytest.raises(SourceError, match="base64"):
        WebhookSource(name="s", provider="standard", tenant_id="acme", secrets=("whsec_not base64!",))
