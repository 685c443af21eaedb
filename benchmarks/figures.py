"""Figures: a measured rate or time beside its named baseline, printed and kept as JSON."""

from __future__ import annotations

import json
import os
import platform
import sys
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path


def say(line: str = "") -> None:
    """Print a line at once."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


@dataclass(frozen=True)
class Figure:
    """One line of the report.

    Attributes:
        name: what was measured.
        value: the measurement.
        unit: its unit.
        baseline: what it is compared with; empty for a baseline itself.
        ratio: value over the baseline's.
        aim: what the ratio or value should be, in words.
        detail: further numbers, for the JSON file.
        met: whether the aim was met; None without an aim that can be checked.
    """

    name: str
    value: float
    unit: str
    baseline: str = ""
    ratio: float | None = None
    aim: str = ""
    detail: dict[str, Any] = field(default_factory=dict)
    met: bool | None = None


@dataclass
class Report:
    """All figures of a run; figures that could not be measured are in `missing` with the reason.

    Attributes:
        scale: factor of the size of the work.
        servers: the broker and the server; empty where none is needed.
        figures: in the order of their measurement.
        missing: reason by figure.
    """

    scale: float
    servers: str = ""
    figures: list[Figure] = field(default_factory=list)
    missing: dict[str, str] = field(default_factory=dict)

    def add(self, figure: Figure) -> None:
        """Keep a figure and print its line at once."""
        self.figures.append(figure)
        say(_line(figure))

    def miss(self, name: str, reason: str) -> None:
        """Say what could not be measured, and why."""
        self.missing[name] = reason
        say(f"{name:<34} not measured: {reason}")

    def value(self, name: str) -> float | None:
        """Value of a figure of this run."""
        return next((figure.value for figure in self.figures if figure.name == name), None)

    def table(self) -> str:
        """All figures under each other."""
        head = f"{'figure':<34}{'value':>12} {'unit':<10}{'ratio':>7}  {'against':<22}aim"
        lines = [head, "-" * len(head), *map(_line, self.figures)]
        lines += [f"{name:<34} not measured: {reason}" for name, reason in self.missing.items()]
        checked = [figure for figure in self.figures if figure.met is not None]
        if checked:
            missed = [figure.name for figure in checked if not figure.met]
            lines.append(f"aims met: {len(checked) - len(missed)} of {len(checked)}")
            lines += [f"missed: {name}" for name in missed]
        return "\n".join(lines)

    def write(self, file: Path) -> None:
        """Keep the report as JSON."""
        file.parent.mkdir(parents=True, exist_ok=True)
        document = {
            "measured_at": datetime.now(UTC).isoformat(timespec="seconds"),
            "machine": {"cpus": os.cpu_count(), "python": platform.python_version(), "system": platform.system()},
            **asdict(self),
        }
        file.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")


def _line(figure: Figure) -> str:
    ratio = "" if figure.ratio is None else f"{figure.ratio:,.0f}" if figure.ratio >= 100 else f"{figure.ratio:.2f}"
    value = f"{figure.value:,.0f}" if figure.value >= 100 else f"{figure.value:.3g}"
    verdict = "" if figure.met is None else "PASS" if figure.met else "MISS"
    line = f"{figure.name:<34}{value:>12} {figure.unit:<10}{ratio:>7}  {figure.baseline:<22}{figure.aim:<13}{verdict}"
    return line.rstrip()
