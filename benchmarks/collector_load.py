"""Load on the HTTP collector: `python -m benchmarks.collector_load --rate 500 --records 1 --seconds 20 --peer`.

The generator is open-loop (open_loop.py). Reported: p50, p99 and p99.9 in milliseconds, answers by status, resident
memory before and after, CPU time of the server a request and a record, and whether the log has every acknowledged
record (`acknowledged = logged`; else the run ends with 1). ``--peer`` puts the same load on the handler that a team
would write first, and prints ratios: FastAPI, pydantic, one confluent-kafka producer, an answer after the
acknowledgement. It validates types only, hashes nothing, has no keys, limits or spool. ``--aims`` measures what the
documentation promises, and ends with 1 where that is not met.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from confluent_kafka import Consumer, TopicPartition

from attributary.local.broker import REAL, find_broker
from attributary.local.ports import LOOPBACK, free_ports
from attributary.local.process import spawn
from attributary.schemas.topics import TOUCHPOINTS
from benchmarks.open_loop import send_at_rate
from tests.fixtures.collector import EVENT
from tests.fixtures.collector_process import collector_process
from tests.fixtures.topics import recreate_topics

WARM_SECONDS = 3
P99_MILLISECONDS = 50
_STEADY = 0.98
AIMS = ((3_000, 1), (8_000, 20))
"""Records a second, and how many of them in a request, for two free cores; p99 has its aim at half of each."""


def body(number: int, records: int) -> bytes:
    """Return the body of one request."""
    rows = [
        {
            "event_id": f"load-{os.getpid()}-{number}-{each}",
            "anonymous_id": f"a{(number * records + each) % 50_000}",
            "occurred_at": "2026-06-01T09:30:00Z",
            "channel": "paid_social",
            "platform": "meta",
            "campaign_id": "summer",
            "landing_url": "https://shop.example/?utm_source=meta&utm_medium=cpc&fbclid=IwAR0abcdef0123456789",
            "referrer": "https://facebook.com/",
        }
        for each in range(records)
    ]
    return json.dumps(rows[0] if records == 1 else rows).encode()


def requests(key: str, path: str, *, number: int, records: int) -> list[bytes]:
    """Return whole requests with distinct records."""
    line = f"POST {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {key}\r\nContent-Type: application/json\r\n"
    bodies = (body(each, records) for each in range(number))
    return [f"{line}Content-Length: {len(content)}\r\n\r\n".encode() + content for content in bodies]


def logged(bootstrap: str) -> int:
    """Return how many records the topic of touchpoints holds."""
    asker = Consumer({"bootstrap.servers": bootstrap, "group.id": "none", "log_level": 0})
    try:
        partitions = asker.list_topics(TOUCHPOINTS, timeout=20).topics[TOUCHPOINTS].partitions
        ends = (asker.get_watermark_offsets(TopicPartition(TOUCHPOINTS, number), timeout=20) for number in partitions)
        return sum(high - low for low, high in ends)
    finally:
        asker.close()


def cpu_seconds(pid: int) -> float:
    """Return the processor time of a process so far."""
    parts = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return (int(parts[11]) + int(parts[12])) / os.sysconf("SC_CLK_TCK")


def resident_megabytes(pid: int) -> float:
    """Return the resident memory of a process."""
    return int(Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


@contextmanager
def peer(folder: Path, bootstrap: str) -> Iterator[tuple[int, int]]:
    """Run the peer's handler; yield its port and process id."""
    [port] = free_ports(1)
    environment = {**os.environ, "KAFKA_BOOTSTRAP_SERVERS": bootstrap, "PYTHONPATH": str(Path.cwd())}
    command = [
        sys.executable,
        "-m",
        "uvicorn",
        "benchmarks.collector_peer:app",
        "--host",
        LOOPBACK,
        "--port",
        str(port),
    ]
    child = spawn(
        [*command, "--port", str(port), "--no-access-log"], name="peer", log=folder / "peer.log", env=environment
    )
    try:
        wait_until_listening(port)
        yield port, child.pid
    finally:
        child.stop()


def wait_until_listening(port: int) -> None:
    """Wait for a server on a port of this machine."""

    async def tried() -> None:
        for _ in range(300):
            try:
                (await asyncio.open_connection(LOOPBACK, port))[1].close()
            except OSError:
                await asyncio.sleep(0.1)
            else:
                return
        raise TimeoutError(f"nothing listens on port {port}")

    asyncio.run(tried())


class Figures(NamedTuple):
    """What one run showed of a server."""

    records_per_second: float  # acknowledged
    p99: float  # milliseconds
    cpu_micros: float  # a record


@dataclass
class Target:
    """A server under load."""

    port: int
    pid: int
    key: str
    path: str
    bootstrap: str

    def measure(self, rate: float, records: int, seconds: float) -> Figures:
        """Warm up, measure once, print the line.

        Args:
            rate: requests a second.
            records: in a request.
            seconds: how long.
        """
        send_at_rate(self.port, self._requests(100 * WARM_SECONDS, records), 100)
        log, cpu, memory = logged(self.bootstrap), cpu_seconds(self.pid), resident_megabytes(self.pid)
        outcome = send_at_rate(self.port, self._requests(rate * seconds, records), rate)
        used = 1e6 * (cpu_seconds(self.pid) - cpu)
        requests_taken = outcome.statuses[200]
        acknowledged, stored = records * requests_taken, logged(self.bootstrap) - log
        found = Figures(acknowledged / outcome.seconds, outcome.quantile(0.99), used / max(1, acknowledged))
        quantiles = ", ".join(f"p{100 * share:g} {outcome.quantile(share):.1f} ms" for share in (0.5, 0.99, 0.999))
        sys.stdout.write(
            f"{self.path}: {found.records_per_second:,.0f} records/s acknowledged of {rate * records:,.0f} sent, "
            f"{records} a request; {quantiles}, mean {1000 * statistics.fmean(outcome.latencies):.1f} ms; statuses "
            f"{dict(outcome.statuses)}; CPU {used / max(1, requests_taken):.0f} us a request, "
            f"{found.cpu_micros:.0f} us a record; {memory:.0f} -> {resident_megabytes(self.pid):.0f} MiB; "
            f"acknowledged {acknowledged}, logged {stored}\n"
        )
        sys.stdout.flush()
        if stored != acknowledged:
            raise SystemExit("the log does not hold what was acknowledged")
        return found

    def _requests(self, number: float, records: int) -> list[bytes]:
        return requests(self.key, self.path, number=max(1, int(number)), records=records)


def missed_aims(runs: list[tuple[float, int]], found: list[Figures]) -> list[str]:
    """Return the sentences that do not hold; ``runs`` are those of ``AIMS``, each followed by its half."""
    missed = []
    for number, (rate, records) in enumerate(runs):
        wanted = rate * records
        if number % 2 == 0 and found[number].records_per_second < _STEADY * wanted:
            missed.append(f"{found[number].records_per_second:,.0f} records/s, {records} a request, not {wanted:,.0f}")
        if number % 2 and found[number].p99 >= P99_MILLISECONDS:
            missed.append(f"p99 {found[number].p99:.0f} ms at {wanted:,.0f} records/s, {records} a request")
    return missed


def main() -> None:
    """Measure the collector, and the peer with ``--peer``."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rate", type=float, default=100, help="requests a second")
    parser.add_argument("--records", type=int, default=1, help="records in a request")
    parser.add_argument("--seconds", type=float, default=20, help="length of one measurement")
    parser.add_argument("--peer", action="store_true", help="measure the peer as well, after the collector")
    parser.add_argument("--aims", action="store_true", help="measure what the documentation promises, not --rate")
    options = parser.parse_args()
    runs = [(options.rate, options.records)]
    if options.aims:
        runs = [(rate / size / share, size) for rate, size in AIMS for share in (1, 2)]

    def measured(target: Target) -> list[Figures]:
        return [target.measure(rate, records, options.seconds) for rate, records in runs]

    with find_broker(REAL) as broker, tempfile.TemporaryDirectory() as folder:
        recreate_topics(broker.bootstrap)
        extra = json.dumps({"log_level": 0})
        with collector_process(Path(folder), broker.bootstrap, KAFKA_EXTRA=extra) as collector:
            ours = measured(Target(collector.port, collector.child.pid, collector.key, EVENT, broker.bootstrap))
        if options.peer:
            with peer(Path(folder), broker.bootstrap) as (port, pid):
                theirs = measured(Target(port, pid, "", "/track", broker.bootstrap))
            for (rate, records), mine, other in zip(runs, ours, theirs, strict=True):
                sys.stdout.write(
                    f"collector / peer at {rate * records:,.0f} records/s, {records} a request: acknowledged "
                    f"{mine.records_per_second / other.records_per_second:.2f}, p99 {mine.p99 / other.p99:.2f}, CPU a "
                    f"record {mine.cpu_micros / other.cpu_micros:.2f}\n"
                )
    if options.aims and (missed := missed_aims(runs, ours)):
        raise SystemExit("not met: " + "; ".join(missed))


if __name__ == "__main__":
    main()
