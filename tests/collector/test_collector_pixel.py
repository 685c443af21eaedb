"""The pixel and the click redirect: what they record, and where a redirect never leads."""

from __future__ import annotations

import functools
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from attributary.cli.main import app
from attributary.producers.collector.answers import Refusal
from attributary.producers.collector.pixel import GIF, parse_target, sign_target
from tests.fixtures.collector import Answer, RunningCollector, make_key, running_collector, wait_until

PIXEL = "/api/v1/attribution/pixel.gif"
REDIRECT = "/api/v1/attribution/redirect"
SECRET = "a secret of thirty-two characters"
AGENT = {"User-Agent": "Mozilla/5.0 (X11; Linux x86_64) Firefox/140.0"}


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningCollector]:
    folder: Path = tmp_path_factory.mktemp("collector")
    with running_collector(folder, redirect_secret=SECRET) as running:
        running.keys["mail"] = make_key(
            folder / "keys.json", "wk", redirect_hosts=["shop.example", "shop.example:8443"]
        )
        opened = functools.partial(get, running, PIXEL, k="mail", user_id="u1")
        wait_until(lambda: opened().body and running.log.messages, "the key is known")
        yield running


@pytest.fixture
def collector(shared: RunningCollector) -> RunningCollector:
    shared.log.messages.clear()
    return shared


def get(
    collector: RunningCollector, path: str, headers: dict[str, str] | None = None, method: str = "GET", **query: Any
) -> Answer:
    named = {name: collector.keys.get(text, text) if name == "k" else text for name, text in query.items()}
    return collector.request(method, f"{path}?{urlencode(named)}", headers={**AGENT, **(headers or {})})


def test_the_pixel_records_an_opened_mail(collector: RunningCollector) -> None:
    answer = get(collector, PIXEL, k="mail", user_id="u1", campaign_id="may", utm_campaign="May sale")
    assert (answer.status, answer.body) == (200, GIF)
    assert (answer.headers["Content-Type"], answer.headers["Cache-Control"]) == ("image/gif", "no-store")
    [record] = collector.log.records("touchpoint")
    assert (record["interaction"], record["channel"], record["user_id"]) == ("open", "email", "u1")
    assert (record["campaign_id"], record["utm_campaign"], record["tenant_id"]) == ("may", "May sale", "acme")


@pytest.mark.parametrize(
    ("query", "headers", "method"),
    [
        ({"k": "mail", "user_id": "u1"}, {"Sec-Purpose": "prefetch;prerender"}, "GET"),
        ({"k": "mail", "user_id": "u1"}, {"Purpose": "prefetch"}, "GET"),
        ({"k": "mail", "user_id": "u1"}, {"X-Moz": "prefetch"}, "GET"),
        ({"k": "mail", "user_id": "u1"}, {}, "HEAD"),
        ({"k": "wk_unknown", "user_id": "u1"}, {}, "GET"),
        ({"k": "sk", "user_id": "u1"}, {}, "GET"),
        ({"user_id": "u1"}, {}, "GET"),
        ({"k": "mail"}, {}, "GET"),
        ({"k": "mail", "user_id": "null"}, {}, "GET"),
        ({"k": "mail", "user_id": "a\0b"}, {}, "GET"),
        ({"k": "mail", "user_id": "u1", "channel": "NOT A WORD"}, {}, "GET"),
    ],
)
def test_the_picture_comes_whatever_becomes_of_the_record(
    collector: RunningCollector, query: dict[str, str], headers: dict[str, str], method: str
) -> None:
    answer = get(collector, PIXEL, headers, method, **query)
    assert (answer.status, answer.body) == (200, b"" if method == "HEAD" else GIF)
    assert not collector.log.messages


def test_the_picture_comes_while_the_log_is_away(tmp_path: Path) -> None:
    with running_collector(tmp_path, spool=True, ack_seconds=0.2) as running:
        running.log.stall()
        assert get(running, PIXEL, k="wk", user_id="u1").status == 200
        assert list((tmp_path / "spool").rglob("*.spool"))
        running.log.stall(stalled=False)


def test_a_click_is_recorded_and_led_to_a_listed_host(collector: RunningCollector) -> None:
    target = "https://shop.example/offer?utm_source=news&utm_medium=email&x=%2B+%C3%BC#part"
    answer = get(collector, REDIRECT, k="mail", user_id="u1", to=target)
    assert (answer.status, answer.headers["Location"]) == (302, target)  # not a byte of the query is touched
    assert answer.headers["Cache-Control"] == "no-store"
    assert answer.headers["Referrer-Policy"] == "no-referrer-when-downgrade"
    [record] = collector.log.records("touchpoint")
    assert (record["interaction"], record["channel"], record["utm_source"]) == ("click", "email", "news")
    assert record["landing_url"] == target


@pytest.mark.parametrize("headers", [{"Sec-Purpose": "prefetch"}, {"User-Agent": "Googlebot/2.1"}])
def test_a_prefetch_is_led_but_no_click_and_a_robot_is_marked(
    collector: RunningCollector, headers: dict[str, str]
) -> None:
    assert get(collector, REDIRECT, headers, k="mail", user_id="u1", to="https://shop.example/").status == 302
    assert [record["is_bot"] for record in collector.log.records("touchpoint")] in ([], [True])


@pytest.mark.parametrize(
    "target",
    [
        "", "//evil.example", "/\\evil.example", "https:evil.example", "https:/evil.example", "https:///evil.example",
        "https://evil.example", "https://shop.example.evil.example", "https://shop.example@evil.example/",
        "https://user:pw@shop.example/", "https://shop.example\\@evil.example", "https://shop.example%2eevil.example/",
        "https://shop.example:81/", "https://shop.example:99999/", "ftp://shop.example/", "javascript:alert(1)",
        "JaVaScRiPt://shop.example/%0aalert(1)", "data:text/html,x", " https://evil.example", "https://evil\t.example",
        "https://shop.example\r\nSet-Cookie: a=b", "https://shop.example/\nx", "https://shop.example/\x00",
        "https://\u0455hop.example/", "https://shop\u3002example/", "https://[::1]/", "https://127.0.0.1/", "https://[shop.example/",
        "https://shop.example?@evil.example:80\\", "http://shop.example:8443@evil.example",
        "https://shop.example" + "a" * 5000, "https://.shop.example/", "https://shop..example/", "\x01https://shop.example",
    ],
)  # fmt: skip
def test_no_open_redirect(collector: RunningCollector, target: str) -> None:
    answer = get(collector, REDIRECT, k="mail", user_id="u1", to=target)
    assert answer.status == 400
    assert answer.headers["Location"] is None
    assert not collector.log.messages


@given(
    st.text(max_size=60)
    | st.text(max_size=30).map("https://shop.example".__add__)
    | st.text(max_size=30).map("https://".__add__)
)
def test_any_target_is_refused_or_of_the_host_that_is_checked(text: str) -> None:
    try:
        target = parse_target(text)
    except Refusal:
        return
    parts = urlsplit(target)
    assert parts.scheme in {"http", "https"}
    assert parts.username is None
    assert target.isascii()
    assert "\\" not in target
    assert parse_target(target) == target
    assert target.split("/")[2].split("?")[0].split("#")[0] == parts.netloc


def test_ports_and_case_of_a_listed_host(collector: RunningCollector) -> None:
    cases = {
        "https://SHOP.example:443/A": "https://shop.example/A",
        "https://shop.example:8443/": "https://shop.example:8443/",
        "http://shop.example": "http://shop.example/",
    }
    for given_target, location in cases.items():
        answer = get(collector, REDIRECT, k="mail", user_id="u1", to=given_target)
        assert (answer.status, answer.headers["Location"]) == (302, location)


def test_a_signed_target_leads_anywhere_until_it_expires(collector: RunningCollector) -> None:
    target, expires = "https://partner.example/x?a=1", int(time.time()) + 60

    def led(**change: Any) -> int:
        query: dict[str, Any] = {"to": target, "exp": str(expires), "k": "wk"}
        query |= {"sig": sign_target(target, expires, SECRET)} | change
        return get(collector, REDIRECT, user_id="u1", **query).status

    old = int(time.time()) - 1
    assert led() == 302
    assert led(k="wk_unknown") == 302  # a link that was sent out keeps working; no click is recorded
    assert len(collector.log.messages) == 1
    assert led(to="https://evil.example/") == 400
    assert led(exp=str(expires + 1)) == 400
    assert led(exp=str(old), sig=sign_target(target, old, SECRET)) == 400
    assert led(sig=sign_target(target, expires, "another secret of 32 characters!")) == 400
    assert led(sig="") == 400
    assert led(sig="é") == 400
    assert led(exp="9" * 400) == 400


def test_without_a_secret_no_signature_is_right(tmp_path: Path) -> None:
    with running_collector(tmp_path) as running:
        target, expires = "https://partner.example/", int(time.time()) + 60
        query: dict[str, Any] = {"to": target, "exp": str(expires), "sig": sign_target(target, expires, "")}
        assert get(running, REDIRECT, k="wk", **query).status == 400


def test_the_command_link_prints_what_the_collector_takes(collector: RunningCollector) -> None:
    runner = CliRunner(env={"COLLECT_REDIRECT_SECRET": SECRET})
    made = runner.invoke(app, ["collect", "link", "--to", "https://partner.example/offer?utm_source=news"])
    assert made.exit_code == 0
    path = f"{REDIRECT}?k={quote(collector.keys['wk'])}&user_id=u1&{made.stdout.strip()}"
    answer = collector.request("GET", path, headers=AGENT)
    assert answer.headers["Location"] == "https://partner.example/offer?utm_source=news"
    assert runner.invoke(app, ["collect", "link", "--to", "javascript:x"]).exit_code == 2
