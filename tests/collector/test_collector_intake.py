"""The intake: one answer a record, and what is kept when the log is slow, full or away."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import pytest

from attributary.producers import AttributaryProducer, MemoryTransport, ProducerConfig
from attributary.producers.collector.bridge import LogBridge, Shipment
from attributary.producers.collector.intake import REPEATED, TOO_LARGE, Intake, SpoolUnavailable, Submission
from attributary.producers.memory_transport import CheckOnly
from attributary.producers.records import Conversion, Touchpoint
from attributary.producers.transport import Message, OnDone, TooLarge

NOON = 1_717_243_200_000_000


class KeptMessages:
    """A spool in memory."""

    def __init__(self, *, full: bool = False) -> None:
        self.kept: list[tuple[str, Message]] = []
        self.full = full

    async def append(self, messages: Sequence[tuple[str, Message]]) -> None:
        if self.full:
            raise SpoolUnavailable("full")
        self.kept += messages


def touch(event_id: str = "t1", **others: Any) -> Submission:
    fields: dict[str, Any] = {
        "anonymous_id": "a1", "occurred_at": NOON, "platform": "meta", "channel": "paid_social",
    } | others  # fmt: skip
    return Submission.of(Touchpoint(event_id=event_id, **fields))


def run(
    transport: MemoryTransport, spool: KeptMessages | None, work: Callable[[Intake, LogBridge], Awaitable[Any]]
) -> Any:
    async def main() -> Any:
        bridge = LogBridge(transport)
        bridge.start()
        sealer = AttributaryProducer(ProducerConfig(source="test"), transport=CheckOnly())
        try:
            return await work(Intake(sealer, bridge, spool), bridge)
        finally:
            await bridge.stop(0.1)

    return asyncio.run(main())


def take(
    transport: MemoryTransport, spool: KeptMessages | None, *submissions: Submission, seconds: float = 60.0
) -> list[tuple[Any, ...]]:
    return run(  # type: ignore[no-any-return]
        transport, spool, lambda intake, _: intake.take(list(submissions), "acme", seconds=seconds)
    )


def test_accepted_means_that_the_log_has_it_under_the_tenant_of_the_call() -> None:
    log = MemoryTransport()
    answers = take(log, None, touch("t1"), Submission.of(Conversion(
        occurred_at=NOON, conversion_type="purchase", event_id="c1", user_id="u1", tenant_id="other")))  # fmt: skip
    assert [answer[:2] for answer in answers] == [("t1", "accepted"), ("c1", "accepted")]
    assert [record["tenant_id"] for record in (*log.records("touchpoint"), *log.records("conversion"))] == ["acme"] * 2


def test_a_bad_record_is_named_and_its_neighbours_are_taken() -> None:
    log = MemoryTransport()
    answers = take(log, None, touch("t1"), touch("t2", anonymous_id="null"), touch("t3"))
    assert [answer[1] for answer in answers] == ["accepted", "rejected", "accepted"]
    assert answers[1][2] == "anonymous_id"
    assert len(log.messages) == 2


def test_one_id_with_two_contents_is_rejected_whole_and_with_one_content_sent_once() -> None:
    log = MemoryTransport()
    answers = take(log, None, touch("t1"), touch("t1", platform="x"), touch("t1"), touch("t2"), touch("t2"))
    assert [answer[1] for answer in answers] == ["rejected"] * 3 + ["accepted"] * 2
    assert {answer[3] for answer in answers[:3]} == {REPEATED}
    assert len(log.messages) == 1


def test_a_deadline_spools_and_then_nobody_waits_until_the_log_is_back() -> None:
    log = MemoryTransport()
    log.stall()
    spool = KeptMessages()

    async def work(intake: Intake, bridge: LogBridge) -> None:
        first = await intake.take([touch("t1")], "acme", seconds=0.05)
        assert [answer.outcome for answer in first] == ["spooled"]
        away = bridge.is_away
        assert away
        second = await asyncio.wait_for(intake.take([touch("t2")], "acme", seconds=600), 60)
        assert [answer.outcome for answer in second] == ["spooled"]
        log.stall(stalled=False)
        again = Shipment()
        bridge.send(again, "t2", spool.kept[1][1])
        assert await again.wait(120)
        assert not bridge.is_away
        third = await intake.take([touch("t3")], "acme", seconds=60)
        assert [answer.outcome for answer in third] == ["accepted"]

    run(log, spool, work)
    assert [event_id for event_id, _ in spool.kept] == ["t1", "t2"]
    # t1 was in flight when its time was up: the log got it as well, with the bytes that were spooled.
    assert spool.kept[0][1].value in [message.value for message in log.messages]


@pytest.mark.parametrize("spool", [None, KeptMessages(full=True)])
def test_neither_log_nor_spool_is_answered_retry(spool: KeptMessages | None) -> None:
    log = MemoryTransport()
    log.stall()
    assert [answer[1] for answer in take(log, spool, touch(), seconds=0.05)] == ["retry"]


def test_a_full_queue_and_a_failed_delivery_are_spooled() -> None:
    log = MemoryTransport(capacity=1)
    log.stall()
    spool = KeptMessages()
    answers = take(log, spool, touch("t1"), touch("t2"), seconds=0.05)
    assert [answer[1] for answer in answers] == ["spooled", "spooled"]
    failing = MemoryTransport()
    failing.fail_next("broker away")
    spool = KeptMessages()
    assert [answer[1] for answer in take(failing, spool, touch("t1"))] == ["spooled"]
    assert [event_id for event_id, _ in spool.kept] == ["t1"]


def test_a_record_larger_than_the_log_takes_is_rejected_not_kept() -> None:
    class Small(MemoryTransport):
        def send(self, message: Message, on_done: OnDone) -> None:
            if len(message.value) > 200:
                raise TooLarge("too large")
            super().send(message, on_done)

    spool = KeptMessages()
    answers = take(Small(), spool, touch("t1"), touch("t2", properties={"text": "x" * 300}))
    assert [answer[1] for answer in answers] == ["accepted", "rejected"]
    assert answers[1][2:] == ("record", TOO_LARGE)
    assert not spool.kept
