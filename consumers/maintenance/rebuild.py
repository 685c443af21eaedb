"""The steps of `attributary rebuild`, each restartable, each in small transactions that also note how far it is.

Invariant: killed anywhere and started again, it ends in the same state. Owners and journeys are found anew by each
start (what is right already is not found), conversions and results are gone through in the order of their keys.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from itertools import islice, pairwise
from typing import Any

import psycopg

from attributary.attribution_core.domain.lookback import LookbackPolicy
from attributary.consumers.auditor.stage import GROUP as AUDITOR
from attributary.consumers.maintenance.progress import Progress, no_progress
from attributary.consumers.maintenance.recompute import wrong_results
from attributary.consumers.maintenance.restore_from_log import restore_events, restore_results
from attributary.consumers.runtime.consumer_groups import members
from attributary.consumers.runtime.crash_points import crash_at, register_points
from attributary.consumers.runtime.errors import Retry
from attributary.consumers.runtime.settings import KafkaSettings
from attributary.consumers.stitcher.stage import GROUP as STITCHER
from attributary.consumers.store.events.attribution_inputs import conversions_by_id, prepare_reading
from attributary.consumers.store.events.policies import store_policy
from attributary.consumers.store.events.staging import create_staging
from attributary.consumers.store.models.changed_people import note_all_people
from attributary.consumers.store.repair.compare import narrow_journeys
from attributary.consumers.store.repair.derived_rows import (
    PeopleGrewError,
    conversion_page,
    raise_repairs,
    repair_conversions,
    repair_owners,
    widen_journeys,
)
from attributary.consumers.store.repair.rebuild_progress import EVERYBODY, Rebuild, note, take_up
from attributary.consumers.store.repair.verify_reads import misplaced_ids
from attributary.schemas.topics import group_name

register_points("rebuild_after_page")

_PAGE = 500
_MOST_TRIES = 10
STOPPED = (STITCHER, group_name("attributor"), AUDITOR)
STEPS = ("topic", "log", "owners", "journeys", "conversions", "results", "done")


class _DryRunError(Exception):
    """Rolls a step back that was only tried."""


class Rebuilding:
    """One run.

    Args:
        writer: a connection of its own.
        reader: another one, for looking while the first one writes.
        policy: the lookback policy in force.
        dry_run: change nothing, count all the same.
        progress: shows how far each step is.
    """

    def __init__(
        self,
        writer: psycopg.Connection,
        reader: psycopg.Connection,
        policy: LookbackPolicy,
        *,
        dry_run: bool,
        progress: Progress = no_progress,
    ) -> None:
        self._writer = writer
        self._reader = reader
        self._policy = policy
        self._dry_run = dry_run
        self._progress = progress
        create_staging(writer)
        store_policy(writer, policy)
        writer.commit()

    def run(self, tenant_id: str, *, from_log: bool) -> Rebuild:
        """Run all steps that are left, and return what they did."""
        if self._dry_run:
            run = Rebuild(tenant_id, 0, from_log=False, step="owners")
        else:
            with self._writer.transaction():
                run = take_up(self._writer, tenant_id, "topic" if from_log else "owners", from_log=from_log)
        steps: dict[str, Callable[[Rebuild], None]] = {
            "topic": self._topic,
            "log": self._log,
            "owners": self._owners,
            "journeys": self._journeys,
            "conversions": self._conversions,
            "results": self._results,
        }
        for step, following in pairwise(STEPS):
            if run.step != step:
                continue
            steps[step](run)
            run.step, run.after, run.looked_at = following, ("", ""), 0
            with self._writer.transaction():
                if following == "done" and not self._dry_run:  # rows were put right past every event
                    note_all_people(self._writer, None if tenant_id == EVERYBODY else tenant_id)
                self._note(run)
        return run

    def _note(self, run: Rebuild) -> None:
        if not self._dry_run:
            note(self._writer, run)

    def _topic(self, run: Rebuild) -> None:
        run.count(
            "results brought back from their topic",
            restore_results(self._writer, only_new=False, progress=self._progress),
        )

    def _log(self, run: Rebuild) -> None:
        before = self._events()
        altered, withdrawn = restore_events(self._writer, self._policy, self._progress)
        run.count("events altered since they were stored", altered)
        run.count("stored events that are dead letters now", withdrawn)
        run.count("events brought back from the log", self._events() + withdrawn - before)
        # Nothing was published meanwhile that is not looked at.
        restore_results(self._writer, only_new=True, progress=self._progress)

    def _events(self) -> int:
        row = self._writer.execute(
            "SELECT (SELECT count(*) FROM attribution_touchpoints) + (SELECT count(*) FROM "
            "attribution_conversion_events) + (SELECT count(*) FROM attribution_identity_links)"
        ).fetchone()
        self._writer.commit()
        return int(row[0]) if row else 0

    def _owners(self, run: Rebuild) -> None:
        found = ((row[:2], row[4]) for row in misplaced_ids(self._reader) if run.tenant_id in (EVERYBODY, row[0]))
        for page in self._looking(found):
            if not self._dry_run:
                repair_owners(self._writer, page)
            run.count("anonymous ids", len(page))

    def _journeys(self, run: Rebuild) -> None:
        found = (
            ((tenant, key), bounds)
            for (tenant, key, *bounds), _ in narrow_journeys(self._reader)
            if run.tenant_id in (EVERYBODY, tenant)
        )
        for page in self._looking(found):
            if not self._dry_run:
                widen_journeys(self._writer, page)
            run.count("journeys", len(page))

    def _conversions(self, run: Rebuild) -> None:
        for page in self._each_page(run, "conversions"):
            self._repaired(run, page)
            crash_at("rebuild_after_page")

    def _repaired(self, run: Rebuild, page: list[tuple[str, str]]) -> None:
        for _ in range(_MOST_TRIES):
            try:
                with self._writer.transaction():
                    done = repair_conversions(
                        self._writer, page, self._policy.version, _now_us(), run.started_at if run.from_log else None
                    )
                    run.count("conversions put right", done.restated)
                    run.count("versions that were published already", done.taken_back)
                    run.count("conversions that owe a new result", done.raised)
                    self._passed(run, page)
            except PeopleGrewError:
                continue
            except _DryRunError:
                pass
            return
        raise Retry("other writers kept changing the same conversions", 0.1)

    def _results(self, run: Rebuild) -> None:
        prepare_reading(self._reader)
        self._reader.commit()
        for page in self._each_page(run, "results"):
            with self._reader.transaction():
                self._reader.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
                conversions = conversions_by_id(self._reader, page)
                settled = [c for c in conversions if c.version > 0 and c.observed_version >= c.version]
                wrong = [found.conversion for found in wrong_results(self._reader, settled)]
            try:
                with self._writer.transaction():
                    versions = [(c.tenant_id, c.conversion_id, c.version) for c in wrong]
                    raised = raise_repairs(self._writer, versions, self._policy.version, _now_us())
                    run.count("conversions that owe a new result", raised)
                    self._passed(run, page)
            except _DryRunError:
                pass
            crash_at("rebuild_after_page")

    def _passed(self, run: Rebuild, page: list[tuple[str, str]]) -> None:
        """Note, at the end of a page's transaction, that it is done; a dry run takes it back."""
        run.after, run.looked_at = page[-1], run.looked_at + len(page)
        self._note(run)
        if self._dry_run:
            raise _DryRunError

    def _each_page(self, run: Rebuild, title: str) -> Iterator[list[tuple[str, str]]]:
        with self._progress(title, None, run.looked_at) as advance:
            while page := conversion_page(self._reader, run.tenant_id, run.after, _PAGE):
                self._reader.commit()
                yield page
                run.after = page[-1]
                advance(len(page))
            self._reader.commit()

    def _looking(self, found: Iterable[tuple[Any, Any]]) -> Iterator[dict[Any, Any]]:
        """Gather what a look at one snapshot finds into pages."""
        with self._reader.transaction():
            self._reader.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
            rows = iter(found)
            while page := dict(islice(rows, _PAGE)):
                yield page


def _now_us() -> int:
    return time.time_ns() // 1_000


def check_stopped() -> list[str]:
    """Return the groups of STOPPED that have members.

    Raises:
        Fatal: Kafka does not answer.
    """
    return [group for group, number in members(KafkaSettings.load(), STOPPED).items() if number]
