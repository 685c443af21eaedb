"""Time of the HTTP endpoints at 100 requests a second: `python -m benchmarks.http_targets`.

A collector and a read API run as processes, with a broker and a Postgres that holds the results of `ORDERS` orders.
Each endpoint gets its requests from the open-loop generator, one endpoint after the other; its p95 is compared with its
target. Ends with 1 where one is missed. tests/api/test_api_smoke.py runs the same with bounds for a busy machine.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from attributary.local.ports import LOOPBACK, free_port
from attributary.local.process import spawn
from attributary.local.stages import command_line
from attributary.producers.collector.keys import edit_keys, new_key
from benchmarks.environment_setup import find_servers
from benchmarks.open_loop import Outcome, send_at_rate
from tests.factories.samples import sale
from tests.factories.samples import touch as stored_touch
from tests.fixtures.collector import CONVERSION, EVENT, purchase, touch
from tests.fixtures.collector_process import CollectorProcess, collector_process
from tests.fixtures.pipeline import wait_until
from tests.fixtures.topics import recreate_topics
from tests.pipeline_harness import InProcess

API = "/api/v1/attribution"
RATE = 100
ORDERS = 50
_NOW = 1_790_000_000_000_000
TARGETS: Mapping[str, int] = {
    "health": 100,
    "track/event": 200,
    "track/conversion": 300,
    "analyze/journey": 500,
    "track/event, 10 records": 2_000,
    "results": 500,
}
"""p95 in milliseconds."""


@dataclass(frozen=True)
class Listener:
    """A server on this machine, and a key that it takes."""

    port: int
    key: str

    def request(self, method: str, path: str, document: Any = None) -> bytes:
        """Return a whole HTTP/1.1 request."""
        body = b"" if document is None else json.dumps(document).encode()
        head = (
            f"{method} {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {self.key}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        return head.encode() + body


@contextmanager
def read_api(folder: Path, dsn: str, **variables: str) -> Iterator[Listener]:
    """Run `attributary serve` on a database that holds the results of tenant acme."""
    with edit_keys(folder / "serve.json") as keys:
        token, key = new_key("sk", "acme", now=0, scopes=("read",))
        keys.append(key)
    port, log = free_port(), folder / "serve.log"
    environment = {name: text for name, text in os.environ.items() if not name.startswith("SERVE_")} | {
        "DATABASE_URL": dsn, "SERVE_KEYS_FILE": str(folder / "serve.json"), "SERVE_PORT": str(port),
        "SERVE_REQUESTS_PER_SECOND": "0", "METRICS_PORT": "0", "METRICS_HOST": LOOPBACK, **variables,
    }  # fmt: skip
    child = spawn(command_line("serve"), name="serve", log=log, env=environment)
    try:
        wait_until(lambda: log.exists() and "listening on port" in log.read_text(), "the read API does not listen")
        yield Listener(port, token)
    finally:
        child.stop()


def fill(dsn: str) -> None:
    """Store touchpoints, conversions and results of ``ORDERS`` orders."""
    with InProcess(dsn) as stages:
        for number in range(ORDERS):
            who = f"a:d{number}"
            touches = [stored_touch(f"t{number}-{each}", number + each / 10, who=who) for each in range(5)]
            stages.publish(*touches, sale(f"order-{number}", number + 1, who=who, value=19_990_000))


def measure(collector: Listener, api: Listener, requests: int) -> dict[str, Outcome]:
    """Send so many requests to each endpoint at ``RATE``; return what came back by endpoint."""
    run = f"{os.getpid()}-{_NOW}"

    def touches(number: int, records: int) -> Any:
        listed = [touch(event_id=f"{run}-{records}-{number}-{each}", occurred_at=_NOW) for each in range(records)]
        return listed[0] if records == 1 else listed

    made = {
        "health": [api.request("GET", f"{API}/health")] * requests,
        "track/event": [collector.request("POST", EVENT, touches(each, 1)) for each in range(requests)],
        "track/conversion": [
            collector.request("POST", CONVERSION, purchase(order_id=f"{run}-{each}", occurred_at=_NOW))
            for each in range(requests)
        ],
        "analyze/journey": [
            api.request("POST", f"{API}/analyze/journey", {"conversion_id": f"order-{each % ORDERS}"})
            for each in range(requests)
        ],
        "track/event, 10 records": [collector.request("POST", EVENT, touches(each, 10)) for each in range(requests)],
        "results": [api.request("GET", f"{API}/results?limit=10")] * requests,
    }
    ports = {name: collector.port if name.startswith("track") else api.port for name in made}
    return {name: send_at_rate(ports[name], some, RATE) for name, some in made.items()}


def table(found: Mapping[str, Outcome]) -> str:
    """Return the figures as lines."""
    return "".join(
        f"{name}: p50 {outcome.quantile(0.5):.0f} ms, p95 {outcome.quantile(0.95):.0f} ms (target {TARGETS[name]} ms) "
        f"at {RATE} requests/s; statuses {dict(outcome.statuses)}\n"
        for name, outcome in found.items()
    )


def listener_of(collector: CollectorProcess) -> Listener:
    """Return where a collector takes records."""
    return Listener(collector.port, collector.key)


def main() -> None:
    """Measure; end with 1 where a target is missed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--seconds", type=int, default=10, help="length of each endpoint's measurement")
    options = parser.parse_args()
    with find_servers() as servers, tempfile.TemporaryDirectory() as name:
        folder, dsn = Path(name), servers.new_database("bench_http")
        recreate_topics(servers.broker.bootstrap)
        fill(dsn)
        with (
            read_api(folder, dsn) as api,
            collector_process(folder, servers.broker.bootstrap, KAFKA_EXTRA='{"log_level": 0}') as collector,
        ):
            measure(listener_of(collector), api, RATE)  # warm
            found = measure(listener_of(collector), api, RATE * options.seconds)
    sys.stdout.write(table(found))
    missed = [name for name, outcome in found.items() if outcome.quantile(0.95) >= TARGETS[name]]
    if missed:
        raise SystemExit(f"above the target: {', '.join(missed)}")


if __name__ == "__main__":
    main()
