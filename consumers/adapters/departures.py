"""Records of tenants that moved to another installation: which are left to the relay, and which are refused.

Invariant: what becomes of a record is a fact of the log and of the table of moves. While the move is open, and before
the offsets up to which it was relayed, the record is the other installation's; after that it becomes a dead letter
that names the other installation, so nothing is lost where a publisher still writes here.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import Enum, auto

from attributary.consumers.adapters.error_mapping import map_errors
from attributary.consumers.runtime.records import Record
from attributary.consumers.store.cells.moves import Move, Offsets, all_moves
from attributary.consumers.store.session import StoreSession
from attributary.schemas.rules import RuleViolation

KEPT_SECONDS = 5.0
"""How long a stage uses what it read of the tables of tenants and moves."""
HAS_MOVED = "this tenant has moved; point its publishers there"


class Fate(Enum):
    """What becomes of a record of a tenant that moved."""

    STORED = auto()
    RELAYED = auto()
    REFUSED = auto()


@dataclass(frozen=True, slots=True)
class Departure:
    """A tenant that moved, or came back.

    Attributes:
        other_cell: prefix of the installation that it moved to.
        is_open: all its records are relayed still.
        is_back: it came back; what was relayed before stays with the other installation's log.
        relayed_to: next offsets that are not relayed.
    """

    other_cell: str
    is_open: bool
    is_back: bool
    relayed_to: Offsets

    def fate(self, record: Record) -> Fate:
        """Return what becomes of a record of the tenant."""
        if self.is_open or record.offset < self.relayed_to.get((record.topic, record.partition), 0):
            return Fate.RELAYED
        return Fate.STORED if self.is_back else Fate.REFUSED

    def refusal(self) -> RuleViolation:
        """Return the rule that a refused record breaks."""
        other = f"with the prefix {self.other_cell}" if self.other_cell else "without a prefix"
        return RuleViolation("tenant_id", f"must be published to the installation {other}: {HAS_MOVED}")


Departures = Mapping[str, Departure]


def departures(moves: Iterable[Move]) -> dict[str, Departure]:
    """Return the tenants with records that are not simply stored here."""
    return {
        move.tenant_id: Departure(
            move.other_cell, move.state in {"fenced", "held", "relaying"}, move.state == "arrived", move.relayed_to
        )
        for move in moves
        if move.state != "arrived" or move.relayed_to
    }


class DeparturesCache:
    """The departures of a stage, read again now and then.

    Args:
        session: Postgres.
    """

    def __init__(self, session: StoreSession) -> None:
        self._session = session
        self._found: Departures = {}
        self._read_at: float | None = None  # monotonic seconds

    def fate(self, tenant_id: str, record: Record) -> tuple[Fate, Departure | None]:
        """Return what becomes of a record.

        Raises:
            Retry: Postgres does not answer.
        """
        now = time.monotonic()
        if self._read_at is None or now - self._read_at >= KEPT_SECONDS:
            with map_errors(), self._session.transaction() as connection:
                self._found = departures(all_moves(connection))
            self._read_at = now
        departure = self._found.get(tenant_id)
        return (Fate.STORED, None) if departure is None else (departure.fate(record), departure)
