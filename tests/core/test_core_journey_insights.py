"""What is said of single journeys: the numbers in the sentences, and when there is nothing to say."""

from __future__ import annotations

import numpy as np

from attributary.attribution_core.analysis.journey_insights import journey_insights
from attributary.attribution_core.domain.journeys import JourneyBatch, Outcomes
from attributary.attribution_core.models.model_set import TrainedState, model_set
from attributary.attribution_core.statistics.state import JourneyState

DAY = 86_400_000_000


def test_agreement_says_from_where_to_where_the_shares_go() -> None:
    batch = JourneyBatch.of([[(0, "1", "social"), (8 * DAY, "2", "search")]], [9 * DAY])
    models = model_set(["last", "time_decay"])
    (found,) = journey_insights(batch, models, models.attribute(batch))
    (agreed,) = (insight for insight in found if insight.rule_id == "journey.models_agree")
    assert agreed.text == "search receives the largest share under all 2 models, from 69 % to 100 %"


def test_there_is_no_agreement_about_a_single_channel() -> None:
    models = model_set(["first", "last", "linear"])
    batch = JourneyBatch.of_paths([["mail", "mail"], ["a", "b", "a", "a"], ["x"]])
    agreed = [
        [insight.subject for insight in found if insight.rule_id == "journey.models_agree"]
        for found in journey_insights(batch, models, models.attribute(batch))
    ]
    assert agreed == [[], [("a",)], []]


def test_the_leading_channel_is_said_with_its_interval() -> None:
    paths = JourneyBatch.of_paths([["a"], ["a", "b"], ["b"]])
    outcomes = Outcomes(np.array([900, 500, 60]), np.array([500, 400, 2000]), np.zeros(3, dtype=np.int64))
    models = model_set(["markov"], {"markov": TrainedState("v", JourneyState.fit(paths, outcomes).to_document(), {})})
    batch = JourneyBatch.of_paths([["a", "b"]])
    (found,) = journey_insights(batch, models, models.attribute(batch))
    (led,) = (insight for insight in found if insight.rule_id == "journey.leading_channel")
    assert led.text is not None
    assert led.low is not None
    assert led.high is not None
    said = f"{100 * led.estimate:.0f} % (90 % interval {100 * led.low:.0f} to {100 * led.high:.0f})"
    assert said in led.text
