"""The real stages on the store in memory.

`StitcherStage`, `AttributorStage`, `AuditorStage`, `ReporterStage` and `sweep` run as they are; only what asks Postgres
is replaced, by functions that tests/contract compares with Postgres. Crashes come at the stages' own crash points.
"""

from __future__ import annotations

from contextlib import ExitStack, contextmanager
from functools import partial
from itertools import count
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

import structlog

from attributary.consumers.adapters import store_stage as storing
from attributary.consumers.adapters import stored_offsets as kept_positions
from attributary.consumers.adapters.rolled_reader import read_rolled
from attributary.consumers.adapters.stored_offsets import OffsetStore
from attributary.consumers.adapters.tenant_rules import TenantRules
from attributary.consumers.attributor import stage as attributing
from attributary.consumers.attributor.recent_results import RecentResults
from attributary.consumers.auditor import stage as auditing
from attributary.consumers.reporter import stage as reporting
from attributary.consumers.runtime.errors import Retry
from attributary.consumers.stitcher import stage as stitching
from attributary.consumers.stitcher.decode import Decoders
from attributary.consumers.stitcher.limits import Limits
from attributary.consumers.store.erasure.entries import Hasher
from attributary.consumers.store.events.attribution_inputs import MAX_DEVICES
from attributary.consumers.sweeper import sweep as sweeping
from tests.expected_results import codec
from tests.model.events import models, policy

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Sequence

    import psycopg

    from attributary.consumers.runtime.stage import Stage
    from attributary.consumers.store.events.rows import Positions
    from attributary.consumers.store.results.results import ResultRow, Stored
    from attributary.consumers.store.rollup.apply import Applied
    from attributary.consumers.store.rollup.cells import RolledResult
    from tests.model.log import TopicPartition
    from tests.model.memory_store import MemoryStore
    from tests.model.memory_transaction import Key, MemoryTransaction


HASHER = Hasher("a key of the schedule model")
MAX_RESULT_BYTES = 500  # one or two results: the attributor's batches are cut


class Crashed(BaseException):
    """The process died here. Not an Exception: nothing may catch it."""


class Session:
    """Stands in for a StoreSession: the `connection` that it hands out is a transaction on memory."""

    def __init__(self, store: MemoryStore) -> None:
        self.store = store
        self.lose_next_answer = False

    @contextmanager
    def transaction(self, *events: Any) -> Iterator[Any]:
        with self.store.transaction(*events) as transaction:
            yield transaction
        if self.lose_next_answer:
            self.lose_next_answer = False
            raise Retry("COMMIT was done, and its answer was lost")

    snapshot = transaction

    def keep_plans(self) -> None:
        pass

    def is_reachable(self) -> bool:
        return True

    def close(self) -> None:
        pass


ALL_TENANTS = TenantRules()


class AllTenants:
    """Everybody may publish, and no table says otherwise."""

    def rules(self, max_age_seconds: float = 0.0) -> TenantRules:
        del max_age_seconds
        return ALL_TENANTS


class ModelStitcher(stitching.StitcherStage):
    """The stitcher without a connection to open."""

    def __init__(self, session: Session) -> None:
        self._codec = codec()
        self._by_order = False
        self._tenants = AllTenants()  # type: ignore[assignment]
        self._rules = ALL_TENANTS
        self._decoders = Decoders.of(codec(), ALL_TENANTS, by_order=False)
        self._policy = policy()
        self._pinned = {}
        self._hasher = HASHER
        self._limits = Limits(reopened=1, conversions=1, pairs=2)  # small: batches are cut, and people put off
        self._max_poison_share = 1.0
        self._session = session  # type: ignore[assignment]
        self._store = session  # type: ignore[assignment]
        self._positions = OffsetStore(self.group, session)  # type: ignore[arg-type]


class ModelAttributor(attributing.AttributorStage):
    """The attributor without a connection to open."""

    def __init__(self, session: Session) -> None:
        self._codec = codec()
        self._max_poison_share = 1.0
        self._session = session  # type: ignore[assignment]
        self._policies = {policy().version: policy()}
        self._model_sets = {}
        self._published = RecentResults()
        self._max_devices = MAX_DEVICES

    def forget_at_once(self) -> None:
        """Remember nothing that was published."""
        hours = count()
        self._published = RecentResults(lambda: 3_600.0 * next(hours))


class ModelAuditor(auditing.AuditorStage):
    """The auditor without a connection to open."""

    def __init__(self, session: Session) -> None:
        self._codec = codec()
        self._max_poison_share = 1.0
        self._session = session  # type: ignore[assignment]
        self._positions = OffsetStore(self.group, session)  # type: ignore[arg-type]


class ModelReporter(reporting.ReporterStage):
    """The reporter without a connection to open."""

    def __init__(self, session: Session) -> None:
        self._codec = codec()
        self._max_poison_share = 1.0
        self._session = session  # type: ignore[assignment]
        self._positions = OffsetStore(self.group, session)  # type: ignore[arg-type]


def rolled_of(value: bytes) -> RolledResult | None:
    """Return what the roll-up takes of a result that is as it should be."""
    body = codec().body_of("result", value)
    return None if body is None else read_rolled([(value, body)])[0]


STAGES: dict[str, Callable[[Session], Stage]] = {
    "stitcher": ModelStitcher,
    "attributor": ModelAttributor,
    "auditor": ModelAuditor,
    "reporter": ModelReporter,
}


def _stored_positions(
    transaction: MemoryTransaction, group: str, places: Iterable[TopicPartition]
) -> dict[TopicPartition, int]:
    there = transaction._read().positions
    return {place: there[group, *place] for place in places if (group, *place) in there}


def _record_positions(transaction: MemoryTransaction, group: str, positions: Positions) -> Positions:
    return transaction.record_positions(group, positions)


def _store_results(transaction: MemoryTransaction, rows: Sequence[ResultRow], store: MemoryStore) -> Stored:
    return store.store_results(transaction.written(), rows)


def _observe_tombstones(transaction: MemoryTransaction, keys: Sequence[Key], store: MemoryStore) -> None:
    if keys:
        store.observe_tombstones(transaction.written(), keys)


def _apply_results(
    transaction: MemoryTransaction, results: Sequence[RolledResult], tombstones: Collection[Key], *, now_us: int
) -> Applied:
    tables = transaction.written()
    tables.rollup, applied = tables.rollup.applied(results, tombstones, now_us)
    return applied


def _model_sets(_connection: psycopg.Connection, wanted: Collection[tuple[str, int]]) -> dict[tuple[str, int], Any]:
    return {key: {} for key in wanted}


@contextmanager
def stages_on_memory(crash_at: Callable[[str], None], store: Callable[[], MemoryStore]) -> Iterator[None]:
    """Replace what asks Postgres, and the crash points, for the length of a `with` block."""

    def ask(name: str) -> Callable[..., Any]:
        return lambda _connection, *args, **kwargs: getattr(store(), name)(*args, **kwargs)

    with ExitStack() as stack:
        structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(50))
        stack.callback(structlog.reset_defaults)
        for module, replaced in (
            (kept_positions, {"stored_positions": _stored_positions, "record_positions": _record_positions}),
            (
                stitching,
                {
                    "crash_at": crash_at,
                    "fetch_policies": lambda _connection: {},
                    "known_policies": lambda _session, known: known,
                },
            ),
            (
                attributing,
                {
                    "crash_at": crash_at,
                    "conversions_by_id": ask("conversions_by_id"),
                    "touchpoints_in_reach": ask("touchpoints_in_reach"),
                    "tombstones_owed": ask("tombstones_owed"),
                    "_MAX_RESULT_BYTES": MAX_RESULT_BYTES,
                    "fetch_model_sets": _model_sets,
                    "lenient_model_set": lambda _states, _policy: (models(), ()),
                },
            ),
            (
                storing,
                {"crash_at": crash_at, "record_positions": _record_positions},
            ),
            (
                auditing,
                {
                    "store_results": lambda connection, rows: _store_results(connection, rows, store()),
                    "observe_tombstones": lambda connection, keys: _observe_tombstones(connection, keys, store()),
                },
            ),
            (reporting, {"apply_results": _apply_results}),
            (
                sweeping,
                {
                    **{name: ask(name) for name in ("backlog", "overdue", "finalise")},
                    "close_journeys": lambda *_args, **_kwargs: 0,
                    "longest_lateness": lambda _connection, of_file: of_file.lateness_micros,
                },
            ),
        ):
            for name, new in replaced.items():
                stack.enter_context(patch.object(module, name, new))
        yield


run_sweep = partial(sweeping.sweep, None, policy())  # type: ignore[arg-type]
