"""Scripted faults: the next so many requests, or a seeded share of all, go wrong in a named way.

Invariant: with the same seed and the same order of requests, the same requests fail.
"""

from __future__ import annotations

import random
import threading
from dataclasses import dataclass, field
from typing import Any


@dataclass(slots=True)
class Fault:
    """One way to fail.

    Attributes:
        kind: the name of the fault; each fake lists its own in `KINDS`.
        times: how many requests it still hits; None: as many as `share` says.
        share: the part of requests that it hits, 0 to 1.
        seconds: for slow answers and waits.
    """

    kind: str
    times: int | None = None
    share: float = 1.0
    seconds: float = 2.0


@dataclass(slots=True)
class FaultScript:
    """The faults of a fake; the first that hits a request is used."""

    seed: int = 0
    faults: list[Fault] = field(default_factory=list)
    fired: dict[str, int] = field(default_factory=dict)
    _random: random.Random = field(init=False, repr=False)
    _lock: threading.Lock = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self._random = random.Random(self.seed)  # noqa: S311  # repeatable, not secret
        self._lock = threading.Lock()

    def replace(self, faults: list[Fault], *, seed: int = 0) -> None:
        """Set new faults and forget the old ones."""
        with self._lock:
            self.faults = list(faults)
            self._random = random.Random(seed)  # noqa: S311  # repeatable, not secret

    def next(self) -> Fault | None:
        """Give the fault of this request."""
        with self._lock:
            for fault in self.faults:
                if fault.times == 0 or self._random.random() >= fault.share:
                    continue
                if fault.times is not None:
                    fault.times -= 1
                self.fired[fault.kind] = self.fired.get(fault.kind, 0) + 1
                return fault
            return None


def faults_from_json(document: Any, kinds: frozenset[str]) -> list[Fault]:
    """Read faults as the admin surface takes them.

    Raises:
        ValueError: not a list of faults, or an unknown kind.
    """
    if not isinstance(document, list):
        raise TypeError("a list of faults is wanted")
    faults = [Fault(**entry) for entry in document]
    if unknown := {fault.kind for fault in faults} - kinds:
        raise ValueError(f"unknown kinds {sorted(unknown)}; known: {sorted(kinds)}")
    return faults
