"""The page script in a real Chromium, against a server that records: what is sent, when, and with which bytes."""

from __future__ import annotations

import gzip
import json
import re
import shutil
import subprocess
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Error, Page

from attributary.producers.channels import bundled_rules
from attributary.producers.collector.page import script
from attributary.producers.collector.page.script import page_script, script_tag, served
from tests.fixtures.browser import RecordingServer

FOLDER = Path(script.__file__).parent
SOURCE = (FOLDER / script.SOURCE).read_text("utf-8")
GRANTED = "granted"
ADS = "/p?utm_source=google&utm_campaign=a%20b&gclid=Cj0%2BKC+x-_&GCLID=other&x=1"


def visit(page: Page, shop: RecordingServer, path: str = "/", **data: str) -> None:
    shop.head = shop.tag(**data)
    page.goto(shop.url(path))
    page.wait_for_function("window.attributary")


def go(page: Page, path: str) -> None:
    page.evaluate("path => { location.href = path }", path)
    page.wait_for_url(lambda url: url.endswith(path))
    page.wait_for_function("window.attributary")


def mark(page: Page, shop: RecordingServer, name: str = "mark") -> list[dict[str, Any]]:
    """Send a conversion, and return what came before it: whatever the page had to send is there."""
    before = len(shop.records)
    page.evaluate("name => attributary.conversion({conversion_type: 'marker', event_id: name})", name)
    shop.wait(lambda: any(record.get("event_id") == name for record in shop.records))
    assert before <= len(shop.records)
    settled(page)
    return [record for record in shop.records if record.get("conversion_type") != "marker"]


def settled(page: Page) -> None:
    """Wait until the page has read the answers: what it stores until then, the next page of the site sends again."""
    page.wait_for_function("!(JSON.parse(localStorage._atb || '{}').queue || []).length")


def storages(page: Page) -> list[int]:
    found: list[int] = page.evaluate("[localStorage.length, sessionStorage.length, document.cookie.length]")
    return found


def test_the_script_is_below_4_kb_and_readable() -> None:
    content = page_script().content
    assert len(gzip.compress(content, 9)) < 4_096
    assert len(SOURCE.splitlines()) > 250, "the source is the one that people read"
    assert max(map(len, served(SOURCE).splitlines())) < 400
    assert not re.search(rb"\beval\b|new Function|innerHTML|document\.write|\bimport\b|document\.cookie\s*=", content)


@pytest.mark.skipif(shutil.which("node") is None, reason="node checks the syntax")
def test_what_is_served_is_the_source_line_by_line(tmp_path: Path) -> None:
    (tmp_path / "served.js").write_bytes(page_script().content)
    subprocess.run(["node", "--check", tmp_path / "served.js"], check=True, timeout=240)
    kept = [line.strip() for line in SOURCE.splitlines()]
    assert page_script().content.decode().splitlines() == [x for x in kept if x and not x.startswith("//")]
    assert SOURCE.count("`") == 0, "a text over several lines would lose its indentation"


def test_every_click_id_that_the_collector_reads_makes_a_landing() -> None:
    pattern = re.compile(re.search(r"CLICK =\s*/(.+)/i;", SOURCE)[1], re.IGNORECASE)  # type: ignore[index]
    assert [name for name in bundled_rules().click_ids if not pattern.match(name)] == []
    assert not any(pattern.match(name) for name in ("q", "page", "id", "color", "include", "cycle"))


def test_every_call_is_typed() -> None:
    types = (FOLDER / "attributary.d.ts").read_text("utf-8")
    public = re.findall(r"^    (\w+)(?:\(|:)", SOURCE[SOURCE.index("const api =") :].split("});\n")[0], re.MULTILINE)
    assert set(public) >= {"conversion", "consent", "identify", "id", "attributes"}
    for name in public:
        assert re.search(rf"^    {name}\(", types, re.MULTILINE), name


def test_a_landing_carries_parameters_byte_for_byte(page: Page, shop: RecordingServer) -> None:
    visit(page, shop, ADS, consent=GRANTED)
    (record,) = shop.wait_records(1)
    assert record["landing_url"] == shop.url(ADS)
    assert "gclid=Cj0%2BKC+x-_&" in record["landing_url"]
    assert set(record) == {"event_id", "occurred_at", "landing_url", "click_ids", "consent"}
    assert abs(datetime.fromisoformat(record["occurred_at"]).timestamp() - datetime.now(UTC).timestamp()) < 300
    (sent,) = shop.sent
    assert (sent.path, sent.query["k"]) == ("/api/v1/attribution/track/event", ["wk_test"])
    assert sent.headers["content-type"].startswith("text/plain"), "no preflight"
    assert "sent_at" in sent.query


@pytest.mark.parametrize("path", ["/", "/p?q=utm_source", "/p?page=2&color=red", "/#top", "/p?utm_source=&gclid="])
def test_pages_without_a_mark_and_an_external_referrer_are_no_landings(
    page: Page, shop: RecordingServer, path: str
) -> None:
    visit(page, shop, path, consent=GRANTED)
    go(page, "/next")
    assert mark(page, shop) == []


def test_an_external_referrer_is_a_landing_and_an_own_one_is_not(page: Page, shop: RecordingServer) -> None:
    shop.head = shop.tag(consent=GRANTED, domains="acme.test, pay.test")
    for host, count in (("news.test", 1), ("pay.test", 0), ("www.acme.test", 0), ("evilacme.test", 1)):
        page.goto(shop.url("/from", host))
        before = len(mark(page, shop, f"before {host}"))
        page.evaluate("url => { location.href = url }", shop.url(f"/to-{host}"))
        page.wait_for_url(shop.url(f"/to-{host}"))
        page.wait_for_function("window.attributary")
        found = mark(page, shop, host)[before:]
        assert len(found) == count, host
        assert all(record["referrer"] == shop.url("/", host) for record in found)


def test_a_reload_sends_the_same_bytes_with_consent_and_nothing_without(page: Page, shop: RecordingServer) -> None:
    visit(page, shop, ADS, consent=GRANTED)
    first = shop.wait_records(1)[0]
    settled(page)
    page.reload()
    assert page.evaluate("performance.getEntriesByType('navigation')[0].type") == "reload"
    again = shop.wait_records(2)[1]
    settled(page)
    assert json.dumps(again) == json.dumps(first)
    visit(page, shop, ADS + "&y=2", consent="denied")
    shop.wait_records(3)
    page.reload()
    page.wait_for_function("window.attributary")
    assert len(mark(page, shop)) == 3


def test_without_consent_nothing_is_stored(page: Page, shop: RecordingServer) -> None:
    for data in ({}, {"consent": "denied"}, {"consent": "wait"}, {"consent": "ad_user_data=1"}):
        visit(page, shop, ADS, **data)
        page.evaluate("attributary.identify('u-1'); attributary.conversion({order_id: 'o-1'})")
        page.evaluate("history.pushState({}, '', '/spa?gclid=2')")
        assert storages(page) == [0, 0, 0]
        assert page.evaluate("new Promise(done => attributary.id(done))") is None
    records = shop.records
    assert {record.get("user_id") for record in records if "order_id" in record} == {"u-1"}
    assert not any("type" in record for record in records), "no link of ids either"


def test_one_page_without_consent_is_one_person(page: Page, shop: RecordingServer) -> None:
    visit(page, shop, ADS)
    page.evaluate("attributary.conversion({order_id: 'o-1'})")
    landing, conversion = shop.wait_records(2)
    assert landing["anonymous_id"] == conversion["anonymous_id"]
    assert re.fullmatch(r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-a[0-9a-f]{3}-[0-9a-f]{12}", landing["anonymous_id"])
    go(page, ADS + "&z=1")
    assert shop.wait_records(3)[2]["anonymous_id"] != landing["anonymous_id"]


def test_consent_may_be_waited_for_and_taken_back(page: Page, shop: RecordingServer) -> None:
    visit(page, shop, ADS, consent="wait")
    page.evaluate("attributary.conversion({order_id: 'o-1'})")
    assert shop.sent == []
    page.evaluate("attributary.consent({ad_storage: true, ad_user_data: false})")
    landing, conversion = shop.wait_records(2)
    assert landing["consent"] == conversion["consent"] == {"ad_storage": True, "ad_user_data": False}
    assert landing["occurred_at"] <= conversion["occurred_at"]
    page.wait_for_function("localStorage.length === 1")
    page.evaluate("attributary.consent({ad_storage: false})")
    assert storages(page) == [0, 0, 0]


def test_single_page_routes_count_new_campaigns_only(page: Page, shop: RecordingServer) -> None:
    visit(page, shop, ADS, consent=GRANTED)
    for route in (ADS + "&tab=2", "/clean", "/clean?page=2", "/clean#part"):
        page.evaluate("path => history.pushState({}, '', path)", route)
    page.evaluate("history.replaceState({}, '', '/clean')")
    page.go_back()
    second = "/spa?utm_source=mail&utm_campaign=b"
    page.evaluate("path => history.pushState({}, '', path)", second)
    found = mark(page, shop)
    assert [record["landing_url"] for record in found] == [
        shop.url(ADS),
        shop.url("/spa?utm_source=mail&utm_campaign=b"),
    ]
    assert len({record["event_id"] for record in found}) == 2


def test_the_back_forward_cache_adds_no_landing(page: Page, shop: RecordingServer) -> None:
    visit(page, shop, ADS, consent=GRANTED)
    shop.wait_records(1)
    settled(page)
    page.evaluate("addEventListener('pageshow', event => { window.restored = event.persisted })")
    page.goto(shop.url("/elsewhere", "other.test"))
    page.go_back(wait_until="commit")
    page.wait_for_function("window.restored !== undefined")
    assert page.evaluate("window.restored") is True, "the page came out of the cache"
    assert len(mark(page, shop)) == 1


def test_a_prerendered_page_counts_when_it_is_shown(undebugged: Callable[[str], None], shop: RecordingServer) -> None:
    rules = json.dumps({"prerender": [{"source": "list", "urls": ["/soon?utm_source=pre"]}]})
    first = "if (location.pathname === '/first') fetch('/wait').then(() => { location.href = '/soon?utm_source=pre' });"
    told = (
        "const tell = () => attributary.conversion({event_id: 'shown', properties:"
        " {at: '' + performance.getEntriesByType('navigation')[0].activationStart}});"
        "if (location.pathname === '/soon') document.prerendering"
        " ? document.addEventListener('prerenderingchange', tell) : addEventListener('load', tell);"
    )
    shop.waiting["/wait"] = threading.Event()
    tag = shop.tag(consent=GRANTED).replace("async ", "")
    shop.head = f'{tag}<script>{first}{told}</script><script type="speculationrules">{rules}</script>'
    undebugged(shop.url("/first"))
    shop.wait(lambda: any(path.startswith("/soon") for path in shop.pages))
    assert shop.sent == [], "Chromium loaded the page before it was shown, and it sent nothing"
    shop.waiting["/wait"].set()
    shop.wait_records(2)
    landing, shown = sorted(shop.records, key=lambda record: record["event_id"] == "shown")
    assert landing["landing_url"] == shop.url("/soon?utm_source=pre")
    assert float(shown["properties"]["at"]) > 0, "what was shown is the page that had been prerendered"


def test_a_retry_has_the_same_bytes(page: Page, shop: RecordingServer) -> None:
    shop.statuses = [(503, {"Retry-After": "1"}), (429, {}), (500, {}), (200, {})]
    visit(page, shop, ADS, consent=GRANTED)
    shop.wait(lambda: len(shop.sent) == 4)
    assert len({sent.body for sent in shop.sent}) == 1
    page.wait_for_function("!JSON.parse(localStorage._atb).queue.length")


@pytest.mark.parametrize("status", [400, 401, 403, 413, 422])
def test_what_no_retry_can_mend_is_dropped(page: Page, shop: RecordingServer, status: int) -> None:
    shop.statuses = [(status, {})]
    visit(page, shop, ADS, consent=GRANTED)
    shop.wait_records(1)
    mark(page, shop)
    page.wait_for_function("!JSON.parse(localStorage._atb).queue.length")
    assert [sent.status for sent in shop.sent] == [status, 200]


def test_single_records_are_tried_again_when_the_answer_says_so(page: Page, shop: RecordingServer) -> None:
    shop.hold.clear()
    shop.answers = [{}, {"retry": [{"index": 1}]}]
    visit(page, shop, ADS, consent=GRANTED)
    page.evaluate("for (const id of ['a', 'b', 'c']) attributary.conversion({order_id: id})")
    shop.hold.set()
    shop.wait(lambda: len(shop.records) >= 5)
    assert [record["order_id"] for record in shop.records[1:5]] == ["a", "b", "c", "b"]


def test_what_waits_leaves_with_the_page(page: Page, shop: RecordingServer) -> None:
    shop.statuses = [(503, {"Retry-After": "600"})]
    visit(page, shop, ADS)
    shop.wait_records(1)
    page.wait_for_function("performance.getEntriesByType('resource').some(each => each.responseStatus === 503)")
    page.evaluate("attributary.conversion({order_id: 'o-1', value: '1.00', currency: 'EUR'})")
    page.evaluate("fetch('/later')")
    shop.wait(lambda: "/later" in shop.pages)
    assert len(shop.sent) == 1, "Retry-After holds for what comes later, too"
    page.goto(shop.url("/elsewhere", "other.test"))
    shop.wait(lambda: len(shop.records) >= 3)
    left = {sent.path.rpartition("/")[2]: sent.body for sent in shop.sent[1:]}
    assert left.keys() == {"event", "conversion"}
    assert left["event"] == shop.sent[0].body


def test_beacons_keep_within_the_budget_and_the_rest_comes_with_the_next_page(
    page: Page, shop: RecordingServer
) -> None:
    shop.statuses = [(503, {"Retry-After": "600"})]
    visit(page, shop, ADS, consent=GRANTED)
    shop.wait_records(1)
    page.evaluate(
        """for (let number = 0; number < 30; number++)
          attributary.conversion({order_id: 'o' + number, properties: {x: 'y'.repeat(3000)}})"""
    )
    page.goto(shop.url("/elsewhere", "other.test"))
    shop.wait(lambda: len(shop.sent) >= 2)
    assert all(len(sent.body) < 60_000 for sent in shop.sent)
    shop.head = shop.tag(consent=GRANTED)
    page.goto(shop.url("/next"))
    page.wait_for_function("window.attributary && !JSON.parse(localStorage._atb).queue.length")
    by_order: dict[str, set[str]] = {}
    for record in shop.records:
        if "order_id" in record:
            by_order.setdefault(record["order_id"], set()).add(json.dumps(record))
    assert all(len(texts) == 1 for texts in by_order.values()), "every copy has the same bytes"
    kept = [f"o{number}" for number in range(30)]
    assert set(kept[-15:]) <= set(by_order), "64 kB of the newest are stored"


def test_a_conversion_carries_the_click_ids_of_earlier_pages(page: Page, shop: RecordingServer) -> None:
    visit(page, shop, ADS, consent=GRANTED)
    shop.wait_records(1)
    settled(page)
    page.context.add_cookies(
        [{"name": name, "value": value, "url": shop.url()} for name, value in
         {"_fbp": "fb.1.1.2", "_fbc": "fb.1.1.Ab%2B", "_ga": "GA1.1.111.222", "_gcl_aw": "GCL.1.Cj0",
          "_ga_ABC": "GS2.1.s1767225600$o3$g1"}.items()]
    )  # fmt: skip
    go(page, "/thanks")
    page.evaluate("attributary.conversion({order_id: 'o-7', value: '19.99', currency: 'EUR', click_ids: {fbp: 'me'}})")
    record = shop.wait_records(2)[1]
    settled(page)
    assert record["click_ids"] == {
        "gclid": "Cj0%2BKC+x-_",
        "GCLID": "other",
        "fbp": "me",
        "fbc": "fb.1.1.Ab%2B",
        "gcl_aw": "GCL.1.Cj0",
    }
    assert abs(int(record["properties"]["gclid_first_seen_ms"]) / 1000 - datetime.now(UTC).timestamp()) < 300
    assert (record["value"], record["conversion_type"]) == ("19.99", "purchase")
    assert (record["ga_client_id"], record["ga_session_id"]) == ("111.222", "1767225600")
    assert record["event_source_url"] == shop.url("/thanks")
    page.reload()
    page.wait_for_function("window.attributary")
    page.evaluate("attributary.conversion({order_id: 'o-7', value: '19.99', currency: 'EUR'})")
    assert json.dumps(shop.wait_records(3)[2]) == json.dumps(record), "a thank-you page that is loaded again"


def test_the_collectors_id_is_kept_and_handed_over(page: Page, shop: RecordingServer) -> None:
    shop.answer = {"anonymous_id": "0198b3c0-7a1e-7c00-8000-1234567890ab"}
    visit(page, shop, ADS, consent=GRANTED)
    found = page.evaluate("new Promise(done => attributary.attributes(done))")
    settled(page)
    assert found == {"_atb": "0198b3c0-7a1e-7c00-8000-1234567890ab", "gclid": "Cj0%2BKC+x-_", "GCLID": "other"}
    go(page, "/next")
    page.evaluate("attributary.identify(17)")
    link = shop.wait_records(2)[1]
    assert (link["type"], link["user_id"], link["anonymous_id"]) == ("identity_link", "17", found["_atb"])
    page.evaluate("attributary.identify(17)")
    mark(page, shop)
    assert len({json.dumps(record) for record in shop.records if record.get("type") == "identity_link"}) == 1


def test_a_visitor_without_a_landing_gets_an_id_when_it_is_asked_for(page: Page, shop: RecordingServer) -> None:
    visit(page, shop, "/", consent=GRANTED)
    first = page.evaluate("new Promise(done => attributary.id(done))")
    go(page, "/next")
    assert page.evaluate("new Promise(done => attributary.id(done))") == first


def test_marked_elements_convert_once(page: Page, shop: RecordingServer) -> None:
    visit(page, shop, "/")
    page.evaluate(
        """document.body.innerHTML =
        '<button data-atb-conversion="lead" data-atb-value="10.50" data-atb-currency="EUR"><b>go</b></button>' +
        '<form data-atb-conversion="signup" data-atb-order="s-1" onsubmit="return false">' +
        '<input name="mail"><button id="send">send</button></form><a href="#x">no</a>'"""
    )
    for selector in ("b", "b", "a", "input", "#send", "#send"):
        page.click(selector)
    found = [record for record in mark(page, shop) if "landing_url" not in record]
    assert [(each["conversion_type"], each.get("value"), each.get("order_id")) for each in found] == [
        ("lead", "10.50", None), ("signup", None, "s-1"),
    ]  # fmt: skip
    assert "mail" not in json.dumps(found)


def test_calls_before_the_script_has_loaded_are_kept(page: Page, shop: RecordingServer) -> None:
    shop.head = (
        "<script>window.atb = window.atb || function () { (atb.q = atb.q || []).push(arguments) };"
        "atb('consent', {ad_storage: true}); atb('conversion', {order_id: 'early'});</script>" + shop.tag()
    )
    page.goto(shop.url())
    (record,) = shop.wait_records(1)
    assert (record["order_id"], record["consent"]) == ("early", {"ad_storage": True})


def test_it_works_under_a_strict_policy_and_with_integrity(page: Page, shop: RecordingServer) -> None:
    other = shop.url("", "t.test")
    shop.page_headers = {
        "Content-Security-Policy": "default-src 'none'; require-trusted-types-for 'script'; "
        f"script-src {other}; connect-src {other}"
    }
    shop.head = script_tag(other, "attributary.js", "wk_test", GRANTED)
    page.goto(shop.url(ADS))
    (record,) = shop.wait_records(1)
    assert record["landing_url"] == shop.url(ADS)
    shop.head = shop.head.replace("sha384-", "sha384-AA")
    page.goto(shop.url(ADS + "&b=1"))
    page.wait_for_load_state()
    assert page.evaluate("typeof attributary") == "undefined", "the browser checks the integrity"


@pytest.mark.parametrize(
    "broken",
    [
        "Storage.prototype.setItem = Storage.prototype.getItem = () => { throw new Error('full') }",
        "localStorage.setItem('_atb', '{7'); sessionStorage.setItem('_atb_seen', 'null')",
    ],
)
def test_broken_storage_changes_nothing_else(page: Page, shop: RecordingServer, broken: str) -> None:
    errors: list[Error] = []
    page.context.add_init_script(broken)
    page.on("pageerror", lambda error: errors.append(error))  # noqa: PLW0108 - Playwright wants a function
    visit(page, shop, ADS, consent=GRANTED)
    shop.wait_records(1)
    assert errors == []
