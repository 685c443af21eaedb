"""Every report computed a second time, by DuckDB from the exported versions: equal to the micro."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Any

import pytest
from typer.testing import CliRunner

from attributary.cli.main import app
from attributary.consumers.reports.answer import Answer, ReportOptions, answer
from attributary.consumers.reports.catalog import BY_NAME
from attributary.consumers.store.connection import connect
from attributary.consumers.store.rollup.apply import prepare_rollup
from attributary.consumers.store.rollup.rebuild import rebuild_rollup
from attributary.consumers.store.tenants import Tenant, store_tenant
from attributary.schemas.topics import group_name
from tests.factories.report_results import BEGIN, DAY, drawn_results
from tests.factories.stored_results import insert_results

if TYPE_CHECKING:
    from collections.abc import Iterator

    import psycopg

duckdb = pytest.importorskip("duckdb")
pytestmark = pytest.mark.postgres
ZONE = "Europe/Berlin"
SINCE = BEGIN + 30 * DAY - 7_200_000_000  # a midnight of the zone: the roll-up has changes by day
NOW = BEGIN + 58 * DAY
ALL = (0, 2**62)
SOURCE: Any = "any"
_MODEL = (
    '[{"model":"VARCHAR","credits":["DOUBLE"],"micros":["BIGINT"],"unattributed_micros":"BIGINT","fallback":"VARCHAR"}]'
)
_TOUCH = '[{"channel":"VARCHAR","campaign":"VARCHAR","occurred_at":"BIGINT"}]'
_TABLES = f"""
CREATE TABLE versions AS SELECT *, epoch_us(converted_at) AS at_us, epoch_us(reported_from) AS computed_us,
    (net_value * 1000000)::BIGINT AS net, from_json(touchpoints, '{_TOUCH}') AS ts, from_json(models, '{_MODEL}') AS ms
FROM read_parquet('<folder>/*/*.parquet', hive_partitioning = false) WHERE true;
CREATE TABLE newest AS SELECT * FROM versions QUALIFY version = max(version) OVER (PARTITION BY conversion_id);
DELETE FROM newest WHERE currency <> 'EUR';
CREATE TABLE steps AS SELECT conversion_id, at_us, len(ts) AS n, unnest(ts, recursive := true),
    unnest(range(1, len(ts) + 1)) AS place FROM newest;
CREATE TABLE models AS SELECT conversion_id, at_us, net, ts, unnest(ms, recursive := true) FROM newest;
CREATE TABLE credit AS SELECT conversion_id, model, unnest(range(1, len(credits) + 1)) AS place,
    unnest(credits) AS credit, unnest(micros) AS micros FROM models;
CREATE TABLE parts AS SELECT s.*, c.model, c.credit, c.micros,
    (timezone('{ZONE}', to_timestamp(s.at_us / 1e6)))::DATE AS cash,
    (timezone('{ZONE}', to_timestamp(s.occurred_at / 1e6)))::DATE AS accrual
FROM steps s JOIN credit c USING (conversion_id, place);
"""


@pytest.fixture(scope="module")
def shop(module_database: str) -> str:
    with connect(module_database, application_name="tests") as connection:
        insert_results(connection, drawn_results(900))
        insert_results(connection, drawn_results(40, seed=2, tenant="other"))
        for tenant in ("acme", "other"):
            store_tenant(connection, Tenant(tenant, time_zone=ZONE))
        prepare_rollup(connection)
        rebuild_rollup(connection, "acme", (group_name("reporter"), group_name("auditor")))
    return module_database


@pytest.fixture(scope="module")
def lake(shop: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    folder = tmp_path_factory.mktemp("export")
    arguments = ["export", "result_versions", "--tenant", "acme", "--out", str(folder)]
    result = CliRunner().invoke(app, arguments, env={"DATABASE_URL": shop})
    assert result.exit_code == 0, result.output
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'")
        connection.execute(_TABLES.replace("<folder>", str(folder)))
        yield connection


@pytest.fixture(params=["rollup", "results"])
def connection(shop: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A connection; every report is asked of the one source, then of the other."""
    monkeypatch.setattr(f"{__name__}.SOURCE", request.param)
    with connect(shop, application_name="tests") as found:
        yield found


def asked(connection: psycopg.Connection, name: str, **options: Any) -> Answer:
    options = {"limit": 0, "since": SINCE, "source": SOURCE, **options}
    return answer(connection, BY_NAME[name], "acme", ALL, 2**62, NOW, ReportOptions(**options))


def rows_of(found: Answer) -> list[Any]:
    assert found.table is not None
    return list(found.table.rows)


def test_models(lake: Any, connection: psycopg.Connection) -> None:
    there = {
        (channel, model): (credit, micros, touched)
        for channel, model, credit, micros, touched in lake.execute(
            "SELECT channel, model, sum(credit), sum(micros), count(DISTINCT conversion_id) FROM parts GROUP BY 1, 2"
        ).fetchall()
    }
    there |= {
        ("(unattributed)", model): (credit, micros, None)
        for model, credit, micros in lake.execute(
            "SELECT model, sum(1 - coalesce(list_sum(credits), 0)), sum(unattributed_micros) FROM models GROUP BY 1"
        ).fetchall()
    }
    found = asked(connection, "models")
    here = {(row[0], row[1]): (row[2], row[5], row[9]) for row in rows_of(found)}
    assert here.keys() == there.keys()
    for key, (credit, micros, touched) in there.items():
        assert here[key] == (pytest.approx(credit), micros, touched), key
    for model in found.request.models:
        assert sum(row[5] for row in rows_of(found) if row[1] == model) == found.total.net_micros
        assert sum(row[2] for row in rows_of(found) if row[1] == model) == pytest.approx(found.total.conversions)


def test_days(lake: Any, connection: psycopg.Connection) -> None:
    there: dict[str, list[Any]] = defaultdict(lambda: [0, 0, 0, 0, 0, 0])
    for place, day in enumerate(("cash", "accrual")):
        statement = f"SELECT {day}, sum(credit), sum(micros) FROM parts WHERE model = 'linear' GROUP BY 1"
        for name, credit, micros in lake.execute(statement).fetchall():
            there[str(name)][2 + 2 * place : 4 + 2 * place] = [credit, micros]
    zone = f"(timezone('{ZONE}', to_timestamp(at_us / 1e6)))::DATE"
    for name, many, net in lake.execute(f"SELECT {zone}, count(*), sum(net) FROM newest GROUP BY 1").fetchall():
        there[str(name)][:2] = [many, net]
    rows = rows_of(asked(connection, "days"))
    assert {row[0] for row in rows} == set(there)
    for row in rows:
        assert [row[1], row[2], row[5], row[7]] == [there[row[0]][place] for place in (0, 1, 3, 5)], row
        assert [row[4], row[6]] == [pytest.approx(there[row[0]][place]) for place in (2, 4)], row
    assert sum(row[5] for row in rows) == sum(row[7] for row in rows)  # cash is accrual over all days


def test_paths_and_lengths(lake: Any, connection: psycopg.Connection) -> None:
    there: dict[tuple[str, ...], list[int]] = defaultdict(lambda: [0, 0])
    statement = "SELECT list_transform(ts, lambda t: t.channel), count(*), sum(net) FROM newest GROUP BY 1"
    lengths: dict[int, int] = defaultdict(int)
    for channels, many, net in lake.execute(statement).fetchall():
        runs = tuple(name for place, name in enumerate(channels) if place == 0 or channels[place - 1] != name)
        there[runs][0] += many
        there[runs][1] += net
        lengths[len(channels)] += many
    rows = rows_of(asked(connection, "paths"))
    here = {row[0]: [row[2], row[3]] for row in rows}
    assert here == {" > ".join(runs) if runs else "(no touchpoint)": sums for runs, sums in there.items()}
    assert {row[0]: row[1] for row in rows_of(asked(connection, "path-lengths")) if row[1]} == lengths


def test_lag(lake: Any, connection: psycopg.Connection) -> None:
    statement = (
        "SELECT floor((at_us - {}.occurred_at) / 86400000000.0)::INT, count(*), sum(net) FROM newest WHERE len(ts) > 0 "
        "GROUP BY 1"
    )
    first = {days: (many, net) for days, many, net in lake.execute(statement.format("ts[1]")).fetchall()}
    last = {days: many for days, many, _ in lake.execute(statement.format("ts[-1]")).fetchall()}
    rows = rows_of(asked(connection, "lag"))
    assert {row[0]: (row[1], row[2]) for row in rows if row[1]} == first
    assert {row[0]: row[5] for row in rows if row[5]} == last
    assert rows[-1][4] == pytest.approx(1.0)


def test_assists(lake: Any, connection: psycopg.Connection) -> None:
    statement = """
        SELECT channel, count(*), sum(earlier::INT), sum(final::INT), sum((earlier AND NOT final)::INT) FROM (
            SELECT conversion_id, channel, bool_or(place < n) AS earlier, bool_or(place = n) AS final
            FROM steps GROUP BY 1, 2) GROUP BY 1"""
    there = {row[0]: row[1:] for row in lake.execute(statement).fetchall()}
    rows = rows_of(asked(connection, "assists"))
    assert {row[0]: row[1:5] for row in rows} == there
    assert all(row[5] == (row[2] / row[3] if row[3] else None) for row in rows)


def test_positions(lake: Any, connection: psycopg.Connection) -> None:
    there: dict[str, list[float]] = defaultdict(lambda: [0.0, 0.0, 0.0, 0, 0, 0])
    quarters = {1: (0, 1), 2: (1, 1), 3: (1, 1), 4: (1, 1), 5: (1, 2), 6: (2, 2), 7: (2, 2), 8: (2, 2)}
    for channel, n, place, credit, micros in lake.execute(
        "SELECT channel, n, place, credit, micros FROM parts WHERE model = 'linear'"
    ).fetchall():
        early, late = quarters[n]
        part = 0 if place <= early else 2 if place > n - late else 1
        there[channel][part] += credit
        there[channel][3 + part] += micros
    for row in rows_of(asked(connection, "positions")):
        assert list(row[5:]) == there[row[0]][3:], row
        assert list(row[1:4]) == pytest.approx(there[row[0]][:3]), row
        assert row[4] == pytest.approx(sum(there[row[0]][:3]))


def test_cohorts(lake: Any, connection: psycopg.Connection) -> None:
    month = f"date_trunc('month', timezone('{ZONE}', to_timestamp(at_us / 1e6)))::DATE"
    orders = lake.execute(
        f"SELECT journey_key, conversion_type, at_us, conversion_id, {month}, "
        "coalesce(ts[1].channel, '(no touchpoint)'), net FROM newest ORDER BY at_us, conversion_id"
    ).fetchall()
    firsts: dict[tuple[str, str], tuple[Any, str]] = {}
    there: dict[tuple[Any, ...], list[Any]] = defaultdict(lambda: [set(), 0, 0])
    for person, kind, _, _, at, channel, net in orders:
        began, source = firsts.setdefault((person, kind), (at, channel))
        cells = there[str(began), source, (at.year - began.year) * 12 + at.month - began.month]
        cells[0].add((person, kind))
        cells[1] += 1
        cells[2] += net
    rows = rows_of(asked(connection, "cohorts"))
    assert {tuple(row[:3]): list(row[3:6]) for row in rows} == {
        key: [len(people), many, net] for key, (people, many, net) in there.items()
    }


def test_restatements(lake: Any, connection: psycopg.Connection) -> None:
    found = asked(connection, "restatements")
    rows = rows_of(found)
    then = answer(
        connection,
        BY_NAME["models"],
        "acme",
        ALL,
        SINCE,
        SINCE,
        ReportOptions(models=("linear",), currency="EUR", limit=0),
    )
    stood = {row[0]: row[5] for row in rows_of(then)}
    assert {row[0]: row[4] for row in rows if row[1] == "reported" and row[4]} == {k: v for k, v in stood.items() if v}
    # Each version after the moment against the one before it, in Python over the exported versions.
    there: dict[tuple[str, str], int] = defaultdict(int)
    before: dict[str, dict[str, int]] = {}
    for conversion, reason, currency, computed, ts, ms in lake.execute(
        "SELECT conversion_id, version_reason, currency, computed_us, ts, ms FROM versions "
        "ORDER BY conversion_id, version"
    ).fetchall():
        model = next(each for each in ms if each["model"] == "linear")
        sums: dict[str, int] = defaultdict(int)
        if currency == "EUR":
            sums["(unattributed)"] += model["unattributed_micros"]
            for touch, micros in zip(ts, model["micros"], strict=True):
                sums[touch["channel"]] += micros
        if computed > SINCE:
            for name in sums.keys() | before.get(conversion, {}).keys():
                there[name, reason] += sums.get(name, 0) - before.get(conversion, {}).get(name, 0)
        before[conversion] = sums
    here = {(row[0], row[1]): row[4] for row in rows if row[1] not in {"reported", "now"} and row[4]}
    assert here == {key: micros for key, micros in there.items() if micros}


def test_maturity(lake: Any, connection: psycopg.Connection) -> None:
    statement = f"""
        WITH shown AS (SELECT conversion_id, min(computed_us) AS first FROM versions GROUP BY 1)
        SELECT day, sum(weight) FROM (
            SELECT {{day}} AS day, {{weight}} AS weight,
                   (timezone('{ZONE}', to_timestamp(first / 1e6)))::DATE AS reported
            FROM {{table}} JOIN shown USING (conversion_id)
        ) WHERE reported <= (timezone('{ZONE}', to_timestamp({NOW} / 1e6)))::DATE - 1 GROUP BY 1"""
    zone = f"(timezone('{ZONE}', to_timestamp(at_us / 1e6)))::DATE"
    cash = dict(lake.execute(statement.format(day=zone, weight="1", table="newest")).fetchall())
    accrual = dict(
        lake.execute(
            statement.format(day="accrual", weight="credit", table="(FROM parts WHERE model = 'linear') AS p")
        ).fetchall()
    )
    rows = rows_of(asked(connection, "maturity"))
    assert len(rows) > 20
    names = {str(day): day for day in cash.keys() | accrual.keys()}
    for row in rows:
        assert row[2] == cash.get(names[row[0]], 0), row
        assert row[6] == pytest.approx(accrual.get(names[row[0]], 0.0)), row
        for share, low, high in (row[3:6], row[7:10]):
            assert share is None or low <= share <= high


def test_unattributed(lake: Any, connection: psycopg.Connection) -> None:
    found = asked(connection, "unattributed")
    there = {
        model: (empty, empty_net, base)
        for model, empty, empty_net, base in lake.execute(
            "SELECT model, count(*) FILTER (len(ts) = 0), sum(net) FILTER (len(ts) = 0), "
            "coalesce(sum(unattributed_micros) FILTER (len(ts) > 0), 0) FROM models GROUP BY 1"
        ).fetchall()
    }
    for model, (empty, net, base) in there.items():
        mine = {row[1]: row for row in rows_of(found) if row[0] == model}
        assert mine["no touchpoint"][2:4] == (empty, net)
        assert mine.get("baseline", (0, 0, 0, 0))[3] == base
        assert sum(row[3] for row in mine.values()) == found.total.net_micros
        assert sum(row[2] for row in mine.values()) == pytest.approx(found.total.conversions)


def test_quality(lake: Any, connection: psycopg.Connection) -> None:
    rows = {row[0]: row for row in rows_of(asked(connection, "quality"))}
    ((fallbacks, whole),) = lake.execute(
        "SELECT count(*) FILTER (fallback IS NOT NULL), count(*) FROM models WHERE model = 'first'"
    ).fetchall()
    assert rows["another rule, first"][1:3] == (fallbacks, whole)
