"""Moving one tenant to another installation, step by step.

Each step is done once and noted in ``attribution_tenant_moves`` of the installation that it leaves, so a move that was
cut short goes on where it was. Invariants: the tenant's rows are in exactly one place at a time that anybody works on;
every record of it that this installation did not store is relayed; the other installation loads the rows before it gets
a record, so what was sent, spent or erased here is known there.

1. *fenced*: stages here leave its records to the relay; results that are owed come, running jobs end.
2. *held*: its rows are set aside in a schema of their own, in one transaction. Nothing here works on them any more.
3. *relaying*: its results are in the other results topic, its rows in the other database, in one transaction that also
   compares them; from then on its records are relayed, each run up to the end of the log.
4. *moved*: what is still written here becomes a dead letter that names the other installation.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import count

import psycopg
from psycopg import errors

from attributary.consumers.adapters.departures import KEPT_SECONDS
from attributary.consumers.adapters.registry_settings import RegistrySettings, make_codec
from attributary.consumers.auditor.stage import GROUP as AUDITOR
from attributary.consumers.erasure.settings import check_key
from attributary.consumers.maintenance.progress import Progress, no_progress
from attributary.consumers.reporter.stage import GROUP as REPORTER
from attributary.consumers.runtime.consumer_groups import members
from attributary.consumers.runtime.crash_points import crash_at, register_points
from attributary.consumers.runtime.errors import ConfigError
from attributary.consumers.runtime.settings import load
from attributary.consumers.store.audit import note_action
from attributary.consumers.store.cells.drain import expire_left, open_deliveries, owed, read_up_to, replace_places
from attributary.consumers.store.cells.moves import Move, fetch_move, store_move
from attributary.consumers.store.cells.tenant_rows import (
    MOVED,
    count_rows,
    delete_rows,
    drop_held,
    hold_rows,
    holds_rollup,
    load_rows,
    published_rows,
    stored_events,
)
from attributary.consumers.store.erasure.ledger import ledger_key_id
from attributary.consumers.store.offsets import all_positions
from attributary.consumers.store.rollup.apply import lock_rollups
from attributary.schemas.topics import CONVERSIONS, RESULTS, catalogue, group_name, short_name

from .cell import Cell
from .relay import Relay

register_points("cell_after_fence", "cell_after_hold", "cell_before_load", "cell_after_load", "cell_after_relay")

_LOOK_SECONDS = 0.2
_SETTLE_SECONDS = 10.0  # without a step forward of a group that reads
_MOST_TRIES = 5
_MARGIN_SECONDS = 1.0


class NotReadyError(Exception):
    """The move cannot begin or go on yet; the text says why and what to do."""


@dataclass
class MoveReport:
    """What a run did.

    Attributes:
        move: how far the move is; None: only looked at.
        rows: of the tenant, by table.
        relayed: records of publishers.
        results: records of results and erasures that were relayed, or results that were taken back.
        stragglers: rows of the tenant that a stage stored here after they had been set aside; relayed as well.
    """

    move: Move | None = None
    rows: Mapping[str, int] = field(default_factory=dict)
    relayed: int = 0
    results: int = 0
    stragglers: int = 0


class TenantMove:
    """The move of one tenant.

    Args:
        tenant_id: the tenant.
        cells: the installation that it leaves and the one that it goes to.
        databases: theirs.
        progress: shows how far each step is.
        drain_seconds: how long results and jobs may take to end.
    """

    def __init__(
        self,
        tenant_id: str,
        cells: tuple[Cell, Cell],
        databases: tuple[psycopg.Connection, psycopg.Connection],
        progress: Progress = no_progress,
        drain_seconds: float = 300.0,
    ) -> None:
        self._tenant = tenant_id
        self._here, self._there = cells
        self._source, self._target = databases
        self._progress = progress
        self._drain_seconds = drain_seconds
        self._relay = Relay(*cells, tenant_id, make_codec(load(RegistrySettings)))

    def close(self) -> None:
        """Leave the brokers."""
        self._relay.close()

    def move(self) -> Move | None:
        """Return how far the move is; None: it has not begun.

        Raises:
            NotReadyError: the tenant moves, or has moved, to a third installation.
        """
        found = fetch_move(self._source, self._tenant)
        self._source.commit()
        if found is None or found.state == "arrived":
            return None
        if found.other_cell != self._there.prefix:
            other = f"with the prefix {found.other_cell}" if found.other_cell else "without a prefix"
            raise NotReadyError(f"tenant {self._tenant} is {found.state} already, to the installation {other}")
        return found

    def plan(self) -> MoveReport:
        """Check everything that can be checked before, and count; changes nothing.

        Raises:
            NotReadyError: something stands in the way.
            ConfigError: the two installations do not agree on a setting that they must share.
        """
        move = self.move()
        self._check_settings()
        self._relay.check_topics()
        if move is not None:
            return MoveReport(move, move.row_counts)
        rows = count_rows(self._source, self._tenant)
        self._source.commit()
        if not rows:
            raise NotReadyError(f"nothing of tenant {self._tenant} is stored here")
        there = count_rows(self._target, self._tenant)
        self._target.commit()
        if there:
            names = ", ".join(sorted(there)[:3])
            raise NotReadyError(
                f"the {self._there.name} has rows of tenant {self._tenant} already ({names}): a tenant lives in "
                "exactly one installation"
            )
        self._check_forwarders()
        return MoveReport(None, rows)

    def run(self) -> MoveReport:
        """Do all steps that are left, and relay up to the end of the log.

        Raises:
            NotReadyError: something stands in the way; what was done stays done.
        """
        report = self.plan()
        move = report.move or self._fence()
        if move.state == "fenced":
            move = self._hold(move)
        if move.state == "held":
            move = self._load(move, report)
        if move.state == "relaying":
            move = self._relay_inputs(move, report)
        report.move, report.rows = move, move.row_counts
        return report

    def finish(self, *, take_back_results: bool) -> MoveReport:
        """End the move: relay what came last; from now on records that come here are dead letters.

        Args:
            take_back_results: also write tombstones over the tenant's results in this installation's topic.

        Raises:
            NotReadyError: the tenant has not been loaded there yet.
        """
        report = self.plan()
        move = report.move
        if move is None or move.state not in {"relaying", "moved"}:
            raise NotReadyError("the tenant has not moved yet: run the command without --finish first")
        move = self._relay_inputs(move, report)
        move = self._note(replace(move, state="moved"))
        # Stages that read the table before that skip records still; these were in the log before this time is over.
        time.sleep(KEPT_SECONDS + _MARGIN_SECONDS)
        move = self._relay_inputs(move, report)
        with self._source.transaction():
            report.stragglers = delete_rows(self._source, self._tenant)
            drop_held(self._source, self._tenant)
            note_action(self._source, self._tenant, "tenant.moved", self._there.prefix or "(no prefix)",
                        {"move": move.move_id, "rows": sum(move.row_counts.values())})  # fmt: skip
        if take_back_results:
            report.results = self._relay.take_back_results()
        report.move, report.rows = move, move.row_counts
        return report

    def _check_settings(self) -> None:
        here, there = self._here, self._there
        if _database(self._source) == _database(self._target):
            raise ConfigError("DATABASE_URL", "must be another database than this installation's")
        if here.prefix == there.prefix:
            raise ConfigError("ATTRIBUTION_PREFIX", "must be another prefix than this installation's")
        if here.registry != there.registry:
            raise ConfigError("SCHEMA_REGISTRY_URL", "must be the same for both: records name their schema by its id")
        for connection in (self._source, self._target):
            check_key(ledger_key_id(connection), there.hasher)
            connection.commit()

    def _check_forwarders(self) -> None:
        groups = [group for topic in catalogue() for group in topic.groups if group.startswith(group_name("forwarder"))]
        running = [short_name(group) for group, number in members(self._here.kafka, groups).items() if number]
        if running:
            raise NotReadyError(
                f"stop the forwarders of this installation until the move says `relaying`: {', '.join(running)}. "
                "What they send meanwhile could be sent again from there"
            )

    def _note(self, move: Move) -> Move:
        with self._source.transaction():
            store_move(self._source, move)
        return move

    def _fence(self) -> Move:
        """Note from where on records are relayed, and let stages here leave them alone."""
        with self._source.transaction():
            stored = {(group, topic, number): at for group, topic, number, at in all_positions(self._source)}
            waiting = open_deliveries(self._source, self._tenant, CONVERSIONS)
            starts = self._relay.starts(stored, waiting)
            move = Move(self._tenant, secrets.token_hex(8), "fenced", self._there.prefix, starts,
                        decided_to=self._relay.decided(stored))  # fmt: skip
            store_move(self._source, move)
            note_action(self._source, self._tenant, "tenant.move_begun", self._there.prefix or "(no prefix)",
                        {"move": move.move_id})  # fmt: skip
        crash_at("cell_after_fence")
        return move

    def _hold(self, move: Move) -> Move:
        """Wait for what the tenant owes, then set its rows aside."""
        self._check_forwarders()
        with self._progress("waits until nothing of the tenant is owed") as advance:
            time.sleep(KEPT_SECONDS + _MARGIN_SECONDS)  # by now every stage knows
            self._wait_until(self._is_drained, advance)
        self._check_forwarders()
        with self._progress("rows set aside", len(MOVED)) as advance, self._source.transaction():
            counts = hold_rows(self._source, self._tenant, advance)
            held = replace(move, state="held", row_counts=counts)
            store_move(self._source, held)
        crash_at("cell_after_hold")
        return held

    def _is_drained(self) -> str:
        """Return what is owed still; empty: nothing."""
        with self._source.transaction():
            waits = owed(self._source, self._tenant)
            observed = read_up_to(self._source, AUDITOR, RESULTS)
            reported = read_up_to(self._source, REPORTER, RESULTS)
        if waits:
            return ", ".join(f"{number} {name}" for name, number in waits.items())
        # Where no reporter ever ran there is no roll-up to wait for.
        behind = [number for number, at in observed.items() if reported and reported.get(number, 0) < at]
        return f"the reporter in {len(behind)} partitions" if behind else ""

    def _wait_until(self, what: Callable[[], str], advance: Callable[[int], None]) -> None:
        ends = time.monotonic() + self._drain_seconds
        while left := what():
            if time.monotonic() > ends:
                raise NotReadyError(
                    f"after {self._drain_seconds:.0f} s this is owed still: {left}. See `attributary status`: a stage "
                    "that does it may be down. Run the command again then; records of the tenant wait in the log"
                )
            time.sleep(_LOOK_SECONDS)
            advance(1)

    def _load(self, move: Move, report: MoveReport) -> Move:
        """Put results and rows there. The row of the move there is part of it: done once, it is never done again."""
        arrived = fetch_move(self._target, self._tenant)
        self._target.commit()
        if arrived is None or arrived.move_id != move.move_id:
            with self._progress("results and erasures", None):
                report.results = self._relay.states()
            self._wait_for_readers()
            crash_at("cell_before_load")
            for tries in count(1):
                try:
                    self._load_once(move, arrived)
                    break
                except (errors.UniqueViolation, errors.DeadlockDetected):  # a stage there stored a result meanwhile
                    if tries == _MOST_TRIES:
                        raise
                    time.sleep(_LOOK_SECONDS)
        crash_at("cell_after_load")
        return self._note(replace(move, state="relaying"))

    def _load_once(self, move: Move, before: Move | None) -> None:
        with (
            self._progress("rows put in", len(MOVED)) as advance,
            self._source.transaction(),
            self._target.transaction(),
        ):
            if there := published_rows(self._target, self._tenant):
                raise NotReadyError(
                    f"the {self._there.name} has stored events of tenant {self._tenant} already ({', '.join(there)}): "
                    "a publisher writes there too early. Stop it, keep what it published, delete these rows there, "
                    "run the command again, and publish it once more when the move says `relaying`"
                )
            if holds_rollup(self._source, self._tenant):
                lock_rollups(self._target, [self._tenant])
            load_rows(self._source, self._target, self._tenant, (self._here.prefix, self._there.prefix), advance)
            relayed = before.relayed_to if before is not None else {}
            store_move(self._target, Move(self._tenant, move.move_id, "arrived", self._here.prefix, relayed_to=relayed))
            note_action(self._target, self._tenant, "tenant.arrived", self._here.prefix or "(no prefix)",
                        {"move": move.move_id, "rows": sum(move.row_counts.values())})  # fmt: skip

    def _wait_for_readers(self) -> None:
        """Let the stages there take in the results first, if they run: they do not meet the rows that are put in."""
        topic = self._there.topic(short_name(RESULTS))
        groups = [f"{self._there.prefix}{group.removeprefix(self._here.prefix)}" for group in (AUDITOR, REPORTER)]
        before, since = None, time.monotonic()
        while time.monotonic() - since < _SETTLE_SECONDS:
            with self._target.transaction():
                found = [read_up_to(self._target, group, topic) for group in groups]
            ends = self._relay.ends_there(topic)
            if not any(found) or all(at.get(number, 0) >= end for at in found if at for number, end in ends.items()):
                return
            if found != before:
                before, since = found, time.monotonic()
            time.sleep(_LOOK_SECONDS)

    def _relay_inputs(self, move: Move, report: MoveReport) -> Move:
        """Relay up to the end of the log; each batch that is acknowledged is noted."""
        topics = (CONVERSIONS, self._there.topic(short_name(CONVERSIONS)))
        with self._progress("records relayed") as advance:
            starts = {**move.relay_from, **move.relayed_to}
            for done in self._relay.inputs(starts, move.decided_to, self._stored_there):
                with self._target.transaction():
                    replace_places(self._target, self._tenant, topics, done.conversions)
                move = self._note(replace(move, relayed_to={**move.relayed_to, **done.positions}))
                report.relayed += done.records
                advance(done.records)
                if done.records:
                    crash_at("cell_after_relay")
        with self._target.transaction():
            expire_left(self._target, self._tenant, CONVERSIONS)
        return move

    def _stored_there(self, name: str, event_ids: Sequence[str]) -> set[str]:
        """Return which events came with the rows: what was refused or erased here did not."""
        with self._target.transaction():
            return stored_events(self._target, self._tenant, name, event_ids)


def _database(connection: psycopg.Connection) -> tuple[object, ...]:
    """Return what tells one database from another, whatever their addresses say."""
    row = connection.execute("SELECT pg_postmaster_start_time(), current_database()::text").fetchone()
    connection.commit()
    return tuple(row or ())
