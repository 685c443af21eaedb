"""A refit raises exactly the conversions that pin other models or another policy, once."""

from __future__ import annotations

from typing import TYPE_CHECKING

import psycopg
import pytest

from attributary.consumers.store.repair.version_raise import count_refit, refit

if TYPE_CHECKING:
    from collections.abc import Iterator

ALWAYS = (0, 2**62)

INSERT = """
INSERT INTO attribution_conversions (
    tenant_id, conversion_id, conversion_type, identity_key, journey_key, converted_at_us, received_at_us,
    gross_value_micros, net_value_micros, previous_net_micros, currency, version, version_reason, policy_version,
    model_set, owner_topic, owner_partition, owner_offset, event_published_us)
VALUES (%s, %s, 'purchase', 'u:1', 'u:1', %s, 0, 10, 7, 10, 'EUR', %s, 'new', %s, %s, 't', 0, 5, 0)
"""


@pytest.fixture
def connection(database: str) -> Iterator[psycopg.Connection]:
    with psycopg.connect(database) as connection:
        connection.execute("INSERT INTO attribution_model_sets VALUES ('acme', 2, '{}')")
        rows = [
            ("acme", "old-models", 100, 1, "p2", 1),
            ("acme", "old-policy", 100, 4, "p1", 2),
            ("acme", "in-force", 100, 1, "p2", 2),
            ("acme", "waiting", 100, 0, "", 0),
            ("acme", "long-ago", 1, 1, "p1", 1),
            ("other", "not-ours", 100, 1, "p1", 0),
        ]
        connection.cursor().executemany(INSERT, rows)
        yield connection


def test_it_raises_what_is_due_and_nothing_twice(connection: psycopg.Connection) -> None:
    assert count_refit(connection, "acme", (50, 2**62), "p2") == 2
    assert refit(connection, "acme", (50, 2**62), "p2", now_us=9, limit=100) == 2
    assert refit(connection, "acme", (50, 2**62), "p2", now_us=9, limit=100) == 0
    rows = connection.execute(
        "SELECT conversion_id, version, version_reason, previous_net_micros, policy_version, model_set, owner_topic "
        "FROM attribution_conversions WHERE version_reason = 'model_refit' ORDER BY 1"
    ).fetchall()
    assert rows == [
        ("old-models", 2, "model_refit", 7, "p2", 2, ""),
        ("old-policy", 5, "model_refit", 7, "p2", 2, ""),
    ]


def test_a_limit_leaves_the_rest_for_the_next_call(connection: psycopg.Connection) -> None:
    assert [refit(connection, "acme", ALWAYS, "p2", now_us=9, limit=2) for _ in range(3)] == [2, 1, 0]
