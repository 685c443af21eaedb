"""Named points at which a fault test kills the process; unarmed they cost one call.

The command line connects ``crash_at`` with the crash points of the stages (consumers/runtime/crash_points.py), which
this package must not import.
"""

from __future__ import annotations

from collections.abc import Callable

POINTS = (
    "collector_sent",  # records are on their way to the log, nothing was answered
    "collector_acknowledged",  # the log has them, nothing was answered
    "collector_spool_written",  # in the spool's file, not yet on disk
    "collector_spool_synced",  # on disk, nothing was answered
    "collector_drain_acknowledged",  # the log has a drained segment, the file is still there
    "collector_adopt_moved",  # a dead process's segment was moved, its folder is still there
)

_kill: Callable[[str], None] | None = None


def connect(kill: Callable[[str], None]) -> None:
    """Let ``kill`` decide at every point whether the process dies there."""
    global _kill  # noqa: PLW0603  # one process, one hook
    _kill = kill


def crash_at(point: str) -> None:
    """Pass a point."""
    if _kill is not None:
        _kill(point)
