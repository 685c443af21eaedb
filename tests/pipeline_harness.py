"""Stitcher, attributor and auditor on one database in this process: what a batch of events leads to, without Kafka."""

from __future__ import annotations

from itertools import count
from typing import TYPE_CHECKING, Any, Self

from attributary.attribution_core.domain.lookback import DEFAULT_POLICY, LookbackPolicy
from attributary.consumers.attributor.stage import AttributorStage
from attributary.consumers.auditor.stage import AuditorStage
from attributary.consumers.erasure.execute import MoreToLockError, execute
from attributary.consumers.runtime.records import Record
from attributary.consumers.stitcher.stage import StitcherStage
from attributary.consumers.store.erasure import ledger
from attributary.consumers.store.erasure.transaction import ErasureTransaction
from attributary.consumers.store.events.staging import create_staging
from attributary.consumers.store.session import StoreSession
from tests.factories.samples import START_US, codec, records

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from attributary.consumers.runtime.records import Outbound
    from attributary.consumers.runtime.stage import Stage
    from attributary.consumers.store.erasure.entries import Hasher, RequestRow
    from tests.factories.samples import SampleEvent


def handle_all(stage: Stage, batch: Sequence[Record]) -> list[Outbound]:
    """Let a stage process a batch, in parts where it takes only a part, as the loop does; returns its messages."""
    messages: list[Outbound] = []
    while batch:
        outcome = stage.handle(batch)
        assert not outcome.dead_letters, [letter.reason for letter in outcome.dead_letters]
        messages += outcome.messages
        batch = batch[len(batch) if outcome.taken is None else outcome.taken :]
    return messages


class InProcess:
    """The three stages; what each hands on is read by the next at once.

    Args:
        dsn: a migrated database.
        policy: the lookback policy; the default one when None.
        logins: of stages that do not log in as the owner.
    """

    def __init__(self, dsn: str, policy: LookbackPolicy | None = None, logins: Mapping[str, str] | None = None) -> None:
        of = {"stitcher": dsn, "attributor": dsn, "auditor": dsn, **(logins or {})}
        self.stitcher = StitcherStage(of["stitcher"], codec(), policy or LookbackPolicy.parse(DEFAULT_POLICY), 1.0)
        self.attributor = AttributorStage(of["attributor"], codec(), 1.0)
        self.auditor = AuditorStage(of["auditor"], codec(), 1.0)
        self._offsets = {"input": count(), "commands": count(), "results": count()}
        self.commands: list[Record] = []
        self.results: list[dict[str, Any]] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for stage in (self.stitcher, self.attributor, self.auditor):
            stage.close()

    def publish(self, *events: SampleEvent) -> list[dict[str, Any]]:
        """Process one batch; returns the results that it leads to."""
        self.stitch(*events)
        return self.answer()

    def stitch(self, *events: SampleEvent) -> None:
        """Let the stitcher alone process one batch; its commands wait."""
        self.read([self._record(record, "input") for record in records(events)])

    def read(self, batch: Sequence[Record]) -> None:
        """Let the stitcher process records as they are; its commands wait."""
        self.commands += [self._read(message, "commands") for message in handle_all(self.stitcher, batch)]

    def answer(self) -> list[dict[str, Any]]:
        """Let attributor and auditor process the commands that wait; returns the results."""
        commands, self.commands = self.commands, []
        read = [self._read(message, "results") for message in handle_all(self.attributor, commands)]
        handle_all(self.auditor, read)
        found = [codec().decode("result", record.value) for record in read]
        self.results += found
        return found

    def _record(self, record: Record, log: str) -> Record:
        record.offset = next(self._offsets[log])
        return record

    def _read(self, message: Outbound, log: str) -> Record:
        offset = next(self._offsets[log])
        return Record(message.topic, 0, offset, message.key, message.value, START_US // 1000, lambda: message.headers)


def run(dsn: str, batches: Sequence[Sequence[SampleEvent]]) -> list[dict[str, Any]]:
    """Process batches; returns all results in order."""
    with InProcess(dsn) as stages:
        for batch in batches:
            stages.publish(*batch)
        return stages.results


def carry_out(dsn: str, requests: Sequence[RequestRow], hasher: Hasher, policy: LookbackPolicy | None = None) -> None:
    """Store requests to erase people and carry them out one after the other, as the sweeper does."""
    version = (policy or LookbackPolicy.parse(DEFAULT_POLICY)).version
    session = StoreSession(dsn, "tests", create_staging)
    more: set[Any] = set()
    try:
        with session.transaction() as connection:
            ledger.store_requests(connection, requests)
        while True:
            try:
                with session.transaction() as connection:
                    request = ledger.claim_request(connection, 2**62)
                    if request is None:
                        return
                    execute(ErasureTransaction(connection, 60.0), request, hasher, version, more)
            except MoreToLockError as grew:
                more |= set(grew.keys)
    finally:
        session.close()
