"""What `destinations validate` asks of each platform, on the stand-ins: every outcome, and what must not show."""

from __future__ import annotations

import json
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import pytest

from attributary.consumers.destinations.account_check import AccountCheck, AccountChecker, CheckState
from attributary.consumers.destinations.catalog import NAMES, Setup
from attributary.consumers.destinations.credentials import AccountCredentials, Credentials
from attributary.consumers.destinations.destination import HttpResponse, Moment, PreparedEvent
from attributary.consumers.destinations.linkedin.destination import LinkedInDestination
from attributary.consumers.destinations.settings import ForwardSettings
from attributary.consumers.destinations.transport import HttpTransport, SystemClock
from attributary.consumers.runtime.settings import load
from attributary.local.fakes import (
    BingAdsFake,
    Fault,
    Ga4Fake,
    GoogleFake,
    LinkedInFake,
    MetaFake,
    MicrosoftFake,
    OAuthFake,
    PinterestFake,
    RedditFake,
    SnapFake,
    TikTokFake,
    XFake,
)
from attributary.local.fakes.server import FakeServer
from attributary.local.ports import free_port
from tests.forwarder.forwarder_factories import (
    ACCOUNTS,
    OAUTH_CLIENT,
    ScriptedTransport,
    SimulatedClock,
    account_at,
    conversion,
    destination_at,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from attributary.consumers.destinations.destination import HttpRequest

TOKENS = ["test-token"]
MADE: dict[str, Callable[[], Any]] = {
    "meta": lambda: MetaFake(tokens=TOKENS),
    "ga4": Ga4Fake,
    "tiktok": lambda: TikTokFake(tokens=TOKENS),
    "reddit": lambda: RedditFake(tokens=TOKENS),
    "pinterest": lambda: PinterestFake(tokens=TOKENS),
    "snap": lambda: SnapFake(tokens=TOKENS),
    "linkedin": lambda: LinkedInFake(tokens=TOKENS),
    "google": lambda: GoogleFake(OAuthFake(), actions=["7001"]),
    "bingads": lambda: BingAdsFake(OAuthFake(), goals=["Shop orders"]),
}
CODE = {"test_event_code": "TEST1"}
MORE = {"meta": CODE, "tiktok": CODE, "reddit": CODE}  # what an account needs for a live request
# GA4 checks no secret at its validation endpoint, and Google's credentials are refused at the token endpoint.
BY_TOKEN = [name for name in MADE if name not in {"ga4", "google", "bingads"}]
NO_WAY = ["x", "microsoft"]
BAD = "wrong-token"


def setup(name: str, url: str, secret: str = "", **options: str) -> Setup:
    made = ACCOUNTS[name]
    more = {**made.options, **MORE.get(name, {}), **options}
    account = AccountCredentials(made.name, secret or made.secret, more, made.event_names)
    return Setup(destination_at(name, url), Credentials(name, account), load(ForwardSettings))


def checked(name: str, url: str, secret: str = "", **options: str) -> AccountCheck:
    with HttpTransport(answer_seconds=20.0) as transport:
        (found,) = AccountChecker(setup(name, url, secret, **options), transport, SystemClock()).check()
    return found


def answered(name: str, response: HttpResponse, secret: str = "", **options: str) -> AccountCheck:
    """The check of an account, the platform answers in one way; the token endpoint gives a token."""

    def answer(request: HttpRequest) -> HttpResponse:
        if request.url.endswith("/token"):
            return HttpResponse(200, b'{"access_token": "short-lived-1", "expires_in": 3600}')
        return response

    transport, clock = ScriptedTransport(answer), SimulatedClock(1_795_500_000_000_000)
    (found,) = AccountChecker(setup(name, "https://api.example", secret, **options), transport, clock).check()
    assert transport.requests
    return found


@pytest.mark.parametrize("name", MADE)
def test_a_good_account_is_ok_and_nothing_is_received(name: str) -> None:
    fake = MADE[name]()
    with FakeServer(fake) as server:
        found = checked(name, server.url)
    assert (found.state, found.said[:3], found.tenant) == (CheckState.OK, "200", "*")
    if name == "ga4":
        assert (fake.debug_calls, fake.calls) == (1, 0)
        assert "neither the stream's id nor the API secret" in found.next_step
        return
    assert fake.events()["test_events"] == 1
    # A test event of Meta counts like any other, and the row says so.
    assert fake.events()["events"] == (1 if name == "meta" else 0)
    assert ("Meta counts it as a custom event" in found.next_step) == (name == "meta")


@pytest.mark.parametrize("name", BY_TOKEN)
def test_a_token_that_the_platform_refuses(name: str) -> None:
    fake = MADE[name]()
    with FakeServer(fake) as server:
        found = checked(name, server.url, BAD)
    assert found.state is CheckState.REFUSED
    assert found.next_step.startswith(f"correct {name.upper()}_")
    assert BAD not in "".join(map(str, found))
    assert fake.events()["events"] == 0


def test_googles_refusals_are_told_apart() -> None:
    fake = MADE["google"]()
    with FakeServer(fake) as server:
        revoked = checked("google", server.url, "refresh-0")
        fake.actions = frozenset(("9",))
        wrong_action = checked("google", server.url)
    assert (revoked.state, revoked.said.partition(":")[0]) == (CheckState.REFUSED, "token/invalid_grant")
    assert "authorise again" in revoked.said
    assert wrong_action.state is CheckState.REFUSED
    assert "FORWARD_GOOGLE_ACTIONS" in wrong_action.said
    assert "product_destination_id" in wrong_action.said, "the platform's own words"
    assert fake.events()["events"] == 0


@pytest.mark.parametrize("name", MADE)
def test_a_platform_that_cannot_be_reached(name: str) -> None:
    found = checked(name, f"http://127.0.0.1:{free_port()}")
    assert found.state is CheckState.UNREACHABLE
    assert "ConnectError" in found.said
    assert "FORWARD_PROXY_URL" in found.next_step


@pytest.mark.parametrize("name", [*BY_TOKEN, "google"])
@pytest.mark.parametrize("kind", ["html_502", "http_500", "http_429", "reset_before"])
def test_a_platform_that_is_broken_or_busy_refuses_nobody(name: str, kind: str) -> None:
    fake = MADE[name]()
    fake.script.replace([Fault(kind)])
    with FakeServer(fake) as server:
        found = checked(name, server.url)
    assert fake.script.fired
    assert found.state is CheckState.UNREACHABLE
    assert ("rate limit" in found.said) == (kind == "http_429")


@pytest.mark.parametrize("name", MADE)
@pytest.mark.parametrize("status", [200, 400])
def test_an_answer_that_cannot_be_read_is_no_success(name: str, status: int) -> None:
    assert answered(name, HttpResponse(status, b"<html>Sign in</html>")).state is not CheckState.OK


def test_what_ga4_would_drop_is_a_refusal() -> None:
    messages = [{"fieldPath": "events", "validationCode": "NAME_INVALID", "description": "Event name is bad"}]
    body = json.dumps({"validationMessages": messages}).encode()
    found = answered("ga4", HttpResponse(200, body))
    assert (found.state, found.said) == (
        CheckState.REFUSED, '200/NAME_INVALID: GA4 would drop the event; "events; Event name is bad"',
    )  # fmt: skip


@pytest.mark.parametrize("name", NO_WAY)
def test_a_platform_without_a_harmless_request_is_not_asked(name: str) -> None:
    fake: Any = MicrosoftFake() if name != "x" else XFake(keys=("ck", "cs", "at", "ts"))
    with FakeServer(fake) as server:
        found = checked(name, server.url)
    assert found.state is CheckState.NOT_CHECKED
    assert "has no request that changes nothing; checked: settings, credentials, a token is set" in found.said
    assert fake.events()["calls"] == 0


@pytest.mark.parametrize("name", MORE)
def test_without_a_test_code_the_row_names_the_setting(name: str) -> None:
    fake = MADE[name]()
    with FakeServer(fake) as server:
        found = checked(name, server.url, test_event_code="")
    variable = "REDDIT_TEST_ID" if name == "reddit" else f"{name.upper()}_TEST_EVENT_CODE"
    assert found.state is CheckState.NOT_CHECKED
    assert found.next_step.startswith(f"set {variable} (test_event_code in FORWARD_CREDENTIALS_FILE)")
    assert fake.events()["calls"] == 0


def test_a_token_past_its_last_day_is_refused_and_one_near_it_told() -> None:
    transport = ScriptedTransport(lambda _: HttpResponse(200, b'{"elements": [{"id": 1}]}'))
    clock = SimulatedClock(1_795_500_000_000_000)  # 2026-11-24
    found = {}
    for day in ("2026-11-23", "2026-11-24", "2026-12-24"):
        (found[day],) = AccountChecker(setup("linkedin", "https://a", token_expires=day), transport, clock).check()
    assert found["2026-11-23"].state is CheckState.REFUSED
    assert found["2026-11-23"].said == "not asked: the last day of the token was 2026-11-23"
    assert "the token ends on 2026-11-24: make a new one" in found["2026-11-24"].next_step
    assert found["2026-12-24"].next_step == LinkedInDestination.probe_note
    assert len(transport.requests) == 2


def test_linkedin_lists_rules_and_takes_nothing() -> None:
    transport = ScriptedTransport(lambda _: HttpResponse(200, b'{"elements": []}'))
    clock = SimulatedClock(1_795_500_000_000_000)
    (found,) = AccountChecker(setup("linkedin", "https://a"), transport, clock).check()
    assert (found.state, found.said) == (CheckState.REFUSED, "200: the ad account has no conversion rule")
    url = "https://a/rest/conversions?q=account&account=urn%3Ali%3AsponsoredAccount%3A5001"
    assert [(each.method, each.url, each.body) for each in transport.requests] == [("GET", url, b"")]


def test_an_access_token_is_taken_where_no_request_is_made() -> None:
    oauth = OAuthFake()
    with FakeServer(oauth) as server:
        made = setup("linkedin", server.url, "refresh-1", **OAUTH_CLIENT)
        made.destination._options = destination_at("google", server.url)._options  # type: ignore[attr-defined]
        made.destination.probe = lambda _account, _event: None  # type: ignore[assignment]
        with HttpTransport(answer_seconds=20.0) as transport:
            (good,) = AccountChecker(made, transport, SystemClock()).check()
            oauth.revoke()
            (revoked,) = AccountChecker(made, transport, SystemClock()).check()
    assert good.state is CheckState.NOT_CHECKED
    assert "an access token was given out" in good.said
    assert (revoked.state, revoked.said.partition(":")[0]) == (CheckState.REFUSED, "token/invalid_grant")


def test_a_refresh_token_that_is_replaced_is_kept_or_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with ExitStack() as stack:
        first = stack.enter_context(FakeServer(GoogleFake(OAuthFake(rotates=True))))
        second = stack.enter_context(FakeServer(GoogleFake(OAuthFake(rotates=True))))
        lost = checked("google", first.url)
        monkeypatch.setenv("FORWARD_TOKEN_DIR", str(tmp_path))
        kept, again = checked("google", second.url), checked("google", second.url)
    assert "set FORWARD_TOKEN_DIR" in lost.next_step
    assert [(each.state, each.next_step) for each in (kept, again)] == [(CheckState.OK, "")] * 2
    assert list(tmp_path.glob("*.json"))


@pytest.mark.parametrize("name", MADE)
def test_no_secret_address_or_length_of_an_answer_shows(name: str) -> None:
    secret = 'S3cret+/"=~x'
    echo = f"{secret} S3cret%2B%2F%22%3D~x jane.doe@example.com jane%40example.com {'0a' * 32} short-lived-1 "
    bodies: list[Any] = [
        {"error": {"code": 100, "message": echo}, "code": 40002, "message": echo, "status": "INVALID", "reason": echo},
        {"validationMessages": [{"validationCode": "NAME_INVALID", "description": echo + "y" * 50_000}], "status": 1},
    ]
    for body in bodies:
        found = answered(name, HttpResponse(400, json.dumps(body).encode()), secret, client_secret="c1-hidden")
        shown = " ".join(map(str, found))
        access_token = "short-lived" if name == "google" else "test-token"
        for text in ("S3cret", "jane", "example.com", "0a0a", access_token, "c1-hidden"):
            assert text not in shown, (text, shown)
        assert found.state is not CheckState.OK
        assert len(found.said) < 400


@pytest.mark.parametrize("name", NAMES)
def test_a_probe_is_never_the_request_that_delivers(name: str) -> None:
    now = 1_795_500_000_000_000
    for more in ({}, CODE):
        account = account_at(name, **more)
        destination = destination_at(name, "https://api.example")
        event = destination.build(conversion(now), account, Moment(now, now))
        assert isinstance(event, PreparedEvent)
        probe, real = destination.probe(account, event), destination.request(account_at(name), [event])
        assert probe is None or (probe.url, probe.body) != (real.url, real.body)


def test_an_account_of_several_tenants_is_asked_about_once() -> None:
    fake = PinterestFake(tokens=TOKENS)
    one, other = ACCOUNTS["pinterest"], AccountCredentials("77", BAD, {})
    tenants = {"acme": [one], "globex": [other, one], "*": [one]}
    with FakeServer(fake) as server, HttpTransport(answer_seconds=20.0) as transport:
        made = Setup(
            destination_at("pinterest", server.url), Credentials("pinterest", None, tenants), load(ForwardSettings)
        )
        found = AccountChecker(made, transport, SystemClock()).check()
    assert [(each.tenant, each.account, each.state.value) for each in found] == [
        ("acme", "5490", "ok"), ("globex", "77", "refused"), ("globex", "5490", "ok"), ("*", "5490", "ok"),
    ]  # fmt: skip
    assert fake.events()["calls"] == 2
