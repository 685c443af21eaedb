"""One schedule: a seeded history of events, reads, commits and faults, then a calm end in which all must come right.

Everything random comes from the seed, so a failing schedule is replayed by its number. `story` tells what happened.
"""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING, Any, cast

from attributary.consumers.runtime.errors import Fenced, Retry
from attributary.consumers.runtime.records import Outbound
from attributary.consumers.runtime.stage import StoresOffsets
from attributary.consumers.sweeper.input_age import ATTRIBUTOR, AUDITOR, STITCHER
from attributary.consumers.sweeper.sweep import UnreadAges
from attributary.schemas.topics import (
    COMMANDS,
    CONVERSIONS,
    ERASURE_REQUESTS,
    IDENTITIES,
    RESULTS,
    TOUCHPOINTS,
    conversion_key,
    erasure_request_key,
    partition_key,
)
from tests.expected_results import InputRecord, codec
from tests.invariants import ResultSeen, StoreSeen, check_invariants
from tests.model.events import BASE, DAY, encoded, models, policy, random_event, random_request
from tests.model.log import PARTITIONS, Group, Log, Pending
from tests.model.memory_rollup import fold, standing, unexplained
from tests.model.memory_store import MemoryStore
from tests.model.stages import HASHER, STAGES, Crashed, ModelAttributor, ModelReporter, Session, rolled_of, run_sweep

if TYPE_CHECKING:
    from collections.abc import Sequence

    from attributary.consumers.runtime.records import Outcome, Record
    from attributary.consumers.runtime.stage import Stage
    from attributary.consumers.store.events.rows import RaisedVersion
    from attributary.consumers.store.rollup.cells import RolledResult
    from tests.expected_results import Key
    from tests.model.log import TopicPartition

INPUTS = (TOUCHPOINTS, CONVERSIONS, IDENTITIES, ERASURE_REQUESTS)
TOPICS = {"stitcher": INPUTS, "attributor": (COMMANDS,), "auditor": (RESULTS,), "reporter": (RESULTS,)}
GROUPS = {"stitcher": STITCHER, "attributor": ATTRIBUTOR, "auditor": AUDITOR, "reporter": ModelReporter.group}
DEAD_LETTERS = "dead letters"
MEMBERS = 2
# Which faults leave traces that transactions cannot hide: the same version twice, or versions that fall.
TRACES = frozenset({"postgres lost commits", "torn: records only", "torn: offsets only", "asked again blindly"})
_CALM_ROUNDS = 400


@dataclass(frozen=True)
class Plan:
    """How long and how wild a schedule is."""

    events: int = 9
    steps: int = 45
    faults: float = 0.35
    requests: int = 3


@dataclass
class Worker:
    """One process of one stage: its stage object, where it reads, and the batch that it has not committed yet."""

    name: str
    number: int
    stage: Stage
    session: Session
    positions: dict[TopicPartition, int] = field(default_factory=dict)
    pending: Pending | None = None


@cache
def _keeps_offsets(stage: type[Stage]) -> bool:
    """Tell what loop.py asks of each stage; once a class, because asking a protocol is slow."""
    return issubclass(stage, StoresOffsets)


class Schedule:
    """Runs one schedule.

    Args:
        seed: decides everything.
        plan: sizes.
    """

    def __init__(self, seed: int, plan: Plan) -> None:
        self.chance = random.Random(seed)
        self.plan = plan
        self.log = Log(clock_ms=(BASE + 8 * DAY) // 1_000)
        self.store = MemoryStore()
        self.fired: Counter[str] = Counter()
        self.story: list[str] = []
        self.crash_point: str | None = None
        self._published = 0
        self._requests = 0
        # People of one tenant are erased; in every third schedule it is the tenant with few events, and the one with
        # many has contents that share ids.
        self.erasing: tuple[str, ...] = ("t2" if seed % 3 == 1 else "t1",) if plan.requests else ()
        # What one request by order left out another one does not follow (docs/reference/reliability.md, limits).
        self.by_order = seed % 9 == 0
        self._max_requests = min(plan.requests, 1) if self.by_order else plan.requests
        # In every other schedule the attributor forgets at once, and the sweeper's look into the log must be enough.
        self.remembers = seed % 2 == 0
        # The reporter decides nothing for the others: it takes part in half of the schedules.
        self.stages = [name for name in STAGES if name != "reporter" or seed % 4 < 2]
        self.groups = {
            name: Group([(topic, number) for topic in TOPICS[name] for number in range(PARTITIONS)])
            for name in self.stages
        }
        self.workers = [self._start(name, number) for name in self.stages for number in range(MEMBERS)]
        for name in self.stages:
            self._rebalance(name)
        self.store.history.clear()  # where partitions begin is known for good

    # Called by the stages at their own crash points.

    def crash_at(self, point: str) -> None:
        if point == self.crash_point:
            self.crash_point = None
            self.fired[f"crash: {point}"] += 1
            raise Crashed

    def run(self) -> None:
        """Run the wild part, the calm part, and check."""
        for _ in range(self.plan.steps):
            self.store.now += 1
            self.log.clock_ms += self.chance.choice((0, 1, 1_000, DAY // 1_000))
            if self._published < self.plan.events and self.chance.random() < 0.45:
                self._publish()
            elif self._requests < self._max_requests and self.chance.random() < 0.06:
                self._request()
            else:
                self._turn(self.chance.choice(self.workers), wild=True)
            if self.erasing and self.chance.random() < 0.1:
                self._erase(loses=self.chance.random() < 0.2)
            if self.chance.random() < self.plan.faults / 4:
                self._misfortune()
        while self._published < self.plan.events:
            self._publish()
        self._calm_down()
        self._check()

    def _tell(self, text: str) -> None:
        self.story.append(text)

    def _publish(self) -> None:
        topic, fields = random_event(self.chance, self._published, erasing=self.erasing)
        self._published += 1
        key = partition_key(fields["tenant_id"], fields["anonymous_id"], fields["user_id"])
        value = encoded(topic, fields)
        record = self.log.append(topic, key, value)
        self._tell(f"publish {record.place} {_brief(fields)}")
        if self.chance.random() < 0.15:  # the producer did not hear the acknowledgement, or another one sent it, too
            again = self.log.append(topic, key, value, self.chance.randrange(PARTITIONS))
            self.fired["duplicate"] += 1
            self._tell(f"publish {again.place} the same again")
        if self.chance.random() < 0.03:
            bad = self.log.append(topic, key, value[:-3])
            self.fired["poison"] += 1
            self._tell(f"publish {bad.place} cut short")

    def _request(self) -> None:
        """Somebody asks to be erased."""
        fields = random_request(self.chance, self._requests, by_order=self.by_order, tenant=self.erasing[0])
        self._requests += 1
        key = erasure_request_key(fields["tenant_id"], fields["request_id"])
        record = self.log.append(ERASURE_REQUESTS, key, encoded(ERASURE_REQUESTS, fields))
        self.fired[f"request: {fields['mode']}"] += 1
        self._tell(f"publish {record.place} {fields['mode']} {fields['kind']} {fields['identifier']}")

    def _erase(self, *, loses: bool = False) -> bool:
        """The sweeper carries out the next request that is due; it may die before it has sent the commands."""
        oldest = self._oldest_unread(GROUPS["stitcher"], TOPICS["stitcher"])
        until = self.log.clock_ms * 1_000 if oldest is None else oldest
        done = self.store.erase_next(HASHER, policy().version, until)
        if done is None:
            return False
        self.fired["erased"] += 1
        self.fired["commands of an erasure lost"] += loses and bool(done.raised or done.tombstones)
        self.fired["result taken back"] += len(done.tombstones)
        for version in [] if loses else [*done.raised, *done.tombstones]:
            self._command(version)
        self._tell(f"sweeper: a request carried out, {done.removed}, told: {not loses}")
        return True

    # Workers.

    def _start(self, name: str, number: int) -> Worker:
        session = Session(self.store)
        stage = STAGES[name](session)
        if isinstance(stage, ModelAttributor) and not self.remembers:
            stage.forget_at_once()
        return Worker(name, number, stage, session)

    def _rebalance(self, name: str) -> None:
        members = [0, 1] if self.chance.random() < 0.7 else [self.chance.randrange(MEMBERS)]
        group = self.groups[name]
        before = dict(group.owners)
        group.share(members)
        self._tell(f"{name}: rebalanced among {members}, generation {group.generation}")
        for worker in self.workers:
            if worker.name == name:
                gained = [place for place in group.of(worker.number) if before.get(place) != worker.number]
                self._assign(worker, gained)
                for place in [place for place in worker.positions if group.owners[place] != worker.number]:
                    if worker.pending is None:  # else it is a zombie: it has not noticed yet
                        del worker.positions[place]

    def _assign(self, worker: Worker, places: list[TopicPartition]) -> None:
        """Start partitions at the smaller of what the store and the log hold: assignment.py's rule."""
        stored = worker.stage.stored_positions(places)
        committed = self.log.offsets[worker.stage.group]
        for place in places:
            here = committed.setdefault(place, 0)  # the first start commits where it begins
            worker.positions[place] = min(here, stored.get(place, here))
        new = {place: worker.positions[place] for place in places if place not in stored}
        if new and _keeps_offsets(type(worker.stage)):
            cast("StoresOffsets", worker.stage).begin_at(new)

    def _rewind(self, worker: Worker) -> None:
        """As loop.py does after doubt."""
        worker.positions.clear()
        self._assign(worker, self.groups[worker.name].of(worker.number))

    def _turn(self, worker: Worker, *, wild: bool) -> bool:
        """One step of a worker: read and handle a batch, or commit the one in hand; False: nothing to do."""
        if worker.pending is not None:
            self._commit(worker, worker.pending, wild=wild)
            return True
        batch = self._read(worker, wild=wild)
        if not batch:
            before = dict(worker.positions)
            self._rewind(worker)  # loop.py's look back when idle
            return worker.positions != before
        generation = self.groups[worker.name].generation
        worker.positions |= _nexts(batch)
        if wild and self.chance.random() < self.plan.faults:
            self._arm(worker)
        try:
            outcome = self._handle(worker, batch)
        except Crashed:
            self._tell(f"{worker.name}-{worker.number}: handles {_places(batch)} and dies")
            self._restart(worker)
            return True
        except (Retry, Fenced) as error:
            self._tell(f"{worker.name}-{worker.number}: handles {_places(batch)}: {error}")
            self.fired["postgres answer lost" if isinstance(error, Retry) else "fall back noticed"] += 1
            self._rewind(worker)
            return True
        dead = [self._dead_letter(letter.record) for letter in outcome.dead_letters]
        if outcome.taken is not None:  # the others are the next batch
            self.fired["batch cut"] += 1
            rest = batch[outcome.taken :]
            batch = batch[: outcome.taken]
            for record in reversed(rest):
                worker.positions[record.topic, record.partition] = record.offset
        worker.pending = Pending(outcome.messages + dead, _nexts(batch), generation)
        self._tell(f"{worker.name}-{worker.number}: handles {_places(batch)}, {len(outcome.messages)} messages")
        return True

    def _handle(self, worker: Worker, batch: list[Record]) -> Outcome:
        try:
            return worker.stage.handle(batch)
        finally:  # what was armed and did not fire is off again
            self.crash_point = None
            worker.session.lose_next_answer = False

    def _dead_letter(self, record: Record) -> Outbound:
        return Outbound(DEAD_LETTERS, record.place.encode(), record.value)

    def _read(self, worker: Worker, *, wild: bool) -> list[Record]:
        most = self.chance.randrange(1, 6) if wild else 50
        batch: list[Record] = []
        places = sorted(worker.positions)
        self.chance.shuffle(places)
        for place in places:
            start = worker.positions[place]
            batch += self.log.records[place][start : start + most - len(batch)]
        return batch

    def _arm(self, worker: Worker) -> None:
        points = {
            "stitcher": ("stitcher_in_store", "stitcher_before_pg_commit", "stitcher_after_pg_commit", ""),
            "attributor": ("attributor_after_read",),
            "auditor": ("auditor_before_pg_commit", "auditor_after_pg_commit", ""),
            "reporter": ("reporter_before_pg_commit", "reporter_after_pg_commit", ""),
        }[worker.name]
        point = self.chance.choice(points)
        if point:
            self.crash_point = point
        else:
            worker.session.lose_next_answer = True

    def _commit(self, worker: Worker, pending: Pending, *, wild: bool) -> None:
        """End the Kafka transaction of the batch in hand, in one of the ways in which that can end."""
        worker.pending = None
        group = self.groups[worker.name]
        who = f"{worker.name}-{worker.number}"
        if pending.generation != group.generation:
            self.fired["zombie fenced"] += 1
            self._tell(f"{who}: its commit is refused, it is of generation {pending.generation}")
            self._rewind(worker)
            return
        end = "done"
        if wild and self.chance.random() < self.plan.faults:
            ends = [
                "crash before the transaction ends", "crash after the transaction", "aborted", "answer lost: done",
                "answer lost: aborted", "torn: records only", "torn: offsets only",
            ]  # fmt: skip
            if any(message.topic == DEAD_LETTERS for message in pending.messages):
                ends.pop()  # a limit (docs/reference/reliability.md): a dead letter that a broker tore off is lost
            end = self.chance.choice(ends)
            self.fired[end] += 1
        lands = end in {"done", "crash after the transaction", "answer lost: done"}
        messages = pending.messages if lands or end == "torn: records only" else []
        offsets = pending.offsets if lands or end == "torn: offsets only" else {}
        self.log.end_transaction(worker.stage.group, messages, offsets)
        self._tell(f"{who}: transaction with {len(pending.messages)} messages: {end}")
        if end.startswith("crash"):
            self._restart(worker)
        elif end != "done":
            self._rewind(worker)

    def _restart(self, worker: Worker) -> None:
        fresh = self._start(worker.name, worker.number)
        worker.stage, worker.session, worker.pending = fresh.stage, fresh.session, None
        self._rewind(worker)

    # What happens to all of them.

    def _misfortune(self) -> None:
        what = self.chance.choice(
            ("rebalance", "rebalance", "crash", "postgres lost commits", "sweeper asked again", "finalise", "reopen")
        )
        self.fired[what] += 1
        if what == "rebalance":
            self._rebalance(self.chance.choice(self.stages))
        elif what == "crash":
            victim = self.chance.choice(self.workers)
            self._tell(f"{victim.name}-{victim.number}: killed")
            self._restart(victim)
        elif what == "postgres lost commits":
            lost = self.store.lose_commits(self.chance.randrange(1, 4))
            self.fired["commits lost"] += lost
            self._tell(f"Postgres falls back by {lost} commits")
        elif what == "reopen":
            self._reopen(after_seconds=0.0, loses=self.chance.random() < 0.2)
        elif what == "finalise":
            grace_us = self.chance.choice((0, self.chance.randrange(2 * DAY)))
            self._sweep(self._unread(), repair_after_seconds=None, grace_us=grace_us)
        else:
            # The promises hold, with repeats, for a sweeper that does not look into the log, too.
            unread = UnreadAges() if self.remembers else self._unread()
            self.fired["asked again blindly"] += self.remembers
            self._sweep(unread, repair_after_seconds=float(self.chance.randrange(10)), grace_us=1_000 * DAY)

    def _oldest_unread(self, group: str, topics: Sequence[str]) -> int | None:
        """As sweeper/unread.py: the first record from the smaller of both positions on, microseconds."""
        times = []
        for place, records in self.log.records.items():
            both = (self.store.tables.positions.get((group, *place)), self.log.offsets[group].get(place))
            position = min((offset for offset in both if offset is not None), default=0)
            if place[0] in topics and position < len(records):
                times.append(records[position].timestamp_ms * 1_000)
        return min(times, default=None)

    def _unread(self) -> UnreadAges:
        now_us = self.log.clock_ms * 1_000
        oldest = {name: self._oldest_unread(GROUPS[name], TOPICS[name]) for name in GROUPS if name != "reporter"}
        stitcher = oldest["stitcher"]
        # The log's clock is not the store's: wait for anything that is unread, whatever its age.
        answers_us = None if any(at is not None for at in oldest.values()) else 0
        return UnreadAges(0 if stitcher is None else now_us - stitcher, answers_us)

    def _sweep(self, unread: UnreadAges, *, repair_after_seconds: float | None, grace_us: int) -> int:
        tables = self.store.tables.copy()
        before, self.store.tables = self.store.tables, tables
        old_us = self.log.clock_ms * 1_000 - grace_us - policy().lateness_micros
        old = [row for row in tables.conversions.values() if row.version and not row.is_final]
        self.fired["finalising held"] += sum(
            old_us - (unread.input_us or 0) <= row.state.received_at < old_us for row in old
        )
        done = run_sweep(
            unread,
            now_us=self.log.clock_ms * 1_000,
            repair_after_seconds=repair_after_seconds,
            grace_us=grace_us,
        )
        self.store.tables = before
        self.store.commit(tables)
        self._check_final(done.finalised)
        for version in [*done.repaired, *done.finalised]:
            self._command(version)
        self._tell(f"sweeper: {len(done.repaired)} asked again, {len(done.finalised)} final")
        return len(done.repaired)

    def _reopen(self, *, after_seconds: float, patience_seconds: float = 0.0, loses: bool = False) -> bool:
        """The sweeper raises a page of what was put off; it may die before it has sent the commands."""
        tables = self.store.tables.copy()
        before, self.store.tables = self.store.tables, tables
        page = self.store.reopen_page(
            policy_version=policy().version, after_seconds=after_seconds, patience_seconds=patience_seconds, limit=1
        )
        self.store.tables = before
        if page is None:
            return False
        self.store.commit(tables)
        self.fired["reopened"] += len(page.versions)
        for version in [] if loses else page.versions:
            self._command(version)
        self._tell(f"sweeper: {len(page.versions)} of {page.journey_key} reopened, told: {not loses}")
        return True

    def _check_final(self, versions: Sequence[RaisedVersion]) -> None:
        """Nothing that arrived in time for a conversion may wait unread when it becomes final."""
        for version in versions:
            state = self.store.tables.conversions[version.tenant_id, version.conversion_id].state
            in_time_us = state.received_at + policy().lateness_micros
            for place, records in self.log.records.items():
                position = self.store.tables.positions.get((GROUPS["stitcher"], *place), 0)
                waiting = [each for each in records[position:] if each.timestamp_ms * 1_000 <= in_time_us]
                assert place[0] not in INPUTS or not waiting, f"{version} is final before {waiting[0].place} is read"

    def _command(self, version: RaisedVersion) -> None:
        value = codec().encode(
            "command",
            {
                "tenant_id": version.tenant_id, "conversion_id": version.conversion_id, "version": version.version,
                "reason": version.reason, "issued_by": "sweeper", "event_published_at": version.published_at,
            },
        )  # fmt: skip
        self.log.append(COMMANDS, conversion_key(version.tenant_id, version.conversion_id), value)

    # The end.

    def _calm_down(self) -> None:
        self._tell("from here on nothing goes wrong")
        for name in self.stages:
            self._rebalance(name)
        for _ in range(_CALM_ROUNDS):
            if sum(self._turn(worker, wild=False) for worker in self.workers):  # all of them, not only the first
                continue
            self.store.now += 1_000
            self.log.clock_ms += 1
            if self._erase():
                continue
            if tombstones := self.store.overdue_tombstones(10.0):
                for version in tombstones:
                    self._command(version)
                continue
            if self._reopen(after_seconds=0.0, patience_seconds=-1.0):
                continue
            if not self.store.backlog().conversions:
                return
            if self._sweep(self._unread(), repair_after_seconds=10.0, grace_us=1_000 * DAY):
                self.fired["healed by the sweeper"] += 1
        raise AssertionError("the pipeline does not come to rest")

    def evidence(self) -> tuple[list[InputRecord], StoreSeen, list[tuple[str, int, int]], list[ResultSeen]]:
        """What the run left behind, as `check_invariants` takes it."""
        inputs = [
            InputRecord(record.topic, record.partition, record.offset, record.timestamp_ms, record.value)
            for place, records in self.log.records.items()
            if place[0] in INPUTS
            for record in records
        ]
        results = [
            ResultSeen(
                record.partition,
                record.offset,
                record.key or b"",
                {} if record.value is None else codec().decode("result", record.value),
            )
            for place, records in self.log.records.items()
            if place[0] == RESULTS
            for record in records
        ]
        dead = []
        for number in range(PARTITIONS):
            for record in self.log.records[DEAD_LETTERS, number]:
                topic, _, rest = (record.key or b"").decode().partition("[")
                partition, _, offset = rest.partition("]@")
                dead.append((topic, int(partition), int(offset)))
        return inputs, self._seen(), dead, results

    def _check(self) -> None:
        traces = any(self.fired[fault] for fault in TRACES)
        check_invariants(*self.evidence(), policy=policy(), models=models(), repeats_allowed=traces)
        if "reporter" in self.stages:
            self._check_rollup()

    def _check_rollup(self) -> None:
        """The roll-up holds the newest version of every conversion, of no other, and is the sum of what they say."""
        newest: dict[Key, RolledResult] = {}
        first: dict[Key, int] = {}  # when the first version was computed
        for place, records in self.log.records.items():
            for record in records if place[0] == RESULTS else ():
                tenant, _, conversion = (record.key or b"").decode().partition("|")
                key = (tenant, conversion)
                if record.value is None:
                    newest.pop(key, None)
                    first.pop(key, None)
                elif found := rolled_of(record.value):
                    if key not in newest or newest[key].version < found.version:
                        newest[key] = found
                    first[key] = min(first.get(key, found.computed_at), found.computed_at)
        owed = {key: row.version for key, row in self.store.tables.conversions.items() if row.version > 0}
        assert {key: result.version for key, result in newest.items()} == owed, "R1: the newest results are not those"
        rollup = self.store.tables.rollup
        assert {key: held.version for key, (held, _) in rollup.held.items()} == owed, "R1: the roll-up has others"
        assert standing(rollup) == fold(newest, first), "R2: the roll-up is not the sum of the newest results"
        assert unexplained(rollup) == {}, "R3: what changed a row or a name does not sum to it"
        self.fired["rolled up"] += len(newest)

    def _seen(self) -> StoreSeen:
        tables = self.store.tables
        kept: dict[str, dict[Key, Any]] = {
            "touchpoint": tables.touchpoints, "conversion": tables.conversion_events, "identity_link": tables.links
        }  # fmt: skip
        return StoreSeen(
            {
                "touchpoint": {key: row[-3:] for key, row in tables.touchpoints.items()},
                "conversion": {key: row[-3:] for key, row in tables.conversion_events.items()},
                "identity_link": {key: row[-3:] for key, row in tables.links.items()},
            },
            {
                (name, (tenant, event_id), content)
                for tenant, name, event_id, content in tables.conflicts
                if content != kept[name][tenant, event_id].content_hash
            },
            {
                key: (row.version, row.observed, row.state.journey_key, row.state.net_value_micros)
                for key, row in tables.conversions.items()
            },
            dict(tables.results),
            {key: micros for key, micros in tables.removed.items() if micros},
            {key: state for key, (_, state) in tables.requests.items()},
            tables.with_something() - tables.journeys,
        )


def _nexts(batch: list[Record]) -> dict[TopicPartition, int]:
    return {(record.topic, record.partition): record.offset + 1 for record in batch}


def _places(batch: list[Record]) -> str:
    return " ".join(record.place.replace("attribution.", "") for record in batch)


def _brief(fields: dict[str, object]) -> str:
    names = ("tenant_id", "event_id", "user_id", "anonymous_id", "kind", "conversion_id", "value_micros", "channel")
    at = fields.get("occurred_at", fields.get("linked_at"))
    day = (int(str(at)) - BASE) / DAY
    return " ".join(str(fields[name]) for name in names if fields.get(name) is not None) + f" day {day:.2f}"
