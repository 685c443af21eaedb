"""Named points at which a fault test kills the process, as the machine's power cut would.

Armed only by ``ATTRIBUTION_CRASH_AT=name`` or ``name:N`` (die at the N-th passing). Unarmed it costs one comparison.
Invariant: a name that is no point's stops the start, so that no test proves anything by a fault that never fires.
"""

from __future__ import annotations

import os
import signal
import sys

from .errors import ConfigError

VARIABLE = "ATTRIBUTION_CRASH_AT"

POINTS = (
    "stitcher_in_store",
    "stitcher_before_pg_commit",
    "stitcher_after_pg_commit",
    "attributor_after_read",
    "loop_after_consume",
    "loop_before_transaction",
    "loop_before_send_offsets",
    "loop_before_kafka_commit",
    "loop_after_kafka_commit",
    "auditor_before_pg_commit",
    "auditor_after_pg_commit",
    "sweeper_before_pg_commit",
    "sweeper_after_pg_commit",
    "sweeper_after_send",
    "forwarder_after_ledger",
    "forwarder_before_send",
    "forwarder_after_send",
    "forwarder_after_answer",
    "forwarder_before_kafka_commit",
    "trainer_after_submit",
    "trainer_before_finish",
    "trainer_after_finish",
    "trainer_in_upkeep",
    "trainer_before_upkeep_commit",
    "rebuild_after_batch",
    "rebuild_after_page",
)

_name, _colon, _count = os.environ.get(VARIABLE, "").partition(":")
_armed = _name or None
_left = int(_count) if _count.isdecimal() else 1


def check_armed() -> None:
    """Refuse to start with a point that does not exist, or a count that is none.

    Raises:
        ConfigError: names the variable and the points there are.
    """
    if (_armed is not None and _armed not in POINTS) or (_colon and not (_armed and _count.isdecimal() and _left > 0)):
        raise ConfigError(VARIABLE, f"must be the name of a crash point, or name:N with N from 1; {', '.join(POINTS)}")


def points_of(stage: str) -> tuple[str, ...]:
    """Return the points that a stage's process passes: its own, and those of the loop if it runs in it.

    Args:
        stage: for example ``auditor``.
    """
    houses = (stage,) if stage in ("sweeper", "rebuild") else (stage, "loop")
    return tuple(point for point in POINTS if point.partition("_")[0] in houses)


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
