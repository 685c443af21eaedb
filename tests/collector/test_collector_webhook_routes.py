"""Webhooks over HTTP: the real server, its answers, what is in the log, what is counted and kept."""

from __future__ import annotations

import json
import random
import re
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest
from prometheus_client import REGISTRY
from typer.testing import CliRunner

from attributary.cli.main import app
from attributary.producers import MemoryTransport
from attributary.producers.collector.access import Access
from attributary.producers.collector.app import Collector
from attributary.producers.collector.config import CollectorConfig
from attributary.producers.collector.intake import Intake
from attributary.producers.collector.keys import KeyRing
from attributary.producers.collector.server import edge_routes
from attributary.producers.collector.webhooks import SourceError
from attributary.producers.collector.webhooks.letters import MOST_FILES, UnmappedFolder, delivery_file, read_delivery
from tests.factories.webhooks import (
    SECRET,
    encoded,
    shopify_order,
    shopify_refund,
    signed,
    stripe_payment,
    stripe_refund,
    units,
    woo_order,
)
from tests.fixtures.collector import Answer, RunningCollector, running_collector

EXAMPLES = Path(__file__).resolve().parents[2] / "examples" / "webhooks"
SOURCES = """
webhooks:
  - {name: shop, provider: shopify, tenant: acme, path: shop-path-1, secrets: [env:TEST_HOOK]}
  - {name: pay, provider: stripe, tenant: acme, path: stripe-path-1, secrets: [env:TEST_HOOK]}
  - {name: woo, provider: woocommerce, tenant: other, path: woo-path-1, secrets: [env:TEST_HOOK]}
  - {name: leads, provider: meta_leads, tenant: acme, path: meta-path-1, secrets: [env:TEST_HOOK],
     options: {verify_token: the token of the page}}
  - {name: dry, provider: stripe, tenant: acme, secrets: [env:TEST_HOOK]}
"""


@pytest.fixture
def sources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TEST_HOOK", SECRET)
    (tmp_path / "webhooks.yaml").write_text(SOURCES)
    return tmp_path / "webhooks.yaml"


@pytest.fixture
def hooked(tmp_path: Path, sources: Path) -> Iterator[RunningCollector]:
    with running_collector(tmp_path, webhooks_file=sources, webhooks_unmapped=tmp_path / "unmapped") as running:
        yield running


def deliver(to: RunningCollector, path: str, provider: Any, body: Any, topic: str = "", **headers: str) -> Answer:
    import time

    raw = body if isinstance(body, bytes) else encoded(body)
    return to.request("POST", f"/webhooks/{path}", raw, {**signed(provider, raw, topic, time.time()), **headers})


def count(provider: str, source: str, outcome: str) -> float:
    labels = {"provider": provider, "source": source, "outcome": outcome}
    return REGISTRY.get_sample_value("attribution_collector_webhook_deliveries_total", labels) or 0.0


def test_a_delivery_is_in_the_log_before_it_is_answered(hooked: RunningCollector) -> None:
    before = count("shopify", "shop", "accepted")
    for _ in range(100):
        answer = deliver(hooked, "shop-path-1", "shopify", shopify_order(), "orders/paid")
        assert (answer.status, answer.json) == (200, {"outcome": "accepted", "records": 1})
    messages = hooked.log.messages
    assert len({(message.key, message.value) for message in messages}) == 1, "one id, the same bytes"
    (record,) = {each["event_id"]: each for each in hooked.log.records("conversion")}.values()
    assert (record["tenant_id"], record["value_micros"]) == ("acme", units("100"))
    assert count("shopify", "shop", "accepted") == before + 100


def test_each_source_has_its_own_tenant_and_secret_and_shape(hooked: RunningCollector) -> None:
    assert deliver(hooked, "stripe-path-1", "stripe", stripe_payment(1_050)).status == 200
    assert deliver(hooked, "stripe-path-1", "stripe", stripe_refund("re_1", 50)).status == 200
    assert (
        deliver(hooked, "woo-path-1", "woocommerce", woo_order(refunds={1: "5.00"}), "order.updated").json["records"]
        == 2
    )
    assert deliver(hooked, "shop-path-1", "shopify", shopify_refund(9, "5.00"), "refunds/create").status == 200
    found = {(each["tenant_id"], each["event_id"], each["kind"]) for each in hooked.log.records("conversion")}
    assert found == {
        ("acme", "stripe-pi_1", "conversion"),
        ("acme", "stripe-re_1", "refund"),
        ("other", "woo-woo-order-727", "conversion"),
        ("other", "woo-woo-refund-1", "refund"),
        ("acme", "shopify-shop-refund-9", "refund"),
    }


def test_what_is_not_signed_is_401_and_leaves_nothing(hooked: RunningCollector, tmp_path: Path) -> None:
    body = encoded(shopify_order())
    right = signed("shopify", body, "orders/paid")
    for headers in ({}, {**right, "x-shopify-hmac-sha256": "AAAA"}, {**right, "x-shopify-hmac-sha256": "\u00e9"}):
        answer = hooked.request("POST", "/webhooks/shop-path-1", body, headers)
        assert answer.status == 401
        assert "100.00" not in answer.body.decode()
    assert hooked.request("POST", "/webhooks/shop-path-1", body + b" ", right).status == 401
    assert hooked.request("POST", "/webhooks/shop-path-1", body, {**right, "content-encoding": "gzip"}).status == 415
    assert hooked.log.messages == []
    assert list((tmp_path / "unmapped").iterdir()) == []


def test_no_request_is_answered_with_500(hooked: RunningCollector) -> None:
    """Odd bodies with right signatures, and odd headers with wrong ones."""
    rnd = random.Random(7)
    odd = [b"", b"null", b"[]", b"{", b'{"id": 1e400}', b"[" * 50_000, b"\xff\xfe", b'{"a":"\\ud800"}', b"\0" * 100]
    seen = set()
    for number in range(300):
        body = odd[number % len(odd)] if number % 2 else rnd.randbytes(rnd.randrange(200))
        path, provider, topic = rnd.choice(
            [
                ("shop-path-1", "shopify", "orders/paid"),
                ("stripe-path-1", "stripe", ""),
                ("woo-path-1", "woocommerce", ""),
            ]
        )
        headers = {}
        if number % 3 == 0:
            junk = "".join(chr(rnd.randrange(33, 255)) for _ in range(rnd.randrange(1, 60)))
            headers = {
                "stripe-signature": f"t=1,v1={junk}",
                "x-shopify-hmac-sha256": junk,
                "x-wc-webhook-signature": junk,
            }
        seen.add(deliver(hooked, path, provider, body, topic, **headers).status)
    assert {200, 401} <= seen <= {200, 400, 401}  # 400: a header that is none


def test_unknown_paths_and_methods(hooked: RunningCollector) -> None:
    for path in ("x", "dry", "shop", "shop-path-1/", "SHOP-PATH-1", ""):
        assert deliver(hooked, path, "shopify", shopify_order(), "orders/paid").status == 404, path
    assert hooked.request("GET", "/webhooks/shop-path-1").status == 405
    assert hooked.request("PUT", "/webhooks/shop-path-1", b"{}").status == 405
    assert hooked.request("POST", "/webhooks/shop-path-1", b"x" * (6 << 20)).status == 413


def test_set_up_calls(hooked: RunningCollector) -> None:
    assert hooked.request("POST", "/webhooks/woo-path-1", b"webhook_id=12").status == 200
    query = "hub.mode=subscribe&hub.verify_token=the%20token%20of%20the%20page&hub.challenge=1158"
    answer = hooked.request("GET", f"/webhooks/meta-path-1?{query}")
    assert (answer.status, answer.body, answer.headers["content-type"]) == (200, b"1158", "text/plain; charset=utf-8")
    assert hooked.request("GET", f"/webhooks/meta-path-1?{query.replace('token%20', 'x')}").status == 403


def test_signed_and_not_recorded_is_200_counted_and_kept(
    hooked: RunningCollector, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    unmapped, ignored = count("shopify", "shop", "unmapped"), count("shopify", "shop", "ignored")
    for _ in range(3):
        answer = deliver(
            hooked, "shop-path-1", "shopify", shopify_order("19.999", email="ada@example.com"), "orders/paid"
        )
        assert (answer.status, answer.json) == (200, {"outcome": "unmapped", "records": 0})
    assert (
        deliver(hooked, "shop-path-1", "shopify", shopify_order(test=True), "orders/paid").json["outcome"] == "ignored"
    )
    assert count("shopify", "shop", "unmapped") == unmapped + 3
    assert count("shopify", "shop", "ignored") == ignored + 1
    (file,) = (tmp_path / "unmapped").iterdir()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    headers, body = read_delivery(file.read_bytes())
    assert (headers["x-shopify-topic"], json.loads(body)["total_price"]) == ("orders/paid", "19.999")
    assert "total: must be a whole number of minor units" in re.sub(r"recorded: ", "", caplog.text).replace(
        "total must", "total: must"
    )
    assert "19.999" not in caplog.text
    assert "ada@" not in caplog.text


def test_a_log_that_is_away_is_503_without_a_spool_and_200_with_one(tmp_path: Path, sources: Path) -> None:
    for spool in (False, True):
        folder = tmp_path / str(spool)
        folder.mkdir()
        transport = MemoryTransport()
        transport.stall()
        with running_collector(folder, transport, spool=spool, webhooks_file=sources, ack_seconds=0.2) as running:
            first = deliver(running, "shop-path-1", "shopify", shopify_order(), "orders/paid")
            assert first.status == (200 if spool else 503)
            assert spool or first.headers["retry-after"]
            transport.stall(stalled=False)
            again = deliver(running, "shop-path-1", "shopify", shopify_order(), "orders/paid")
            assert again.status == 200
        assert len({message.value for message in transport.messages}) == 1


def test_a_file_of_sources_that_cannot_be_used_is_an_error_of_the_start(sources: Path) -> None:
    sources.write_text(SOURCES.replace("shopify, tenant", "shopyfy, tenant"))
    keys = KeyRing(None)
    config = CollectorConfig(webhooks_file=sources)
    parts = Collector(config, cast("Intake", None), Access(keys, config), keys)
    with pytest.raises(SourceError, match="provider must be one of"):
        edge_routes(parts)


def test_the_folder_keeps_the_newest_and_loses_no_answer(tmp_path: Path) -> None:
    import asyncio

    folder = UnmappedFolder(tmp_path / "kept")
    for number in range(MOST_FILES + 5):
        (tmp_path / "kept" / f"old-{number}.http").write_bytes(b"")
    asyncio.run(folder.keep("shop", {"authorization": "Bearer x", "x-a": "b"}, b"{}"))
    names = {path.name for path in (tmp_path / "kept").iterdir()}
    assert len(names) == MOST_FILES
    assert any(name.startswith("shop-") for name in names)
    gone = UnmappedFolder(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    asyncio.run(gone.keep("shop", {}, b"{}"))


def test_a_saved_delivery_reads_as_it_was_written() -> None:
    for body in (b'{"a": 1}', b"", b"\xff\n\n{}", b"webhook_id=1"):
        content = delivery_file({"X-A": "b: c", "Cookie": "secret", "x-long": "a\nb"}, body)
        assert read_delivery(content) == ({"x-a": "b: c", "x-long": "a b"}, body)
    assert read_delivery(b' {"a": 1}') == ({}, b' {"a": 1}')
    assert read_delivery(b"POST /x HTTP/1.1\r\nX-A: b\r\n\r\n{}") == ({"x-a": "b"}, b"{}")


def check(*arguments: str, **environ: str) -> Any:
    return CliRunner().invoke(app, ["collect", "check", *arguments], env=environ)


def test_check_shows_what_a_saved_delivery_becomes() -> None:
    file = str(EXAMPLES / "shopify-orders-paid.http")
    shown = check(file, "--source", "shop", "--webhooks", str(EXAMPLES / "webhooks.yaml"))
    assert shown.exit_code == 0, shown.output
    assert "not checked: its secrets are not set" in shown.output
    assert "shopify-shop-order-450789469" in shown.output
    assert "hashed before it is sent: email" in shown.output
    assert "@" not in shown.output.replace("user_data", "")
    signed_ = check(
        file, "--source", "shop", "--webhooks", str(EXAMPLES / "webhooks.yaml"), SHOPIFY_SECRET=EXAMPLE_SECRET
    )
    assert "signature  right" in signed_.output


EXAMPLE_SECRET = "example-secret-of-the-docs"
SAVED = [
    ("shopify-orders-paid.http", "shop", "accepted", 1, 0), ("shopify-refunds-create.http", "shop", "accepted", 1, 0),
    ("stripe-payment.http", "pay", "accepted", 1, 0), ("stripe-refund.http", "pay", "accepted", 1, 0),
    ("woocommerce-order.http", "woo", "accepted", 3, 0), ("till-order.http", "till", "accepted", 1, 0),
    ("meta-lead.http", "meta", "accepted", 2, 0), ("google-lead.http", "google", "accepted", 2, 0),
    ("shopify-test-order.http", "shop", "ignored", 0, 0), ("shopify-wrong-amount.http", "shop", "unmapped", 0, 3),
]  # fmt: skip


@pytest.mark.parametrize(("name", "source", "outcome", "records", "code"), SAVED, ids=[saved[0] for saved in SAVED])
def test_every_saved_example_is_signed_and_checked(
    name: str, source: str, outcome: str, records: int, code: int
) -> None:
    environ = {f"{variable}_SECRET": EXAMPLE_SECRET for variable in ("SHOPIFY", "STRIPE", "WOO", "META", "GOOGLE")}
    environ["TILL_SECRET"] = "whsec_ZXhhbXBsZS1zZWNyZXQtb2YtdGhlLWRvY3M="
    found = check(
        str(EXAMPLES / name), "--source", source, "--webhooks", str(EXAMPLES / "webhooks.yaml"), "--json", **environ
    )
    assert found.exit_code == code, found.output
    document = json.loads(found.output)
    assert document["signature"].startswith("right")
    assert (document["outcome"], len(document["records"])) == (outcome, records)


def test_every_saved_example_is_tested() -> None:
    assert {path.name for path in EXAMPLES.glob("*.http")} == {saved[0] for saved in SAVED}


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("nowhere.http", "--source", "shop"), 2, "nowhere.http: No such file"),
        ((str(EXAMPLES / "stripe-refund.http"), "--source", "nobody"), 2, "has no such source; it has"),
        ((str(EXAMPLES / "stripe-refund.http"), "--source", "pay", "--header", "x"), 2, "expected NAME:VALUE"),
    ],
)  # fmt: skip
def test_check_says_what_it_was_not_given(arguments: tuple[str, ...], code: int, said: str) -> None:
    found = check(*arguments, "--webhooks", str(EXAMPLES / "webhooks.yaml"))
    assert (found.exit_code, said in found.output) == (code, True), found.output
    missing = check(*arguments, "--webhooks", "no-such.yaml")
    assert missing.exit_code in {2, 78}


def test_the_tag_of_a_page_names_version_and_integrity() -> None:
    printed = CliRunner().invoke(
        app, ["collect", "tag", "https://shop.example/x", "--key", "wk_abc", "--consent", "wait"]
    )
    assert re.search(r'src="https://shop\.example/x/attributary\.[0-9a-f]{12}\.js" integrity="sha384-', printed.output)
    assert 'data-key="wk_abc" data-consent="wait"' in printed.output
    for arguments in (
        ["https://s.example", "--key", "sk_abc"],
        ["s.example", "--key", "wk_a"],
        ['https://s">', "--key", "wk_a"],
    ):
        assert CliRunner().invoke(app, ["collect", "tag", *arguments]).exit_code == 2
