"""The page script in a real Chromium against the real collector: the log, the cookie, consent, the script itself."""

from __future__ import annotations

import gzip
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page

from attributary.producers.collector.page.script import page_script, script_tag
from tests.fixtures.browser import RecordingServer
from tests.fixtures.collector import RunningCollector, make_key, running_collector, wait_until

LANDING = "/p?utm_source=google&utm_medium=cpc&gclid=Cj0%2BKC+x-_"
SHOP = "shop.localhost"  # Chromium takes names below localhost for secure, so cookies with Secure are set


@dataclass
class Site:
    """A shop's pages, and the collector beside them under a sub-domain of its own."""

    shop: RecordingServer
    collector: RunningCollector
    page: Page
    key: str

    def visit(self, path: str, consent: str = "granted", host: str = SHOP) -> None:
        tag = script_tag(f"http://t.{SHOP}:{self.collector.port}/x", "atb.js", self.key, consent)
        self.shop.head = tag
        self.page.goto(self.shop.url(path, host))
        self.page.wait_for_function("window.attributary")

    def records(self, kind: str, count: int) -> list[dict[str, Any]]:
        wait_until(lambda: len(self.collector.log.records(kind)) >= count, f"{count} {kind} records")
        return self.collector.log.records(kind)

    def cookies(self) -> list[Any]:
        return [cookie for cookie in self.page.context.cookies() if cookie.get("name") == "_atb"]


@pytest.fixture
def site(tmp_path: Path, shop: RecordingServer, page: Page) -> Iterator[Site]:
    keys = tmp_path / "keys.json"
    origin = f"http://{SHOP}:{shop.port}"
    key = make_key(keys, "wk", origins=[origin], browser_values=True)
    with running_collector(tmp_path, keys_file=keys, prefix="/x", script_name="atb.js") as running:
        yield Site(shop, running, page, key)


def test_a_landing_and_its_conversion_reach_the_log_as_one_person(site: Site) -> None:
    site.visit(LANDING)
    (touch,) = site.records("touchpoint", 1)
    assert (touch["channel"], touch["platform"], touch["interaction"]) == ("paid_search", "google", "click")
    assert touch["click_ids"] == {"gclid": "Cj0%2BKC+x-_"}, "byte for byte"
    assert touch["landing_url"] == site.shop.url(LANDING, SHOP)
    assert touch["consent"]["ad_storage"] is True
    wait_until(site.cookies, "the collector's cookie")
    (cookie,) = site.cookies()
    assert cookie["value"] == f"1.{touch['anonymous_id']}"
    assert (cookie["httpOnly"], cookie["secure"], cookie["sameSite"]) == (True, True, "Lax")
    site.visit("/thanks")
    site.page.evaluate("attributary.identify('u-17')")
    site.page.evaluate("attributary.conversion({order_id: 'A-1', value: '19.99', currency: 'EUR'})")
    (conversion,) = site.records("conversion", 1)
    (link,) = site.records("identity_link", 1)
    assert {each["anonymous_id"] for each in (touch, conversion, link)} == {touch["anonymous_id"]}
    assert (conversion["value_micros"], conversion["event_id"], conversion["user_id"]) == (
        19_990_000,
        "order-A-1",
        "u-17",
    )
    assert conversion["click_ids"]["gclid"] == "Cj0%2BKC+x-_"
    assert conversion["properties"]["trust"] == "browser"


def test_the_id_comes_back_from_the_cookie_when_the_storage_is_gone(site: Site) -> None:
    site.visit(LANDING)
    (first,) = site.records("touchpoint", 1)
    wait_until(site.cookies, "the collector's cookie")
    site.page.wait_for_function("!JSON.parse(localStorage._atb).queue.length")  # the answer has been read
    site.page.evaluate("localStorage.clear(); sessionStorage.clear()")
    site.visit(LANDING + "&x=2")
    again = site.records("touchpoint", 2)[1]
    assert (again["anonymous_id"], again["event_id"] == first["event_id"]) == (first["anonymous_id"], False)


def test_without_consent_there_is_a_record_and_no_cookie(site: Site) -> None:
    site.visit(LANDING, "denied")
    (touch,) = site.records("touchpoint", 1)
    assert touch["consent"]["ad_storage"] is False
    assert site.cookies() == []
    assert site.page.evaluate("[localStorage.length, document.cookie]") == [0, ""]


def test_consent_that_is_taken_back_ends_the_cookie(site: Site) -> None:
    site.visit(LANDING)
    wait_until(site.cookies, "the collector's cookie")
    site.page.evaluate("attributary.consent({ad_storage: false}); attributary.conversion({order_id: 'A-2'})")
    site.records("conversion", 1)
    wait_until(lambda: not site.cookies(), "the cookie is gone")


def test_the_browsers_signal_wins_over_the_page(site: Site) -> None:
    site.page.context.set_extra_http_headers({"Sec-GPC": "1"})
    site.visit(LANDING)
    (touch,) = site.records("touchpoint", 1)
    assert (touch["consent"]["ad_user_data"], touch["consent"]["ad_personalization"]) == (False, False)


def test_another_sites_page_is_refused(site: Site) -> None:
    with site.page.expect_event("requestfailed", lambda request: "/track/" in request.url):
        site.visit(LANDING, host="evil.localhost")
    assert site.collector.log.messages == []


def test_an_outage_of_the_log_loses_nothing_and_doubles_nothing(site: Site) -> None:
    site.collector.log.fail_next("away", 1)
    site.visit(LANDING)
    site.page.evaluate("attributary.conversion({order_id: 'A-3'})")
    site.records("touchpoint", 1)
    site.records("conversion", 1)
    ids = [record["event_id"] for kind in ("touchpoint", "conversion") for record in site.collector.log.records(kind)]
    assert len(set(ids)) == len(ids) == 2


def test_the_script_is_served_for_an_hour_and_by_digest_for_ever(site: Site) -> None:
    script = page_script()
    newest = site.collector.request("GET", "/x/atb.js")
    assert (newest.status, newest.body) == (200, script.content)
    assert newest.headers["content-type"].startswith("text/javascript")
    assert "max-age=3600" in newest.headers["cache-control"]
    assert newest.headers["access-control-allow-origin"] == "*"
    known = site.collector.request("GET", "/x/atb.js", headers={"If-None-Match": newest.headers["etag"]})
    assert (known.status, known.body) == (304, b"")
    fixed = site.collector.request("GET", f"/x/{script.versioned('atb.js')}")
    assert (fixed.body, "immutable" in fixed.headers["cache-control"]) == (script.content, True)
    head = site.collector.request("HEAD", "/x/atb.js")
    assert (head.status, head.body, head.headers["content-length"]) == (200, b"", str(len(script.content)))
    for path in ("/x/attributary.js", "/x/atb.000000000000.js", "/atb.js", "/x/atb.js/"):
        assert site.collector.request("GET", path).status == 404, path
    assert len(gzip.compress(newest.body, 9)) < 4_096


def test_a_script_without_a_name_is_not_served(tmp_path: Path) -> None:
    with running_collector(tmp_path, script_name="") as running:
        for path in ("/attributary.js", "/.js", "/"):
            assert running.request("GET", path).status == 404
