"""A stage that ends at some records, run as a process: ``python -m tests.runtime.crashing_stage BOOTSTRAP PREFIX``.

It copies values to its output. A value ``KIND:...`` ends it: ``raise``, ``memory``, ``depth`` by an exception, ``kill``
by SIGKILL, ``fatal`` by an error of ours; ``end`` stops it in order. At ``slow`` the store gives up each time, at
``away`` it is away for a few tries. Exit code 70: ended by a bug, as a stage does.
"""

from __future__ import annotations

import os
import signal
import sys
from typing import TYPE_CHECKING

from attributary.consumers.runtime.errors import AttributaryError, Fatal, Retry, TooSlow
from attributary.consumers.runtime.health import Heartbeat
from attributary.consumers.runtime.loop import ConsumerLoop
from attributary.consumers.runtime.records import Outbound, Outcome, Record
from attributary.consumers.runtime.settings import KafkaSettings, ProcessSettings

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence


class CrashingStage:
    name = "crashing"
    max_records = 500
    loop: ConsumerLoop
    tries_left = 9

    def __init__(self, prefix: str) -> None:
        self.group = prefix
        self.topics = (f"{prefix}-in",)
        self.output_topics = (f"{prefix}-out",)

    def handle(self, batch: Sequence[Record]) -> Outcome:
        for record in batch:
            self._end_at((record.value or b"").partition(b":")[0])
        if any(record.value == b"end" for record in batch):
            self.loop.stop()
        return Outcome([Outbound(self.output_topics[0], record.key, record.value) for record in batch])

    def _end_at(self, kind: bytes) -> None:
        if kind == b"raise":
            raise ValueError("someone@example.org")
        if kind == b"memory":
            raise MemoryError
        if kind == b"depth":
            self._end_at(kind)
        if kind == b"kill":
            os.kill(os.getpid(), signal.SIGKILL)
        if kind == b"fatal":
            raise Fatal("a safety valve")
        if kind == b"slow":
            raise TooSlow("Postgres gave up: QueryCanceled 57014", 0.01)
        if kind == b"away" and self.tries_left:
            self.tries_left -= 1
            raise Retry("Postgres does not answer", 0.01)

    def stored_positions(self, partitions: Iterable[tuple[str, int]]) -> Mapping[tuple[str, int], int]:  # noqa: ARG002
        return {}

    def is_ready(self) -> bool:
        return True

    def close(self) -> None: ...


def main(bootstrap: str, prefix: str) -> int:
    # A static member comes back at once: nobody waits for the session of the one that was killed.
    kafka = KafkaSettings(KAFKA_BOOTSTRAP_SERVERS=bootstrap, KAFKA_EXTRA={"group.instance.id": "0"})
    stage = CrashingStage(prefix)
    process = ProcessSettings(ATTRIBUTION_FIRST_START="earliest")
    stage.loop = ConsumerLoop(stage, kafka, process, Heartbeat(stage.is_ready))
    try:
        stage.loop.run()
    except AttributaryError as error:
        print(f"{type(error).__name__}: {error}")
        return error.exit_code
    except Exception as error:  # noqa: BLE001
        print(type(error).__name__)
        return 70
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
