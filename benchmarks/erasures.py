"""Erasures over a filled store: `python -m benchmarks.erasures --touchpoints 1000000 --erasures 2000`.

The store is filled by SQL: ten touchpoints a person, half of them of a device that one link gives to a user, and for
each fifth person a conversion with its result. Requests are carried out one after the other as the sweeper does, but
without Kafka. Reported: seconds, p50 and p99 of one erasure in milliseconds, CPU time of one in the sweeper and in its
Postgres process, rows removed by table, locks held at the most (sampled), and what the stitcher stores a second alone
for half a minute and beside the erasures for as long
as they take, in one process each.
The run ends with 1 where revenue before and after differ, or a user is left.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import threading
import time
from collections.abc import Callable
from contextlib import closing
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple

import psycopg

from attributary.attribution_core.domain.lookback import DEFAULT_POLICY, LookbackPolicy
from attributary.consumers.erasure.execute import MoreToLockError, execute
from attributary.consumers.stitcher.stage import StitcherStage
from attributary.consumers.store.erasure import ledger
from attributary.consumers.store.erasure.entries import Hasher, RequestRow
from attributary.consumers.store.erasure.transaction import ErasureTransaction
from attributary.consumers.store.events.staging import create_staging
from attributary.consumers.store.identity_sql import touchpoints_of, user_key
from attributary.consumers.store.migrate import migrate
from attributary.consumers.store.session import StoreSession
from attributary.local.postgres import find_postgres
from tests.factories.samples import START_US, codec, records, touch
from tests.pipeline_harness import handle_all

HASHER = Hasher("a key of this benchmark")
POLICY = LookbackPolicy.parse(DEFAULT_POLICY)
_TOUCHES = 10  # a person
_BATCH = 500
_ALONE_SECONDS = 30.0
_FILL = (
    """
    INSERT INTO attribution_touchpoints
    SELECT 'bench', 'e' || n, CASE WHEN n %% 2 = 0 THEN 'u:user' ELSE 'a:device' END || n / 10, NULL,
           %(start)s + n, %(start)s + n, 'meta', 'paid_social', 'click', '', false, '{}', n, 't', 0, n
    FROM generate_series(0, %(touchpoints)s - 1) AS n
    """,
    """
    INSERT INTO attribution_identity_links
    SELECT 'bench', 'l' || n, 'device' || n, 'user' || n, %(start)s + n, NULL, %(start)s + n, n, 'i', 0, n
    FROM generate_series(0, %(people)s - 1) AS n
    """,
    """
    INSERT INTO attribution_identities
    SELECT 'bench', 'device' || n, 'user' || n, %(start)s + n, 'l' || n FROM generate_series(0, %(people)s - 1) AS n
    """,
    """
    INSERT INTO attribution_journeys (tenant_id, journey_key, first_event_us, last_event_us, last_received_us)
    SELECT 'bench', key, %(start)s, %(start)s, %(start)s FROM generate_series(0, %(people)s - 1) AS n,
           unnest(ARRAY['u:user' || n, 'a:device' || n]) AS key
    """,
    """
    INSERT INTO attribution_conversion_events
    SELECT 'bench', 'c' || n, 'c' || n, 'conversion', 'purchase', 'u:user' || n, NULL, %(start)s + n * 10 + 9,
           %(start)s + n, 10000000 + n * 10000::int8, 'EUR', NULL, '{}', n, 'c', 0, n
    FROM generate_series(0, %(people)s - 1, 5) AS n
    """,
    """
    INSERT INTO attribution_conversions
    SELECT 'bench', 'c' || n, 'purchase', 'u:user' || n, 'u:user' || n, %(start)s + n * 10 + 9, %(start)s + n,
           10000000 + n * 10000::int8, 10000000 + n * 10000::int8, 0, 'EUR', NULL, 1, 'new', true, %(policy)s, 0,
           'c', 0, n, 0, now(), 1, now()
    FROM generate_series(0, %(people)s - 1, 5) AS n
    """,
    """
    INSERT INTO attribution_results
    SELECT 'bench', 'c' || n, 1, 'new', true, 'purchase', %(start)s + n * 10 + 9, 'u:user' || n,
           10000000 + n * 10000::int8, 10000000 + n * 10000::int8, 10000000 + n * 10000::int8, 'EUR', %(policy)s, 0,
           '[]', '[{"model": "linear", "credits": [], "micros": [], "unattributed_micros": 0}]', '[]', %(start)s, '',
           0, n
    FROM generate_series(0, %(people)s - 1, 5) AS n
    """,
)
_REVENUE = """
SELECT sum(net)::int8 FROM (SELECT net_value_micros AS net FROM attribution_conversions
                            UNION ALL SELECT net_micros FROM attribution_removed_totals) AS books
"""
_LEFT = f"""
SELECT count(*) FROM unnest(%s::text[]) AS u (name) WHERE EXISTS (
    SELECT FROM attribution_touchpoints t WHERE {touchpoints_of("t", "'bench'", user_key("u.name"))})
"""
_REMOVED = """
SELECT key, sum(value::int8)::int8 FROM attribution_erasure_requests, jsonb_each_text(removed) GROUP BY 1 ORDER BY 1
"""


def one(dsn: str, question: str, *values: object) -> int:
    """Return the one number that a query answers."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        row = connection.execute(question.encode(), values).fetchone()
    return int(row[0]) if row else 0


def fill(dsn: str, touchpoints: int) -> None:
    """Fill the store."""
    values = {
        "start": START_US, "touchpoints": touchpoints, "people": touchpoints // _TOUCHES, "policy": POLICY.version,
    }  # fmt: skip
    with psycopg.connect(dsn, autocommit=True) as connection:
        for statement in _FILL:
            connection.execute(statement.encode(), values)
        connection.execute("VACUUM ANALYZE")


class Work(NamedTuple):
    """How long each erasure took, and CPU time of all of them, in the caller and in Postgres; seconds."""

    took: list[float]
    cpu: float
    postgres_cpu: float


def erase(dsn: str) -> Work:
    """Carry out all requests."""
    took: list[float] = []
    cpu = time.process_time()
    with closing(StoreSession(dsn, "benchmark", create_staging)) as session:
        with session.transaction() as connection:
            server = connection.info.backend_pid
        before = _cpu_of(server)
        while True:
            more: set[tuple[str, str]] = set()
            started = time.perf_counter()
            while True:
                try:
                    with session.transaction() as connection:
                        request = ledger.claim_request(connection, 2**62)
                        if request is None:
                            return Work(took, time.process_time() - cpu, _cpu_of(server) - before)
                        session.keep_plans()
                        execute(ErasureTransaction(connection, 60.0), request, HASHER, POLICY.version, more)
                    break
                except MoreToLockError as grew:
                    more |= set(grew.keys)
            took.append(time.perf_counter() - started)


def _cpu_of(pid: int) -> float:
    """Return the CPU time of a local process, seconds; 0: it is not here."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text("ascii").rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def stitch(dsn: str, run: str, is_over: Callable[[], bool]) -> float:
    """Store touchpoints of new people until it is over; return how many a second, their making left out."""
    stored, busy = 0, 0.0
    with closing(StitcherStage(dsn, codec(), POLICY, 1.0, hasher=HASHER)) as stage:
        while stored == 0 or not is_over():
            events = [touch(f"{run}{stored + n}", n / 100, who=f"a:{run}{stored + n}") for n in range(_BATCH)]
            batch = records(events, first=stored)
            started = time.perf_counter()
            handle_all(stage, batch)
            busy += time.perf_counter() - started
            stored += _BATCH
    return stored / busy


def _erase_and_send(dsn: str, pipe: Any) -> None:
    pipe.send(None)  # imports are done: the stitcher beside may begin
    pipe.send(erase(dsn))


def main() -> int:
    """Run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--touchpoints", type=int, default=1_000_000)
    parser.add_argument("--erasures", type=int, default=2_000)
    arguments = parser.parse_args()
    people = arguments.touchpoints // _TOUCHES
    users = [f"user{number * (people // arguments.erasures)}" for number in range(arguments.erasures)]
    with find_postgres() as server:
        with psycopg.connect(server.dsn, autocommit=True) as connection:
            connection.execute("CREATE DATABASE erasures_benchmark")
        dsn = server.database("erasures_benchmark")
        try:
            return _run(dsn, arguments.touchpoints, users)
        finally:
            with psycopg.connect(server.dsn, autocommit=True) as connection:
                connection.execute("DROP DATABASE erasures_benchmark WITH (FORCE)")


def _run(dsn: str, touchpoints: int, users: list[str]) -> int:
    with psycopg.connect(dsn) as connection:
        migrate(connection)
    started = time.perf_counter()
    fill(dsn, touchpoints)
    print(f"filled: {touchpoints:,} touchpoints in {time.perf_counter() - started:.0f} s")
    before = one(dsn, _REVENUE)
    end = time.monotonic() + _ALONE_SECONDS
    alone = stitch(dsn, "alone", lambda: time.monotonic() >= end)
    now = START_US + 400 * 86_400_000_000
    with psycopg.connect(dsn) as connection:
        ledger.store_requests(connection, [RequestRow("bench", u, "user", "delete", u, now, now, None) for u in users])
    context = get_context("spawn")
    receives, sends = context.Pipe(duplex=False)
    child = context.Process(target=_erase_and_send, args=(dsn, sends))
    child.start()
    receives.recv()
    started = time.perf_counter()
    locks, ended = [0], threading.Event()

    def sample() -> None:
        while not ended.wait(0.05):
            locks.append(one(dsn, "SELECT count(*) FROM pg_locks WHERE database IS NOT NULL"))

    sampler = threading.Thread(target=sample)
    sampler.start()
    beside = stitch(dsn, "beside", receives.poll)
    work = receives.recv()
    took = work.took
    seconds = time.perf_counter() - started
    ended.set()
    sampler.join()
    child.join()
    part = statistics.quantiles(took, n=100)
    of_one = f"p50 {1_000 * part[49]:.1f} ms, p99 {1_000 * part[98]:.1f} ms"
    cpu = f"{1_000 * work.cpu / len(took):.1f} ms and {1_000 * work.postgres_cpu / len(took):.1f} ms in Postgres"
    print(f"erased: {len(took):,} people in {seconds:.0f} s; one: {of_one}, CPU {cpu}; locks at most {max(locks):,}")
    with psycopg.connect(dsn) as connection:
        print("removed: " + ", ".join(f"{name} {rows:,}" for name, rows in connection.execute(_REMOVED).fetchall()))
    print(f"stitcher: {alone:,.0f} touchpoints a second alone, {beside:,.0f} beside the erasures")
    after, left = one(dsn, _REVENUE), one(dsn, _LEFT, users)
    print(f"revenue before and after: {before:,} and {after:,} micros; users left: {left}")
    return int(before != after or left != 0)


if __name__ == "__main__":
    sys.exit(main())
