"""The event names of an account that its destination refuses: conversion rules, event tags, actions, goals.

A destination has an id or a name for each type of conversion. One that it does not know, or not allow, is wrong for
every event of its type and says nothing about the others. Invariants: shared by the threads of a destination, so every
change is under a lock; a name is stopped by a refusal, or because the ledger says so; one event tries it again from
time to time; a delivery starts it again.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

_RETRY_SECONDS = 3_600.0  # until one event tries a refused name again; the destination may ask for more
_TRIAL_SECONDS = 600.0  # a trial that was not decided by then is given up


class NameStop(NamedTuple):
    """An event name that the destination refuses; `trying_since`: one event tries it, monotonic seconds."""

    reason: str
    wait_seconds: float
    trying_since: float | None = None


class NameStops:
    """The stopped event names of one account."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._stops: dict[str, NameStop] = {}
        self._resumed: set[str] = set()

    def __bool__(self) -> bool:
        return bool(self._stops)

    @property
    def may_hold(self) -> bool:
        """Return whether some events must be held: names are stopped, or go again and the ledger still holds some."""
        return bool(self._stops or self._resumed)

    def get(self, name: str) -> NameStop | None:
        """Return why events of a name must not go, None when they may."""
        return self._stops.get(name)

    def stop(self, name: str, reason: str, wait_seconds: float) -> bool:
        """Stop a name that was refused; return whether it was not stopped before."""
        with self._lock:
            is_new = name not in self._stops
            self._stops[name] = NameStop(reason, max(wait_seconds, _RETRY_SECONDS))
            self._resumed.discard(name)
        return is_new

    def delivered(self, names: Iterable[str]) -> None:
        """Start names again with which an event was taken."""
        with self._lock:
            for name in names:
                if self._stops.pop(name, None) is not None:
                    self._resumed.add(name)

    def begin_trial(self, name: str, now: float) -> bool:
        """Let one event try a name; return False while another does so."""
        with self._lock:
            stop = self._stops.get(name)
            if stop is None or (stop.trying_since is not None and now - stop.trying_since < _TRIAL_SECONDS):
                return False
            self._stops[name] = stop._replace(trying_since=now)
        return True

    def replace(self, reasons: Mapping[str, str]) -> None:
        """Take over what the ledger says: reasons by name; trials that are under way go on."""
        with self._lock:
            stops = {name: self._stops.get(name) or NameStop(why, _RETRY_SECONDS) for name, why in reasons.items()}
            self._stops, self._resumed = stops, set()

    def is_resumed(self, name: str) -> bool:
        """Return whether a delivery has started a name again since the ledger was looked at."""
        return name in self._resumed
