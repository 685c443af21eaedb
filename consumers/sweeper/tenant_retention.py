"""Retention by tenant, done by the sweeper: a second of work in each turn, a transaction a page.

Invariant: conversions go before the touchpoints that they rest on, and nothing goes before every stitcher sees its
boundary (``store.retention``). How far a tenant has come stands in Postgres, written with each page: a sweeper that is
killed, or another one, goes on there.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import NamedTuple

import structlog

from attributary.attribution_core.domain.lookback import LookbackPolicy
from attributary.consumers.adapters.error_mapping import map_errors
from attributary.consumers.adapters.retention_settings import RetentionLimits
from attributary.consumers.runtime.crash_points import crash_at, register_points
from attributary.consumers.runtime.settings import load
from attributary.consumers.store.events.policies import fetch_policies
from attributary.consumers.store.retention.boundaries import (
    Boundaries,
    Step,
    all_progress,
    next_tenant,
    note_seen,
    raise_boundaries,
    store_progress,
)
from attributary.consumers.store.retention.conversions import oldest_living, retire_page
from attributary.consumers.store.retention.events import remove_links, remove_touchpoints
from attributary.consumers.store.session import StoreSession
from attributary.consumers.store.tenants import Tenant, tenants_with_settings

from . import metrics

register_points("retention_in_page", "retention_after_page")

_log = structlog.get_logger()

_DAY_US = 86_400_000_000
_TURN_SECONDS = 1.0  # of the five between two sweeps
_LOOK_SECONDS = 600.0  # boundaries are of days
_CONVERSIONS, _TOUCHPOINTS, _IDS = 500, 2_000, 1_000  # a page takes some hundredths of a second


class Removed(NamedTuple):
    """What went."""

    conversions: int = 0
    touchpoints: int = 0
    links: int = 0


def boundaries_of(tenant: Tenant, window_us: int, now_us: int) -> Boundaries:
    """Return the boundaries that a tenant's settings ask for: whole days UTC.

    Touchpoints go only behind conversions, by the longest window: what a stored conversion may credit stays.

    Args:
        tenant: its settings.
        window_us: no window of any policy is longer, microseconds.
        now_us: the time, microseconds UTC.
    """

    def before(days: int | None) -> int:
        return 0 if days is None else max(0, (now_us - days * _DAY_US) // _DAY_US * _DAY_US)

    conversions = before(tenant.conversions_kept_days)
    touchpoints = min(before(tenant.touchpoints_kept_days), max(0, conversions - window_us))
    return Boundaries(tenant.tenant_id, conversions, touchpoints, min(before(tenant.links_kept_days), touchpoints))


class TenantRetention:
    """Removes what tenants keep no longer.

    Args:
        policy: the lookback policy in force.
        session: Postgres.
        clock: the time, microseconds UTC.
    """

    def __init__(
        self,
        policy: LookbackPolicy,
        session: StoreSession,
        clock: Callable[[], int] = lambda: time.time_ns() // 1_000,
    ) -> None:
        self._policy = policy
        self._session = session
        self._clock = clock
        self._limits = load(RetentionLimits)
        self._look_at = 0.0  # monotonic seconds
        self._window_us = policy.longest_window_micros
        self._widths: dict[str, int] = {}  # of the next slice of time, by tenant; only for speed

    def turn(self) -> Removed:
        """Work for a second at most; return what went.

        Raises:
            Retry: Postgres is away.
        """
        started = time.monotonic()
        if started >= self._look_at:
            self._raise()
            self._look_at = started + _LOOK_SECONDS
        done = Removed()
        while time.monotonic() - started < _TURN_SECONDS:
            page = self._page()
            if page is None:
                break
            done = Removed(*(sum(pair) for pair in zip(done, page, strict=True)))
        metrics.conversions_retired.inc(done.conversions)
        metrics.touchpoints_removed.inc(done.touchpoints)
        metrics.links_removed.inc(done.links)
        if any(done):
            _log.info("kept no longer", **done._asdict())
        return done

    def _raise(self) -> None:
        """Raise boundaries, in a transaction of its own."""
        now_us = self._clock()
        with map_errors(), self._session.transaction() as connection:
            tenants = tenants_with_settings(connection)
            pinned = fetch_policies(connection)
            self._window_us = max(each.longest_window_micros for each in (self._policy, *pinned.values()))
            least = self._limits.least_days(self._policy)
            refused = [each.tenant_id for each in tenants if _is_too_short(each, least)]
            for tenant in tenants:
                if tenant.tenant_id not in refused:
                    raise_boundaries(connection, boundaries_of(tenant, self._window_us, now_us))
            waiting = [each.seconds_since_raised for each in all_progress(connection) if each.step != "done"]
        with map_errors(), self._session.transaction() as connection:
            note_seen(connection)
        metrics.retention_refused_tenants.set(len(refused))
        metrics.retention_behind_seconds.set(max(waiting, default=0.0))
        if refused:
            _log.error("tenants keep too little: nothing of them goes; see attributary tenants show", tenants=refused)

    def _page(self) -> Removed | None:
        """Remove one page of the tenant that waited longest; None: nobody has anything left."""
        with map_errors(), self._session.transaction() as connection:
            tenant = next_tenant(connection)
            if tenant is None:
                return None
            removed = Removed()
            place: tuple[Step, int, str]
            if tenant.step == "conversions":
                after = (tenant.after_us, tenant.after_id)
                page = retire_page(connection, tenant.tenant_id, tenant.conversions_before, after, _CONVERSIONS)
                removed = Removed(conversions=page.retired)
                place = ("touchpoints", 0, "") if page.last is None else ("conversions", *page.last)
            elif tenant.step == "touchpoints":
                living = oldest_living(connection, tenant.tenant_id)
                before = tenant.touchpoints_before
                if living is not None:
                    before = min(before, living - self._window_us)
                width = self._widths.get(tenant.tenant_id, 0)
                after = (tenant.after_us, tenant.after_id)
                part = remove_touchpoints(connection, tenant.tenant_id, before, after, width, _TOUCHPOINTS)
                self._widths[tenant.tenant_id] = part.width_us
                removed = Removed(touchpoints=part.removed)
                place = ("links", 0, "") if part.after is None else ("touchpoints", *part.after)
            else:
                count, last = remove_links(connection, tenant.tenant_id, tenant.links_before, tenant.after_id, _IDS)
                removed, place = Removed(links=count), ("done", 0, "") if last is None else ("links", 0, last)
            store_progress(connection, tenant.tenant_id, place, removed)
            crash_at("retention_in_page")
        crash_at("retention_after_page")
        return removed


def _is_too_short(tenant: Tenant, least: dict[str, int]) -> bool:
    kept = {name: getattr(tenant, name) for name in least}
    return any(days is not None and days < least[name] for name, days in kept.items())
