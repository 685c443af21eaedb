from __future__ import annotations

import csv
import os
from decimal import Decimal
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from attributary.attribution_core.domain.journeys import JourneyBatch, Outcomes
from attributary.attribution_core.statistics.state import JourneyState


class PathData(NamedTuple):
    batch: JourneyBatch
    outcomes: Outcomes
    state: JourneyState


def pathdata_file() -> Path:
    given = os.environ.get("ATTRIBUTARY_PATHDATA")
    return Path(given) if given else Path(__file__).parents[3] / "shared" / "data" / "pathdata.csv"


@pytest.fixture(scope="session")
def pathdata() -> PathData:
    file = pathdata_file()
    if not file.is_file():
        pytest.skip("PathData is not here: set ATTRIBUTARY_PATHDATA to its pathdata.csv (it ships in the package mta)")
    with file.open(newline="", encoding="utf-8") as lines:
        rows = list(csv.DictReader(lines))
    batch = JourneyBatch.of_paths([row["path"].split(" > ") for row in rows])
    outcomes = Outcomes(
        np.array([int(row["total_conversions"]) for row in rows], dtype=np.int64),
        np.array([int(row["total_null"]) for row in rows], dtype=np.int64),
        np.array([int(Decimal(row["total_conversion_value"]) * 1_000_000) for row in rows], dtype=np.int64),
    )
    return PathData(batch, outcomes, JourneyState.fit(batch, outcomes))
