from __future__ import annotations

from statistics import NormalDist

import pytest

from attributary.attribution_core.domain.confidence import CONFIDENCE_LEVEL, NORMAL_QUANTILE, TAILS


def test_tails_and_normal_quantile_are_those_of_the_level() -> None:
    assert pytest.approx(((1 - CONFIDENCE_LEVEL) / 2, (1 + CONFIDENCE_LEVEL) / 2)) == TAILS
    assert NormalDist().cdf(NORMAL_QUANTILE) == pytest.approx(TAILS[1], abs=1e-15)
