"""The processes of the pipeline, in the order in which they start.

Contract: one entry a process, each a command of `attributary`; the compose file and the Kubernetes manifests
run the same ones (a test compares them). Stopping goes through the list forwards, too: sources first, so
that what is in flight still finds its readers.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

FIRST_METRICS_PORT = 9464


@dataclass(frozen=True)
class StageProcess:
    """One process of the pipeline.

    Attributes:
        name: What people and container names call it.
        arguments: The command line after `attributary`.
        doc: What it does, in a few words.
        needs: Environment variables without which it is left out; it would only say that it is off.
    """

    name: str
    arguments: tuple[str, ...]
    doc: str
    needs: tuple[str, ...] = ()


STAGES: tuple[StageProcess, ...] = (
    StageProcess("stitcher", ("stitcher",), "joins events to people, decides what must be attributed"),
    StageProcess("attributor", ("attributor",), "computes results and publishes them"),
    StageProcess("auditor", ("auditor",), "stores results, checks that credits equal revenue"),
    StageProcess("sweeper", ("sweeper",), "repairs what was missed, makes results final"),
    StageProcess("trainer", ("trainer",), "analyses, trains and activates models"),
    StageProcess(
        "forwarder-meta",
        ("forwarder", "meta"),
        "relays conversions to Meta",
        ("META_PIXEL_ID", "META_ACCESS_TOKEN"),
    ),
    StageProcess(
        "forwarder-ga4",
        ("forwarder", "ga4"),
        "relays conversions to Google Analytics 4",
        ("GA4_MEASUREMENT_ID", "GA4_API_SECRET"),
    ),
)


def command_line(*arguments: str) -> list[str]:
    """Argument list that runs `attributary` with the interpreter of this process."""
    script = Path(sys.executable).with_name("attributary")
    if script.exists():
        return [str(script), *arguments]
    return [sys.executable, "-c", "from attributary.cli.main import run; run()", *arguments]
