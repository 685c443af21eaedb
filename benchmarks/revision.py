"""An earlier revision of the project beside the one at hand: the same records, the same servers, in turns.

Contract: the revision's own code runs the stages and migrates their database; the interpreter and its packages are
those of the bench. The work tree is not touched: the revision is unpacked into a folder of its own.

Invariant: both are measured in the order now, then, then, now, each on an empty database and on topics that were just
filled, so that a machine that slows down favours neither; a first turn, in which the broker's JVM compiles itself (it
takes half as long again), is thrown away.
"""

from __future__ import annotations

import io
import shutil
import subprocess
import sys
import tarfile
from dataclasses import dataclass
from statistics import fmean
from typing import TYPE_CHECKING

from benchmarks.cpu import CpuMeter
from benchmarks.environment_setup import ROOT, BenchServers, child_environment
from benchmarks.figures import Figure, Report
from benchmarks.pipeline import Run, run_pipeline
from benchmarks.workload import Message, load

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

# With everything that keeps the promises the pipeline must not be slower than this share of what it was before.
AIM = 0.95
_WARM_UP = "warm-up"
_TURNS = (_WARM_UP, "now", "then", "then", "now")
_MIGRATE_SECONDS = 120


class RevisionError(RuntimeError):
    """The revision could not be unpacked or migrated; the text is what git or the command printed."""


@dataclass(frozen=True)
class Revision:
    """An unpacked revision.

    Attributes:
        name: what the user called it, with its short hash.
        folder: its root.
    """

    name: str
    folder: Path

    @property
    def variables(self) -> dict[str, str]:
        """Environment in which `attributary` is the revision's package, ahead of the installed one."""
        return {"PYTHONPATH": str(self.folder / "src")}

    @property
    def command(self) -> list[str]:
        """Command line that runs the revision's `attributary`."""
        return [sys.executable, "-c", "from attributary.cli.main import run; run()"]

    def migrate(self, dsn: str) -> None:
        """Bring an empty database to the revision's newest migration.

        Raises:
            RevisionError: when its command fails.
        """
        done = subprocess.run(
            [*self.command, "db", "migrate"],
            cwd=self.folder,
            env=child_environment(self.variables | {"DATABASE_URL": dsn}),
            capture_output=True,
            text=True,
            timeout=_MIGRATE_SECONDS,
            check=False,
        )
        if done.returncode:
            raise RevisionError(f"migrate of {self.name}: {(done.stderr or done.stdout).strip()[-2_000:]}")


def unpack(reference: str, folder: Path) -> Revision:
    """Unpack a revision into a folder, which is emptied first.

    Args:
        reference: a commit, tag or branch of this checkout.
        folder: where to.

    Raises:
        RevisionError: when git does not know it.
    """
    commit = _git("rev-parse", "--short", "--verify", f"{reference}^{{commit}}").decode().strip()
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    with tarfile.open(fileobj=io.BytesIO(_git("archive", "--format=tar", commit))) as archive:
        archive.extractall(folder, filter="data")
    name = commit if commit.startswith(reference) or reference.startswith(commit) else f"{reference} ({commit})"
    return Revision(name, folder)


def measure_against(servers: BenchServers, report: Report, messages: Sequence[Message], revision: Revision) -> None:
    """Add rate and CPU of the pipeline now, beside those of the revision; see the module for the order."""
    runs: dict[str, list[Run]] = {turn: [] for turn in _TURNS}
    for turn in _TURNS:
        load(servers.broker.bootstrap, messages)
        if turn != "then":
            with run_pipeline(servers, servers.new_database("bench_now")) as pipeline:
                runs[turn].append(pipeline.work_through(len(messages)))
        else:
            dsn = servers.empty_database("bench_then")
            revision.migrate(dsn)
            with run_pipeline(servers, dsn, revision.variables, revision.command) as pipeline:
                runs[turn].append(pipeline.work_through(len(messages)))
    seconds = {turn: [run.observed_seconds for run in found] for turn, found in runs.items()}
    now, then = (len(messages) / fmean(seconds[turn]) for turn in ("now", "then"))
    report.add(Figure(f"pipeline at {revision.name}", then, "events/s", detail={"seconds": seconds["then"]}))
    report.add(
        Figure(
            f"pipeline / {revision.name}",
            now,
            "events/s",
            f"pipeline at {revision.name}",
            now / then,
            f">= {AIM}",
            {"seconds": seconds["now"]},
        )
    )
    if CpuMeter.is_there():
        add_cost(report, revision.name, runs, len(messages))


def add_cost(report: Report, revision: str, runs: dict[str, list[Run]], records: int) -> None:
    """Add CPU an event now and then by process, the least of the turns, the broker beside the others."""
    names = runs["now"][0].cpu_seconds.keys() & runs["then"][0].cpu_seconds.keys()
    costs = {
        turn: {name: min(run.cpu_seconds[name] for run in runs[turn]) * 1e6 / records for name in names}
        for turn in ("now", "then")
    }
    for name in sorted(names, key=lambda name: -costs["then"][name]):
        now, then = costs["now"][name], costs["then"][name]
        report.add(Figure(f"CPU: {name} / {revision}", now, "us/event", f"{then:.3g} us/event", now / then))


def _git(*arguments: str) -> bytes:
    done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, check=False)
    if done.returncode:
        raise RevisionError(f"git {arguments[0]}: {done.stderr.decode(errors='replace').strip()}")
    return done.stdout
