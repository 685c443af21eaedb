"""Load on the HTTP collector: `python -m benchmarks.collector_load --rate 500 --records 1 --seconds 20`.

The generator is open-loop: requests leave at their own times, whatever the answers do, and a latency counts from the
time at which a request should have left. So a server that stalls cannot hide it. It runs in a process of its own, with
requests that were built before.

Reported: p50, p99 and p99.9 in milliseconds, answers by status, resident memory before and after, CPU seconds of the
server a record, and whether the log has every acknowledged record (`acknowledged = logged`). ``--peer`` puts the same
load on the handler that a team would write first: FastAPI, pydantic, one confluent-kafka producer, an answer after the
acknowledgement. It validates types only, hashes nothing, has no keys, limits or spool.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from confluent_kafka import Consumer, TopicPartition

from attributary.local.broker import REAL, find_broker
from attributary.local.ports import LOOPBACK, free_ports
from attributary.local.process import spawn
from attributary.schemas.topics import TOUCHPOINTS
from tests.fixtures.collector import EVENT
from tests.fixtures.collector_process import collector_process
from tests.fixtures.topics import recreate_topics

CONNECTIONS = 64
WARM_SECONDS = 3.0


@dataclass
class Outcome:
    """What one run measured."""

    seconds: float
    latencies: list[float] = field(default_factory=list)
    statuses: Counter[int] = field(default_factory=Counter)
    records: int = 0

    def quantile(self, share: float) -> float:
        """Return a quantile of the latencies, milliseconds."""
        ordered = sorted(self.latencies)
        return 1000 * ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else float("nan")


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


async def load(port: int, key: str, path: str, *, rate: float, records: int, seconds: float) -> Outcome:
    """Send requests at a steady rate for a time; return what came back."""
    total = max(1, int(rate * seconds))
    line = f"POST {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {key}\r\nContent-Type: application/json\r\n"
    requests = []
    for number in range(total):
        content = body(number, records)
        requests.append(f"{line}Content-Length: {len(content)}\r\n\r\n".encode() + content)
    outcome = Outcome(seconds)
    idle: asyncio.Queue[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = asyncio.Queue()
    for _ in range(CONNECTIONS):
        idle.put_nowait(await asyncio.open_connection(LOOPBACK, port))

    async def one(number: int, due: float) -> None:
        reader, writer = await idle.get()
        writer.write(requests[number])
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().split(b"content-length:")[1].split(b"\r\n")[0])
        await reader.readexactly(length)
        outcome.latencies.append(time.perf_counter() - due)
        outcome.statuses[int(head.split(b" ", 2)[1])] += 1
        idle.put_nowait((reader, writer))

    started = time.perf_counter()
    tasks = []
    for number in range(total):
        due = started + number / rate
        if (wait := due - time.perf_counter()) > 0:
            await asyncio.sleep(wait)
        tasks.append(asyncio.create_task(one(number, due)))
    await asyncio.gather(*tasks)
    outcome.seconds = time.perf_counter() - started
    outcome.records = records * outcome.statuses[200]
    while not idle.empty():
        idle.get_nowait()[1].close()
    return outcome


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


def measure(port: int, pid: int, key: str, path: str, bootstrap: str, options: Any) -> None:
    """Warm up, measure once, and print the line."""
    asyncio.run(load(port, key, path, rate=min(options.rate, 100), records=options.records, seconds=WARM_SECONDS))
    before_log, before_cpu, before_memory = logged(bootstrap), cpu_seconds(pid), resident_megabytes(pid)
    outcome = asyncio.run(load(port, key, path, rate=options.rate, records=options.records, seconds=options.seconds))
    stored = logged(bootstrap) - before_log
    cost = 1e6 * (cpu_seconds(pid) - before_cpu) / max(1, outcome.records)
    quantiles = ", ".join(f"p{100 * share:g} {outcome.quantile(share):.1f} ms" for share in (0.5, 0.99, 0.999))
    rate = outcome.records / outcome.seconds
    sys.stdout.write(
        f"{path}: {rate:,.0f} records/s acknowledged of {options.rate * options.records:,.0f} sent; {quantiles}, "
        f"mean {1000 * statistics.fmean(outcome.latencies):.1f} ms; statuses {dict(outcome.statuses)}; "
        f"{cost:.0f} us of CPU a record; {before_memory:.0f} -> {resident_megabytes(pid):.0f} MiB; "
        f"acknowledged {outcome.records}, logged {stored}\n"
    )


def main() -> None:
    """Measure the collector, and the peer with ``--peer``."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rate", type=float, default=100, help="requests a second")
    parser.add_argument("--records", type=int, default=1, help="records in a request")
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--peer", action="store_true", help="measure the peer as well, after the collector")
    options = parser.parse_args()
    with find_broker(REAL) as broker, tempfile.TemporaryDirectory() as folder:
        recreate_topics(broker.bootstrap)
        extra = json.dumps({"log_level": 0})
        with collector_process(Path(folder), broker.bootstrap, KAFKA_EXTRA=extra) as collector:
            measure(collector.port, collector.child.pid, collector.key, EVENT, broker.bootstrap, options)
        if options.peer:
            with peer(Path(folder), broker.bootstrap) as (port, pid):
                measure(port, pid, "", "/track", broker.bootstrap, options)


if __name__ == "__main__":
    main()
