"""The audit is only added to; totals of what was removed add up."""

from __future__ import annotations

from datetime import date

import psycopg
import pytest

from attributary.consumers.store.audit import note_action
from attributary.consumers.store.removed_totals import Removed, add_removed


@pytest.mark.parametrize(
    "statement",
    ["UPDATE attribution_audit SET action = 'x'", "DELETE FROM attribution_audit", "TRUNCATE attribution_audit"],
)
def test_the_audit_refuses_every_change(database: str, statement: str) -> None:
    with psycopg.connect(database, autocommit=True) as connection:
        note_action(connection, "t1", "erasure.executed", "r1", {"touchpoints": 3})
        with pytest.raises(psycopg.errors.RaiseException, match="only added"):
            connection.execute(statement)
        rows = connection.execute("SELECT tenant_id, action, subject, details, actor FROM attribution_audit").fetchall()
        user = connection.execute("SELECT current_user").fetchone()
    assert user is not None
    assert rows == [("t1", "erasure.executed", "r1", {"touchpoints": 3}, user[0])]


def test_removed_totals_add_up_by_day_type_and_currency(database: str) -> None:
    day = date(2026, 11, 30)
    with psycopg.connect(database) as connection:
        add_removed(connection, "(erased)", [Removed("t1", day, "purchase", "EUR", 1, 70, 50)] * 2)
        add_removed(connection, "(erased)", [Removed("t1", day, "purchase", "EUR", 0, 0, -30)])
        add_removed(connection, "(retired)", [Removed("t1", day, "purchase", "EUR", 1, 5, 5)])
        add_removed(connection, "(retired)", [])
        rows = connection.execute(
            "SELECT bucket, conversions, gross_micros, net_micros FROM attribution_removed_totals ORDER BY bucket"
        ).fetchall()
    assert rows == [("(erased)", 2, 140, 70), ("(retired)", 1, 5, 5)]
