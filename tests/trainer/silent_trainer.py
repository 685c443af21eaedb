"""A trainer without Kafka; its one job reports no progress and never ends. Started by a test, stopped by SIGTERM."""

from __future__ import annotations

import sys
import threading

from attributary.consumers.runtime.signals import stop_on_signals
from attributary.consumers.store.session import StoreSession
from attributary.consumers.trainer.worker import WorkerLimits
from tests.trainer.training_harness import SilentHandlers, Trainer, job


def main(dsn: str) -> None:
    bench = SilentHandlers(StoreSession(dsn, "tests-reader"))
    trainer = Trainer(dsn, WorkerLimits(poll_seconds=0.05), bench)
    asked = threading.Event()
    stop_on_signals(asked.set, grace_seconds=60.0)
    trainer.submit(job("long", "train"))
    bench.entered.wait()
    sys.stdout.write("computing\n")
    sys.stdout.flush()
    while not asked.wait(0.1):
        pass
    trainer.stage.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
