"""The read API as it is served: a real listener over a real Postgres, with results of the real stages."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from attributary.consumers.adapters.job_topic import JobTopic
from attributary.consumers.api.handlers import Handlers
from attributary.consumers.api.pool import ReadPool
from attributary.consumers.api.server import ApiServer
from attributary.consumers.api.settings import ServeSettings
from attributary.local.ports import LOOPBACK
from attributary.producers.collector.keys import new_key
from tests.factories.samples import codec, sale, touch
from tests.pipeline_harness import InProcess

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from attributary.producers.transport import Message

INACTIVITY = 30 * 86_400_000_000
ORDERS = 25


class RecordedJobs:
    """Takes jobs and keeps them; refuses when told to."""

    def __init__(self) -> None:
        self.jobs: list[tuple[str, str, str, dict[str, str]]] = []
        self.requests: list[Message] = []
        self.refuses: Exception | None = None

    def submit(
        self, tenant_id: str, job_id: str, kind: str, parameters: Any, *, submitted_by: str, seconds: float
    ) -> None:
        assert submitted_by.startswith("key ")
        assert seconds > 0
        if self.refuses is not None:
            raise self.refuses
        self.jobs.append((tenant_id, job_id, kind, dict(parameters)))

    def request_erasure(
        self, tenant_id: str, request_id: str, kind: str, identifier: str, mode: str, *, seconds: float
    ) -> None:
        """Check as the real one does, and keep it."""
        sent: list[Any] = []
        transport: Any = SimpleNamespace(send=lambda message, _: sent.append(message), flush=lambda _seconds: 0)
        JobTopic(codec(), transport).request_erasure(tenant_id, request_id, kind, identifier, mode, seconds=seconds)
        if self.refuses is not None:
            raise self.refuses
        self.requests += sent


@dataclass
class Api:
    """A running server, and a client for each key."""

    url: str
    tokens: dict[str, str]
    jobs: RecordedJobs = field(default_factory=RecordedJobs)

    def ask(self, path: str, key: str | None = "acme", **options: Any) -> httpx.Response:
        headers = {"Authorization": f"Bearer {self.tokens[key]}"} if key else {}
        headers |= options.pop("headers", {})
        method = options.pop("method", "GET")
        return httpx.request(method, f"{self.url}{path}", headers=headers, timeout=120, trust_env=False, **options)

    def good(self, path: str, key: str | None = "acme", **options: Any) -> Any:
        answer = self.ask(path, key, **options)
        assert answer.status_code == 200, answer.text
        return answer.json()


@contextmanager
def served(dsn: str, folder: Path, **settings: Any) -> Iterator[Api]:
    """Serve a database until the block ends."""
    made = {
        "acme": new_key("sk", "acme", now=0, scopes=("read", "jobs", "erase")),
        "erases": new_key("sk", "acme", now=0, scopes=("erase",)),
        "other": new_key("sk", "other", now=0, scopes=("read",)),
        "writes": new_key("sk", "acme", now=0, scopes=("event",)),
        "revoked": new_key("sk", "acme", now=0, scopes=("read",), revoked_at=1),
    }
    keys = folder / "keys.json"
    keys.write_text(json.dumps({"version": 1, "keys": [_entry(key) for _, key in made.values()]}))
    keys.chmod(0o600)
    options = ServeSettings.model_validate({"SERVE_KEYS_FILE": keys, "SERVE_REQUESTS_PER_SECOND": 0, **settings})
    listener = socket.socket()
    listener.bind((LOOPBACK, 0))
    listener.listen()
    api = Api(f"http://{LOOPBACK}:{listener.getsockname()[1]}", {name: token for name, (token, _) in made.items()})
    ready = threading.Event()
    handles: list[Any] = []

    async def serve() -> None:
        pool = ReadPool(
            dsn,
            size=options.connections,
            wait_seconds=options.wait_seconds,
            statement_seconds=options.statement_seconds,
        )
        jobs: JobTopic = api.jobs  # type: ignore[assignment]  # as much of it as is called
        server = ApiServer(options, pool, Handlers(pool, jobs, INACTIVITY), "test")
        handles.extend([asyncio.get_running_loop(), server])
        running = asyncio.ensure_future(server.run(listener))
        await asyncio.sleep(0)  # it listens already: a request waits until it is served
        ready.set()
        await running

    thread = threading.Thread(target=lambda: asyncio.run(serve()))
    thread.start()
    try:
        assert ready.wait(120)
        yield api
    finally:
        loop, server = handles
        loop.call_soon_threadsafe(server.stop)
        thread.join(120)
        assert not thread.is_alive()


def _entry(key: Any) -> dict[str, Any]:
    from dataclasses import asdict

    return {name: value for name, value in asdict(key).items() if value not in (None, (), {})}


@pytest.fixture(scope="module")
def shop(module_database: str) -> str:
    """A database: orders of acme, one with a refund, in the order of time; one of another tenant."""
    with InProcess(module_database) as stages:
        for number in range(ORDERS):
            who = f"a:d{number}"
            stages.publish(
                touch(f"t{number}a", number, who=who, channel="paid_search"),
                touch(f"t{number}b", number + 0.5, who=who, channel="email"),
                sale(
                    f"order-{number:02}", number + 1, who=who, value=10_010_000 + number * 10_000,
                    conversion_type="lead" if number % 5 == 4 else "purchase",
                ),
            )  # fmt: skip
        stages.publish(touch("x", tenant_id="other"), sale("order-00", 1, tenant_id="other"))
        stages.publish(sale("refund", 40, who="a:d3", kind="refund", conversion_id="order-03", value=1_010_000))
    return module_database


@pytest.fixture(scope="module")
def api(shop: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    with served(shop, tmp_path_factory.mktemp("api")) as running:
        yield running
