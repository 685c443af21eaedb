"""What the processes say of themselves on /readyz, where STATUS_READY_URLS names them.

Contract: each process is asked once, by HTTP, within the time of a check. Without the setting nothing is asked: Kafka
and Postgres tell of a stage what they know. `attributary up` sets it in its `env`.
"""

from __future__ import annotations

import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

from .report import Finding, Level

_SECONDS = 4.0
_MAX_BYTES = 300
_SILENT = "/readyz does not answer"
PART = "processes"


def check_ready(urls: Mapping[str, str]) -> Sequence[Finding]:
    """Ask processes for /readyz, side by side.

    Args:
        urls: by the name of the process, where it serves its metrics and probes: http://host:port.
    """
    with ThreadPoolExecutor(len(urls)) as threads:
        said = dict(zip(urls, threads.map(_refusal, urls.values()), strict=True))
    refused = {name: why for name, why in said.items() if why}
    facts = {name: why or "ready" for name, why in said.items()}
    if not refused:
        return [Finding(PART, Level.GOOD, f"all {len(urls)} are ready", facts=facts)]
    text = f"{len(refused)} of {len(urls)} not ready: {', '.join(refused)}"
    cause = "; ".join(f"{name}: {why}" for name, why in refused.items())
    is_down = any(why == _SILENT for why in refused.values())
    cure = "start it, or correct STATUS_READY_URLS" if is_down else "wait a moment after a start; else see its log"
    return [Finding(PART, Level.BAD if is_down else Level.WARNING, text, cause, cure, facts)]


def _refusal(url: str) -> str:
    """Why a process is not ready; empty when it is."""
    try:
        with urllib.request.urlopen(f"{url}/readyz", timeout=_SECONDS):  # noqa: S310  # the setting allows http(s) only
            return ""
    except urllib.error.HTTPError as error:
        with error:
            return " ".join(error.read(_MAX_BYTES).decode("utf-8", "replace").split()) or f"answers {error.code}"
    except (OSError, ValueError):
        return _SILENT
