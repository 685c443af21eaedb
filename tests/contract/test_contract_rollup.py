"""The roll-up on Postgres and the one in memory make the same rows of the same batches, and count them alike."""

from __future__ import annotations

import json
import random
from datetime import date
from typing import TYPE_CHECKING, Any

import pytest

from attributary.consumers.store.connection import connect
from attributary.consumers.store.rollup.apply import apply_results, prepare_rollup
from attributary.consumers.store.rollup.cells import FIRST_DAY
from attributary.consumers.store.rollup.counts import COUNT_SUMS
from attributary.consumers.store.rollup.names import NAME_SUMS
from attributary.consumers.store.rollup.statements import KEYS
from tests.factories.rolled_results import Sale
from tests.model.memory_rollup import Rollup, fold, standing, sums_of, unexplained

if TYPE_CHECKING:
    from collections.abc import Iterator

    import psycopg

    from attributary.consumers.store.rollup.cells import RolledResult

pytestmark = pytest.mark.postgres

HOUR_US = 3_600_000_000
NOW_US = 1_774_742_400_000_000
SUMS = {
    "days": ("credit_billionths", "value_micros"), "names": (*NAME_SUMS, "assists"),
    "restatements": ("credit_billionths", "value_micros", "versions"), "counts": COUNT_SUMS,
}  # fmt: skip


@pytest.fixture
def connection(database: str) -> Iterator[psycopg.Connection]:
    with connect(database, application_name="tests-contract") as opened:
        prepare_rollup(opened)
        opened.commit()
        yield opened


def drawn(chance: random.Random) -> RolledResult:
    """A version of one of six conversions of two tenants and three people."""
    conversion, version = chance.randrange(6), chance.randrange(1, 6)
    content = random.Random(f"{conversion} {version}")  # one content a version
    touches = [
        (content.choice(("search", "email")), content.choice(("google", "meta")), content.choice(("", "7")), "Spring",
         NOW_US - content.randrange(90) * HOUR_US)
        for _ in range(content.randrange(4))
    ]  # fmt: skip
    sale = Sale(
        f"t{conversion % 2}", f"c{conversion}", version, "new", f"u:{content.randrange(3)}",
        content.choice(("purchase", "lead")), "EUR", NOW_US + content.randrange(-40, 40) * HOUR_US,
        NOW_US + version * HOUR_US, content.randrange(-5, 90_000_000), touches,
    ).rolled()  # fmt: skip
    return sale._replace(parsed=json.loads(sale.cells))


def stored(connection: psycopg.Connection) -> dict[tuple[Any, ...], int]:
    """Every sum of every table; days are numbered from 2000-01-01."""
    models: dict[str, dict[int, str]] = {}
    for tenant, model, number in connection.execute("SELECT tenant_id, model, number FROM attribution_rollup_models"):
        models.setdefault(tenant, {})[number - 1] = model
    found: dict[tuple[Any, ...], int] = {}
    for table, sums in SUMS.items():
        columns = ", ".join((*KEYS[table], *sums))
        rows = connection.execute(f"SELECT tenant_id, {columns} FROM attribution_rollup_{table}".encode()).fetchall()
        for tenant, *values in rows:
            key = tuple(plain(value) for value in values[: -len(sums)])
            found |= sums_of(table, tenant, key, dict(zip(sums, values[-len(sums) :], strict=True)), models[tenant])
    return found


def plain(value: Any) -> Any:
    """A key as the fold has it."""
    if isinstance(value, date):
        return (value - FIRST_DAY).days
    return ("f", "t")[value] if isinstance(value, bool) else value


@pytest.mark.parametrize("seed", range(12))
def test_both_take_the_same_batches_to_the_same_rows(connection: psycopg.Connection, seed: int) -> None:
    chance = random.Random(seed)
    rollup = Rollup()
    newest: dict[tuple[str, str], RolledResult] = {}
    first: dict[tuple[str, str], int] = {}
    for _ in range(8):
        batch = [drawn(chance) for _ in range(chance.randrange(1, 6))]
        gone = {key for key in rollup.held if chance.random() < 0.1}
        for key in gone:
            del newest[key], first[key]
        with connection.transaction():
            applied = apply_results(connection, batch, gone, now_us=NOW_US)
        rollup, expected = rollup.applied(batch, gone, NOW_US)
        assert applied[:3] == expected[:3]
        assert stored(connection) == rollup.sums
        held = connection.execute("SELECT version, is_new FROM attribution_rollup_conversions").fetchall()
        assert sorted(held) == sorted((each.version, each.is_new) for each, _ in rollup.held.values())
        for each in batch:
            key = (each.tenant_id, each.conversion_id)
            first[key] = min(each.computed_at, first.get(key, each.computed_at))
            if key not in newest or newest[key].version < each.version:
                newest[key] = each
    assert standing(rollup) == fold(newest, first)
    assert unexplained(rollup) == {}
