"""A forwarder without Kafka: handles the records of a file once, on a real ledger. Started, and killed, by a test."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

from attributary.consumers.destinations.attempts import SenderOptions
from attributary.consumers.destinations.transport import SystemClock
from attributary.consumers.store.deliveries.ledger import PostgresLedger
from attributary.consumers.store.session import StoreSession
from tests.forwarder.forwarder_factories import records, stage_for


def main(name: str, url: str, dsn: str, path: str) -> None:
    conversions = [json.loads(line) for line in Path(path).read_text("utf-8").splitlines()]
    ledger = PostgresLedger(StoreSession(dsn, "tests"))
    options = SenderOptions(concurrency=2)
    stage = stage_for(name, url, SystemClock(), ledger=ledger, options=options)
    stage.handle(records(conversions, now_micros=time.time_ns() // 1_000))


if __name__ == "__main__":
    main(*sys.argv[1:])
