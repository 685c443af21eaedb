"""The whole way: a page in Chromium, the collector, Kafka, the stages, the result, the read API; and a shop's webhook.

`-s` prints how long it took. Chromium, the broker, the database and all stages share the machine with the test.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import http.client
import json
import statistics
import time
from typing import TYPE_CHECKING, Any

import pytest
from confluent_kafka import Consumer

from attributary.local.ports import free_port
from attributary.producers.collector.page.script import script_tag
from attributary.schemas.topics import CONVERSIONS, RESULTS
from tests.expected_results import codec
from tests.fixtures.collector import make_key
from tests.fixtures.pipeline import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from playwright.sync_api import Page

    from tests.fixtures.browser import RecordingServer
    from tests.fixtures.pipeline import PipelineUnderTest

pytestmark = [pytest.mark.kafka, pytest.mark.postgres, pytest.mark.slow]

SHOP = "shop.localhost"
SECRET = "a secret of sixteen"
LANDING = "/p?utm_source=google&utm_medium=cpc&gclid=Cj0%2BKC"
ORDERS = 25
_SOURCES = """
webhooks:
  - {name: shop, provider: shopify, tenant: acme, path: shop-path-1, secrets: [env:TEST_HOOK]}
"""


class Seen:
    """What a read_committed subscriber of conversions and results sees, and when."""

    def __init__(self, bootstrap: str) -> None:
        self._consumer = Consumer(
            {"bootstrap.servers": bootstrap, "group.id": f"seen-{time.time_ns()}", "auto.offset.reset": "earliest",
             "isolation.level": "read_committed", "enable.auto.commit": False}
        )  # fmt: skip
        self._consumer.subscribe([CONVERSIONS, RESULTS])
        self.first: dict[tuple[str, str], float] = {}
        self.results: dict[str, dict[str, Any]] = {}

    def wait(self, topic: str, conversion_id: str) -> float:
        """Return when a conversion was first seen on a topic, seconds of the wall clock."""
        self.read_until(lambda: (topic, conversion_id) in self.first, f"{conversion_id} on {topic}")
        return self.first[topic, conversion_id]

    def read_until(self, holds: Callable[[], bool], what: str, seconds: float = 180.0) -> None:
        """Read on until something holds; a touchpoint that is stitched later raises a result's version."""
        deadline = time.monotonic() + seconds
        while not holds():
            assert time.monotonic() < deadline, f"not within {seconds:.0f} s: {what}"
            message = self._consumer.poll(0.2)
            if message is None or message.error() or message.value() is None:
                continue
            name = "result" if message.topic() == RESULTS else "conversion"
            record = codec().decode(name, message.value())
            self.first.setdefault((message.topic() or "", record["conversion_id"] or record["event_id"]), time.time())
            if name == "result":
                self.results[record["conversion_id"]] = record

    def close(self) -> None:
        self._consumer.close()


@pytest.fixture
def seen(fresh_topics: str) -> Iterator[Seen]:
    found = Seen(fresh_topics)
    yield found
    found.close()


def deliver(port: int, topic: str, document: dict[str, Any]) -> int:
    body = json.dumps(document).encode()
    mac = base64.b64encode(hmac.new(SECRET.encode(), body, hashlib.sha256).digest()).decode()
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=180)
    connection.request("POST", "/webhooks/shop-path-1", body, {"X-Shopify-Topic": topic, "X-Shopify-Hmac-Sha256": mac})
    status = connection.getresponse().status
    connection.close()
    return status


def answered(port: int, key: str, conversion_id: str) -> float:
    """Ask the read API for a conversion's result until it is there; return when it was."""

    def ask() -> int:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=180)
        path = f"/api/v1/attribution/conversions/{conversion_id}/result"
        connection.request("GET", path, headers={"Authorization": f"Bearer {key}"})
        response = connection.getresponse()
        document = json.loads(response.read())
        connection.close()
        assert response.status in {200, 404}, document
        assert response.status == 404 or document["conversion_id"] == conversion_id
        return response.status

    wait_until(lambda: ask() == 200, f"the read API does not know {conversion_id}")
    return time.time()


def money(amount: str) -> dict[str, dict[str, str]]:
    return {"shop_money": {"amount": amount, "currency_code": "EUR"}}


def credited(result: dict[str, Any]) -> dict[str, int]:
    """Micros by channel under the model `last`."""
    found = next(each for each in result["models"] if each["model"] == "last")
    channels = [touch["channel"] for touch in result["touchpoints"]]
    return dict(zip(channels, found["micros"], strict=True))


def test_from_the_page_to_the_result(
    pipeline: PipelineUnderTest, shop: RecordingServer, page: Page, seen: Seen, tmp_path: Path
) -> None:
    keys, sources, port = tmp_path / "keys.json", tmp_path / "webhooks.yaml", free_port()
    sources.write_text(_SOURCES)
    key = make_key(keys, "wk", origins=[f"http://{SHOP}:{shop.port}"], browser_values=True)
    pipeline.start("stitcher", "attributor", "auditor")
    pipeline.start(
        "collect", COLLECT_PORT=str(port), COLLECT_HOST="127.0.0.1", COLLECT_KEYS_FILE=str(keys), TEST_HOOK=SECRET,
        COLLECT_SPOOL=str(tmp_path / "spool"), COLLECT_WEBHOOKS_FILE=str(sources),
    )  # fmt: skip
    reader, serve_port = make_key(keys, "sk", scopes=("read",)), free_port()
    pipeline.start(
        "serve", SERVE_PORT=str(serve_port), SERVE_KEYS_FILE=str(keys), SERVE_REQUESTS_PER_SECOND="0",
        SERVE_WAIT_SECONDS="40", SERVE_STATEMENT_SECONDS="40",
    )  # fmt: skip
    pipeline.wait_for(
        lambda: all(pipeline.logged(name, "listening on port") for name in ("collect", "serve")), "no listener"
    )
    pipeline.wait_for(
        lambda: all(pipeline.logged(name, '"assigned"') for name in ("stitcher", "attributor")), "no work"
    )

    shop.head = script_tag(f"http://t.{SHOP}:{port}", "attributary.js", key, "granted")
    page.goto(shop.url(LANDING, SHOP))
    page.wait_for_function("window.attributary")
    anonymous = page.evaluate("new Promise(done => attributary.id(done))")
    to_log, to_result, to_answer = [], [], []
    for number in range(ORDERS):
        began = time.time()
        page.evaluate(
            "id => attributary.conversion({order_id: id, conversion_id: id, value: '19.99', currency: 'EUR'})",
            f"o-{number}",
        )
        to_log.append((seen.wait(CONVERSIONS, f"o-{number}") - began) * 1_000)
        to_result.append((seen.wait(RESULTS, f"o-{number}") - began) * 1_000)
        to_answer.append((answered(serve_port, reader, f"o-{number}") - began) * 1_000)
    paid = [f"o-{number}" for number in range(ORDERS)]
    wanted = {"paid_search": 19_990_000}
    seen.read_until(lambda: all(credited(seen.results[name]) == wanted for name in paid), "the landing gets the credit")

    order = {
        "id": 1, "processed_at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + 60)), "currency": "EUR",
        "financial_status": "paid", "total_price": "50.00", "total_price_set": money("50.00"), "line_items": [],
        "note_attributes": [{"name": "_atb", "value": anonymous}],
    }  # fmt: skip
    refund = {
        "id": 9, "order_id": 1, "created_at": order["processed_at"], "refund_line_items": [],
        "order_adjustments": [{"kind": "refund_discrepancy", "amount_set": money("-12.34")}],
        "transactions": [{"kind": "refund", "status": "success", "amount": "12.34", "currency": "EUR"}],
    }  # fmt: skip
    assert {deliver(port, "orders/paid", order) for _ in range(100)} == {200}
    seen.wait(RESULTS, "shopify-shop-order-1")
    assert deliver(port, "refunds/create", refund) == 200
    net = {"paid_search": 37_660_000}
    seen.read_until(lambda: credited(seen.results["shopify-shop-order-1"]) == net, "the cart's id is the page's")
    pipeline.check()
    stored = "SELECT count(*) FROM attribution_conversion_events WHERE conversion_id = 'shopify-shop-order-1'"
    assert pipeline.query(stored) == 2  # of a hundred deliveries one, and the refund
    assert pipeline.stop()["collect"] == 0
    for name, waits in (("log", to_log), ("result", to_result), ("answer over HTTP", to_answer)):
        p50, p95 = statistics.quantiles(waits, n=20)[9], statistics.quantiles(waits, n=20)[18]
        print(f"page -> {name}: p50 {p50:.0f} ms, p95 {p95:.0f} ms of {ORDERS} conversions, one after the other")
