"""Postgres away, slow or full: the read API says so, stays up, and comes back by itself."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

import psycopg
import pytest

from tests.api.conftest import served
from tests.fixtures.pipeline import wait_until

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.postgres
BASE = "/api/v1/attribution"
LOCKED = "LOCK TABLE attribution_model_states IN ACCESS EXCLUSIVE MODE"


def test_a_query_over_its_time_is_ended_and_said(shop: str, tmp_path: Path) -> None:
    with served(shop, tmp_path, SERVE_STATEMENT_SECONDS=0.5) as api, psycopg.connect(shop) as holder:
        holder.execute(LOCKED)
        answer = api.ask(f"{BASE}/models/status")
        assert answer.status_code == 503
        assert "0.5 s" in answer.json()["detail"]
        holder.rollback()
        path = f"{BASE}/models/status"
        wait_until(lambda: api.ask(path).status_code == 200, "it is not answered again")  # a busy machine needs longer


def test_requests_wait_for_a_connection_no_longer_than_the_setting(shop: str, tmp_path: Path) -> None:
    settings = {"SERVE_CONNECTIONS": 1, "SERVE_WAIT_SECONDS": 0.3, "SERVE_STATEMENT_SECONDS": 120}
    with served(shop, tmp_path, **settings) as api, psycopg.connect(shop) as holder:
        holder.execute(LOCKED)
        first = threading.Thread(target=api.ask, args=(f"{BASE}/models/status",))
        first.start()
        deadline = time.monotonic() + 100
        while holder.execute("SELECT count(*) FROM pg_locks WHERE NOT granted").fetchone() != (1,):
            assert time.monotonic() < deadline, "the first request does not wait for the lock"
        answer = api.ask(f"{BASE}/results")
        assert (answer.status_code, answer.json()["detail"]) == (503, "All connections to the database are in use.")
        assert api.ask(f"{BASE}/health", None).json() == {"status": "ok", "database": "away"}
        holder.rollback()
        first.join(120)
        wait_until(lambda: api.ask(f"{BASE}/results").status_code == 200, "no connection comes back")


def test_connections_that_the_server_ended_are_replaced(shop: str, tmp_path: Path) -> None:
    with served(shop, tmp_path) as api, psycopg.connect(shop, autocommit=True) as operator:
        assert api.ask(f"{BASE}/results").status_code == 200
        ended = operator.execute(
            "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity "
            "WHERE application_name = 'attributary-serve' AND datname = current_database()"
        ).fetchone()
        assert ended == (1,)
        first = api.ask(f"{BASE}/results")
        assert first.status_code in {200, 503}
        assert api.ask(f"{BASE}/results").status_code == 200


def test_a_database_that_is_away_is_503(free_port: int, tmp_path: Path) -> None:
    with served(f"postgresql://x:hunter2@127.0.0.1:{free_port}/x", tmp_path) as api:
        answer = api.ask(f"{BASE}/results")
        assert answer.status_code == 503
        assert int(answer.headers["retry-after"]) > 0
        assert "hunter2" not in answer.text
        assert api.good(f"{BASE}/health", None)["database"] == "away"
