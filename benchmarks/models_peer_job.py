"""Measures another package over the journeys that `models_work` keeps. Runs in that package's own environment.

Each package gets what its users would give it, ready in memory: a frame with a path a row, one row a journey. Each is
called with its defaults, without prints. What comes back are the seconds, each channel's share, and by how many bytes
the first run raised the highest resident memory (on Linux; elsewhere null).
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

_SECONDS = 2.0  # no further run after this time; the first is always whole
_LEAST_RUNS, _MOST_SECONDS = 3, 5.0  # three runs, unless they take this long
_MOST_RUNS = 5

Run = Callable[[], dict[str, float]]


def channel_attribution(paths: list[str], converted: Any, order: int) -> Run:
    """ChannelAttribution's Markov model: estimates by simulation until its estimate settles."""
    import ChannelAttribution  # type: ignore[import-not-found]
    import pandas as pd  # type: ignore[import-untyped]

    frame = pd.DataFrame(
        {"path": paths, "total_conversions": converted.astype(np.int64), "total_null": (~converted).astype(np.int64)}
    )

    def run() -> dict[str, float]:
        found = ChannelAttribution.markov_model(
            frame, "path", "total_conversions", var_null="total_null", order=order, verbose=False, flg_pro=False
        )
        return dict(zip(found["channel_name"], found["total_conversions"], strict=True))

    return run


def marketing_attribution_models(paths: list[str], converted: Any, order: int) -> Run:
    """Marketing-attribution-models' Markov model: exact, one inverse for each channel; credits each journey, too."""
    if order != 1:
        raise ValueError("marketing-attribution-models knows the first order only")
    import polars as pl  # type: ignore[import-not-found]
    from mam.core import MAM  # type: ignore[import-not-found]

    frame = pl.DataFrame({"journey": paths, "conversion": converted, "occurrences": np.ones(len(paths), np.int64)})

    def run() -> dict[str, float]:
        found = MAM(
            df=frame,
            format_type="grouped_journey",
            channels_colname="journey",
            journey_with_conv_colname="conversion",
            occurrences_colname="occurrences",
        ).run_markov()
        return dict(found.metadata["removal_effect"]["removal_effect"])

    return run


def resident(kind: str) -> int | None:
    """Resident memory in bytes: VmRSS, what it is now; VmHWM, the highest since `forget_highest`."""
    status = Path("/proc/self/status")
    if not status.exists():
        return None
    lines = dict(line.split(":", 1) for line in status.read_text(encoding="utf-8").splitlines())
    return int(lines[kind].split()[0]) * 1024


def forget_highest() -> None:
    """Let the highest resident memory begin anew."""
    switch = Path("/proc/self/clear_refs")
    if switch.exists():
        switch.write_text("5", encoding="utf-8")


PEERS = {"channel_attribution": channel_attribution, "marketing_attribution_models": marketing_attribution_models}


def main() -> None:
    wanted = json.loads(sys.argv[1])
    folder = Path(wanted["folder"])
    paths = (folder / "paths.txt").read_text(encoding="utf-8").splitlines()
    run = PEERS[wanted["peer"]](paths, np.load(folder / "converted.npy"), wanted["order"])
    seconds: list[float] = []
    found: dict[str, float] = {}
    forget_highest()
    before, highest = resident("VmRSS"), None
    while len(seconds) < _MOST_RUNS and sum(seconds) < (_SECONDS if len(seconds) >= _LEAST_RUNS else _MOST_SECONDS):
        begun = time.perf_counter()
        found = run()
        seconds.append(time.perf_counter() - begun)
        highest = highest or resident("VmHWM")
    whole = sum(found.values())
    shares = {name: float(value / whole) for name, value in found.items()}
    grown = None if before is None or highest is None else highest - before
    done = {"seconds": min(seconds), "runs": len(seconds), "grown_bytes": grown, "shares": shares}
    sys.stdout.write("\n" + json.dumps(done) + "\n")


if __name__ == "__main__":
    main()
