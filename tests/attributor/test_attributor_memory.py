"""A version that was published lately is not published again; a doubt or time makes it publishable."""

from __future__ import annotations

from attributary.consumers.attributor.recent_results import REMEMBERED_SECONDS, RecentResults
from attributary.consumers.store.events.attribution_inputs import PendingConversion


def conversion(version: int = 1, raised_at: int = 7) -> PendingConversion:
    values = dict.fromkeys(PendingConversion._fields, 0) | {"tenant_id": "acme", "conversion_id": "c-1"}
    return PendingConversion(**values | {"version": version, "raised_at": raised_at})  # type: ignore[arg-type]


class Clock:
    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now


def test_only_the_very_version_is_remembered() -> None:
    published = RecentResults(Clock())
    published.remember([conversion()])
    assert published.has(conversion())
    assert not published.has(conversion(version=2))
    assert not published.has(conversion(raised_at=8))  # the same number after Postgres lost the first


def test_a_lost_result_can_be_published_after_a_while() -> None:
    clock = Clock()
    published = RecentResults(clock)
    published.remember([conversion()])
    clock.now += REMEMBERED_SECONDS
    assert published.has(conversion())
    clock.now += 1.0
    assert not published.has(conversion())
    published.remember([])
    assert published._published == {}


def test_doubt_forgets_everything() -> None:
    published = RecentResults(Clock())
    published.remember([conversion()])
    published.clear()
    assert not published.has(conversion())
