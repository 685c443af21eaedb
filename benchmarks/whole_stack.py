"""Figures `stack`: what an event costs the whole stack as `attributary up` runs it, and what it uses without traffic.

Contract: it is `attributary up` with stand-ins for the destinations, on servers and topics of its own: broker,
Postgres, stitcher, attributor, auditor, reporter, sweeper, trainer, forwarders, collector and read API. A first part of
other records warms it up. The work ends when every record is stitched, every result stored and in the roll-up, and
every conversion read by the forwarders.

Postgres' time is told by the process that it worked for: a backend is named after its `application_name`. The training
state is brought up to date only now and then while traffic comes (the trainer rests), so the bench brings it up to date
at the end and adds what that costs.
"""

from __future__ import annotations

import shutil
import tempfile
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg

from attributary.consumers.adapters.policy_settings import PolicySettings
from attributary.consumers.runtime.run import quiet_collector
from attributary.consumers.runtime.settings import load
from attributary.consumers.store.connection import connect
from attributary.consumers.training.incremental_state import catch_up
from attributary.local.folder import StackFolder
from attributary.local.process import ProcessFailedError
from attributary.local.stack import Stack
from attributary.schemas.topics import CONVERSIONS, group_name
from benchmarks.cpu import CpuMeter, spent
from benchmarks.figures import Figure, Report, say
from benchmarks.pipeline import scrape, value_of
from benchmarks.workload import draw, encode, produce

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from benchmarks.workload import Message

AIM_US, IDLE_AIM_CORES = 150.0, 0.1
UPKEEP_AIM_US = 15.0
_BEHIND_SECONDS = 3.0  # two of them the reporter waits on purpose for more results
_WARM_UP_SCALE = 0.2
_WARM_UP_SEED = 11
_IDLE_SECONDS = 60.0  # the sweeper's and trainer's periods are of half a minute
_SETTLED_SECONDS = 20.0
_WAIT_SECONDS = 900.0
_LOOK_SECONDS = 0.5
_POSITIONS = "SELECT coalesce(sum(next_offset), 0) FROM attribution_positions WHERE consumer_group = %s"
_OWED = "SELECT count(*) FROM (SELECT FROM attribution_conversions WHERE observed_version < version LIMIT 1) AS any_one"
_BACKENDS = """
SELECT pid, application_name FROM pg_stat_activity
WHERE datname = current_database() AND application_name LIKE 'attributary-%' AND pid <> pg_backend_pid()
"""
_TENANTS = "SELECT DISTINCT tenant_id FROM attribution_conversions"


@dataclass
class RunningStack:
    """The stack while it runs, and what was published to it."""

    stack: Stack
    records: int = 0
    conversions: int = 0
    reporter_behind_seconds: float = 0.0
    """For how long the reporter still read after the auditor had stored the last result, seconds."""

    def meter(self) -> CpuMeter:
        """Return a meter of all processes, with Postgres' backends by who uses them."""
        roots = {running.stage.name: running.child.pid for running in self.stack.stages} | self.stack.servers
        with psycopg.connect(self.stack.dsn) as connection:
            for pid, name in connection.execute(_BACKENDS):
                roots[f"Postgres for {name.removeprefix('attributary-')} ({pid})"] = pid
        return CpuMeter(roots)

    def results(self) -> float:
        """Return how many results the attributor has made."""
        port = next(running.metrics_port for running in self.stack.stages if running.stage.name == "attributor")
        return value_of(scrape(port), "attribution_results_emitted_total")

    def work_through(self, messages: Sequence[Message]) -> None:
        """Publish records and wait until every process has done its part.

        Raises:
            ProcessFailedError: that takes too long.
        """
        produce(self.stack.bootstrap, messages)
        self.records += len(messages)
        self.conversions += sum(message.topic == CONVERSIONS for message in messages)
        deadline = time.monotonic() + _WAIT_SECONDS
        self.reporter_behind_seconds, waits_since = 0.0, None
        with psycopg.connect(self.stack.dsn, autocommit=True) as connection:
            while (waits := self._waits_for(connection)) is not None:
                if waits.startswith("reporter"):
                    waits_since = waits_since or time.monotonic()
                    self.reporter_behind_seconds = time.monotonic() - waits_since
                self.stack.watch()
                if time.monotonic() > deadline:
                    raise ProcessFailedError(f"the stack did not settle: {waits}")
                time.sleep(_LOOK_SECONDS)

    def _waits_for(self, connection: psycopg.Connection) -> str | None:
        stored = connection.execute(_POSITIONS, [group_name("stitcher")]).fetchone()
        if stored is None or int(stored[0]) < self.records:
            return f"{stored and stored[0]} of {self.records} records stitched"
        owed = connection.execute(_OWED).fetchone()
        if owed is None or owed[0]:
            return "results are not stored"
        ports = {running.stage.name: running.metrics_port for running in self.stack.stages}
        wanted = {"reporter": self.results()} | {
            name: self.conversions for name in ports if name.startswith("forwarder")
        }
        for name, records in wanted.items():
            read = value_of(scrape(ports[name]), "attribution_records_consumed_total")
            if read < records:
                return f"{name} has read {read:.0f} of {records:.0f} records"
        return None


def measure_stack(report: Report) -> None:
    """Add CPU an event by process, the training state's part, and cores without traffic."""
    if not CpuMeter.is_there():
        report.miss("stack", "this system has no /proc")
        return
    try:
        with _run_stack() as running:
            say("warming the whole stack up")
            running.work_through(encode(draw(_WARM_UP_SCALE * report.scale, seed=_WARM_UP_SEED)))
            messages = encode(draw(report.scale))
            _catch_up(running.stack.dsn)  # so that what it costs at the end is this work's
            meter = running.meter()
            before, results = meter.read(), running.results()
            running.work_through(messages)
            seconds = by_process(spent(before, meter.read()))
            add_results(report, seconds, running.results() - results)
            behind = running.reporter_behind_seconds
            aim = f"<= {_BEHIND_SECONDS:.0f}"
            report.add(
                Figure("stack: reporter behind the auditor", behind, "s", aim=aim, met=behind <= _BEHIND_SECONDS)
            )
            seconds["training state at the end"] = _training_seconds(running, meter)
            add_stack(report, seconds, len(messages))
            time.sleep(_SETTLED_SECONDS)
            before, began = meter.read(), time.monotonic()
            time.sleep(_IDLE_SECONDS)
            elapsed = time.monotonic() - began
            add_idle(report, by_process(spent(before, meter.read())), elapsed)
    except ProcessFailedError as error:
        report.miss("stack", str(error))


def by_process(seconds: dict[str, float]) -> dict[str, float]:
    """Return the seconds with all backends of a process in one line."""
    summed: dict[str, float] = {}
    for name, used in seconds.items():
        summed[name.partition(" (")[0]] = summed.get(name.partition(" (")[0], 0.0) + used
    return summed


def add_stack(report: Report, seconds: dict[str, float], records: int) -> None:
    """Add the figures of CPU an event."""
    each = {name: used * 1e6 / records for name, used in seconds.items() if name != "stand-ins"}
    for name, cost in sorted(each.items(), key=lambda item: -item[1]):
        report.add(Figure(f"stack: {name}", cost, "us/event"))
    upkeep = sum(cost for name, cost in each.items() if "train" in name)
    report.add(
        Figure("stack: trainer, in all", upkeep, "us/event", aim=f"<= {UPKEEP_AIM_US:.0f}", met=upkeep <= UPKEEP_AIM_US)
    )
    total = sum(each.values())
    report.add(Figure("stack: all", total, "us/event", aim=f"<= {AIM_US:.0f}", met=total <= AIM_US))


def add_results(report: Report, seconds: dict[str, float], results: float) -> None:
    """Add what a result costs the stages that read results, with their share of Postgres."""
    for name in ("auditor", "Postgres for auditor", "reporter", "Postgres for reporter"):
        report.add(Figure(f"stack: {name}, a result", seconds.get(name, 0.0) * 1e6 / max(results, 1.0), "us/result"))


def add_idle(report: Report, seconds: dict[str, float], elapsed: float) -> None:
    """Add the cores that the stack uses without traffic."""
    cores = {name: used / elapsed for name, used in seconds.items()}
    total = sum(cores.values())
    shown = dict(sorted(cores.items(), key=lambda item: -item[1]))
    say("  ".join(f"{name} {used:.4f}" for name, used in shown.items() if used >= 0.0005))
    aim = f"<= {IDLE_AIM_CORES}"
    report.add(Figure("stack: idle", total, "cores", aim=aim, detail=shown, met=total <= IDLE_AIM_CORES))


@contextmanager
def _run_stack() -> Iterator[RunningStack]:
    folder = Path(tempfile.mkdtemp(prefix="attributary-bench-stack-"))
    folder.chmod(0o711)  # Postgres' user must be able to enter
    try:
        with StackFolder(folder).lock(), Stack(StackFolder(folder), say, fake_services=True) as stack:
            stack.start()
            stack.wait_ready()
            yield RunningStack(stack)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _catch_up(dsn: str) -> float:
    """Bring the training state of every tenant up to date; return the CPU seconds of this process."""
    quiet_collector()  # as every stage runs
    began = time.process_time()
    inactivity = load(PolicySettings).policy().inactivity_micros
    with connect(dsn, application_name="bench-training-state") as connection:
        tenants = [tenant for (tenant,) in connection.execute(_TENANTS)]
        connection.commit()
        for tenant in tenants:
            catch_up(connection, tenant, inactivity)
    return time.process_time() - began


def _training_seconds(running: RunningStack, meter: CpuMeter) -> float:
    """CPU seconds of bringing the training state up to date, Postgres' part among them."""
    before = meter.read()
    own = _catch_up(running.stack.dsn)
    return own + by_process(spent(before, meter.read()))["Postgres"]
