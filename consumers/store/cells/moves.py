"""How far the move of a tenant is (``attribution_tenant_moves``).

Invariant: a move goes fenced, held, relaying, moved, each step once and in this order; the row is written in the
transaction of the step, so a move that was cut short goes on where the row says.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

import psycopg
from psycopg.types.json import Jsonb

MoveState = Literal["fenced", "held", "relaying", "moved", "arrived"]
Offsets = Mapping[tuple[str, int], int]

_COLUMNS = (
    "tenant_id, move_id, state, other_cell, relay_from, decided_to, relayed_to, row_counts, created_at, updated_at"
)
_STORE = """
INSERT INTO attribution_tenant_moves AS m (
    tenant_id, move_id, state, other_cell, relay_from, decided_to, relayed_to, row_counts, created_at)
VALUES (%(tenant)s, %(move)s, %(state)s, %(other)s, %(since)s, %(decided)s, %(until)s, %(counts)s,
        COALESCE(%(created)s, now()))
ON CONFLICT (tenant_id) DO UPDATE SET
    move_id = excluded.move_id, state = excluded.state, other_cell = excluded.other_cell,
    relay_from = excluded.relay_from, decided_to = excluded.decided_to, relayed_to = excluded.relayed_to,
    row_counts = excluded.row_counts, created_at = excluded.created_at, updated_at = now()
"""


@dataclass(frozen=True, slots=True)
class Move:
    """The last move of a tenant.

    Attributes:
        tenant_id: the tenant.
        move_id: the same in both installations.
        state: how far it is.
        other_cell: prefix of the installation that it goes to or came from.
        relay_from: first offsets of the log that are relayed.
        decided_to: offsets before which the stitcher had decided; of the records before them only those are relayed
            that are stored.
        relayed_to: next offsets to relay; records of the tenant before them are the other installation's.
        row_counts: rows that moved, by table.
        created_at: when it began.
        updated_at: when it last went on.
    """

    tenant_id: str
    move_id: str
    state: MoveState
    other_cell: str
    relay_from: Offsets = field(default_factory=dict)
    relayed_to: Offsets = field(default_factory=dict)
    row_counts: Mapping[str, int] = field(default_factory=dict)
    created_at: datetime | None = None
    updated_at: datetime | None = None
    decided_to: Offsets = field(default_factory=dict)


def fetch_move(connection: psycopg.Connection, tenant_id: str) -> Move | None:
    """Return the last move of a tenant; None: it never moved."""
    statement = f"SELECT {_COLUMNS} FROM attribution_tenant_moves WHERE tenant_id = %s"
    row = connection.execute(statement, (tenant_id,)).fetchone()
    return None if row is None else _move(row)


def all_moves(connection: psycopg.Connection) -> list[Move]:
    """Return the last move of every tenant that ever moved, in order."""
    statement = f"SELECT {_COLUMNS} FROM attribution_tenant_moves ORDER BY tenant_id"
    return [_move(row) for row in connection.execute(statement).fetchall()]


def store_move(connection: psycopg.Connection, move: Move) -> None:
    """Store a move in place of the tenant's last one."""
    values = {
        "tenant": move.tenant_id, "move": move.move_id, "state": move.state, "other": move.other_cell,
        "since": Jsonb(_nested(move.relay_from)), "decided": Jsonb(_nested(move.decided_to)),
        "until": Jsonb(_nested(move.relayed_to)),
        "counts": Jsonb(dict(move.row_counts)), "created": move.created_at,
    }  # fmt: skip
    connection.execute(_STORE, values)


def _move(row: tuple[Any, ...]) -> Move:
    tenant_id, move_id, state, other, since, decided, until, counts, created_at, updated_at = row
    offsets = _flat(since), _flat(until)
    return Move(tenant_id, move_id, state, other, *offsets, counts, created_at, updated_at, _flat(decided))


def _nested(offsets: Offsets) -> dict[str, dict[str, int]]:
    found: dict[str, dict[str, int]] = {}
    for (topic, partition), offset in sorted(offsets.items()):
        found.setdefault(topic, {})[str(partition)] = offset
    return found


def _flat(nested: Mapping[str, Mapping[str, int]]) -> dict[tuple[str, int], int]:
    return {(topic, int(number)): at for topic, places in nested.items() for number, at in places.items()}
