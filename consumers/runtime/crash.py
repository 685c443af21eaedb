"""Named points at which a fault test kills the process, as the machine's power cut would.

Armed only by ``ATTRIBUTION_CRASH_AT=name`` or ``name:N`` (die at the N-th passing). Unarmed it costs one comparison.
"""

import os
import signal
import sys

POINTS = (
    "stitcher_after_consume",
    "stitcher_in_store",
    "stitcher_before_pg_commit",
    "stitcher_after_pg_commit",
    "attributor_after_read",
    "loop_before_transaction",
    "loop_before_send_offsets",
    "loop_before_kafka_commit",
    "loop_after_kafka_commit",
    "auditor_before_pg_commit",
    "auditor_after_pg_commit",
    "forwarder_after_ledger",
    "forwarder_before_send",
    "forwarder_after_send",
    "forwarder_after_answer",
    "forwarder_before_kafka_commit",
    "trainer_after_submit",
    "trainer_before_finish",
    "trainer_after_finish",
)

_name, _, _count = os.environ.get("ATTRIBUTION_CRASH_AT", "").partition(":")
_armed = _name or None
_left = int(_count or 1)


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
