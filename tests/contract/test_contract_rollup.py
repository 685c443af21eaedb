"""The roll-up on Postgres and the one in memory make the same rows of the same batches, and count them alike."""

from __future__ import annotations

import json
import random
from typing import TYPE_CHECKING, Any

import pytest

from attributary.consumers.store.connection import connect
from attributary.consumers.store.rollup.apply import apply_results, create_rollup_staging
from tests.factories.rolled_results import Sale
from tests.model.memory_rollup import Rollup, fold

if TYPE_CHECKING:
    from collections.abc import Iterator

    import psycopg

    from attributary.consumers.store.rollup.cells import RolledResult

pytestmark = pytest.mark.postgres

HOUR_US = 3_600_000_000
NOW_US = 1_774_742_400_000_000
ROWS = """
SELECT tenant_id, grain, dating, day, conversion_type, currency, is_new, model, channel, platform, campaign_id,
       campaign, credit_billionths, value_micros, journeys, squares::int8
FROM attribution_rollup_days
WHERE credit_billionths <> 0 OR value_micros <> 0 OR journeys <> 0 OR squares <> 0
"""


@pytest.fixture
def connection(database: str) -> Iterator[psycopg.Connection]:
    with connect(database, application_name="tests-contract") as opened:
        create_rollup_staging(opened)
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


def stored(connection: psycopg.Connection) -> dict[tuple[Any, ...], tuple[int, ...]]:
    return {tuple(row[:12]): tuple(row[12:]) for row in connection.execute(ROWS).fetchall()}


@pytest.mark.parametrize("seed", range(12))
def test_both_take_the_same_batches_to_the_same_rows(connection: psycopg.Connection, seed: int) -> None:
    chance = random.Random(seed)
    rollup = Rollup()
    for _ in range(8):
        batch = [drawn(chance) for _ in range(chance.randrange(1, 6))]
        gone = {key for key in rollup.held if chance.random() < 0.1}
        with connection.transaction():
            applied = apply_results(connection, batch, gone, now_us=NOW_US)
        rollup, expected = rollup.applied(batch, gone)
        assert applied[:3] == expected[:3]
        assert stored(connection) == rollup.rows
        held = connection.execute("SELECT version, is_new FROM attribution_rollup_conversions").fetchall()
        assert len(held) == len(rollup.held)
        assert sorted(held) == sorted((held.version, first) for held, first in rollup.held.values())
    assert rollup.rows == fold({key: held for key, (held, _) in rollup.held.items()})
