"""A part of the demo's events comes over HTTP: landings of pages, orders of a server, webhooks with right signatures.

Contract: everything goes to the collector, a process of its own, as strangers' requests do. What it acknowledged is
added to what was published, so the promises at the end hold for it too. A delivery that comes twice and one with a
wrong signature are among them.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import http.client
import json
import secrets
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from attributary.local.ports import free_port
from attributary.producers.collector.keys import edit_keys, new_key
from attributary.schemas.topics import CONVERSIONS, TOUCHPOINTS

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from attributary.local.demo.publish import Published

TENANT = "webshop"
API = "/api/v1/attribution"
_PAGE = "https://webshop.example"
_VISITORS = 150
_BATCH = 25
_LANDINGS = (
    "/?utm_source=google&utm_medium=cpc&utm_campaign=spring&gclid=Cj0KCQiA%2B",
    "/sale?utm_source=facebook&utm_medium=paid_social&fbclid=IwAR0",
    "/blog?utm_source=newsletter&utm_medium=email",
    "/?utm_source=youtube&utm_medium=cpv&gclid=EAIaIQob",
)
_SOURCES = """
webhooks:
  - {{name: shop, provider: shopify, tenant: {tenant}, path: {shop}, secrets: [env:DEMO_SHOPIFY_SECRET],
     options: {{currency: EUR}}}}
  - {{name: pay, provider: stripe, tenant: {tenant}, path: {pay}, secrets: [env:DEMO_STRIPE_SECRET]}}
"""
_WAIT_SECONDS = 60.0


@dataclass
class SenderRow:
    """What became of the requests of one sender."""

    name: str
    requests: int = 0
    records: int = 0
    refused: int = 0
    seconds: list[float] = field(default_factory=list)


@dataclass(frozen=True)
class HttpSenders:
    """Who may send to the demo's collector.

    Attributes:
        port: of the collector.
        write_key: of the page; ``secret_key`` of the shop's server.
        shop_path: address of the Shopify-like webhook, with ``shop_secret``.
        pay_path: address of the Stripe-like webhook, with ``pay_secret``.
        environment: variables of the collector.
    """

    port: int
    write_key: str
    secret_key: str
    shop_path: str
    shop_secret: str
    pay_path: str
    pay_secret: str
    environment: Mapping[str, str]


def prepare_senders(folder: Path) -> HttpSenders:
    """Make keys, sources and secrets; the collector reads them when it starts.

    Args:
        folder: for the collector's files.
    """
    folder.mkdir(parents=True)
    keys, sources, port, now = folder / "keys.json", folder / "webhooks.yaml", free_port(), int(time.time())
    with edit_keys(keys) as known:
        write_key, page = new_key("wk", TENANT, now=now, origins=[_PAGE])
        secret_key, server = new_key("sk", TENANT, now=now)
        known += [page, server]
    shop_path, pay_path = secrets.token_hex(12), secrets.token_hex(12)
    shop_secret, pay_secret = secrets.token_hex(16), f"whsec_{secrets.token_hex(16)}"
    sources.write_text(_SOURCES.format(tenant=TENANT, shop=shop_path, pay=pay_path), "utf-8")
    environment = {
        "COLLECT_HOST": "127.0.0.1",
        "COLLECT_PORT": str(port),
        "COLLECT_KEYS_FILE": str(keys),
        "COLLECT_SPOOL": str(folder / "spool"),
        "COLLECT_WEBHOOKS_FILE": str(sources),
        "COLLECT_REQUESTS_PER_SECOND_IP": "0",  # every visitor of the demo has one address
        "DEMO_SHOPIFY_SECRET": shop_secret,
        "DEMO_STRIPE_SECRET": pay_secret,
    }
    return HttpSenders(port, write_key, secret_key, shop_path, shop_secret, pay_path, pay_secret, environment)


class HttpTraffic:
    """Sends the demo's requests, one after the other.

    Args:
        senders: where to, and with which keys.
        published: what was acknowledged is added to it.
    """

    def __init__(self, senders: HttpSenders, published: Published) -> None:
        self._senders = senders
        self._published = published
        self._connection = http.client.HTTPConnection("127.0.0.1", senders.port, timeout=30)
        self._now = datetime.now(UTC)

    def send(self) -> list[SenderRow]:
        """Send everything; return one row a sender.

        Raises:
            TimeoutError: the collector does not answer.
        """
        self._wait()
        visitors = [f"visitor-{number}-{secrets.token_hex(4)}" for number in range(_VISITORS)]
        try:
            return [
                self._pages(visitors),
                self._server(visitors[:50]),
                self._shopify(visitors[50:100]),
                self._stripe(visitors[100:]),
            ]
        finally:
            self._connection.close()

    def _wait(self) -> None:
        deadline = time.monotonic() + _WAIT_SECONDS
        while time.monotonic() < deadline:
            try:
                self._connection.request("GET", f"{API}/health")
                if self._connection.getresponse().read():
                    return
            except OSError:
                self._connection.close()
                time.sleep(0.1)
        raise TimeoutError(f"the collector does not answer on port {self._senders.port}")

    def _pages(self, visitors: list[str]) -> SenderRow:
        row = SenderRow("page script")
        headers = {"Origin": _PAGE, "Content-Type": "text/plain", "User-Agent": "Mozilla/5.0 Chrome/131.0.0.0"}
        for number, visitor in enumerate(visitors):
            record = {
                "event_id": f"landing-{visitor}",
                "anonymous_id": visitor,
                "occurred_at": self._ago(minutes=30 + number % 60),
                "landing_url": f"{_PAGE}{_LANDINGS[number % len(_LANDINGS)]}",
                "consent": {"ad_storage": True},
            }
            path = f"{API}/track/event?k={self._senders.write_key}"
            self._post(row, path, {"events": [record]}, headers, TOUCHPOINTS, [f"landing-{visitor}"])
        return row

    def _server(self, visitors: list[str]) -> SenderRow:
        row = SenderRow("server, in batches")
        headers = {"Authorization": f"Bearer {self._senders.secret_key}", "Content-Type": "application/json"}
        orders = [
            {
                "order_id": f"web-{visitor}",
                "anonymous_id": visitor,
                "occurred_at": self._ago(minutes=10),
                "conversion_type": "purchase",
                "value": f"{20 + number}.95",
                "currency": "EUR",
            }
            for number, visitor in enumerate(visitors)
        ]
        for start in range(0, len(orders), _BATCH):
            part = orders[start : start + _BATCH]
            ids = [f"order-{order['order_id']}" for order in part]
            self._post(row, f"{API}/track/conversion", {"conversions": part}, headers, CONVERSIONS, ids)
        return row

    def _shopify(self, visitors: list[str]) -> SenderRow:
        row = SenderRow("webhook, Shopify-like")
        path = f"/webhooks/{self._senders.shop_path}"
        for number, visitor in enumerate(visitors, 1):
            total = f"{30 + number}.50"
            order = {
                "id": number, "name": f"#{number}", "processed_at": self._ago(minutes=8), "financial_status": "paid",
                "currency": "EUR", "total_price": total, "total_price_set": _money(total), "line_items": [],
                "note_attributes": [{"name": "_atb", "value": visitor}],
            }  # fmt: skip
            for _ in range(2 if number % 10 == 0 else 1):  # a delivery that comes again
                headers = self._shopify_headers("orders/paid", order)
                self._post(row, path, order, headers, CONVERSIONS, [f"shopify-shop-order-{number}"])
            if number % 5 == 0:
                refund = {
                    "id": 1_000 + number, "order_id": number, "created_at": self._ago(minutes=2),
                    "refund_line_items": [],
                    "transactions": [{"kind": "refund", "status": "success", "amount": "9.99", "currency": "EUR"}],
                }  # fmt: skip
                headers = self._shopify_headers("refunds/create", refund)
                self._post(row, path, refund, headers, CONVERSIONS, [f"shopify-shop-refund-{1_000 + number}"])
        self._post(row, path, {"id": 1}, {"X-Shopify-Topic": "orders/paid", "X-Shopify-Hmac-Sha256": "AAAA"}, "", [])
        return row

    def _shopify_headers(self, topic: str, document: Mapping[str, Any]) -> dict[str, str]:
        mac = hmac.new(self._senders.shop_secret.encode(), _body(document), hashlib.sha256).digest()
        return {"X-Shopify-Topic": topic, "X-Shopify-Hmac-Sha256": base64.b64encode(mac).decode()}

    def _stripe(self, visitors: list[str]) -> SenderRow:
        row = SenderRow("webhook, Stripe-like")
        created = int(self._now.timestamp()) - 300
        for number, visitor in enumerate(visitors, 1):
            payment = {
                "id": f"pi_demo{number}", "amount_received": 1_500 + 10 * number, "currency": "eur",
                "created": created, "customer": f"cus_demo{number}", "metadata": {"atb_id": visitor},
            }  # fmt: skip
            self._stripe_event(row, "payment_intent.succeeded", payment, f"stripe-pi_demo{number}")
            if number % 5 == 0:
                refund = {
                    "id": f"re_demo{number}", "amount": 500, "currency": "eur", "created": created + 60,
                    "payment_intent": f"pi_demo{number}", "status": "succeeded",
                }  # fmt: skip
                self._stripe_event(row, "refund.created", refund, f"stripe-re_demo{number}")
        return row

    def _stripe_event(self, row: SenderRow, kind: str, entity: Mapping[str, Any], event_id: str) -> None:
        event = {"id": f"evt_{event_id}", "object": "event", "type": kind, "livemode": True, "data": {"object": entity}}
        stamp = int(time.time())
        signed = f"{stamp}.".encode() + _body(event)
        mac = hmac.new(self._senders.pay_secret.encode(), signed, hashlib.sha256).hexdigest()
        headers = {"Stripe-Signature": f"t={stamp},v1={mac}"}
        self._post(row, f"/webhooks/{self._senders.pay_path}", event, headers, CONVERSIONS, [event_id])

    def _post(
        self,
        row: SenderRow,
        path: str,
        document: Mapping[str, Any],
        headers: dict[str, str],
        topic: str,
        ids: list[str],
    ) -> None:
        """Send one request; count what it acknowledged."""
        began = time.perf_counter()
        self._connection.request("POST", path, _body(document), headers)
        response = self._connection.getresponse()
        response.read()
        row.seconds.append(time.perf_counter() - began)
        row.requests += 1
        if response.status not in {200, 202}:
            row.refused += 1
            return
        row.records += len(ids)
        self._published.sent += len(ids)
        self._published.distinct[topic] |= {(TENANT, event_id) for event_id in ids}

    def _ago(self, *, minutes: int) -> str:
        return (self._now - timedelta(minutes=minutes)).isoformat()


def _money(amount: str) -> dict[str, dict[str, str]]:
    return {"shop_money": {"amount": amount, "currency_code": "EUR"}}


def _body(document: Mapping[str, Any]) -> bytes:
    return json.dumps(document).encode()
