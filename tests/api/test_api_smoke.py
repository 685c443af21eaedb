"""Collector and read API as processes at 100 requests a second: every request is answered well. `-s` prints the times.

The targets themselves are measured by benchmarks/http_targets.py on a quiet machine; here a bound catches a hang alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from benchmarks.http_targets import TARGETS, Listener, fill, measure, read_api, table
from tests.fixtures.collector_process import collector_process

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [pytest.mark.kafka, pytest.mark.postgres, pytest.mark.slow]

REQUESTS = 60
HANG_MILLISECONDS = 40_000


def test_every_endpoint_answers_a_hundred_requests_a_second(
    kafka_topics: str, module_database: str, tmp_path: Path
) -> None:
    fill(module_database)
    patient = {"SERVE_WAIT_SECONDS": "40", "SERVE_STATEMENT_SECONDS": "40"}
    with (
        read_api(tmp_path, module_database, **patient) as api,
        collector_process(tmp_path, kafka_topics, COLLECT_ACK_SECONDS="40") as collector,
    ):
        found = measure(Listener(collector.port, collector.key), api, REQUESTS)
        logged = collector.metric("attribution_collector_records_total")
    print(table(found), end="")
    assert found.keys() == TARGETS.keys()
    for name, outcome in found.items():
        assert outcome.statuses == {200: REQUESTS}, name
        assert outcome.quantile(0.95) < HANG_MILLISECONDS, name
    assert logged == REQUESTS * (1 + 1 + 10)
