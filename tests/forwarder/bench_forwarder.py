"""How much batching is worth: events a second in full batches beside one event a call, on the same stand-in.

    python -m tests.forwarder.bench_forwarder [--events 100000] [--single 2000] [--answer-ms 50]

The stand-ins run in a process of their own. Both figures of a line come from the same sender, ledger (in memory),
connections and number of requests at once (4); only the number of events in a request differs. Each destination is
measured twice: with an answer as fast as the loopback, where only the processors count, and with one after `answer-ms`,
as across the internet (Meta: most answers come within 600 ms). The ratio is what matters; the absolute figures belong
to the machine.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import time
from typing import TYPE_CHECKING, Any

import structlog

from attributary.consumers.destinations.attempts import SenderOptions
from attributary.consumers.destinations.transport import HttpTransport, SystemClock
from attributary.consumers.runtime.run import quiet_collector
from attributary.local.fakes import Fault, Ga4Fake, MetaFake
from attributary.local.fakes.server import FakeServer
from tests.forwarder.forwarder_factories import conversion, records, stage_for

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

    from attributary.consumers.runtime.records import Record

_TURN = 5_000  # records handled at once, as from Kafka
_CLIENTS = 400  # people behind the GA4 events: a shop's visitors send several events each


def _serve(pipe: Connection) -> None:
    meta, ga4 = MetaFake(), Ga4Fake()
    with FakeServer(meta) as meta_server, FakeServer(ga4) as ga4_server:
        pipe.send((meta_server.url, ga4_server.url))
        while (word := pipe.recv()) != "stop":
            if word == "count":
                pipe.send((len(meta.received), ga4.counted, len(ga4.dropped)))
            else:
                for fake in (meta, ga4):
                    fake.script.replace([Fault("slow", seconds=word)] if word else [])
                pipe.send("ready")


def _records(name: str, number: int) -> list[Record]:
    now = time.time_ns() // 1_000
    if name == "meta":
        return records([conversion(now) for _ in range(number)], now_micros=now)
    people = [{"user_id": f"u{n}", "ga_client_id": f"{n}.17", "client_ip_address": None} for n in range(_CLIENTS)]
    return records([conversion(now, **people[n % _CLIENTS]) for n in range(number)], now_micros=now)


def _rate(name: str, url: str, number: int, events_per_request: int) -> float:
    """Forward so many events; gives events a second, decoding and ledger included."""
    transport = HttpTransport(connections=4)
    stage = stage_for(name, url, SystemClock(), transport=transport, options=SenderOptions(concurrency=4, budget=600.0))
    destination = stage._route.destination  # the one thing that differs between the runs
    destination.limits = destination.limits._replace(events=events_per_request)
    batch = _records(name, number)
    started = time.perf_counter()
    for first in range(0, number, _TURN):
        stage.handle(batch[first : first + _TURN])
    seconds = time.perf_counter() - started
    stage.close()
    return number / seconds


def bench(events: int, single: int, answer_seconds: float) -> list[dict[str, Any]]:
    """Run all and give the figures."""
    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(target=_serve, args=(theirs,), daemon=True)
    process.start()
    meta_url, ga4_url = ours.recv()
    found, sent = [], {"meta": 0, "ga4": 0}
    for name, url, size in (("meta", meta_url, 1_000), ("ga4", ga4_url, 25)):
        for seconds in (0.0, answer_seconds):
            ours.send(seconds)
            ours.recv()
            many = events if name == "meta" else events // 5
            few = single // 10 if seconds else single
            batched, alone = _rate(name, url, many, size), _rate(name, url, few, 1)
            sent[name] += many + few
            found.append(
                {
                    "destination": name,
                    "answer_ms": round(seconds * 1_000),
                    "batched_events_per_second": round(batched),
                    "single_events_per_second": round(alone),
                    "ratio": round(batched / alone, 1),
                }
            )
    ours.send("count")
    received, counted, dropped = ours.recv()
    if (received, counted, dropped) != (sent["meta"], sent["ga4"], 0):
        raise SystemExit(f"the stand-ins received {received} and {counted} events, {dropped} dropped: not all")
    ours.send("stop")
    process.join(120)
    return found


def main() -> None:
    """Print the figures, one JSON object a line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=100_000)
    parser.add_argument("--single", type=int, default=2_000)
    parser.add_argument("--answer-ms", type=float, default=50.0)
    given = parser.parse_args()
    quiet_collector()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(40))
    for line in bench(given.events, given.single, given.answer_ms / 1_000):
        print(json.dumps(line))  # a bench prints


if __name__ == "__main__":
    main()
