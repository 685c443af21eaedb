"""Access tokens of OAuth 2: grants, what a token endpoint answers, one refresh at a time, tokens that end early."""

from __future__ import annotations

import json
import stat
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from attributary.consumers.destinations import metrics
from attributary.consumers.destinations.ad_platform import PlatformOptions
from attributary.consumers.destinations.attempts import SenderOptions
from attributary.consumers.destinations.catalog import read_setup
from attributary.consumers.destinations.credentials import AccountCredentials, Credentials, load_credentials
from attributary.consumers.destinations.destination import DeliveryResponse, HttpResponse, ResponseClass
from attributary.consumers.destinations.linkedin.destination import LinkedInDestination
from attributary.consumers.destinations.memory_ledger import MemoryLedger
from attributary.consumers.destinations.oauth2.access_tokens import AccessTokens
from attributary.consumers.destinations.oauth2.grants import RefreshTokenGrant, Token, read_token
from attributary.consumers.destinations.oauth2.service_account import ServiceAccountGrant, service_account_fields
from attributary.consumers.destinations.oauth2.token_files import TokenFiles
from attributary.consumers.destinations.sender import BatchSender
from attributary.consumers.destinations.transport import HttpTransport
from attributary.consumers.forwarder.stage import ForwarderStage, Route
from attributary.consumers.runtime.errors import ConfigError, Retry
from attributary.local.fakes import Fault, LinkedInFake, OAuthFake
from attributary.local.fakes.server import FakeServer
from tests.forwarder.forwarder_factories import ScriptedTransport, SimulatedClock, conversion, records

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

START = 1_795_500_000_000_000
FIRST = "refresh-1"
SECRETS = ("refresh-1", "client-secret", "access-", "PRIVATE KEY")


def refresh_grant(url: str = "https://auth.example", refresh_token: str = FIRST) -> RefreshTokenGrant:
    return RefreshTokenGrant(f"{url}/token", "client-1", "client-secret", refresh_token)


@pytest.fixture(scope="module")
def key() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(65_537, 2_048)


def pem(private: Any) -> str:
    text: str = private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
    return text


def public_pem(private: rsa.RSAPrivateKey) -> str:
    return private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()


@pytest.fixture
def fake(clock: SimulatedClock) -> OAuthFake:
    made = OAuthFake(life_seconds=3_600)
    follow(made, clock)
    return made


def follow(fake: OAuthFake, clock: SimulatedClock) -> None:
    """The stand-in's time is the simulated one."""
    fake.time = lambda: clock.now_micros() / 1e6


@pytest.fixture
def server(fake: OAuthFake) -> Iterator[FakeServer]:
    with FakeServer(fake) as running:
        yield running


@pytest.fixture
def tokens(clock: SimulatedClock) -> Iterator[AccessTokens]:
    transport = HttpTransport(answer_seconds=20.0)
    yield AccessTokens("linkedin", transport, clock)
    transport.close()


def test_a_token_is_used_until_little_of_its_life_is_left(
    fake: OAuthFake, server: FakeServer, tokens: AccessTokens, clock: SimulatedClock
) -> None:
    grant = refresh_grant(server.url)
    first = tokens.get(grant)
    assert isinstance(first, str)
    assert fake.is_live(first)
    clock.sleep(3_299)
    assert tokens.get(grant) == first
    clock.sleep(2)
    second = tokens.get(grant)
    assert second != first
    assert fake.received.calls == 2


@pytest.mark.parametrize(("life", "used"), [(10, 8), (600, 480), (86_400, 86_100)])
def test_a_short_life_keeps_a_fifth_back_and_a_long_one_five_minutes(
    life: int, used: int, fake: OAuthFake, server: FakeServer, tokens: AccessTokens, clock: SimulatedClock
) -> None:
    fake.life_seconds = life
    first = tokens.get(refresh_grant(server.url))
    clock.sleep(used - 0.5)
    assert tokens.get(refresh_grant(server.url)) == first
    clock.sleep(1)
    assert tokens.get(refresh_grant(server.url)) != first


def test_many_threads_and_accounts_with_one_authorisation_ask_once(
    fake: OAuthFake, server: FakeServer, tokens: AccessTokens
) -> None:
    fake.script.replace([Fault("slow", times=1, seconds=0.2)])
    begin = threading.Barrier(16)

    def ask() -> Any:
        begin.wait(30)
        return tokens.get(refresh_grant(server.url))

    with ThreadPoolExecutor(16) as pool:
        found = [future.result() for future in [pool.submit(ask) for _ in range(16)]]
    assert len(set(found)) == 1
    assert (fake.received.calls, fake.most_at_once) == (1, 1)


def test_a_failure_is_shared_too_and_the_platform_is_not_asked_by_every_thread(
    fake: OAuthFake, server: FakeServer, tokens: AccessTokens, clock: SimulatedClock
) -> None:
    fake.script.replace([Fault("http_500", share=1.0)])
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda _: tokens.get(refresh_grant(server.url)), range(8)))
    assert {getattr(answer, "response_class", None) for answer in found} == {ResponseClass.RETRY}
    assert fake.received.calls == 1
    fake.script.replace([])
    clock.sleep(2.1)
    assert isinstance(tokens.get(refresh_grant(server.url)), str)


@pytest.mark.parametrize(
    ("kind", "expected", "code"),
    [
        ("http_500", ResponseClass.RETRY, "token/500"),
        ("html_502", ResponseClass.RETRY, "token/502"),
        ("busy", ResponseClass.RETRY, "token/temporarily_unavailable"),
        ("html_200", ResponseClass.RETRY, "token/200/unreadable"),
        ("no_token", ResponseClass.RETRY, "token/200/unreadable"),
        ("cut", ResponseClass.RETRY, "token/200/unreadable"),
        ("reset_after", ResponseClass.RETRY, "token/0/RemoteProtocolError"),
        ("http_429", ResponseClass.THROTTLED, "token/429"),
        ("invalid_grant", ResponseClass.ACCOUNT_STOPPED, "token/invalid_grant"),
        ("invalid_client", ResponseClass.ACCOUNT_STOPPED, "token/invalid_client"),
        ("invalid_scope", ResponseClass.ACCOUNT_STOPPED, "token/invalid_scope"),
    ],
)
def test_each_fault_of_the_token_endpoint_has_its_class_and_says_no_secret(
    kind: str,
    expected: ResponseClass,
    code: str,
    fake: OAuthFake,
    server: FakeServer,
    tokens: AccessTokens,
    capsys: pytest.CaptureFixture[str],
) -> None:
    fake.script.replace([Fault(kind, times=1)])
    found = tokens.get(refresh_grant(server.url))
    assert isinstance(found, DeliveryResponse)
    assert fake.script.fired == {kind: 1}
    if code.startswith("token/0/"):
        assert found.code in {code, "token/0/ReadError"}
    else:
        assert found.code == code
    assert found.response_class is expected
    said = capsys.readouterr().out + repr(found) + repr(refresh_grant(server.url))
    assert not any(secret in said for secret in SECRETS)


def test_an_answer_without_a_life_is_good_for_an_hour(
    fake: OAuthFake, server: FakeServer, tokens: AccessTokens, clock: SimulatedClock
) -> None:
    fake.script.replace([Fault("no_expiry", times=1)])
    first = tokens.get(refresh_grant(server.url))
    clock.sleep(3_299)
    assert tokens.get(refresh_grant(server.url)) == first


def test_what_is_left_of_a_token_is_used_while_the_endpoint_is_away(
    fake: OAuthFake, server: FakeServer, tokens: AccessTokens, clock: SimulatedClock
) -> None:
    first = tokens.get(refresh_grant(server.url))
    clock.sleep(3_400)
    fake.script.replace([Fault("html_502", share=1.0)])
    assert tokens.get(refresh_grant(server.url)) == first
    clock.sleep(199)
    assert tokens.get(refresh_grant(server.url)) == first
    clock.sleep(2)
    found = tokens.get(refresh_grant(server.url))
    assert isinstance(found, DeliveryResponse)
    assert found.response_class is ResponseClass.RETRY


def test_a_token_that_the_platform_refused_is_replaced_once_for_all_threads(
    fake: OAuthFake, server: FakeServer, tokens: AccessTokens
) -> None:
    grant = refresh_grant(server.url)
    first = tokens.get(grant)
    assert isinstance(first, str)
    fake.end_all()
    with ThreadPoolExecutor(8) as pool:
        found = set(pool.map(lambda _: tokens.renew(grant, first), range(8)))
    assert len(found) == 1
    assert first not in found
    assert fake.received.calls == 2


def test_a_refresh_token_that_is_replaced_is_on_the_disk_before_its_token_is_used(
    clock: SimulatedClock, tmp_path: Path
) -> None:
    fake = OAuthFake(rotates=True)
    follow(fake, clock)
    with FakeServer(fake) as server, HttpTransport() as transport:
        grant = refresh_grant(server.url)
        for _ in range(3):  # each is a process of its own: nothing is remembered but the file
            found = AccessTokens("linkedin", transport, clock, TokenFiles(tmp_path)).get(grant)
            assert isinstance(found, str)
            assert fake.is_live(found)
    [path] = tmp_path.glob("*.json")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert path.stem == grant.key
    assert json.loads(path.read_text())["refresh_token"] in fake._refresh


def test_without_a_folder_a_replaced_refresh_token_is_remembered_and_a_warning_says_so(
    clock: SimulatedClock, capsys: pytest.CaptureFixture[str]
) -> None:
    fake = OAuthFake(rotates=True)
    follow(fake, clock)
    with FakeServer(fake) as server, HttpTransport() as transport:
        tokens = AccessTokens("linkedin", transport, clock)
        for _ in range(3):
            assert isinstance(tokens.get(refresh_grant(server.url)), str)
            clock.sleep(3_500)
    said = capsys.readouterr().out
    assert said.count("set FORWARD_TOKEN_DIR") == 1
    assert "refresh-" not in said


def test_a_folder_that_cannot_be_written_keeps_the_events_and_the_token_unused(
    clock: SimulatedClock, tmp_path: Path
) -> None:
    fake = OAuthFake(rotates=True)
    with FakeServer(fake) as server, HttpTransport() as transport:
        grant = refresh_grant(server.url)
        (tmp_path / f"{grant.key}.json").mkdir()
        found = AccessTokens("linkedin", transport, clock, TokenFiles(tmp_path)).get(grant)
    assert isinstance(found, DeliveryResponse)
    assert (found.response_class, found.code) == (ResponseClass.RETRY, "token/folder")
    assert fake.received.calls == 0


def test_two_grants_do_not_wait_for_each_other(clock: SimulatedClock) -> None:
    entered, leave = threading.Event(), threading.Event()

    def answer(request: Any) -> HttpResponse:
        if b"refresh-slow" in request.body:
            entered.set()
            assert leave.wait(30)
        return HttpResponse(200, b'{"access_token":"t","expires_in":3600}')

    tokens = AccessTokens("linkedin", ScriptedTransport(answer), clock)
    with ThreadPoolExecutor(1) as pool:
        slow = pool.submit(tokens.get, refresh_grant(refresh_token="refresh-slow"))
        assert entered.wait(30)
        assert tokens.get(refresh_grant()) == "t"
        leave.set()
        assert slow.result(30) == "t"


def test_the_form_of_a_refresh_is_that_of_the_standard() -> None:
    request = refresh_grant().request(0, None)
    assert request.headers["content-type"] == "application/x-www-form-urlencoded"
    assert parse_qs(request.body.decode()) == {
        "grant_type": ["refresh_token"],
        "refresh_token": ["refresh-1"],
        "client_id": ["client-1"],
        "client_secret": ["client-secret"],
    }
    assert "refresh-1" not in repr(request)


def test_a_service_account_signs_an_assertion_that_the_platform_verifies(
    key: rsa.RSAPrivateKey, clock: SimulatedClock
) -> None:
    fake = OAuthFake(public_key=public_pem(key))
    follow(fake, clock)
    with FakeServer(fake) as server, HttpTransport() as transport:
        tokens = AccessTokens("googledm", transport, clock)
        grant = ServiceAccountGrant(f"{server.url}/token", "s@p.iam.gserviceaccount.com", pem(key), "k1", "scope-1")
        assert isinstance(tokens.get(grant), str)
        other = ServiceAccountGrant(
            f"{server.url}/token", "s@p.example", pem(rsa.generate_private_key(65_537, 2_048)), "k1", "scope-1"
        )
        refused = tokens.get(other)
        assert isinstance(refused, DeliveryResponse)
        assert (refused.response_class, refused.code) == (ResponseClass.ACCOUNT_STOPPED, "token/invalid_grant")
        assert "clock" in refused.reason
    assert "PRIVATE" not in repr(grant)


def test_a_clock_that_is_wrong_by_an_hour_stops_the_account(key: rsa.RSAPrivateKey, clock: SimulatedClock) -> None:
    fake = OAuthFake(public_key=public_pem(key))
    with FakeServer(fake) as server, HttpTransport() as transport:
        fake.clock_offset = clock.now_micros() / 1e6 - fake.now - 3_700
        grant = ServiceAccountGrant(f"{server.url}/token", "s@p.example", pem(key), "", "scope-1")
        found = AccessTokens("googledm", transport, clock).get(grant)
    assert isinstance(found, DeliveryResponse)
    assert found.response_class is ResponseClass.ACCOUNT_STOPPED


def test_a_key_file_is_checked_without_showing_it(key: rsa.RSAPrivateKey) -> None:
    document = {"type": "service_account", "client_email": "s@p.example", "private_key": pem(key)}
    document |= {"private_key_id": "k1", "token_uri": "https://oauth2.googleapis.com/token"}
    assert service_account_fields(json.dumps(document))["client_email"] == "s@p.example"
    curve = pem(ec.generate_private_key(ec.SECP256R1()))
    for broken in (
        "no json", "[]",
        json.dumps({**document, "type": "authorized_user"}), json.dumps({**document, "client_email": 1}),
        json.dumps({**document, "private_key": "never-shown"}), json.dumps({**document, "private_key": curve}),
    ):  # fmt: skip
        with pytest.raises(ValueError, match="must be a service account's key") as caught:
            service_account_fields(broken)
        assert "never-shown" not in str(caught.value)
        assert "PRIVATE" not in str(caught.value)


@pytest.mark.parametrize(
    "body",
    [b"", b"null", b"[]", b"{}", b'{"access_token":7}', b'{"access_token":"a b"}', b'{"access_token":""}',
     b'{"access_token":"\xc3\xa4"}', b'{"error":{"code":400}}', b'{"error":"\\ud800"}', b"\xff"],
)  # fmt: skip
@pytest.mark.parametrize("status", [0, 200, 204, 301, 400, 401, 403, 404, 429, 500, 503])
def test_no_answer_of_a_token_endpoint_raises_or_leaves_events_in_doubt(body: bytes, status: int) -> None:
    found = read_token(HttpResponse(status, body, fault="ReadError" if not status else None), refresh_grant())
    assert isinstance(found, DeliveryResponse)
    assert found.response_class in {ResponseClass.RETRY, ResponseClass.THROTTLED, ResponseClass.ACCOUNT_STOPPED}
    assert found.code.startswith("token/")


@pytest.mark.parametrize(
    ("life", "seconds"),
    [
        ("3599", 3_599.0), (3_599.5, 3_599.5), (0, 3_600.0), (-1, 3_600.0), (True, 3_600.0), ("x", 3_600.0),
        (1e99, 400 * 86_400.0),
    ],
)  # fmt: skip
def test_the_life_of_a_token_is_read_however_it_is_written(life: Any, seconds: float) -> None:
    found = read_token(
        HttpResponse(200, json.dumps({"access_token": "t", "expires_in": life}).encode()), refresh_grant()
    )
    assert found == Token("t", seconds)


def test_the_end_of_a_refresh_token_is_shown_and_warned_of(
    fake: OAuthFake, server: FakeServer, tokens: AccessTokens, clock: SimulatedClock, capsys: pytest.CaptureFixture[str]
) -> None:
    fake.refresh_life_seconds = 30 * 86_400
    tokens.get(refresh_grant(server.url))
    clock.sleep(100)
    [gauge] = metrics.forward_refresh_token_left_seconds.labels("linkedin").collect()
    assert gauge.samples[0].value == 30 * 86_400 - 100
    assert "ends soon" not in capsys.readouterr().out
    fake.refresh_life_seconds = 13 * 86_400
    clock.sleep(3_600)
    tokens.get(refresh_grant(server.url))
    assert "the refresh token ends soon" in capsys.readouterr().out


# LinkedIn on refresh tokens, through the whole stage.

LINKEDIN = AccountCredentials(
    "5001", "refresh-1", {"client_id": "client-1", "client_secret": "client-secret"}, {"purchase": "104012"}
)


class _Guarded(LinkedInFake):
    """LinkedIn's side with tokens of the token endpoint."""

    def __init__(self, oauth: OAuthFake) -> None:
        super().__init__()
        self.oauth = oauth

    def check_call(self, call: Any) -> Any:
        self._tokens = frozenset(token for token in self.oauth._ends if self.oauth.is_live(token)) or frozenset(("-",))
        return super().check_call(call)


def linkedin_stage(
    url: str, token_url: str, clock: SimulatedClock, ledger: MemoryLedger, concurrency: int = 1
) -> ForwarderStage:
    destination = LinkedInDestination(PlatformOptions(base_url=url, token_url=f"{token_url}/token"))
    sender = BatchSender(
        destination, HttpTransport(answer_seconds=20.0), ledger, SenderOptions(concurrency=concurrency), clock
    )
    return ForwarderStage(Route(destination, Credentials("linkedin", LINKEDIN)), sender, ledger, clock)


def test_a_token_that_ends_on_the_way_costs_one_more_request_and_no_event(
    fake: OAuthFake, server: FakeServer, clock: SimulatedClock
) -> None:
    platform, ledger, now = _Guarded(fake), MemoryLedger(), clock.now_micros()
    with FakeServer(platform) as running:
        stage = linkedin_stage(running.url, server.url, clock, ledger)
        for first in range(0, 100, 20):
            stage.handle(records([conversion(now) for _ in range(20)], now_micros=now, first=first))
            fake.end_all()
        stage.close()
    assert len(platform.received.by_key) == 100
    assert set(platform.received.by_key.values()) == {1}
    assert (platform.received.calls, fake.received.calls) == (9, 5)
    assert {row.state.value for row in ledger.rows.values()} == {"sent"}


def test_a_revoked_authorisation_stops_the_account_keeps_events_and_says_what_to_do(
    fake: OAuthFake, server: FakeServer, clock: SimulatedClock, capsys: pytest.CaptureFixture[str]
) -> None:
    platform, ledger, now = _Guarded(fake), MemoryLedger(), clock.now_micros()
    fake.revoke()
    with FakeServer(platform) as running:
        stage = linkedin_stage(running.url, server.url, clock, ledger)
        batch = records([conversion(now) for _ in range(10)], now_micros=now)
        with pytest.raises(Retry, match="the refresh token is revoked or has ended: authorise again"):
            stage.handle(batch)
        assert stage._sender.stopped_accounts() == 1
        assert {row.state.value for row in ledger.rows.values()} == {"pending"}
        assert not any(row.in_flight for row in ledger.rows.values()), "nothing is in doubt: nothing was sent"
        fake._refresh = {"refresh-1"}
        clock.sleep(61)
        stage.handle(batch)
        stage.close()
    assert len(platform.received.by_key) == 10
    said = capsys.readouterr().out
    assert "token/invalid_grant" in said
    assert not any(secret in said for secret in SECRETS)


def test_an_hour_without_token_endpoint_loses_nothing(
    fake: OAuthFake, server: FakeServer, clock: SimulatedClock
) -> None:
    platform, ledger, now = _Guarded(fake), MemoryLedger(), clock.now_micros()
    fake.script.replace([Fault("html_502", share=1.0)])
    with FakeServer(platform) as running:
        stage = linkedin_stage(running.url, server.url, clock, ledger)
        batch = records([conversion(now) for _ in range(40)], now_micros=now)
        while clock.now_micros() - now < 3_600_000_000:
            with pytest.raises(Retry) as caught:
                stage.handle(batch)
            clock.sleep(caught.value.after_seconds + 0.01)
        assert platform.received.calls == 0
        assert fake.script.fired["html_502"] > 3
        fake.script.replace([])
        clock.sleep(61)
        stage.handle(batch)
        stage.close()
    assert {row.state.value for row in ledger.rows.values()} == {"sent"}


def test_the_settings_take_a_refresh_token_with_its_application(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("LINKEDIN_AD_ACCOUNT_ID", "5001")
    monkeypatch.setenv("LINKEDIN_REFRESH_TOKEN", "refresh-1")
    with pytest.raises(ConfigError, match="LINKEDIN_CLIENT_ID: must be set when LINKEDIN_REFRESH_TOKEN is"):
        read_setup("linkedin")
    monkeypatch.setenv("LINKEDIN_CLIENT_ID", "client-1")
    monkeypatch.setenv("LINKEDIN_CLIENT_SECRET", "client-secret")
    monkeypatch.setenv("LINKEDIN_ACCESS_TOKEN", "not-used")
    monkeypatch.setenv("FORWARD_TOKEN_DIR", str(tmp_path))
    setup = read_setup("linkedin")
    [(_, account)] = setup.credentials.listed()
    grant = setup.destination.grant(account)  # type: ignore[attr-defined]
    assert (grant.token_url, grant.client_id) == ("https://www.linkedin.com/oauth/v2/accessToken", "client-1")
    assert account.secret == "refresh-1"
    monkeypatch.setenv("FORWARD_TOKEN_DIR", str(tmp_path / "missing"))
    with pytest.raises(ConfigError, match="FORWARD_TOKEN_DIR: must be a folder"):
        read_setup("linkedin")


def test_a_credentials_file_with_half_an_application_names_the_field(tmp_path: Path) -> None:
    path = tmp_path / "credentials.json"
    for account, said in (
        ({"refresh_token": "r"}, "client_id and client_secret must be set beside refresh_token"),
        ({"access_token": "a", "client_id": "c"}, "refresh_token must be set beside client_id"),
    ):
        path.write_text(json.dumps({"tenants": {"acme": {"linkedin": {"ad_account_id": "1"} | account}}}))
        with pytest.raises(ConfigError, match=said):
            load_credentials("linkedin", None, str(path))
