"""CPU time by process, read from /proc: what a figure costs, also on a machine that does other things beside.

Invariant: the time of a name is that of its process and of all that descend from it, user and system; children that
ended between two readings are counted as soon as their parent has waited for them.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_TICKS = os.sysconf("SC_CLK_TCK") if hasattr(os, "sysconf") else 100
_PROC = Path("/proc")
_IDLE = (3, 4)  # idle and iowait among the fields of /proc/stat


class Reading(NamedTuple):
    """CPU seconds since their start by name, and of the whole machine since its own."""

    by_name: Mapping[str, float]
    machine: float


@dataclass(frozen=True)
class CpuMeter:
    """Reads the CPU time of some processes.

    Attributes:
        roots: process id by name.
    """

    roots: Mapping[str, int]

    @staticmethod
    def is_there() -> bool:
        """Whether this system tells CPU times by /proc."""
        return (_PROC / "stat").is_file()

    def read(self) -> Reading:
        """Return the times until now."""
        parents, seconds = {}, {}
        for pid, parent, own in _processes():
            parents[pid], seconds[pid] = parent, own
        names = {pid: name for name, pid in self.roots.items()}
        by_name = dict.fromkeys(self.roots, 0.0)
        for pid, own in seconds.items():
            ancestor: int | None = pid
            while ancestor is not None and ancestor not in names:
                ancestor = parents.get(ancestor)
            if ancestor is not None:
                by_name[names[ancestor]] += own
        return Reading(by_name, _machine_seconds())


def spent(before: Reading, after: Reading) -> dict[str, float]:
    """Return CPU seconds by name between two readings."""
    return {name: max(0.0, after.by_name[name] - before.by_name[name]) for name in after.by_name}


def others(before: Reading, after: Reading) -> float:
    """Return CPU seconds of all other processes of the machine between two readings, this one among them."""
    return max(0.0, after.machine - before.machine - sum(spent(before, after).values()))


def _processes() -> Iterator[tuple[int, int, float]]:
    """Yield process id, parent and CPU seconds, with those of ended children, of every process."""
    for folder in _PROC.iterdir():
        if not folder.name.isdigit():
            continue
        try:
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
        except OSError:  # it has ended
            continue
        yield int(folder.name), int(fields[1]), sum(map(int, fields[11:15])) / _TICKS


def _machine_seconds() -> float:
    times = (_PROC / "stat").read_text().split("\n", 1)[0].split()[1:9]
    return sum(int(time) for place, time in enumerate(times) if place not in _IDLE) / _TICKS
