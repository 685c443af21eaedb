"""The roll-up is the sum over the newest results, to the unit, in whatever order and however often they come."""

from __future__ import annotations

import random
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from attributary.consumers.store.connection import connect
from attributary.consumers.store.rollup.apply import apply_results, prepare_rollup, take_off_retired
from attributary.consumers.store.rollup.cells import billionths, local_day
from tests.factories.rolled_results import DAYS_BY_MODEL, Sale, day_of, fold, rolled_up

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import psycopg

HOUR_US = 3_600_000_000
DAY_US = 24 * HOUR_US
NOW_US = 1_774_742_400_000_000  # 2026-03-29 00:00 UTC: the day on which summer time begins in Berlin
ZONES = {"acme": "Asia/Kathmandu", "berlin": "Europe/Berlin"}
TABLES = ("state", "models", "conversions", "people", "days", "names", "campaigns", "counts", "restatements")


@pytest.fixture
def connection(database: str) -> Iterator[psycopg.Connection]:
    with connect(database, application_name="tests") as opened:
        for tenant, zone in ZONES.items():
            opened.execute("INSERT INTO attribution_tenants (tenant_id, time_zone) VALUES (%s, %s)", (tenant, zone))
        prepare_rollup(opened)
        opened.commit()
        yield opened


def sale(conversion: str = "c1", version: int = 1, **more: Any) -> Sale:
    given_: dict[str, Any] = {
        "tenant_id": "berlin", "conversion_id": conversion, "version": version, "reason": "new", "person": "u:ann",
        "conversion_type": "purchase", "currency": "EUR", "converted_at": NOW_US, "computed_at": NOW_US + version,
        "net_micros": 100_000_000, "touches": [("search", "google", "7", "Spring", NOW_US - DAY_US)],
    }  # fmt: skip
    return Sale(**{**given_, **more})


def apply(connection: psycopg.Connection, *sales: Sale, tombstones: Sequence[tuple[str, str]] = ()) -> Any:
    with connection.transaction():
        return apply_results(connection, [each.rolled() for each in sales], tombstones, now_us=NOW_US + 9 * DAY_US)


def bridge(connection: psycopg.Connection, channel: str, model: str = "linear") -> dict[str, int]:
    rows = connection.execute(
        "SELECT r.reason, sum(r.value_micros[m.number])::int8 FROM attribution_rollup_restatements r "
        "JOIN attribution_rollup_models m USING (tenant_id) "
        "WHERE r.grain = 'channel' AND r.name = %s AND m.model = %s GROUP BY 1",
        (channel, model),
    ).fetchall()
    return {reason: value for reason, value in rows if value}


_touch = st.tuples(
    st.sampled_from(["search", "email"]), st.sampled_from(["google", "meta"]), st.sampled_from(["", "7"]),
    st.sampled_from(["", "Spring", "\x1f,\"'(1)"]), st.integers(NOW_US - 3 * DAY_US, NOW_US),
)  # fmt: skip
_sale = st.builds(
    Sale, tenant_id=st.sampled_from(["acme", "berlin", "utc"]), conversion_id=st.sampled_from(["c1", "c2", "c3"]),
    version=st.integers(1, 4), reason=st.sampled_from(["new", "late_touchpoint", "identity", "refund"]),
    person=st.sampled_from(["u:ann", "u:bob"]), conversion_type=st.sampled_from(["purchase", "lead"]),
    currency=st.sampled_from(["EUR", "JPY"]), converted_at=st.integers(NOW_US - DAY_US, NOW_US + DAY_US),
    computed_at=st.integers(NOW_US, NOW_US + 4 * DAY_US), net_micros=st.integers(-5, 100_000_000),
    touches=st.lists(_touch, max_size=4),
)  # fmt: skip


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(versions=st.lists(_sale, max_size=25), draw=st.randoms(use_true_random=False))
def test_the_rollup_is_a_fold_over_the_newest_results_after_any_order_repeat_and_tombstone(
    connection: psycopg.Connection, versions: list[Sale], draw: random.Random
) -> None:
    connection.execute(f"TRUNCATE {', '.join(f'attribution_rollup_{table}' for table in TABLES)}".encode())
    connection.commit()
    newest: dict[tuple[str, str], Sale] = {}
    known = {(each.tenant_id, each.conversion_id, each.version): each for each in versions}  # one content a version
    log = [*known.values(), *draw.sample(list(known.values()), len(known) // 2)]
    draw.shuffle(log)
    while log:
        batch, log = log[: (size := draw.randint(1, 6))], log[size:]
        dead = draw.sample(sorted(newest), 1) if newest and draw.random() < 0.2 else []
        for gone in dead:
            del newest[gone]
        apply(connection, *batch, tombstones=dead)
        for each in batch:
            key = (each.tenant_id, each.conversion_id)
            if key not in newest or newest[key].version < each.version:
                newest[key] = each
        assert rolled_up(connection) == fold(newest.values(), ZONES)
    changed = connection.execute(
        "SELECT count(*) FROM (SELECT tenant_id, grain, day, conversion_type, currency, name, m.number, "
        "  credit_billionths[m.number] AS credit, value_micros[m.number] AS value FROM attribution_rollup_names "
        "  JOIN attribution_rollup_models m USING (tenant_id)) d FULL JOIN ("
        "  SELECT tenant_id, grain, day, conversion_type, currency, name, m.number, "
        "  sum(credit_billionths[m.number]) AS credit, sum(value_micros[m.number]) AS value "
        "  FROM attribution_rollup_restatements JOIN attribution_rollup_models m USING (tenant_id) "
        "  GROUP BY 1, 2, 3, 4, 5, 6, 7) c USING (tenant_id, grain, day, conversion_type, currency, name, number) "
        "WHERE (COALESCE(d.credit, 0), COALESCE(d.value, 0)) <> (COALESCE(c.credit, 0), COALESCE(c.value, 0))"
    ).fetchone()
    assert changed == (0,), "the changes of a name sum to it"


@given(versions=st.lists(_sale, max_size=12), at=st.integers(NOW_US, NOW_US + 4 * DAY_US))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=15)
def test_a_name_as_reported_is_now_less_the_changes_after_it(
    connection: psycopg.Connection, versions: list[Sale], at: int
) -> None:
    connection.execute(f"TRUNCATE {', '.join(f'attribution_rollup_{table}' for table in TABLES)}".encode())
    connection.commit()
    known = {(each.tenant_id, each.conversion_id, each.version): each for each in versions}
    ordered = sorted(known.values(), key=lambda each: each.version)
    clock: dict[tuple[str, str], int] = {}
    told: list[tuple[int, Sale]] = []  # a version counts as reported no earlier than the one before it
    for each in ordered:
        key = (each.tenant_id, each.conversion_id)
        clock[key] = max(clock.get(key, 0), each.computed_at)
        told.append((clock[key], each))
    apply(connection, *ordered)
    newest = {}
    for reported, each in told:
        zone = ZONES.get(each.tenant_id, "UTC")
        if day_of(reported, zone) <= day_of(at, zone):
            newest[each.tenant_id, each.conversion_id] = each
    days = {tenant: day_of(at, ZONES.get(tenant, "UTC")) for tenant in ("acme", "berlin", "utc")}
    rows = connection.execute(
        "SELECT d.tenant_id, d.day, m.model, d.name, d.value_micros[m.number]::int8 FROM ("
        "  SELECT tenant_id, grain, day, name, value_micros FROM attribution_rollup_names UNION ALL "
        "  SELECT r.tenant_id, r.grain, r.day, r.name, ARRAY(SELECT -each FROM unnest(r.value_micros) AS each) "
        "  FROM attribution_rollup_restatements r JOIN unnest(%s::text[], %s::date[]) AS n (tenant_id, day) "
        "    ON n.tenant_id = r.tenant_id WHERE r.reported_day > n.day"
        ") AS d JOIN attribution_rollup_models m ON m.tenant_id = d.tenant_id WHERE d.grain = 'channel'",
        (list(days), list(days.values())),
    ).fetchall()
    found: Counter[Any] = Counter()
    for *place, value in rows:
        found[tuple(place)] += value
    expected: Counter[Any] = Counter()
    for row, (_, value) in fold(newest.values(), ZONES).items():
        if row[1] == "cash":
            expected[row[0], row[2], *row[6:8]] += value
    assert {key: value for key, value in found.items() if value} == {k: v for k, v in expected.items() if v}


def test_the_bridge_names_each_reason_in_money(connection: psycopg.Connection) -> None:
    search = [("search", "google", "7", "Spring", NOW_US)]
    email = [("email", "mail", "", "", NOW_US)]
    apply(connection, sale())
    apply(connection, sale(version=2, reason="late_touchpoint", touches=email, computed_at=NOW_US + DAY_US))
    apply(
        connection,
        sale(version=3, reason="refund", touches=email, net_micros=60_000_000, computed_at=NOW_US + 2 * DAY_US),
        sale("c2", person="u:bob", net_micros=50_000_000, touches=search, computed_at=NOW_US + 2 * DAY_US),
    )
    assert bridge(connection, "search") == {"new": 150_000_000, "late_touchpoint": -100_000_000}
    assert bridge(connection, "email") == {"late_touchpoint": 100_000_000, "refund": -40_000_000}
    total = connection.execute(
        f"SELECT sum(micros)::int8 FROM {DAYS_BY_MODEL} WHERE dating = 'cash' AND model = 'linear'".encode()
    ).fetchone()
    assert total == (110_000_000,)


def test_an_erased_conversion_leaves_the_rollup_and_the_bridge_says_so(connection: psycopg.Connection) -> None:
    apply(connection, sale(), sale("c2", converted_at=NOW_US + HOUR_US))
    assert apply(connection, tombstones=[("berlin", "c1"), ("berlin", "unknown")]).taken_off == 1
    assert rolled_up(connection) == fold([sale("c2", converted_at=NOW_US + HOUR_US)], ZONES), "c2 is the first one now"
    assert bridge(connection, "search")["erasure"] == -100_000_000
    held = connection.execute("SELECT count(*) FROM attribution_rollup_conversions").fetchone()
    assert held == (1,)


def test_the_first_conversion_of_a_person_is_new_and_who_comes_earlier_takes_its_place(
    connection: psycopg.Connection,
) -> None:
    apply(connection, sale("c2", converted_at=NOW_US + HOUR_US))
    apply(connection, sale("c1", converted_at=NOW_US - HOUR_US))
    rows = connection.execute(
        f"SELECT is_new, sum(credit)::int8 FROM {DAYS_BY_MODEL} "
        "WHERE dating = 'cash' AND model = 'last' GROUP BY 1 ORDER BY 1".encode()
    ).fetchall()
    assert rows == [(False, 1_000_000_000), (True, 1_000_000_000)]
    assert "new_customer" not in bridge(connection, "search"), "what moves from new to returning sums to nothing"


def test_what_retires_leaves_the_rollup_and_the_next_conversion_of_the_person_is_no_first_one(
    connection: psycopg.Connection,
) -> None:
    later = sale("c2", converted_at=NOW_US + HOUR_US)
    apply(connection, sale(), later)
    with connection.transaction():
        assert take_off_retired(connection, "berlin", ["c1", "other"], NOW_US) == 1
    rows = connection.execute(
        f"SELECT is_new, sum(credit)::int8, sum(micros)::int8 FROM {DAYS_BY_MODEL} "
        "WHERE dating = 'cash' AND model = 'last' GROUP BY 1 HAVING sum(micros) <> 0".encode()
    ).fetchall()
    assert rows == [(False, 1_000_000_000, 100_000_000)]
    assert bridge(connection, "search")["retirement"] == -100_000_000
    connection.execute(
        "INSERT INTO attribution_retired_conversions (tenant_id, conversion_md5, day, conversion_type, currency, "
        "gross_micros, net_micros) VALUES ('berlin', md5('c1')::uuid, '2026-03-29', 'purchase', 'EUR', 1, 1)"
    )
    connection.commit()
    assert apply(connection, sale(version=9)).ignored == 1, "what retired is not counted again when it is read again"


def test_a_channel_counts_a_journey_once_however_often_it_is_in_it(connection: psycopg.Connection) -> None:
    touches = [
        ("search", "google", "7", "Spring", NOW_US - DAY_US), ("search", "bing", "", "", NOW_US - HOUR_US),
        ("email", "mail", "", "", NOW_US),
    ]  # fmt: skip
    apply(connection, sale(touches=touches))
    rows = connection.execute(
        "SELECT name, journeys[number], credit_billionths[number], squares[number]::int8 "
        "FROM attribution_rollup_names JOIN attribution_rollup_models USING (tenant_id) "
        "WHERE grain = 'channel' AND model = 'linear' AND name <> '(unattributed)' ORDER BY 1"
    ).fetchall()
    assert rows == [("email", 1, 333_333_333, 333_333**2), ("search", 1, 666_666_667, 666_666**2)]


def test_campaigns_are_told_apart_by_id_and_shown_by_their_newest_name(connection: psycopg.Connection) -> None:
    touches = [("search", "google", "7", "Spring", NOW_US - DAY_US), ("search", "google", "7", "Spring 26", NOW_US)]
    apply(connection, sale(touches=touches))
    rows = connection.execute(
        "SELECT DISTINCT d.campaign_id, d.campaign, c.campaign FROM attribution_rollup_days d "
        "JOIN attribution_rollup_campaigns c USING (tenant_id, platform, campaign_id)"
    ).fetchall()
    assert rows == [("7", "", "Spring 26")]


def test_a_name_as_long_as_the_rules_allow_has_a_row(connection: psycopg.Connection) -> None:
    wide = "\U0001f600"
    touch = (wide * 100, wide * 100, wide * 200, wide * 500, NOW_US)
    apply(connection, sale(touches=[touch, (*touch[:2], "", touch[3], NOW_US)]))
    assert len(rolled_up(connection)) == 12


@given(st.lists(st.floats(0.0, 1.0), min_size=1, max_size=9))
def test_credits_that_sum_to_one_leave_no_billionth(weights: list[float]) -> None:
    whole = sum(weights)
    if whole < 1e-6:
        return
    parts, rest = billionths([weight / whole for weight in weights])
    assert (sum(parts), rest) == (1_000_000_000, 0)
    assert all(abs(part - weight / whole * 1e9) <= 1.5 for part, weight in zip(parts, weights, strict=True))


@given(
    st.integers(946_684_800_000_000, 4_102_444_800_000_000),
    st.sampled_from(["Asia/Kathmandu", "Pacific/Marquesas", "Europe/Berlin", "Australia/Lord_Howe", "Pacific/Apia"]),
)
def test_days_are_those_of_the_time_zone(micros: int, zone: str) -> None:
    assert local_day(micros, zone) == day_of(micros, zone)
