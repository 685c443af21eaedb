"""Figure `growth`: what an event costs on three million stored touchpoints, against an empty database.

Contract: the history is of the same tenants, with rows as the pipeline itself writes them. The pipeline stitches a
first part of the traffic; its rows are then copied by SQL, with random event ids and other people, until there are so
many; journeys, links, identities and conversions grow along. VACUUM and ANALYZE come before anything is measured.
Fresh events of the same tenants are then worked through on an empty database and on the history, in the order empty,
history, history, empty, after a checkpoint each; the lesser cost of two counts.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import psycopg

from benchmarks.figures import Figure, Report, say
from benchmarks.pipeline import Run, run_pipeline
from benchmarks.workload import draw, encode, load

if TYPE_CHECKING:
    from benchmarks.environment_setup import BenchServers

TOUCHPOINTS = 3_000_000
AIM = 1.2  # times, Postgres
_SCALE = 0.2  # of the pipeline's work: about 48,000 events a run
_SEEDS = (21, 22)
_SEED_OF_HISTORY = 20

# Rows of somebody else with the same details: `n` makes the person, random ids the event.
_COPIES = (
    ("attribution_touchpoints", {
        "event_id": "gen_random_uuid()::text",
        "identity_key": "left(t.identity_key, 2) || md5(t.identity_key || n)",
        "anonymous_id": "CASE WHEN t.anonymous_id IS NOT NULL THEN md5('a:' || t.anonymous_id || n) END",
        "source_offset": "t.source_offset + 100000000::int8 * n",
    }),
    ("attribution_journeys", {"journey_key": "left(t.journey_key, 2) || md5(t.journey_key || n)"}),
    ("attribution_identity_links", {
        "event_id": "gen_random_uuid()::text",
        "anonymous_id": "md5('a:' || t.anonymous_id || n)",
        "user_id": "md5('u:' || t.user_id || n)",
        "source_offset": "t.source_offset + 100000000::int8 * n",
    }),
    ("attribution_identities", {
        "anonymous_id": "md5('a:' || t.anonymous_id || n)",
        "user_id": "md5('u:' || t.user_id || n)",
    }),
    ("attribution_conversions", {
        "conversion_id": "gen_random_uuid()::text",
        "identity_key": "left(t.identity_key, 2) || md5(t.identity_key || n)",
        "journey_key": "left(t.journey_key, 2) || md5(t.journey_key || n)",
        "owner_offset": "t.owner_offset + 100000000::int8 * n",
    }),
)  # fmt: skip
# Scattered as live traffic leaves them: a person's rows do not lie beside each other.
_COPY = (
    "INSERT INTO {table} ({columns}) SELECT {values} FROM {table} t CROSS JOIN generate_series(1, %s) n ORDER BY {by}"
)
_COLUMNS = """
SELECT attname FROM pg_attribute
WHERE attrelid = %s::regclass AND attnum > 0 AND NOT attisdropped AND attgenerated = '' ORDER BY attnum
"""


def measure_growth(servers: BenchServers, report: Report) -> None:
    """Add Postgres' and the stages' cost of an event on a history, against an empty database."""
    history = _make_history(servers, round(TOUCHPOINTS * report.scale))
    runs: dict[bool, list[tuple[Run, int]]] = {False: [], True: []}
    for seed, is_grown in zip((_SEEDS[0], _SEEDS[0], _SEEDS[1], _SEEDS[1]), (False, True, True, False), strict=True):
        messages = encode(draw(_SCALE * report.scale, seed=seed))
        load(servers.broker.bootstrap, messages)
        dsn = history if is_grown else servers.new_database("bench_empty")
        with psycopg.connect(dsn, autocommit=True) as connection:
            connection.execute("DELETE FROM attribution_positions")  # the topics begin anew
            connection.execute("CHECKPOINT")
        with run_pipeline(servers, dsn) as pipeline:
            runs[is_grown].append((pipeline.work_through(len(messages)), len(messages)))
    add_growth(report, runs)


def add_growth(report: Report, runs: dict[bool, list[tuple[Run, int]]]) -> None:
    """Add the figures of the runs: on an empty database (False), on the history (True)."""
    for name, is_judged in (("Postgres", True), ("stages", False), ("WAL", False)):
        empty, grown = (min(_cost(name, *run) for run in runs[is_grown]) for is_grown in (False, True))
        unit = "B/event" if name == "WAL" else "us/event"
        report.add(Figure(f"growth: {name}, empty", empty, unit))
        ratio = grown / empty
        aim, met = (f"<= {AIM}", ratio <= AIM) if is_judged else ("", None)
        detail = {"runs": [_cost(name, *run) for run in runs[True]]}
        report.add(Figure(f"growth: {name}", grown, unit, "empty database", ratio, aim, detail, met))


def _cost(name: str, run: Run, records: int) -> float:
    if name == "WAL":
        return run.wal_bytes / records
    used = run.cpu_seconds
    seconds = used["Postgres"] if name == "Postgres" else sum(used[stage] for stage in used if stage[0].islower())
    return seconds * 1e6 / records


def _make_history(servers: BenchServers, touchpoints: int) -> str:
    """Return the DSN of a database with so many touchpoints."""
    messages = encode(draw(_SCALE, seed=_SEED_OF_HISTORY))
    load(servers.broker.bootstrap, messages)
    dsn = servers.new_database("bench_history")
    with run_pipeline(servers, dsn) as pipeline:
        pipeline.work_through(len(messages))
    with psycopg.connect(dsn, autocommit=True) as connection:
        row = connection.execute("SELECT count(*) FROM attribution_touchpoints").fetchone()
        times = max(1, touchpoints // (row[0] if row else 1))
        say(f"copying {row and row[0]:,} touchpoints {times} times")
        for table, changed in _COPIES:
            names = [name for (name,) in connection.execute(_COLUMNS, [table])]
            values = ", ".join(changed.get(name, f"t.{name}") for name in names)
            by = "n, md5(t.ctid::text || n)"
            statement = _COPY.format(table=table, columns=", ".join(names), values=values, by=by)
            connection.execute(statement.encode(), [times])
        connection.execute("VACUUM ANALYZE")
    return dsn
