"""What passes of a tenant is bounded by its own rate, and nothing that others publish changes it."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from attributary.consumers.stitcher.tenant_rate import BURST_SECONDS, TenantRate

times = st.lists(st.integers(0, 200_000), min_size=1, max_size=300).map(sorted)


@given(times, st.floats(0.1, 50.0))
def test_no_more_passes_in_any_span_of_time_than_rate_and_burst(appended: list[int], rate: float) -> None:
    bucket = TenantRate(rate)
    passed = [at for at in appended if bucket.take(("t", 0, b"acme"), at)]
    burst = max(1.0, rate * BURST_SECONDS)
    for first, begin in enumerate(passed):
        for last in range(first, len(passed)):
            assert last - first + 1 <= burst + rate * (passed[last] - begin) / 1_000 + 1e-6


@given(times, times, st.floats(0.1, 5.0))
def test_a_flood_takes_nothing_from_another_tenant(appended: list[int], flood: list[int], rate: float) -> None:
    alone, beside = TenantRate(rate), TenantRate(rate)
    expected = [alone.take(("t", 0, b"quiet"), at) for at in appended]
    everything = sorted([(at, b"quiet") for at in appended] + [(at, b"flood") for at in flood])
    found = [beside.take(("t", 0, name), at) for at, name in everything]
    assert [passes for passes, (_, name) in zip(found, everything, strict=True) if name == b"quiet"] == expected


def test_who_keeps_to_the_rate_passes_always_and_a_clock_that_goes_back_takes_nothing_away() -> None:
    bucket = TenantRate(2.0)
    assert all(bucket.take(("t", 0, b"acme"), 500 * number) for number in range(10_000))
    slow = TenantRate(0.001)
    assert [slow.take(("t", 0, b"acme"), at) for at in (1_000_000, 0, 500_000, 1_999_000, 2_001_000)] == [
        True, False, False, False, True,
    ]  # fmt: skip
