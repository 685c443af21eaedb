"""What a look at an installation finds: a line a part, its severity, and for each fault its cause and its cure.

Invariant: no text holds a password, or anything of an event.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from enum import IntEnum
from typing import Any


class Level(IntEnum):
    """How a part is, the worst last."""

    GOOD = 0
    NOTE = 1  # works, and there is something to know
    UNKNOWN = 2  # could not be looked at
    WARNING = 3  # works, and somebody has to act
    BAD = 4  # does not work


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of a report.

    Attributes:
        part: what was looked at: kafka, postgres, topics, stitcher, ...
        level: how it is.
        text: its state in a few words.
        cause: why, for what is not good.
        cure: what to do.
        facts: numbers for machines; times in seconds, sizes in bytes.
    """

    part: str
    level: Level
    text: str
    cause: str = ""
    cure: str = ""
    facts: Mapping[str, Any] = field(default_factory=dict)

    def document(self) -> dict[str, Any]:
        """Return the finding for JSON."""
        return asdict(self) | {"level": self.level.name.lower(), "facts": dict(self.facts)}


@dataclass(frozen=True, slots=True)
class Report:
    """The findings in the order of the data's way through the installation, and when they were made."""

    made_at: datetime
    seconds: float
    findings: tuple[Finding, ...]

    @property
    def level(self) -> Level:
        """The worst of the findings."""
        return worst(self.findings)

    def document(self) -> dict[str, Any]:
        """Return the report for JSON."""
        return {
            "made_at": self.made_at.astimezone(UTC).isoformat(timespec="seconds"),
            "seconds": round(self.seconds, 2),
            "level": self.level.name.lower(),
            "findings": [finding.document() for finding in self.findings],
        }


def worst(findings: Iterable[Finding]) -> Level:
    """Return the worst level of some findings; GOOD when there are none."""
    return max((finding.level for finding in findings), default=Level.GOOD)


def unknown(part: str, why: str) -> Finding:
    """Return the finding of a part that could not be looked at."""
    return Finding(part, Level.UNKNOWN, f"not looked at: {why}")


def duration(seconds: float) -> str:
    """Return a length of time in its largest fitting unit: 40 s, 12 min, 3 h, 6.5 days."""
    for unit, size, limit in (("s", 1, 120), ("min", 60, 120), ("h", 3_600, 48)):
        if seconds < limit * size:
            return f"{seconds / size:.0f} {unit}"
    days = seconds / 86_400
    return f"{days:.1f} days" if days < 10 else f"{days:.0f} days"


def counted(number: int, noun: str) -> str:
    """Return a number with its noun: 1 process, 2 processes."""
    return f"{number:,} {noun}{'' if number == 1 else 'es' if noun.endswith('s') else 's'}"
