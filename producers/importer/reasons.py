"""Why rows were refused or remarked: each reason once, with its count and the first line.

Invariant: memory is bounded by ``MOST_REASONS``; what is beyond is counted together. A reason holds no value of the
file; the example beside it may, and only of fields that name no person.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import NamedTuple

MOST_REASONS = 100
_LINE = re.compile(r"\bline [0-9]+")


class Reason(NamedTuple):
    """What is wrong."""

    rule: str
    field: str = ""
    column: str | None = None


@dataclass(slots=True)
class Count:
    """How often, and where first."""

    times: int
    line: int
    example: str | None


class Reasons:
    """Counts reasons."""

    def __init__(self) -> None:
        self._counts: dict[Reason, Count] = {}
        self.others = 0

    def add(self, reason: Reason, line: int, example: str | None = None) -> None:
        """Count a reason."""
        reason = reason._replace(rule=_LINE.sub("an earlier line", reason.rule))
        known = self._counts.get(reason)
        if known is not None:
            known.times += 1
        elif len(self._counts) < MOST_REASONS:
            self._counts[reason] = Count(1, line, example)
        else:
            self.others += 1

    def most_common(self) -> list[tuple[Reason, Count]]:
        """Return the reasons, the most frequent first."""
        return sorted(self._counts.items(), key=lambda entry: -entry[1].times)
