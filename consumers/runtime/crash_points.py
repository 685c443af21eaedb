"""Named points at which a fault test kills the process, as the machine's power cut would.

A module registers the points that its code passes. They are armed only by ``ATTRIBUTION_CRASH_AT=name`` or ``name:N``
(die at the N-th passing); unarmed they cost one comparison. Invariant: a name that no loaded module registered stops
the start, so that no test proves anything by a fault that never fires.
"""

from __future__ import annotations

import os
import signal
import sys

from .errors import ConfigError

VARIABLE = "ATTRIBUTION_CRASH_AT"

_registered: dict[str, None] = {}
_name, _colon, _count = os.environ.get(VARIABLE, "").partition(":")
_armed = _name or None
_left = int(_count) if _count.isdecimal() else 1


def register_points(*names: str) -> None:
    """Register points that a module passes, in the order of its work; each begins with its stage and ``_``."""
    _registered.update(dict.fromkeys(names))


def crash_points(*stages: str) -> tuple[str, ...]:
    """Return the points that loaded modules registered.

    Args:
        stages: only those of these, for example ``auditor`` or ``loop``; of all when there are none.
    """
    return tuple(point for point in _registered if not stages or point.partition("_")[0] in stages)


def check_armed() -> None:
    """Refuse to start with a point that does not exist, or a count that is none.

    Raises:
        ConfigError: names the variable and the points there are.
    """
    bad_count = bool(_colon) and not (_armed and _count.isdecimal() and _left > 0)
    if bad_count or (_armed is not None and _armed not in _registered):
        raise ConfigError(
            VARIABLE, f"must be the name of a crash point, or name:N with N from 1; {', '.join(_registered)}"
        )


def crash_at(point: str) -> None:
    """Die by SIGKILL here if this point is armed and its count has run down; says so on stderr first."""
    global _left  # noqa: PLW0603  # one process, one armed point
    if point != _armed:
        return
    _left -= 1
    if _left <= 0:
        sys.stderr.write(f"crash_at: {point}\n")
        sys.stderr.flush()
        os.kill(os.getpid(), signal.SIGKILL)
