"""Back to the log: the spool's segments are sent oldest first, at a bounded rate, and removed when the log has them.

Contract: while the log is away one message finds out whether it is back. A message that the log will never take (too
large) is kept aside with its segment, and the rest goes on. Nothing waits for the drain; requests pass it by.
"""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path

from attributary.producers.collector import metrics
from attributary.producers.collector.bridge import LogBridge, Shipment, is_of_the_record
from attributary.producers.collector.crash_points import crash_at
from attributary.producers.collector.spool import DiskSpool
from attributary.producers.collector.spool_file import Damage, Spooled, read_segment
from attributary.producers.transport import Refused, TooLarge

IDLE_SECONDS = 0.5
AWAY_SECONDS = 1.0
ADOPT_SECONDS = 10.0
ACK_SECONDS = 15.0
AT_ONCE = 250

logger = logging.getLogger("attributary.collector")


class Drain:
    """Drains a spool.

    Args:
        spool: whence.
        bridge: whereto.
        records_per_second: most records a second, so that live requests keep their share of the log.
    """

    def __init__(self, spool: DiskSpool, bridge: LogBridge, records_per_second: float) -> None:
        self._spool = spool
        self._bridge = bridge
        self._pause = AT_ONCE / records_per_second
        self._adopted_at = -ADOPT_SECONDS

    async def run(self) -> None:
        """Drain until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            try:
                if loop.time() - self._adopted_at >= ADOPT_SECONDS:
                    self._adopted_at = loop.time()
                    if adopted := await asyncio.to_thread(self._spool.adopt):
                        logger.info("adopted %d segments of processes that ended", adopted)
                segments = self._spool.closed_segments()
                if segments:
                    await self._drain(segments[0])
                elif not self._spool.rotate():
                    await asyncio.sleep(IDLE_SECONDS)
                else:
                    await asyncio.sleep(0.05)  # the writer closes its segment
            except OSError as error:
                logger.warning("the spool cannot be drained now: %s", type(error).__name__)
                await asyncio.sleep(AWAY_SECONDS)

    async def _drain(self, segment: Path) -> None:
        """Send a segment until the log has all of it, then remove it."""
        damage = Damage()
        left = await asyncio.to_thread(lambda: list(read_segment(segment, damage)))
        total, refused = len(left), 0
        while left:
            some = left[: 1 if self._bridge.is_away else AT_ONCE]
            kept, never = await self._send(some)
            refused += never
            left = kept + left[len(some) :]
            await asyncio.sleep(AWAY_SECONDS if kept else self._pause)
        crash_at("collector_drain_acknowledged")
        keep_aside = bool(damage.corrupt or damage.torn_bytes or refused)
        if keep_aside:
            logger.error(
                "segment %s of the spool is kept in quarantine: %d frames damaged, a tail of %d bytes cut short, "
                "%d records that the log refuses",
                segment.name,
                damage.corrupt,
                damage.torn_bytes,
                refused,
            )
        await asyncio.to_thread(self._spool.remove, segment, keep_aside=keep_aside)
        metrics.spool_records.labels("drained").inc(total - refused)
        metrics.spool_records.labels("undeliverable").inc(refused)
        metrics.spool_records.labels("corrupt").inc(damage.corrupt)

    async def _send(self, messages: list[Spooled]) -> tuple[list[Spooled], int]:
        """Send messages; return those that the log did not take, and how many it never will."""
        sent = Shipment()
        waiting: dict[str, Spooled] = {}  # by place: an event id may stand in a segment twice
        kept: list[Spooled] = []
        never = 0
        for number, each in enumerate(messages):
            try:
                self._bridge.send(sent, str(number), each.message)
            except TooLarge:
                never += 1
            except (BufferError, Refused):
                kept = messages[number:]
                break
            else:
                waiting[str(number)] = each
        if not await sent.wait(ACK_SECONDS):
            self._bridge.note_deadline()
        failed: list[Spooled] = []
        for place, each in waiting.items():
            error = sent.outcomes.get(place, TimeoutError())
            if error is not None and is_of_the_record(error):
                never += 1
            elif error is not None:
                failed.append(each)
        return failed + kept, never
