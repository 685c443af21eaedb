"""Stand-ins for Meta and GA4 beside a local stack, so that forwarding can be watched without an account.

Contract: `start_fake_services` returns when both answer, with the variables that lead the forwarders to them.
Invariant: those variables replace every credential of the environment, so no real one is ever used with a
stand-in, and no event of a local stack reaches a real account.
"""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING

from attributary.local.ports import LOOPBACK, free_port, is_free
from attributary.local.process import ManagedProcess, spawn, wait_until_ready
from attributary.local.stages import command_line

if TYPE_CHECKING:
    from attributary.local.folder import StackFolder

META_PORT, GA4_PORT = 9801, 9802
_START_SECONDS = 60.0


def start_fake_services(folder: StackFolder) -> tuple[ManagedProcess, dict[str, str]]:
    """Start both stand-ins as one process; returns it and the forwarders' variables."""
    meta = folder.port("stand-in-meta", free_port(META_PORT))
    ga4 = folder.port("stand-in-ga4", free_port(GA4_PORT))
    child = spawn(
        command_line("fake-destinations", "--meta-port", str(meta), "--ga4-port", str(ga4)),
        name="stand-ins for Meta and GA4",
        log=folder.log("stand-ins"),
    )

    def refusal() -> str | None:
        return "they do not listen yet" if is_free(meta) or is_free(ga4) else None

    with ExitStack() as undo:
        undo.callback(child.kill)
        wait_until_ready(child, refusal, timeout_seconds=_START_SECONDS)
        undo.pop_all()  # they are up: keep them
    return child, {
        "META_BASE_URL": f"http://{LOOPBACK}:{meta}",
        "META_PIXEL_ID": "1",
        "META_ACCESS_TOKEN": "stand-in",
        "META_APP_SECRET": "",
        "META_APP_SECRET_FILE": "",
        "GA4_BASE_URL": f"http://{LOOPBACK}:{ga4}",
        "GA4_MEASUREMENT_ID": "G-STANDIN",
        "GA4_API_SECRET": "stand-in",
        "FORWARD_CREDENTIALS_FILE": "",
    }
