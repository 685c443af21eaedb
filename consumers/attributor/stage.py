"""The attributor as a stage: read commands, read Postgres in one snapshot, compute, emit results.

Invariant: a result is emitted only for the version that the conversion has at this moment (``command.version ==
row.version``): of two attributors, or of a replay and a newer batch, at most one speaks for a version, and an older
version never follows a newer one from this code. Whatever slips past (a transaction torn by a broker) the auditor sees.

Bounds: a batch is cut to its first commands where more than ``MAX_READ`` touchpoints would be read or results of more
than ``_MAX_RESULT_BYTES`` written at once. What is done about the commands that are left does not depend on those that
were cut off, so a batch leads to the same results whole or in parts.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import psycopg
import structlog

from attributary.attribution_core.domain.lookback import LookbackPolicy
from attributary.attribution_core.domain.policy_parts import TRAINED_MODELS
from attributary.attribution_core.models.model_set import ModelSet, TrainedState, lenient_model_set
from attributary.consumers.adapters.error_mapping import map_errors
from attributary.consumers.runtime.crash_points import crash_at, register_points
from attributary.consumers.runtime.dead_letters import check_poison_share
from attributary.consumers.runtime.errors import Fatal
from attributary.consumers.runtime.metrics import timed
from attributary.consumers.runtime.records import Outbound, Outcome, Record
from attributary.consumers.store.erasure.tombstones import tombstones_owed
from attributary.consumers.store.events.attribution_inputs import (
    MAX_DEVICES,
    MAX_REACHED,
    PendingConversion,
    ReachedTouchpoint,
    conversions_by_id,
    prepare_reading,
    touchpoints_in_reach,
)
from attributary.consumers.store.events.policies import fetch_policy
from attributary.consumers.store.events.rows import RaisedVersion
from attributary.consumers.store.models.model_states import fetch_model_sets
from attributary.consumers.store.session import FEW_ROWS, StoreSession
from attributary.schemas.codec import Codec, RegistryUnavailableError
from attributary.schemas.limits import MINOR_UNIT_MICROS
from attributary.schemas.topics import COMMANDS, RESULTS, VERSION_RAISED_AT, conversion_key, group_name

from . import metrics
from .commands import Commands, decode_commands
from .credits import CreditedResult, CreditedTouchpoints, by_model_set, results, within_policy
from .recent_results import RecentResults
from .result_encoding import encode_result

register_points("attributor_after_read")

_log = structlog.get_logger()

GROUP = group_name("attributor")
_MODEL_SETS_KEPT = 256
# Nobody waits for a result of an event that old. Touchpoints and links that are still unread will raise the versions of
# conversions again, and a version that was raised meanwhile is passed over.
_BACKLOG_SECONDS = 10.0
_BACKLOG_LINGER_SECONDS = 2.0
_BACKLOG_PAUSE_SECONDS = 1.0  # the stitcher's next batch of a backlog comes sooner; what comes later is live
_MAX_RESULT_BYTES = 32 << 20  # of one Kafka transaction; librdkafka holds them a second time

Wanted = Mapping[tuple[str, str], tuple[int, int]]


def _minor_unit_micros(currency: str) -> int:
    return int(MINOR_UNIT_MICROS.get(currency, 1))  # XXX, no currency, has no minor unit and no value


def _is_old(published_us: int) -> bool:
    """Tell whether nobody waits any more for the result of an event that was published then."""
    return time.time() - published_us / 1e6 > _BACKLOG_SECONDS


def _at_limit(touchpoints: Sequence[ReachedTouchpoint]) -> set[int]:
    """Return the conversions of which older touchpoints may exist than those that were read."""
    if len(touchpoints) < MAX_REACHED:
        return set()
    counts = Counter(touch.conversion for touch in touchpoints)
    return {number for number, count in counts.items() if count >= MAX_REACHED}


@dataclass(slots=True)
class _Done:
    """The answer to a batch; ``results`` stand as ``pending`` does."""

    pending: Sequence[PendingConversion]
    results: list[CreditedResult] = field(default_factory=list)
    messages: list[Outbound] = field(default_factory=list)
    tombstones: list[Outbound] = field(default_factory=list)
    skipped: Mapping[str, int] = field(default_factory=dict)
    journeys_cut: set[int] = field(default_factory=set)


class AttributorStage:
    """Answers commands with results.

    Args:
        dsn: where Postgres is.
        codec: reads commands, writes results.
        max_poison_share: stop when more of a batch than this share is poison.
        max_devices: so many of a user's anonymous ids count, those that were linked last.
    """

    name = "attributor"
    group = GROUP
    topics = (COMMANDS,)
    output_topics = (RESULTS,)
    max_records = 1_000  # a result is some kilobytes; where it is more, a batch is cut

    def __init__(self, dsn: str, codec: Codec, max_poison_share: float, max_devices: int = MAX_DEVICES) -> None:
        self._codec = codec
        self._max_devices = max_devices
        self._max_poison_share = max_poison_share
        self._session = StoreSession(dsn, "attributary-attributor", prepare_reading)
        self._policies: dict[str, LookbackPolicy] = {}
        self._model_sets: dict[tuple[str, int, str], ModelSet] = {}  # by tenant, model set and policy
        self._published = RecentResults()
        self._backlog_ends = 0.0  # by the monotonic clock: until then the next command is taken for one of a backlog
        for model in TRAINED_MODELS:  # an alert sees a counter rise only from a value that it has seen before
            metrics.model_versions_unusable.labels(model)
        with map_errors():
            self._session.connection()

    def handle(self, batch: Sequence[Record]) -> Outcome:
        """Compute the results that the commands ask for, or the first of them; writes nothing to Postgres."""
        with map_errors(), timed(self.name, "decode"):
            commands = decode_commands(self._codec, batch)
        check_poison_share(commands.dead_letters, len(batch), self._max_poison_share)
        taken = len(batch)
        while not isinstance(done := self._answer(commands), _Done):
            taken = commands.places[done]
            with map_errors(), timed(self.name, "decode"):
                commands = decode_commands(self._codec, batch[:taken])
        metrics.commands_skipped.labels("repeated").inc(commands.repeated)
        for why, number in done.skipped.items():
            metrics.commands_skipped.labels(why).inc(number)
        self._published.remember(done.pending)
        metrics.people_cut.inc(sum(conversion.devices > self._max_devices for conversion in done.pending))
        self._count(done, commands.wanted)
        metrics.results_erased.inc(len(done.tombstones))
        if commands.newest_stitched_us is not None:  # the sweeper's commands are of old events at all times
            is_backlog = _is_old(commands.newest_stitched_us)
            self._backlog_ends = time.monotonic() + _BACKLOG_PAUSE_SECONDS if is_backlog else 0.0
        return Outcome([*done.messages, *done.tombstones], commands.dead_letters, taken if taken < len(batch) else None)

    def linger_seconds(self) -> float:
        """Return how long a batch may wait for more commands, seconds: longer while a backlog is worked through."""
        return _BACKLOG_LINGER_SECONDS if time.monotonic() < self._backlog_ends else 0.0

    def is_awaited(self, records: Sequence[Record]) -> bool:
        """Tell whether one of these commands is about a live event: one stitcher may be far behind, another not."""
        try:
            newest = decode_commands(self._codec, records).newest_stitched_us
        except RegistryUnavailableError:  # the batch is handled now, which pauses until the registry answers
            return True
        return newest is not None and not _is_old(newest)

    def _answer(self, commands: Commands) -> _Done | tuple[str, str]:
        """Return the results, or the first conversion that is too much beside those before it."""
        with map_errors(), timed(self.name, "journey"), self._session.snapshot() as connection:
            if len(commands.wanted) < FEW_ROWS:
                self._session.keep_plans()
            stored = conversions_by_id(connection, list(commands.wanted), self._max_devices)
            pending, skipped = self._pending(stored, commands.wanted)
            owed = self._tombstones(connection, stored, commands.wanted)
            for version in {conversion.policy_version for conversion in pending} - set(self._policies):
                self._policies[version] = self._known(version, fetch_policy(connection, version))
            touchpoints, complete = touchpoints_in_reach(connection, pending, self._policies, self._max_devices)
            if complete < len(pending):
                return pending[complete][:2]
            wanted = {(c.tenant_id, c.model_set, c.policy_version) for c in pending} - set(self._model_sets)
            states = fetch_model_sets(connection, sorted({pin[:2] for pin in wanted}))
        crash_at("attributor_after_read")
        with timed(self.name, "credit"):
            for key in wanted:
                self._model_sets[key] = self._built(key[:2], states.get(key[:2], {}), self._policies[key[2]])
            credited = within_policy(pending, touchpoints, self._policies)
            done = self._credited(pending, credited, _at_limit(touchpoints))
        done.skipped = {**skipped, "unknown": skipped["unknown"] - len(owed)}
        with timed(self.name, "encode"):
            computed_at = time.time_ns() // 1_000
            size = 0
            for conversion, result in zip(pending, done.results, strict=True):
                value = encode_result(self._codec, result, computed_at)
                size += len(value)
                if size > _MAX_RESULT_BYTES and done.messages:
                    return conversion[:2]
                done.messages.append(self._message(conversion, value))
        done.tombstones = [self._tombstone(version) for version in owed]
        return done

    @staticmethod
    def _tombstones(
        connection: psycopg.Connection, stored: Sequence[PendingConversion], wanted: Wanted
    ) -> list[RaisedVersion]:
        """Return the tombstones that commands ask for: conversions that are not stored because they were erased."""
        missing = wanted.keys() - {conversion[:2] for conversion in stored}
        owed = {(each.tenant_id, each.conversion_id): each for each in tombstones_owed(connection, sorted(missing))}
        return [owed[key] for key in wanted if key in owed and owed[key].version == wanted[key][0]]

    @staticmethod
    def _tombstone(version: RaisedVersion) -> Outbound:
        headers = [
            ("ce_specversion", b"1.0"),
            ("ce_id", f"{version.tenant_id}|{version.conversion_id}|{version.version}".encode()),
            ("ce_source", b"attributary/attributor"),
            ("ce_type", b"attributary.v1.Result"),
            ("attribution-version", b"%d" % version.version),
            ("attribution-reason", version.reason.encode()),
        ]
        return Outbound(RESULTS, conversion_key(version.tenant_id, version.conversion_id), None, headers)

    def _pending(
        self, stored: Sequence[PendingConversion], wanted: Wanted
    ) -> tuple[list[PendingConversion], Mapping[str, int]]:
        """Keep the conversions at the command's version, in the order of the commands; count why others go."""
        skipped = {"stale": 0, "observed": 0, "published": 0, "unknown": len(wanted) - len(stored)}
        pending = {}
        for conversion in stored:
            version = wanted[conversion[:2]][0]
            if conversion.observed_version >= version:
                skipped["observed"] += 1  # its result is in the topic and was stored: a sweeper's command or a replay
            elif version == conversion.version and self._published.has(conversion):
                skipped["published"] += 1  # in the topic, and not stored yet
            elif version == conversion.version:
                pending[conversion[:2]] = conversion
            elif version < conversion.version:
                skipped["stale"] += 1
            else:
                skipped["unknown"] += 1  # Postgres lost commits: the replay raises the version again
        return [pending[key] for key in wanted if key in pending], skipped

    def _credited(
        self, pending: Sequence[PendingConversion], credited: CreditedTouchpoints, at_limit: set[int]
    ) -> _Done:
        """Credit the conversions, one batch per tenant, pinned model set and policy."""
        done = _Done(pending, journeys_cut=set(at_limit))
        found: dict[tuple[str, str], CreditedResult] = {}
        places = {conversion[:2]: place for place, conversion in enumerate(pending)}
        for group in by_model_set(pending):
            numbers = [places[conversion[:2]] for conversion in group]
            part = credited.of(numbers)
            models = self._model_sets[group[0].tenant_id, group[0].model_set, group[0].policy_version]
            credited_results = results(
                group, part, models, _minor_unit_micros,
                at_limit={place for place, number in enumerate(numbers) if number in at_limit},
                max_devices=self._max_devices,
            )  # fmt: skip
            counts = np.diff(part.offsets).tolist()
            for conversion, result, count in zip(group, credited_results, counts, strict=True):
                found[conversion[:2]] = result
                if len(result.touchpoints) != count:
                    done.journeys_cut.add(places[conversion[:2]])
        done.results = [found[conversion[:2]] for conversion in pending]
        while len(self._model_sets) > _MODEL_SETS_KEPT:  # the oldest go first; they can be read again
            self._model_sets.pop(next(iter(self._model_sets)))
        return done

    @staticmethod
    def _built(pin: tuple[str, int], states: Mapping[str, TrainedState], policy: LookbackPolicy) -> ModelSet:
        """Build what a pin stands for; a version that cannot be built is one tenant's trouble, and is told."""
        models, broken = lenient_model_set(states, policy)
        for each in broken:
            metrics.model_versions_unusable.labels(each.model).inc()
            _log.error(
                "a trained version cannot be used: its journeys are credited by the fallback; activate another one",
                tenant=pin[0],
                model_set=pin[1],
                model=each.model,
                version=each.version,
                why=each.reason,
            )
        return models

    @staticmethod
    def _message(conversion: PendingConversion, value: bytes) -> Outbound:
        tenant_id, conversion_id = conversion.tenant_id, conversion.conversion_id
        headers = [
            ("ce_specversion", b"1.0"),
            ("ce_id", f"{tenant_id}|{conversion_id}|{conversion.version}".encode()),
            ("ce_source", b"attributary/attributor"),
            ("ce_type", b"attributary.v1.Result"),
            ("content-type", b"application/avro"),
            # The auditor compares it: a result of a version that Postgres lost is not one of its namesake.
            (VERSION_RAISED_AT, b"%d" % conversion.raised_at),
        ]
        return Outbound(RESULTS, conversion_key(tenant_id, conversion_id), value, headers)

    @staticmethod
    def _known(version: str, policy: LookbackPolicy | None) -> LookbackPolicy:
        if policy is None:
            raise Fatal(f"the lookback policy {version} that a conversion pins is not stored")
        return policy

    @staticmethod
    def _count(done: _Done, wanted: Wanted) -> None:
        now = time.time()
        for conversion in done.pending:
            metrics.results_emitted.labels(conversion.version_reason).inc()
            published_us = wanted[conversion[:2]][1]
            metrics.end_to_end_seconds.labels(conversion.version_reason).observe(max(0.0, now - published_us / 1e6))
        metrics.journeys_cut.inc(len(done.journeys_cut))
        fallen = Counter((model.name, model.fallback) for result in done.results for model in result.models)
        for (model, fallback), journeys in fallen.items():
            if fallback is not None:
                metrics.model_fallbacks.labels(model, fallback).inc(journeys)

    def stored_positions(self, partitions: Iterable[tuple[str, int]]) -> Mapping[tuple[str, int], int]:  # noqa: ARG002  # the protocol's
        """The attributor decides in Kafka: Kafka alone knows where it is.

        Asked at every assignment and rewind: what was published last may not have been committed.
        """
        self._published.clear()
        return {}

    def is_ready(self) -> bool:
        """Tell whether Postgres answered last time."""
        return self._session.is_reachable()

    def close(self) -> None:
        """Close the connection."""
        self._session.close()
