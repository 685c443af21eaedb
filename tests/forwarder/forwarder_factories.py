"""What the forwarder's tests share: conversions, records, a clock that can be moved, a stage on fakes."""

from __future__ import annotations

import itertools
import json
from typing import TYPE_CHECKING, Any

from attributary.consumers.destinations.ad_platform import PlatformOptions
from attributary.consumers.destinations.attempts import SenderOptions
from attributary.consumers.destinations.bingads.destination import BingAdsDestination
from attributary.consumers.destinations.credentials import AccountCredentials, Credentials
from attributary.consumers.destinations.destination import Account, HttpResponse, Moment, NotSent, PreparedEvent
from attributary.consumers.destinations.ga4.destination import Ga4Destination, Ga4Options
from attributary.consumers.destinations.google.destination import GoogleDestination
from attributary.consumers.destinations.linkedin.destination import LinkedInDestination
from attributary.consumers.destinations.memory_ledger import MemoryLedger
from attributary.consumers.destinations.meta.destination import MetaDestination, MetaOptions
from attributary.consumers.destinations.microsoft.destination import MicrosoftDestination
from attributary.consumers.destinations.pinterest.destination import PinterestDestination
from attributary.consumers.destinations.prepare import prepare
from attributary.consumers.destinations.reddit.destination import RedditDestination
from attributary.consumers.destinations.sender import BatchSender
from attributary.consumers.destinations.snap.destination import SnapDestination
from attributary.consumers.destinations.tiktok.destination import TikTokDestination
from attributary.consumers.destinations.transport import HttpTransport
from attributary.consumers.destinations.x.destination import XDestination
from attributary.consumers.forwarder.record_reader import Found
from attributary.consumers.forwarder.stage import ForwarderStage, Route
from attributary.consumers.forwarder.tasks import source_of
from attributary.consumers.runtime.records import Record
from attributary.schemas.codec import Codec

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from attributary.consumers.destinations.destination import HttpRequest
    from attributary.consumers.destinations.transport import Transport
    from attributary.consumers.forwarder.record_reader import RecordReader
    from attributary.consumers.store.deliveries.delivery import Ledger, Source

CODEC = Codec()
TOPIC = "attribution.conversions.v1"
ALL_CONSENT = dict.fromkeys(("ad_storage", "ad_user_data", "ad_personalization", "analytics_storage"), True)
HASH = "62a14e44f765419d10fea99367361a727c12365e2520f32218d505ed9aa0f62f"
META_ACCOUNT = AccountCredentials("1234567890", "test-token", {})
GA4_ACCOUNT = AccountCredentials("G-TEST1", "test-secret", {"measurement_id": "G-TEST1"})
TIKTOK_ACCOUNT = AccountCredentials("PIXEL1", "test-token", {"pixel_code": "PIXEL1", "offline_event_set_id": "77"})
LINKEDIN_ACCOUNT = AccountCredentials("5001", "test-token", {}, {"purchase": "104012", "lead": "104013"})
X_KEYS = ("ck", "cs", "at", "ts")
X_ACCOUNT = AccountCredentials(
    "o8z6j", "ts", {"consumer_key": "ck", "consumer_secret": "cs", "access_token": "at"}, {"purchase": "o87ne"}
)
OAUTH_CLIENT = {"client_id": "client-1", "client_secret": "client-secret"}
ACCOUNTS = {
    "meta": META_ACCOUNT, "ga4": GA4_ACCOUNT, "tiktok": TIKTOK_ACCOUNT, "linkedin": LINKEDIN_ACCOUNT, "x": X_ACCOUNT,
    "reddit": AccountCredentials("a2_abc", "test-token", {}),
    "pinterest": AccountCredentials("5490", "test-token", {}),
    "google": AccountCredentials(
        "1234567890", "refresh-1",
        {"customer_id": "1234567890", "project_id": "shop-1"} | OAUTH_CLIENT,
        {"purchase": "7001", "lead": "7002"},
    ),
    "snap": AccountCredentials("pixel-1", "test-token", {"pixel_id": "pixel-1", "app_id": "app-1"}),
    "microsoft": AccountCredentials("1870", "test-token", {}),
    "bingads": AccountCredentials(
        "1500", "refresh-1",
        {"customer_id": "2500", "developer_token": "dev-1"} | OAUTH_CLIENT,
        {"purchase": "Shop orders", "lead": "Leads", "signup": "uet:Sign-ups"},
    ),
}  # fmt: skip
CASE_TIME = 1_795_500_000_000_000
_numbers = itertools.count()


class SimulatedClock:
    """Time that passes only when somebody waits for it."""

    def __init__(self, now_micros: int) -> None:
        self.micros = now_micros
        self.slept = 0.0

    def now_micros(self) -> int:
        return self.micros

    def monotonic(self) -> float:
        return self.micros / 1e6

    def sleep(self, seconds: float) -> None:
        self.slept += seconds
        self.micros += int(seconds * 1e6)


class ScriptedTransport:
    """Answers from a function; remembers the requests."""

    def __init__(self, answer: Callable[[HttpRequest], HttpResponse]) -> None:
        self.answer = answer
        self.requests: list[HttpRequest] = []

    def send(self, request: HttpRequest) -> HttpResponse:
        self.requests.append(request)
        return self.answer(request)

    def close(self) -> None:
        pass


class MemoryReader:
    """Kafka's log as a dictionary; what is not there is gone."""

    def __init__(self, held: Sequence[Record] = ()) -> None:
        self.held = {source_of(record): record for record in held}
        self.asked = 0

    def add(self, held: Sequence[Record]) -> list[Record]:
        self.held |= {source_of(record): record for record in held}
        return list(held)

    def read(self, sources: Iterable[Source], seconds: float) -> Found:  # noqa: ARG002
        wanted = list(sources)
        self.asked += len(wanted)
        found = {source: self.held[source] for source in wanted if source in self.held}
        return Found(found, frozenset(source for source in wanted if source not in self.held))

    def close(self) -> None:
        pass


def conversion(now_micros: int, **changes: Any) -> dict[str, Any]:
    """A purchase of a person who agreed to everything, as it stands on the topic."""
    number = next(_numbers)
    fields: dict[str, Any] = {
        "tenant_id": "acme",
        "event_id": f"e{number:07d}",
        "conversion_type": "purchase",
        "user_id": f"user-{number}",
        "anonymous_id": f"device-{number}",
        "occurred_at": now_micros - 60_000_000,
        "value_micros": 19_990_000,
        "currency": "EUR",
        "order_id": f"order-{number}",
        "items": [{"item_id": "sku-1", "item_name": "Shoe", "quantity": 2.0, "price_micros": 9_995_000}],
        "user_data": {"meta_hashes": {"em": [HASH]}, "google_hashes": {"sha256_email_address": [HASH]}},
        "event_source_url": "https://shop.example/thanks",
        "client_ip_address": "203.0.113.9",
        "client_user_agent": "Mozilla/5.0",
        "click_ids": {
            "fbc": "fb.1.1554763741205.AbCdEf-GhI",
            "fbp": "fb.1.1558571054389.1098115397",
            "msclkid": f"c{number:031x}",  # one of zeros alone is a placeholder
        },
        "ga_client_id": f"{number}.1700000000",
        "ga_session_id": "1700000000",
        "consent": ALL_CONSENT,
    } | changes
    return CODEC.decode("conversion", CODEC.encode("conversion", fields))


def record(value: dict[str, Any] | bytes, offset: int, *, at_ms: int, partition: int = 0) -> Record:
    encoded = value if isinstance(value, bytes) else CODEC.encode("conversion", value)
    return Record(TOPIC, partition, offset, b"key", encoded, at_ms)


def records(values: Sequence[dict[str, Any] | bytes], *, now_micros: int, first: int = 0) -> list[Record]:
    return [record(value, first + n, at_ms=now_micros // 1_000) for n, value in enumerate(values)]


def meta_account(**options: str) -> Account:
    return Account("acme", "meta", META_ACCOUNT.name, META_ACCOUNT.secret, options)


def ga4_account(**options: str) -> Account:
    return Account("acme", "ga4", "G-TEST1", "test-secret", {"measurement_id": "G-TEST1"} | options)


def destination_at(name: str, url: str) -> Any:
    """A destination that speaks to a fake."""
    made: dict[str, Any] = {
        "meta": lambda: MetaDestination(MetaOptions(base_url=url)),
        "ga4": lambda: Ga4Destination(Ga4Options(base_url=url)),
        "tiktok": lambda: TikTokDestination(PlatformOptions(base_url=url)),
        "linkedin": lambda: LinkedInDestination(PlatformOptions(base_url=url)),
        "x": lambda: XDestination(PlatformOptions(base_url=url)),
        "reddit": lambda: RedditDestination(PlatformOptions(base_url=url)),
        "pinterest": lambda: PinterestDestination(PlatformOptions(base_url=url)),
        "snap": lambda: SnapDestination(PlatformOptions(base_url=url)),
        "microsoft": lambda: MicrosoftDestination(PlatformOptions(base_url=url)),
        "bingads": lambda: BingAdsDestination(PlatformOptions(base_url=url, token_url=f"{url}/token")),
        "google": lambda: GoogleDestination(PlatformOptions(base_url=url, token_url=f"{url}/token")),
    }
    return made[name]()


def account_at(name: str, **options: str) -> Account:
    """The test account at a destination, of tenant acme."""
    made = ACCOUNTS[name]
    return Account("acme", name, made.name, made.secret, {**made.options, **options}, made.event_names)


def stage_for(
    name: str,
    url: str,
    clock: Any,
    *,
    ledger: Ledger | None = None,
    transport: Transport | None = None,
    options: SenderOptions | None = None,
    route: dict[str, Any] | None = None,
    reader: RecordReader | None = None,
) -> ForwarderStage:
    """A stage on a fake, with one account for every tenant unless `route` says otherwise."""
    destination, account = destination_at(name, url), ACCOUNTS[name]
    ledger = ledger if ledger is not None else MemoryLedger()
    options = options or SenderOptions(concurrency=1)
    sender = BatchSender(destination, transport or HttpTransport(answer_seconds=20.0), ledger, options, clock)
    wanted: dict[str, Any] = {"credentials": Credentials(name, account), "uncertain": options.uncertain} | (route or {})
    return ForwarderStage(Route(destination, **wanted), sender, ledger, clock, reader=reader)


def prepared(name: str, destination: Any = None, **changes: Any) -> PreparedEvent | NotSent:
    """What becomes of one conversion at a destination, at `CASE_TIME`."""
    chosen = destination or destination_at(name, "https://api.example")
    moment = Moment(CASE_TIME, CASE_TIME)
    return prepare(chosen, conversion(CASE_TIME, **changes), account_at(name), moment, unknown="send")


def sent(name: str, destination: Any = None, **changes: Any) -> tuple[dict[str, Any], str]:
    """The event's body (GA4: with its envelope) and the remarks."""
    event = prepared(name, destination, **changes)
    assert isinstance(event, PreparedEvent), event
    body = json.loads(event.body)
    return (body | {"envelope": json.loads(event.envelope)} if name == "ga4" else body), event.remark or ""


def line(**changes: Any) -> dict[str, Any]:
    return {"item_id": "a", "quantity": 1.0, "price_micros": 5_000_000, "properties": {}} | changes
