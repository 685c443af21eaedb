"""Keys, origins and rates: who may send, what a page of another origin learns, and how keys are made and ended."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Iterator
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from attributary.cli.main import app
from attributary.producers.collector.addresses import client_address, kept_address, limit_name, parse_address
from attributary.producers.collector.keys import KeyRing, KeysError, key_of, load_keys, new_key, origin_of
from attributary.producers.collector.rate_limit import TokenBuckets
from tests.fixtures.collector import (
    CONVERSION,
    EVENT,
    PAGE,
    RunningCollector,
    make_key,
    purchase,
    running_collector,
    touch,
    wait_until,
)


@pytest.fixture(scope="module")
def collector(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningCollector]:
    folder: Path = tmp_path_factory.mktemp("collector")
    with running_collector(folder) as running:
        running.keys["events"] = make_key(folder / "keys.json", "sk", scopes=("event",))
        running.keys["ended"] = make_key(folder / "keys.json", "sk", expires_at=int(time.time()) - 1)
        wait_until(lambda: running.post(touch(), key="events").status == 200, "the new keys are known")
        yield running


@pytest.mark.parametrize(
    ("key", "headers", "status"),
    [
        ("", {}, 401),
        ("wk_" + "x" * 43, {}, 401),
        ("ended", {}, 401),
        ("", {"Authorization": "Basic !!!"}, 401),
        ("", {"Authorization": "Bearer"}, 401),
        ("", {"Authorization": "Bearer \xff\xfe"}, 401),
        ("", {"Authorization": "Digest abc"}, 401),
        ("wk", {"Origin": "https://evil.example"}, 403),
        ("wk", {"Origin": "null"}, 403),
        ("wk", {"Origin": PAGE + ".evil.example"}, 403),
        ("wk", {"Origin": PAGE.replace("https", "http")}, 403),
        ("wk", {"Origin": PAGE + ":8443"}, 403),
        ("wk", {"Origin": PAGE.replace("www.", "")}, 403),
        ("wk", {"Origin": PAGE.upper()}, 403),
        ("sk", {"Origin": PAGE}, 403),
        ("wk", {"Origin": PAGE}, 200),
        ("wk", {}, 200),
    ],
)
def test_keys_and_origins(collector: RunningCollector, key: str, headers: dict[str, str], status: int) -> None:
    answer = collector.post(touch(), key=key, headers=headers)
    assert answer.status == status
    if status == 401:
        assert answer.headers["WWW-Authenticate"]
    allowed = answer.headers["Access-Control-Allow-Origin"]
    assert allowed == (PAGE if headers.get("Origin") == PAGE else None)
    assert answer.headers["Vary"] == "Origin"


def test_keys_in_the_url_and_as_a_user_name(collector: RunningCollector) -> None:
    def sent(query: str, headers: dict[str, str]) -> int:
        body = json.dumps(touch()).encode()
        return collector.request("POST", EVENT + query, body, headers).status

    basic = {"Authorization": "Basic " + base64.b64encode(f"{collector.keys['sk']}:".encode()).decode()}
    bearer = {"Authorization": f"Bearer {collector.keys['wk']}"}
    assert sent(f"?k={collector.keys['wk']}", {}) == 200
    assert sent(f"?k={collector.keys['sk']}", {}) == 401  # it would stand in every access log
    assert sent("", basic) == 200
    assert sent(f"?k={collector.keys['wk']}", bearer) == 200
    assert sent("?k=wk_other", bearer) == 401


def test_a_scope_that_is_missing(collector: RunningCollector) -> None:
    assert collector.post(touch(), key="events").status == 200
    assert collector.post(purchase(), key="events", path=CONVERSION).status == 403


def test_a_preflight_is_answered_for_allowed_origins_only(collector: RunningCollector) -> None:
    asked = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "content-type"}
    allowed = collector.request("OPTIONS", EVENT, headers={**asked, "Origin": PAGE})
    assert allowed.status == 204
    assert allowed.headers["Access-Control-Allow-Origin"] == PAGE
    assert allowed.headers["Access-Control-Allow-Credentials"] == "true"
    assert int(allowed.headers["Access-Control-Max-Age"]) >= 600
    assert "authorization" in allowed.headers["Access-Control-Allow-Headers"]
    for origin in ("https://evil.example", "null", "*"):
        refused = collector.request("OPTIONS", EVENT, headers={**asked, "Origin": origin})
        assert refused.status == 403
        assert refused.headers["Access-Control-Allow-Origin"] is None


def test_errors_can_be_read_by_the_page(collector: RunningCollector) -> None:
    page = {"Origin": PAGE}
    answers = [
        collector.post(b"[", key="wk", headers=page),
        collector.post(b"x" * (2 << 20), key="wk", headers=page),
        collector.post(touch(), key="wk_" + "y" * 43, headers=page),
        collector.post(touch(), key="wk", headers={**page, "Content-Encoding": "br"}),
        collector.post(touch(), key="wk", headers={**page, "Content-Type": "application/xml"}),
    ]
    assert [answer.status for answer in answers] == [400, 413, 401, 415, 415]
    assert {answer.headers["Access-Control-Allow-Origin"] for answer in answers} == {PAGE}


def test_rates_by_key_and_by_address_say_when_to_come_again(tmp_path: Path) -> None:
    trusted = (ip_network("127.0.0.0/8"),)
    with running_collector(
        tmp_path, requests_per_second=0.0, requests_per_second_ip=0.4, trusted_proxies=trusted
    ) as running:
        slow = running.keys["slow"] = make_key(tmp_path / "keys.json", "sk", requests_per_second=0.4)
        wait_until(lambda: running.post(touch(), key=slow).status == 200, "the key is known")

        def statuses(key: str, hops: list[str]) -> list[int]:
            return [running.post(touch(), key=key, headers={"X-Forwarded-For": hop}).status for hop in hops]

        # A burst of two is allowed: 5 seconds' worth of 0.4 a second.
        assert statuses("wk", ["203.0.113.1"] * 3) == [200, 200, 429]
        assert statuses("wk", ["6.6.6.6, 203.0.113.1"]) == [429]  # the left end is the client's own text
        assert statuses("wk", ["2001:db8:1:2::1", "2001:db8:1:2::2", "2001:db8:1:2:ffff::"]) == [200, 200, 429]
        assert statuses("wk", ["2001:db8:1:3::1"]) == [200]
        assert statuses("sk", ["203.0.113.1"] * 5) == [200] * 5  # servers are limited by key alone
        assert statuses("slow", ["203.0.113.9"] * 2) == [200, 429]
        refused = running.post(touch(), key="slow")
        assert 1 <= int(refused.headers["Retry-After"]) <= 3


def test_a_forged_address_of_an_untrusted_peer_is_not_believed(tmp_path: Path) -> None:
    with running_collector(tmp_path, requests_per_second_ip=0.2) as running:
        hops = [f"203.0.113.{number}" for number in range(3)]
        said = [running.post(touch(), key="wk", headers={"X-Forwarded-For": hop}).status for hop in hops]
        assert said == [200, 429, 429]


@pytest.mark.parametrize(
    ("peer", "forwarded", "found"),
    [
        ("10.0.0.1", ["1.1.1.1"], "1.1.1.1"),
        ("10.0.0.1", ["6.6.6.6, 1.1.1.1"], "1.1.1.1"),
        ("10.0.0.1", ["6.6.6.6", "1.1.1.1, 10.0.0.2"], "1.1.1.1"),
        ("10.0.0.1", ["1.1.1.1, junk, 10.0.0.2"], "10.0.0.2"),
        ("10.0.0.1", [""], "10.0.0.1"),
        ("10.0.0.1", [], "10.0.0.1"),
        ("9.9.9.9", ["1.1.1.1"], "9.9.9.9"),
        ("10.0.0.1", ["1.1.1.1:8080"], "1.1.1.1"),
        ("10.0.0.1", ["[2001:db8::1]:443"], "2001:db8::1"),
        ("10.0.0.1", ["::ffff:1.1.1.1"], "1.1.1.1"),
        (None, ["1.1.1.1"], "1.1.1.1"),
        ("10.0.0.1", ["1" * 100_000], "10.0.0.1"),
    ],
)
def test_the_clients_address(peer: str | None, forwarded: list[str], found: str) -> None:
    assert client_address(peer, forwarded, (ip_network("10.0.0.0/8"),)) == ip_address(found)


@given(st.text(max_size=80))
def test_any_text_is_an_address_or_none(text: str) -> None:
    address = parse_address(text)
    assert address is None or kept_address(address, "full") == str(address)


def test_addresses_are_cut_and_limited_by_network() -> None:
    six, four = parse_address("2001:db8:1:2:3::4"), parse_address("203.0.113.7")
    assert (kept_address(six, "cut"), kept_address(four, "cut")) == ("2001:db8:1::", "203.0.113.0")
    assert limit_name(six) == limit_name(parse_address("2001:db8:1:2:ffff::"))
    assert limit_name(six) != limit_name(parse_address("2001:db8:1:3::"))


def test_the_limiter_holds_a_million_addresses_in_bounded_memory() -> None:
    buckets = TokenBuckets(1.0, max_buckets=1_000)
    for number in range(20_000):
        assert buckets.take(str(number), 0.0) == 0.0
    assert len(buckets) == 1_000


@given(st.lists(st.floats(0, 2, allow_nan=False), max_size=60), st.floats(0.1, 50))
def test_no_bucket_gives_more_than_its_rate_and_burst(pauses: list[float], rate: float) -> None:
    buckets = TokenBuckets(rate)
    now, taken = 0.0, 0
    for pause in pauses:
        now += pause
        wait = buckets.take("a", now)
        assert wait <= 1 / rate + 1e-6
        taken += not wait
    assert taken <= max(1.0, 5 * rate) + now * rate + 1e-6


def test_keys_are_made_listed_replaced_and_ended(tmp_path: Path) -> None:
    file = tmp_path / "keys.json"
    runner = CliRunner(env={"COLLECT_KEYS_FILE": str(file)})

    def run(*arguments: str) -> Any:
        return runner.invoke(app, ["collect", "keys", *arguments])

    first = run("new", "--tenant", "acme", "--origin", PAGE + "/", "--consent", "ad_storage=true")
    assert first.exit_code == 0
    token = first.stdout.strip()
    assert token.startswith("wk_")
    assert token not in file.read_text()
    assert file.stat().st_mode & 0o777 == 0o600
    [key] = load_keys(file)
    assert (key.origins, key.consent, key.tenant) == ((PAGE,), {"ad_storage": True}, "acme")

    second = run("new", "--tenant", "acme", "--origin", PAGE, "--replaces", key.key_id, "--overlap-days", "1")
    ring = KeyRing(file)
    now = time.time()
    for live in (token, second.stdout.strip()):
        assert ring.find(live, now)
    assert ring.find(token, now + 2 * 86_400) is None
    assert run("revoke", key.key_id).exit_code == 0
    assert ring.refresh()
    assert ring.find(token, now) is None
    assert ring.find(second.stdout.strip(), now)
    listed = run("list").stdout
    assert "revoked" in listed
    assert "in force" in listed
    assert "wk_" not in listed

    assert run("revoke", "ffffffff").exit_code == 2
    assert run("new", "--tenant", "Acme!").exit_code == 2
    assert run("new", "--tenant", "acme", "--scope", "read").exit_code == 2  # not for a key that stands in pages
    assert run("new", "--tenant", "acme", "--consent", "maybe").exit_code == 2
    assert len(load_keys(file)) == 2


def test_a_file_that_breaks_a_rule_never_replaces_the_keys_in_use(tmp_path: Path) -> None:
    with running_collector(tmp_path) as running:
        (tmp_path / "keys.json").write_text('{"version": 1, "keys": [{"kind": "wk"}]}')
        ring_read_again = make_key(tmp_path / "other.json", "sk")
        time.sleep(1.2)
        assert running.post(touch()).status == 200
        (tmp_path / "other.json").replace(tmp_path / "keys.json")
        wait_until(lambda: running.post(touch(), key=ring_read_again).status == 200, "the right file is used")
        assert running.post(touch()).status == 401


@pytest.mark.parametrize(
    "change",
    [
        {"tenant": "Acme!"}, {"kind": "ak"}, {"sha256": "x"}, {"key_id": 3}, {"scopes": []}, {"scopes": ["admin"]},
        {"scopes": "event"}, {"origins": ["https://*.example"]}, {"origins": ["shop.example"]},
        {"origins": ["https://shop.example/path"]}, {"redirect_hosts": ["com"]}, {"redirect_hosts": ["a/b"]},
        {"consent": {"ad_storage": "yes"}}, {"expires_at": "soon"}, {"revoked_at": True}, {"more": 1}, {"label": None},
    ],
)  # fmt: skip
def test_an_entry_that_breaks_a_rule_is_named(tmp_path: Path, change: dict[str, Any]) -> None:
    _, key = new_key("wk", "acme", now=0, origins=[PAGE])
    entry = {"key_id": key.key_id, "sha256": key.sha256, "kind": "wk", "tenant": "acme", "scopes": ["event"]}
    assert key_of(entry).tenant == "acme"
    file = tmp_path / "keys.json"
    file.write_text(json.dumps({"version": 1, "keys": [entry | change]}))
    with pytest.raises(KeysError, match="key 1: "):
        load_keys(file)


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"version": 2, "keys": []}', '{"version": 1, "keys": 3}', "[" * 99_999]
)
def test_a_file_that_is_no_file_of_keys(tmp_path: Path, text: str) -> None:
    file = tmp_path / "keys.json"
    file.write_text(text)
    with pytest.raises(KeysError):
        load_keys(file)
    with pytest.raises(KeysError):
        KeyRing(tmp_path / "missing.json")


def test_origins_are_written_as_browsers_send_them() -> None:
    texts = ["HTTPS://Shop.Example:443/", "http://localhost:8080", "https://bücher.example", "https://[2001:db8::1]"]
    assert [origin_of(text) for text in texts] == [
        "https://shop.example", "http://localhost:8080", "https://xn--bcher-kva.example", "https://[2001:db8::1]",
    ]  # fmt: skip
