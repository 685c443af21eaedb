"""Events a second of the whole forwarder: real Kafka, the real ledger, a process a destination, answers that take time.

    python -m tests.forwarder.bench_forwarder_all [--events 20000] [--answer-ms 50] [--only meta,ga4] [--single 500]

Four figures for each destination: alone in full requests, alone with one event in each request (as relays do that send
event by event), and, with all of them at once and one of them away, its events a second and the memory that
its process holds in the first and in the last third of the run. Every conversion is of another person, as purchases
are. The stand-ins answer from a process of their own. Figures belong to the machine; ratios matter.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attributary.consumers.store.connection import connect
from attributary.consumers.store.migrate import migrate
from attributary.local.broker import REAL, find_broker
from attributary.local.fakes import Fault
from attributary.local.fakes.server import FakeServer
from attributary.local.postgres import find_postgres
from tests.fixtures.topics import recreate_topics
from tests.forwarder.forwarder_factories import CODEC, conversion
from tests.forwarder.forwarder_processes import FAKES, Forwarders, produce, settled_counts, variables

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from multiprocessing.connection import Connection

_LONGEST_SECONDS = 1_800.0
_AWAY = "http://127.0.0.1:9"  # nobody listens on the port of discard


def _serve(pipe: Connection, seconds: float) -> None:
    with ExitStack() as stack:
        urls = {}
        for name, make in FAKES.items():
            fake = make()
            fake.script.replace([Fault("slow", seconds=seconds)] if seconds else [])
            urls[name] = stack.enter_context(FakeServer(fake)).url
        pipe.send(urls)
        pipe.recv()


class _Run:
    """One run on an empty ledger and empty topics."""

    def __init__(self, bootstrap: str, dsn: str, urls: Mapping[str, str], logs: Path) -> None:
        self._bootstrap = bootstrap
        self._dsn = dsn
        self._urls = urls
        self._logs = logs

    def rates(self, names: Sequence[str], events: int, **more: str) -> dict[str, dict[str, Any]]:
        """Forward so many events; give events a second by destination, from its first row in the ledger on."""
        recreate_topics(self._bootstrap)
        with connect(self._dsn, application_name="bench") as connection:
            connection.execute("TRUNCATE attribution_deliveries")
        now = time.time_ns() // 1_000
        produce(self._bootstrap, (CODEC.encode("conversion", conversion(now)) for _ in range(events)))
        environment = variables(self._bootstrap, self._dsn, self._urls, **more)
        live = [name for name in names if self._urls[name] != _AWAY]
        begun: dict[str, float] = {}
        found: dict[str, dict[str, Any]] = {name: {} for name in live}
        with Forwarders(names, environment, self._logs) as forwarders:
            deadline = time.monotonic() + _LONGEST_SECONDS
            while any("events_per_second" not in found[name] for name in live):
                if ended := forwarders.ended():
                    raise SystemExit(f"ended: {ended}; their logs are in {self._logs}")
                if time.monotonic() > deadline:
                    raise SystemExit(f"not done: {found}")
                self._look(live, events, begun, found, forwarders)
                time.sleep(0.05)
        return found

    def _look(
        self,
        live: Sequence[str],
        events: int,
        begun: dict[str, float],
        found: dict[str, dict[str, Any]],
        forwarders: Forwarders,
    ) -> None:
        counts, at, memory = settled_counts(self._dsn), time.monotonic(), forwarders.resident_mib()
        for name in counts:  # a row is there before anything is sent
            begun.setdefault(name, at)
        for name in live:
            count = counts.get(name, 0)
            if count >= events / 3:
                found[name].setdefault("first_third_mib", round(memory[name]))
            if count >= events and "events_per_second" not in found[name]:
                found[name]["events_per_second"] = round(events / max(at - begun[name], 1e-3))
                found[name]["last_third_mib"] = round(memory[name])


def bench(names: Sequence[str], events: int, single: int, answer_seconds: float) -> list[dict[str, Any]]:
    """Run all and give the figures."""
    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(target=_serve, args=(theirs, answer_seconds), daemon=True)
    process.start()
    lines: list[dict[str, Any]] = []
    with ExitStack() as stack:
        stack.callback(process.terminate)
        urls: dict[str, str] = ours.recv()
        broker = stack.enter_context(find_broker(REAL))
        dsn = stack.enter_context(find_postgres(durable=True)).dsn
        with connect(dsn, application_name="bench") as connection:
            migrate(connection)
        logs = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        run = _Run(broker.bootstrap, dsn, urls, logs)
        for name in names:
            full = run.rates([name], events)[name]["events_per_second"]
            line: dict[str, Any] = {"destination": name, "events_per_second": full}
            if single:
                alone = run.rates([name], single, FORWARD_EVENTS_PER_REQUEST="1")[name]["events_per_second"]
                line |= {"one_a_request": alone, "ratio": round(full / max(alone, 1), 1)}
            lines.append(line)
            print(json.dumps(line), flush=True)  # a bench prints
        together = _Run(broker.bootstrap, dsn, urls | {names[0]: _AWAY}, logs).rates(names, events)
        for name, figures in together.items():
            lines.append({"destination": name, "together_with": len(names) - 1, "away": names[0], **figures})
            print(json.dumps(lines[-1]), flush=True)
    return lines


def main() -> None:
    """Print the figures, one JSON object a line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=20_000)
    parser.add_argument("--single", type=int, default=500)
    parser.add_argument("--answer-ms", type=float, default=50.0)
    parser.add_argument("--only", default=",".join(FAKES))
    given = parser.parse_args()
    bench(given.only.split(","), given.events, given.single, given.answer_ms / 1_000)


if __name__ == "__main__":
    main()
