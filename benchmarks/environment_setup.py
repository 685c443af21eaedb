"""What the figures stand on: a real Kafka, a Postgres that is not in a hurry to lose data, and processes of their own.

Every measured job runs in a child process, so that neither the bench's memory nor its threads weigh on it.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg

from attributary.consumers.store.connection import connect
from attributary.consumers.store.migrate import migrate
from attributary.local.broker import REAL, Broker, find_broker
from attributary.local.paths import state_dir
from attributary.local.postgres import Postgres, find_postgres
from benchmarks.cpu import CpuMeter, spent

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ROOT = Path(__file__).resolve().parents[1]
_JOB_SECONDS = 900

# Numpy's BLAS chooses its own kernels; where a machine pins them for its own reasons, the pin is not ours to measure.
_UNPINNED = ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE")


class JobError(RuntimeError):
    """A measured job failed; the text is what it printed last."""


class JobTimeoutError(JobError):
    """A measured job did not end in time."""


@dataclass(frozen=True)
class BenchServers:
    """A broker, a server and a folder for logs."""

    broker: Broker
    postgres: Postgres
    folder: Path

    def describe(self) -> str:
        """One line for people."""
        return f"{self.broker.describe()}; {self.postgres.describe()}"

    def server_processes(self) -> dict[str, int]:
        """Process ids of the broker and the server where the bench started them."""
        found = {}
        if self.broker.cluster is not None:
            found = {
                f"Kafka {number}": node.child.pid for number, node in enumerate(self.broker.cluster.nodes, start=1)
            }
            if len(found) == 1:
                found = {"Kafka": found["Kafka 1"]}
        if self.postgres.cluster is not None:
            found["Postgres"] = self.postgres.cluster.child.pid
        return found

    def measured(self, job: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """Run a job and return what it says, with the CPU seconds of the servers meanwhile as `server_seconds`."""
        if not CpuMeter.is_there():
            return job()
        meter = CpuMeter(self.server_processes())
        before = meter.read()
        done = job()
        return done | {"server_seconds": sum(spent(before, meter.read()).values())}

    def kafka_bytes(self) -> int | None:
        """Bytes of all topics but the peers' on the disk of a broker that the bench started; None of any other."""
        if self.broker.cluster is None:
            return None
        folders = [node.folder / "data" for node in self.broker.cluster.nodes]
        logs = (file for folder in folders for file in folder.rglob("*.log") if "bench" not in file.parent.name)
        return sum(file.stat().st_size for file in logs)

    def empty_database(self, name: str) -> str:
        """DSN of a database without any table."""
        with psycopg.connect(self.postgres.dsn, autocommit=True) as connection:
            connection.execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')
            connection.execute(f'CREATE DATABASE "{name}"')
        return self.postgres.database(name)

    def new_database(self, name: str) -> str:
        """DSN of an empty database at the newest migration."""
        dsn = self.empty_database(name)
        with connect(dsn, application_name="bench") as connection:
            migrate(connection)
        return dsn


@contextmanager
def find_servers() -> Iterator[BenchServers]:
    """Start or find a broker and a server for the length of a `with` block."""
    folder = state_dir("bench")
    with find_broker(REAL, optimise=True) as broker, find_postgres() as postgres:
        yield BenchServers(broker, postgres, folder)


def child_environment(more: dict[str, str] | None = None) -> dict[str, str]:
    """This process's environment for a measured child."""
    return {name: value for name, value in os.environ.items() if name not in _UNPINNED} | (more or {})


def run_job(
    module: str,
    arguments: dict[str, Any],
    *,
    python: str = sys.executable,
    seconds: float = _JOB_SECONDS,
    environment: dict[str, str] | None = None,
) -> dict[str, Any]:
    """Run a measured job and return the JSON object that it prints last.

    Args:
        module: a module of `benchmarks`, or the path of a script when another interpreter runs it.
        arguments: passed as one JSON text.
        python: the interpreter.
        seconds: the job is killed after this time.
        environment: further variables of the job.

    Raises:
        JobError: when it fails.
        JobTimeoutError: when it takes too long.
    """
    target = [module] if module.endswith(".py") else ["-m", f"benchmarks.{module}"]
    try:
        done = subprocess.run(
            [python, *target, json.dumps(arguments)],
            cwd=ROOT,
            env=child_environment(environment),
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise JobTimeoutError(f"{module} did not end within {seconds:.0f} s") from None
    if done.returncode:
        raise JobError(f"{module} ended with {done.returncode}: {(done.stderr or done.stdout).strip()[-2_000:]}")
    result: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return result
