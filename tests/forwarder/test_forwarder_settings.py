"""Settings and credentials: what is missing or wrong is named, never shown; a destination without them is off."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from attributary.consumers.destinations.ad_platform_settings import purposes
from attributary.consumers.destinations.catalog import CATALOG, read_setup
from attributary.consumers.destinations.credentials import load_credentials
from attributary.consumers.destinations.destination import Moment, PreparedEvent
from attributary.consumers.destinations.meta.destination import MetaDestination, MetaOptions
from attributary.consumers.destinations.settings import MetaSettings
from attributary.consumers.runtime.errors import ConfigError
from attributary.consumers.runtime.settings import load
from attributary.schemas.topics import CONVERSIONS, catalogue, group_name
from tests.forwarder.forwarder_factories import CASE_TIME, conversion

SECRET = "EAAB-very-secret"
GOOD_META = {"META_PIXEL_ID": "123", "META_ACCESS_TOKEN": SECRET}
GOOD_GA4 = {"GA4_MEASUREMENT_ID": "G-ABC123", "GA4_API_SECRET": SECRET}


@pytest.fixture(autouse=True)
def _clean(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith(
            (
                "META_",
                "GA4_",
                "TIKTOK_",
                "LINKEDIN_",
                "X_",
                "REDDIT_",
                "PINTEREST_",
                "SNAP_",
                "GOOGLE_",
                "MICROSOFT_",
                "FORWARD_",
            )
        ):
            monkeypatch.delenv(name)


def set_all(monkeypatch: pytest.MonkeyPatch, variables: dict[str, str]) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)


@pytest.mark.parametrize(
    ("destination", "variables", "named"),
    [
        ("meta", {"META_PIXEL_ID": "123"}, "META_ACCESS_TOKEN"),
        ("meta", {"META_ACCESS_TOKEN": SECRET}, "META_PIXEL_ID"),
        ("meta", GOOD_META | {"META_PIXEL_ID": "abc"}, "META_PIXEL_ID"),
        ("meta", GOOD_META | {"META_API_VERSION": "26"}, "META_API_VERSION"),
        ("meta", GOOD_META | {"META_BASE_URL": "graph.facebook.com"}, "META_BASE_URL"),
        ("meta", GOOD_META | {"META_TEST_EVENT_CODE": "a b"}, "META_TEST_EVENT_CODE"),
        ("meta", GOOD_META | {"META_ACCESS_TOKEN_FILE": "/nowhere", "META_ACCESS_TOKEN": ""}, "META_ACCESS_TOKEN_FILE"),
        ("meta", GOOD_META | {"FORWARD_META_EXTERNAL_ID": "x"}, "FORWARD_META_EXTERNAL_ID"),
        ("ga4", {"GA4_MEASUREMENT_ID": "G-ABC123"}, "GA4_API_SECRET"),
        ("ga4", {"GA4_FIREBASE_APP_ID": "1:2:android:3f"}, "GA4_API_SECRET"),
        ("ga4", {"GA4_API_SECRET": SECRET}, "GA4_MEASUREMENT_ID"),
        ("ga4", GOOD_GA4 | {"GA4_MEASUREMENT_ID": "UA-1"}, "GA4_MEASUREMENT_ID"),
        ("ga4", GOOD_GA4 | {"GA4_FIREBASE_APP_ID": "x"}, "GA4_FIREBASE_APP_ID"),
        ("ga4", GOOD_GA4 | {"GA4_BASE_URL": "x"}, "GA4_BASE_URL"),
        ("ga4", GOOD_GA4 | {"GA4_EU": "maybe"}, "GA4_EU"),
        ("ga4", GOOD_GA4 | {"FORWARD_GA4_PROBE": "maybe"}, "FORWARD_GA4_PROBE"),
        ("tiktok", {"TIKTOK_PIXEL_CODE": "P1"}, "TIKTOK_ACCESS_TOKEN"),
        ("tiktok", {"TIKTOK_ACCESS_TOKEN": SECRET}, "TIKTOK_PIXEL_CODE"),
        ("tiktok", {"TIKTOK_PIXEL_CODE": "a b", "TIKTOK_ACCESS_TOKEN": SECRET}, "TIKTOK_PIXEL_CODE"),
        ("tiktok", {"FORWARD_TIKTOK_EVENT_NAMES": "purchase=1x"}, "FORWARD_TIKTOK_EVENT_NAMES"),
        ("tiktok", {"TIKTOK_BASE_URL": "http://business-api.tiktok.com"}, "TIKTOK_BASE_URL"),
        ("linkedin", {"LINKEDIN_AD_ACCOUNT_ID": "1"}, "LINKEDIN_ACCESS_TOKEN"),
        ("linkedin", {"LINKEDIN_API_VERSION": "2026-08"}, "LINKEDIN_API_VERSION"),
        ("linkedin", {"FORWARD_LINKEDIN_RULES": "purchase=urn:lla:llaPartnerConversion:1"}, "FORWARD_LINKEDIN_RULES"),
        ("x", {"X_PIXEL_ID": "o8z6j"}, "X_ACCESS_TOKEN_SECRET"),
        ("x", {"X_PIXEL_TOKEN": SECRET}, "X_PIXEL_ID"),
        ("x", {"X_PIXEL_ID": "o8z6j", "X_ACCESS_TOKEN_SECRET": SECRET}, "X_CONSUMER_KEY"),
        ("x", {"X_PIXEL_ID": "o8z6j", "X_PIXEL_TOKEN": SECRET, "X_CONSUMER_KEY": "k"}, "X_CONSUMER_SECRET"),
        ("x", {"FORWARD_X_EVENT_IDS": "purchase=o8/1"}, "FORWARD_X_EVENT_IDS"),
        ("linkedin", {"LINKEDIN_TOKEN_EXPIRES": "2027-02-30"}, "LINKEDIN_TOKEN_EXPIRES"),
        ("reddit", {"REDDIT_PIXEL_ID": "a2_abc"}, "REDDIT_ACCESS_TOKEN"),
        ("reddit", {"REDDIT_ACCESS_TOKEN": SECRET}, "REDDIT_PIXEL_ID"),
        ("reddit", {"REDDIT_PIXEL_ID": "A/2", "REDDIT_ACCESS_TOKEN": SECRET}, "REDDIT_PIXEL_ID"),
        ("reddit", {"REDDIT_TEST_ID": "a b"}, "REDDIT_TEST_ID"),
        ("reddit", {"FORWARD_REDDIT_EVENT_NAMES": "trial=1x"}, "FORWARD_REDDIT_EVENT_NAMES"),
        ("pinterest", {"PINTEREST_AD_ACCOUNT_ID": "5490"}, "PINTEREST_ACCESS_TOKEN"),
        ("pinterest", {"PINTEREST_ACCESS_TOKEN": SECRET}, "PINTEREST_AD_ACCOUNT_ID"),
        ("pinterest", {"PINTEREST_AD_ACCOUNT_ID": "x", "PINTEREST_ACCESS_TOKEN": SECRET}, "PINTEREST_AD_ACCOUNT_ID"),
        ("pinterest", {"FORWARD_PINTEREST_EVENT_NAMES": "lead=Lead"}, "FORWARD_PINTEREST_EVENT_NAMES"),
        ("microsoft", {"MICROSOFT_TAG_ID": "1870"}, "MICROSOFT_ACCESS_TOKEN"),
        ("microsoft", {"MICROSOFT_ACCESS_TOKEN": SECRET}, "MICROSOFT_TAG_ID"),
        ("microsoft", {"MICROSOFT_TAG_ID": "x", "MICROSOFT_ACCESS_TOKEN": SECRET}, "MICROSOFT_TAG_ID"),
        ("snap", {"SNAP_PIXEL_ID": "p-1"}, "SNAP_ACCESS_TOKEN"),
        ("bingads", {"BINGADS_ACCOUNT_ID": "1500"}, "BINGADS_REFRESH_TOKEN"),
        ("bingads", {"BINGADS_REFRESH_TOKEN": SECRET}, "BINGADS_ACCOUNT_ID"),
        ("bingads", {"BINGADS_ACCOUNT_ID": "F1500", "BINGADS_REFRESH_TOKEN": SECRET}, "BINGADS_ACCOUNT_ID"),
        ("bingads", {"BINGADS_ACCOUNT_ID": "1500", "BINGADS_REFRESH_TOKEN": SECRET}, "BINGADS_CUSTOMER_ID"),
        ("bingads", {"FORWARD_BINGADS_GOALS": "lead=uet:"}, "FORWARD_BINGADS_GOALS"),
        ("google", {"GOOGLE_CUSTOMER_ID": "1234567890"}, "GOOGLE_SERVICE_ACCOUNT_KEY"),
        ("google", {"GOOGLE_CUSTOMER_ID": "12", "GOOGLE_REFRESH_TOKEN": SECRET}, "GOOGLE_CUSTOMER_ID"),
        ("google", {"GOOGLE_CUSTOMER_ID": "1234567890", "GOOGLE_REFRESH_TOKEN": SECRET}, "GOOGLE_CLIENT_ID"),
        (
            "google",
            {"GOOGLE_CUSTOMER_ID": "1234567890", "GOOGLE_SERVICE_ACCOUNT_KEY": SECRET},
            "GOOGLE_SERVICE_ACCOUNT_KEY",
        ),
        ("google", {"GOOGLE_ANALYTICS_PROPERTY_ID": "77"}, "GOOGLE_MEASUREMENT_ID"),
        (
            "google",
            {"GOOGLE_ANALYTICS_PROPERTY_ID": "77", "GOOGLE_CUSTOMER_ID": "1234567890"},
            "GOOGLE_ANALYTICS_PROPERTY_ID",
        ),
        ("google", {"FORWARD_GOOGLE_ACTIONS": "purchase=7-1"}, "FORWARD_GOOGLE_ACTIONS"),
        ("snap", {"SNAP_APP_ID": "a-1"}, "SNAP_ACCESS_TOKEN"),
        ("snap", {"SNAP_ACCESS_TOKEN": SECRET}, "SNAP_PIXEL_ID"),
        ("snap", {"SNAP_PIXEL_ID": "p/1", "SNAP_ACCESS_TOKEN": SECRET}, "SNAP_PIXEL_ID"),
        ("snap", {"FORWARD_SNAP_EVENT_NAMES": "lead=LEAD"}, "FORWARD_SNAP_EVENT_NAMES"),
        ("meta", GOOD_META | {"FORWARD_BATCH_SIZE": "0"}, "FORWARD_BATCH_SIZE"),
        ("meta", GOOD_META | {"FORWARD_EVENTS_PER_REQUEST": "x"}, "FORWARD_EVENTS_PER_REQUEST"),
        ("meta", GOOD_META | {"FORWARD_LINGER_MS": "-1"}, "FORWARD_LINGER_MS"),
        ("meta", GOOD_META | {"FORWARD_CONCURRENCY": "0"}, "FORWARD_CONCURRENCY"),
        ("meta", GOOD_META | {"FORWARD_ATTEMPTS": "0"}, "FORWARD_ATTEMPTS"),
        ("meta", GOOD_META | {"FORWARD_TIMEOUT_SECONDS": "0"}, "FORWARD_TIMEOUT_SECONDS"),
        ("meta", GOOD_META | {"FORWARD_CONSENT_UNKNOWN": "perhaps"}, "FORWARD_CONSENT_UNKNOWN"),
        ("meta", GOOD_META | {"FORWARD_DEFAULT_REGION": "Germany"}, "FORWARD_DEFAULT_REGION"),
        ("meta", GOOD_META | {"FORWARD_UNCERTAIN": "x"}, "FORWARD_UNCERTAIN"),
        ("meta", GOOD_META | {"FORWARD_CREDENTIALS_FILE": "/nowhere"}, "FORWARD_CREDENTIALS_FILE"),
    ],
)
def test_what_is_missing_or_wrong_is_named_and_never_shown(
    monkeypatch: pytest.MonkeyPatch, destination: str, variables: dict[str, str], named: str
) -> None:
    set_all(monkeypatch, variables)
    with pytest.raises(ConfigError) as caught:
        read_setup(destination)
    assert caught.value.variable == named
    assert caught.value.exit_code == 78
    assert SECRET not in str(caught.value)


def test_good_settings_become_a_setup(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    secret = tmp_path / "token"
    secret.write_text(SECRET + "\n")
    set_all(
        monkeypatch,
        {
            "META_PIXEL_ID": "123",
            "META_ACCESS_TOKEN_FILE": str(secret),
            "META_APP_SECRET": "s",
            "META_TEST_EVENT_CODE": "T1",
        },
    )
    setup = read_setup("meta")
    (account,) = setup.credentials.accounts("anybody")
    assert (account.account_id, account.secret, account.ledger_name) == ("123", SECRET, "meta")
    assert account.options == {"app_secret": "s", "test_event_code": "T1"}
    assert setup.destination.limits.events == 1_000
    set_all(monkeypatch, GOOD_GA4 | {"GA4_EU": "true", "FORWARD_GA4_CONSENT": ""})
    ga4 = read_setup("ga4")
    assert ga4.destination.consent_purposes == ("analytics_storage",)
    assert ga4.destination.limits.events == 25


def test_without_credentials_a_destination_is_off() -> None:
    assert not read_setup("meta").credentials.is_on
    assert not read_setup("ga4").credentials.is_on
    assert read_setup("meta").credentials.accounts("acme") == ()


FILE = """
tenants:
  acme:
    meta: {pixel_id: "1", access_token: one, test_event_code: T9}
    ga4:
      - {measurement_id: G-A, api_secret: web}
      - {firebase_app_id: "1:2:ios:3", api_secret: app}
  globex: default
  "*": {meta: {pixel_id: 7, access_token: others}}
"""


def test_credentials_per_tenant(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    path = tmp_path / "credentials.yaml"
    path.write_text(FILE)
    set_all(monkeypatch, GOOD_META | {"FORWARD_CREDENTIALS_FILE": str(path)})
    meta = read_setup("meta").credentials
    assert [(c.account_id, c.secret) for c in meta.accounts("acme")] == [("1", "one")]
    assert [(c.account_id, c.secret) for c in meta.accounts("globex")] == [("123", SECRET)]
    assert [c.account_id for c in meta.accounts("somebody")] == ["7"]
    assert not meta.serves_one_account
    ga4 = read_setup("ga4").credentials
    assert [c.ledger_name for c in ga4.accounts("acme")] == ["ga4", "ga4:1:2:ios:3"]
    assert ga4.accounts("somebody") == (), "no account of another tenant"
    path.write_text("tenants: {acme: {meta: {pixel_id: '1', access_token: one}}}")
    assert read_setup("meta").credentials.is_on
    assert not read_setup("ga4").credentials.is_on


@pytest.mark.parametrize(
    "text",
    [
        "- list",
        "tenants: 5",
        "tenants: {acme: 5}",
        "tenants: {acme: {meta: 5}}",
        "tenants: {acme: {meta: {pixel_id: '1'}}}",
        "tenants: {acme: {meta: {access_token: EAAB-very-secret}}}",
        "tenants: {acme: {meta: {pixel_id: '1', access_token: EAAB-very-secret, colour: red}}}",
        "tenants: {acme: {meta: {pixel_id: '1', access_token_file: /nowhere}}}",
        "{",
    ],
)
def test_a_wrong_file_is_refused_without_its_values(tmp_path: Path, text: str) -> None:
    path = tmp_path / "credentials.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load_credentials("meta", None, str(path))
    assert caught.value.variable == "FORWARD_CREDENTIALS_FILE"
    assert SECRET not in str(caught.value)


def test_secrets_never_show(monkeypatch: pytest.MonkeyPatch) -> None:
    set_all(monkeypatch, GOOD_META)
    settings = load(MetaSettings)
    credentials = settings.credentials()
    account = read_setup("meta").credentials.accounts("t")[0]
    assert SECRET not in repr(settings) + repr(account) + repr(credentials)
    assert purposes(" a, b,,") == ("a", "b")


def run(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    ours = (
        "META_",
        "GA4_",
        "TIKTOK_",
        "LINKEDIN_",
        "X_",
        "REDDIT_",
        "PINTEREST_",
        "SNAP_",
        "GOOGLE_",
        "MICROSOFT_",
        "FORWARD_",
        "KAFKA_",
        "DATABASE_",
    )
    clean = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    return subprocess.run(
        [str(Path(sys.executable).with_name("attributary")), *arguments],
        env=clean | variables,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )


@pytest.mark.slow
def test_the_process_ends_with_78_and_the_name_or_says_once_that_it_is_off() -> None:
    wrong = run("forwarder", "--destination", "meta", META_PIXEL_ID="1")
    assert wrong.returncode == 78
    assert "META_ACCESS_TOKEN" in wrong.stderr
    off = run("forwarder", "ga4")
    assert off.returncode == 0
    (line,) = [json.loads(text) for text in off.stdout.splitlines()]
    assert line["event"] == "off: no credentials"
    assert run("forwarder").returncode == 2
    no_kafka = run("forwarder", "meta", META_PIXEL_ID="1", META_ACCESS_TOKEN="t")
    assert no_kafka.returncode == 78
    assert "KAFKA_BOOTSTRAP_SERVERS" in no_kafka.stderr


def test_a_test_code_in_production_is_loud() -> None:
    loud = run(
        "forwarder",
        "meta",
        META_PIXEL_ID="1",
        META_ACCESS_TOKEN="t",
        META_TEST_EVENT_CODE="TEST1",
        ATTRIBUTION_ENVIRONMENT="production",
    )
    warning = next(json.loads(line) for line in loud.stdout.splitlines() if "META_TEST_EVENT_CODE" in line)
    assert warning["level"] == "error"


EVENTS = """\
{"event_id":"order-1","conversion_type":"purchase","occurred_at":"2026-11-24T21:00:00+00:00","value":"19.99",\
"currency":"EUR","user_id":"u1","user_data":{"email":"Jane@Example.com"},"ga_client_id":"1.2",\
"consent":{"ad_storage":true,"ad_user_data":true,"analytics_storage":true}}
{"event_id":"lead-1","conversion_type":"lead","occurred_at":"2026-11-24T21:00:00+00:00","user_id":"u1"}
{"event_id":"bad-1","conversion_type":"lead","occurred_at":"yesterday","user_id":"u1"}
"""
AT = "1795557600000000"  # 2026-11-24T22:00:00Z


@pytest.mark.slow
def test_a_dry_run_prints_the_bodies_and_the_reasons(tmp_path: Path) -> None:
    path = tmp_path / "conversions.jsonl"
    path.write_text(EVENTS)
    shown = run("forward", "--dry-run", "meta", "--input", str(path), "--at", AT)
    assert shown.returncode == 3
    (body,) = [json.loads(line) for line in shown.stdout.splitlines()]
    assert [event["event_id"] for event in body["data"]] == ["order-1"]
    assert "Jane" not in shown.stdout
    assert "lead-1: skipped: consent not known: ad_storage (consent)" in shown.stderr
    assert "line 3: occurred_at" in shown.stderr
    ga4 = run("forward", "--dry-run", "ga4", "--input", str(path), "--at", AT, FORWARD_CONSENT_UNKNOWN="send")
    bodies = [json.loads(line) for line in ga4.stdout.splitlines()]
    assert {event["name"] for body in bodies for event in body["events"]} == {"purchase", "generate_lead"}
    again = run("forward", "--dry-run", "ga4", "--input", str(path), "--at", AT, FORWARD_CONSENT_UNKNOWN="send")
    assert again.stdout == ga4.stdout, "the same input gives the same bytes"
    assert run("forward", "--dry-run", "meta", "--input", str(tmp_path / "nothing.jsonl")).returncode == 2
    assert run("forward").returncode == 2


def test_f7_event_names_of_an_account_stand_in_the_credentials(tmp_path: Path) -> None:
    path = tmp_path / "credentials.yaml"
    names = {"trial_started": "TrialStarted", "lead": "QualifiedLead"}
    account = {"pixel_id": "1", "access_token": SECRET, "event_names": names}
    path.write_text(
        json.dumps({"tenants": {"acme": {"meta": account}, "globex": {"meta": dict(account, event_names={})}}})
    )
    credentials = load_credentials("meta", None, str(path))
    (account_of_acme,) = credentials.accounts("acme")
    assert account_of_acme.event_names == names
    (account_of_globex,) = credentials.accounts("globex")
    assert account_of_globex.event_names == {}
    destination = MetaDestination(MetaOptions(event_names={"lead": "Lead2", "signup": "SignedUp"}))
    found = {}
    for kind in ("trial_started", "lead", "signup", "purchase"):
        for owner in (account_of_acme, account_of_globex):
            event = destination.build(conversion(CASE_TIME, conversion_type=kind), owner, Moment(CASE_TIME, CASE_TIME))
            assert isinstance(event, PreparedEvent)
            found[owner.tenant_id, kind] = event.name
    assert found == {
        ("acme", "trial_started"): "TrialStarted", ("globex", "trial_started"): "trial_started",
        ("acme", "lead"): "QualifiedLead", ("globex", "lead"): "Lead2",
        ("acme", "signup"): "SignedUp", ("globex", "signup"): "SignedUp",
        ("acme", "purchase"): "Purchase", ("globex", "purchase"): "Purchase",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("destination", "names"),
    [
        ("meta", ["a"]), ("meta", {"a": 1}), ("meta", {"a": ""}), ("meta", {"a": "x" * 51}), ("meta", {"a": "1st"}),
        ("ga4", {"a": "with blank"}), ("ga4", {"a": "session_start"}), ("ga4", {"a": "ga_x"}), ("ga4", {"a": "x" * 41}),
    ],
)  # fmt: skip
def test_f7_a_name_that_the_destination_refuses_ends_the_start(destination: str, names: Any, tmp_path: Path) -> None:
    path = tmp_path / "credentials.yaml"
    account = {
        "meta": {"pixel_id": "1", "access_token": SECRET},
        "ga4": {"measurement_id": "G-1", "api_secret": SECRET},
    }
    path.write_text(json.dumps({"tenants": {"acme": {destination: account[destination] | {"event_names": names}}}}))
    with pytest.raises(ConfigError, match="event_names"):
        load_credentials(destination, None, str(path))


NO_ADDRESSES = [
    "http://[::1/", "https://a b", "https://graph.example:99999", "https://graph.example:0", "https://u:p@graph.example",
    "https://graph.example?x=1", "https://graph.example#x", "ftp://graph.example", "https://", "https:///v1",
    "https://-bad-.example", "https://a..b", "//graph.example", "https://graph.example/\x7f", "https://" + "a" * 64,
]  # fmt: skip
IN_CLEAR = [
    "http://graph.facebook.com", "http://fakes:9801", "http://10.0.0.1", "http://127.0.0.1.evil.example",
    "http://[2001:db8::1]:80", "http://0.0.0.0:80", "http://localhost.evil.example",
]  # fmt: skip


@pytest.mark.parametrize("url", NO_ADDRESSES + IN_CLEAR)
@pytest.mark.parametrize(("name", "variable", "good"), [("meta", "META", GOOD_META), ("ga4", "GA4", GOOD_GA4)])
def test_s12_s30_a_base_url_that_cannot_be_used_safely_ends_the_start(
    name: Any, variable: str, good: dict[str, str], url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_all(monkeypatch, good | {f"{variable}_BASE_URL": url})
    with pytest.raises(ConfigError) as caught:
        read_setup(name)
    assert (caught.value.variable, caught.value.exit_code) == (f"{variable}_BASE_URL", 78)
    assert ("in clear" in str(caught.value)) is (url in IN_CLEAR)
    assert url == "https://" or url not in str(caught.value)


@pytest.mark.parametrize(
    "url",
    [
        "https://graph.example", "https://graph.example/relay/", "https://graph.example:8443", "http://127.0.0.1:9801",
        "http://localhost:9801", "http://[::1]:9801", "http://meta.localhost", "https://b\u00fccher.example",
        "https://my_relay:444",
    ],
)  # fmt: skip
def test_s30_a_good_base_url_is_taken(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    set_all(monkeypatch, GOOD_META | {"META_BASE_URL": url})
    assert read_setup("meta").destination.name == "meta"


@pytest.mark.parametrize("proxy", ["proxy", "socks5://p:1", "http://", "http://p:99999", "http://[::1"])
def test_s29_a_proxy_that_is_none_ends_the_start(proxy: str, monkeypatch: pytest.MonkeyPatch) -> None:
    set_all(monkeypatch, GOOD_META | {"FORWARD_PROXY_URL": proxy})
    with pytest.raises(ConfigError) as caught:
        read_setup("meta")
    assert caught.value.variable == "FORWARD_PROXY_URL"


@pytest.mark.parametrize("secret", ["a b", "a\nb", "\u00fc", "a\tb", "a\x7f"])
def test_s12_a_secret_that_cannot_travel_in_a_header_ends_the_start(
    secret: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    set_all(monkeypatch, GOOD_META | {"META_ACCESS_TOKEN": secret})
    with pytest.raises(ConfigError) as caught:
        read_setup("meta")
    assert caught.value.variable == "META_ACCESS_TOKEN"
    path = tmp_path / "credentials.json"
    path.write_text(json.dumps({"tenants": {"acme": {"meta": {"pixel_id": "1", "access_token": secret}}}}))
    with pytest.raises(ConfigError, match="printable ASCII") as caught:
        load_credentials("meta", None, str(path))
    assert caught.value.variable == "FORWARD_CREDENTIALS_FILE"


def test_every_destination_has_its_group_and_dead_letters_in_the_catalogue_of_topics() -> None:
    conversions = next(topic for topic in catalogue() if topic.name == CONVERSIONS)
    forwarders = {group for group in conversions.groups if ".forwarder." in group}
    assert forwarders == {group_name(f"forwarder.{name}") for name in CATALOG}, "topics.yaml: groups of the conversions"
