"""Which touches belong to which finished journey, against a second, naive reading of the definition."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from attributary.attribution_core.domain.lookback import MICROS_PER_DAY, LookbackPolicy
from attributary.consumers.store.models.timelines import TimelineRow
from attributary.consumers.training.journeys import FinishedJourneys, FinishRules, UnknownPolicyError, finished_journeys

DAY = MICROS_PER_DAY
POLICY = LookbackPolicy.parse(
    {
        "name": "narrow",
        "lateness_days": 2,
        "inactivity_days": 5,
        "windows": [{"days": 6}, {"interaction": "view", "days": 1}, {"channel": "mail", "days": 3}],
    }
)
OTHER = LookbackPolicy.parse({"name": "wide", "lateness_days": 9, "inactivity_days": 5, "windows": [{"days": 9}]})
POLICIES = {policy.version: policy for policy in (POLICY, OTHER)}
RULES = FinishRules(POLICIES, 5 * DAY)
Journey = tuple[str, tuple[int, ...]]


def touch(
    person: str, day: int, channel: str = "search", how: str = "click", *, name: str = "", late: int = 0
) -> TimelineRow:
    at = day * DAY
    return TimelineRow(
        person, 0, False, False, at, at + late * DAY, name or f"t{day}", channel, how, "google", "spring", 0
    )


def conversion(
    person: str, day: int, kind: str = "purchase", policy: LookbackPolicy = POLICY, value: int = 1_000_000
) -> TimelineRow:
    at = day * DAY
    return TimelineRow(person, 0, False, True, at, at, f"c{day}", kind, policy.version, "EUR", "", value)


def timeline(*rows: TimelineRow, known_until: int | None = None, closed: bool = False) -> list[TimelineRow]:
    end = max(row.at for row in rows) if known_until is None else known_until * DAY
    ordered = sorted(rows, key=lambda row: (row.at, row.is_conversion, row.id))
    return [row._replace(known_until=end, is_closed=closed) for row in ordered]


def read(found: FinishedJourneys) -> tuple[list[Journey], list[Journey]]:
    """Journeys as (id or end in days, times of the touches in days), converted and not."""
    offsets = found.converted.offsets.tolist()
    times = (found.converted.times // DAY).tolist()
    converted = [
        (row.id, tuple(times[offsets[place] : offsets[place + 1]])) for place, row in enumerate(found.conversions)
    ]
    offsets, times = found.nulls.offsets.tolist(), (found.nulls.times // DAY).tolist()
    nulls = [("", tuple(times[low:high])) for low, high in itertools.pairwise(offsets)]
    assert [touch.at // DAY for touch in found.touches] == (found.converted.times // DAY).tolist()
    return converted, nulls


def test_a_conversion_has_the_touches_that_count_for_it() -> None:
    rows = timeline(
        touch("u:a", 1), touch("u:a", 4), touch("u:a", 5, how="view"), touch("u:a", 8, "mail"), conversion("u:a", 10)
    )
    assert read(finished_journeys(rows, RULES)) == ([("c10", (4, 8))], [("", (1,))])
    # day 5: a view counts for one day only; a conversion followed in time, so it is no sign of not converting
    assert finished_journeys(rows, RULES).passed_over == 1


def test_a_touch_may_be_in_two_converted_journeys() -> None:
    rows = timeline(touch("u:a", 1), conversion("u:a", 2, "lead"), touch("u:a", 3), conversion("u:a", 4))
    assert read(finished_journeys(rows, RULES)) == ([("c2", (1,)), ("c4", (1, 3))], [])
    only = FinishRules(POLICIES, 5 * DAY, conversion_types=frozenset({"lead"}))
    assert read(finished_journeys(rows, only)) == ([("c2", (1,))], [])
    closed = [row._replace(is_closed=True) for row in rows]
    assert read(finished_journeys(closed, only)) == ([("c2", (1,))], [("", (3,))])


def test_a_journey_without_conversion_ends_by_silence() -> None:
    rows = [touch("a:x", 1), touch("a:x", 6), touch("a:x", 12), touch("a:x", 13)]
    found = finished_journeys(timeline(*rows), RULES)
    assert read(found) == ([], [("", (1, 6))])  # five days are not more than five days
    assert found.open_touches == 2
    assert read(finished_journeys(timeline(*rows, closed=True), RULES))[1] == [("", (1, 6)), ("", (12, 13))]
    assert read(finished_journeys(timeline(*rows, known_until=18), RULES))[1] == [("", (1, 6))]
    assert read(finished_journeys(timeline(*rows, known_until=19), RULES))[1] == [("", (1, 6)), ("", (12, 13))]


def test_a_conversion_cuts_a_journey_without_conversion() -> None:
    policy = LookbackPolicy.parse({"name": "none", "lateness_days": 0, "inactivity_days": 5, "windows": [{"days": 0}]})
    rules = FinishRules({policy.version: policy}, 1 * DAY)
    rows = timeline(touch("a:x", 1), touch("a:x", 2), conversion("a:x", 4, policy=policy), touch("a:x", 5), closed=True)
    assert read(finished_journeys(rows, rules)) == ([("c4", ())], [("", (1, 2)), ("", (5,))])


def test_a_late_arrival_is_passed_over() -> None:
    rows = timeline(touch("a:x", 9, late=4), touch("a:x", 9, late=3, name="in time"), conversion("a:x", 10))
    found = finished_journeys(rows, RULES)
    assert (read(found), found.passed_over) == (([("c10", (9,))], []), 1)


def test_the_window_takes_journeys_by_their_end() -> None:
    rows = timeline(
        touch("a:x", 1), touch("a:x", 20), conversion("a:x", 22), touch("a:x", 40), touch("a:x", 41), closed=True
    )
    expected = {
        (None, None): ([("c22", (20,))], [("", (1,)), ("", (40, 41))]),
        (2, 22): ([], []),
        (2, 41): ([("c22", (20,))], []),
        (22, 42): ([("c22", (20,))], [("", (40, 41))]),
        (None, 2): ([], [("", (1,))]),
    }
    for (since, until), journeys in expected.items():
        rules = FinishRules(
            POLICIES, 5 * DAY, None if since is None else since * DAY, None if until is None else until * DAY
        )
        assert read(finished_journeys(rows, rules)) == journeys


def test_nobody_and_a_policy_that_is_not_stored() -> None:
    found = finished_journeys([], RULES)
    assert (len(found.converted), len(found.nulls), found.people) == (0, 0, 0)
    with pytest.raises(UnknownPolicyError, match=POLICY.version):
        finished_journeys([conversion("a:x", 1)], FinishRules({}, DAY))


def naive(rows: list[TimelineRow], rules: FinishRules) -> tuple[list[Journey], list[Journey]]:
    """The definition of the docs, one person and one touch after the other."""
    converted: list[Journey] = []
    nulls: list[Journey] = []
    for person in dict.fromkeys(row.journey_key for row in rows):
        own = [row for row in rows if row.journey_key == person]
        touches = [row for row in own if not row.is_conversion]
        conversions = [row for row in own if row.is_conversion]
        counted = set()
        for goal in conversions:
            policy = rules.policies[goal.detail]
            journey = [
                place
                for place, row in enumerate(touches)
                if policy.counts(
                    age=goal.at - row.at,
                    window=policy.window_micros(row.kind, goal.kind, row.detail),
                    delay=row.received_at - goal.received_at,
                    is_bot=False,
                )
            ]
            counted |= set(journey)
            converted.append((goal.id, tuple(touches[place].at // DAY for place in journey)))
        piece: list[TimelineRow] = []
        pieces = [piece]
        for place, row in enumerate(touches):
            if place in counted or any(0 <= goal.at - row.at <= rules.inactivity_micros for goal in conversions):
                continue
            if piece and (
                row.at - piece[-1].at > rules.inactivity_micros
                or any(piece[-1].at <= goal.at < row.at for goal in conversions)
            ):
                piece = []
                pieces.append(piece)
            piece.append(row)
        nulls += [
            ("", tuple(row.at // DAY for row in piece))
            for piece in pieces
            if piece and (piece[-1].is_closed or piece[-1].known_until - piece[-1].at > rules.inactivity_micros)
        ]
    return converted, nulls


days = st.integers(0, 40)
touches = st.builds(
    touch,
    st.just(""),
    days,
    st.sampled_from(["search", "mail"]),
    st.sampled_from(["click", "view"]),
    late=st.integers(0, 8),
)
conversions = st.builds(
    conversion, st.just(""), days, st.sampled_from(["purchase", "lead"]), st.sampled_from([POLICY, OTHER])
)


@st.composite
def people(draw: st.DrawFn) -> list[TimelineRow]:
    rows: list[TimelineRow] = []
    for number in range(draw(st.integers(1, 4))):
        events = draw(st.lists(touches | conversions, min_size=1, max_size=14))
        named = [row._replace(id=f"{row.id}-{place}") for place, row in enumerate(events)]
        silent = draw(st.integers(0, 9))
        end = max(row.at for row in named) // DAY + silent
        own = timeline(*named, known_until=end, closed=draw(st.booleans()))
        rows += [row._replace(journey_key=f"a:{number}") for row in own]
    return rows


@settings(max_examples=150, deadline=None)
@given(people())
def test_the_arrays_say_what_the_definition_says(rows: list[TimelineRow]) -> None:
    found = finished_journeys(rows, RULES)
    assert read(found) == naive(rows, RULES)
    touched = sum(not row.is_conversion for row in rows)
    in_converted = len({(row.journey_key, row.id) for row in found.touches})
    assert in_converted + found.nulls.channels.size + found.open_touches + found.passed_over == touched


@settings(max_examples=50, deadline=None)
@given(people())
def test_chunks_of_whole_people_give_the_same_journeys(rows: list[TimelineRow]) -> None:
    converted: list[Journey] = []
    nulls: list[Journey] = []
    for person in dict.fromkeys(row.journey_key for row in rows):
        part = read(finished_journeys([row for row in rows if row.journey_key == person], RULES))
        converted += part[0]
        nulls += part[1]
    assert (converted, nulls) == read(finished_journeys(rows, RULES))


def test_channels_keep_their_names() -> None:
    rows = timeline(touch("a:x", 7, "direct"), touch("a:x", 8, "mail"), conversion("a:x", 9))
    batch = finished_journeys(rows, RULES).converted
    assert [batch.index.names[code] for code in batch.channels] == ["direct", "mail"]
    assert np.array_equal(batch.direct, [True, False])
