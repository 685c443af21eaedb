"""The days of a report over spend: whole days, in one time zone."""

from __future__ import annotations

import time
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING, NamedTuple
from zoneinfo import ZoneInfo

import typer

from attributary.cli.times import time_option

if TYPE_CHECKING:
    import psycopg

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROS = timedelta(microseconds=1)


class Days(NamedTuple):
    """A period of whole days: from (included), to (excluded), in the zone in which they begin."""

    first: date
    end: date
    zone: str

    @property
    def micros(self) -> tuple[int, int]:
        """The period in microseconds UTC."""
        midnights = (datetime(day.year, day.month, day.day, tzinfo=ZoneInfo(self.zone)) for day in self[:2])
        start, end = ((midnight - _EPOCH) // _MICROS for midnight in midnights)
        return start, end


def days_option(since: str, until: str, zone: str) -> Days:
    """Return the days of ``--from`` (included) and ``--to`` (excluded); a moment stands for its day in the zone.

    Raises:
        typer.BadParameter: one is no time, or there is no day between them.
    """
    first, end = (_day(text, option, zone) for text, option in ((since, "--from"), (until, "--to")))
    if first >= end:
        raise typer.BadParameter(f"{until} must be a later day than --from {since}", param_hint="--to")
    return Days(first, end, zone)


def _day(text: str, option: str, zone: str) -> date:
    micros = time_option(text, option)
    if text.strip() in {"end", "now"}:  # today is in it
        return datetime.fromtimestamp(time.time(), ZoneInfo(zone)).date() + timedelta(days=1)
    moment = _EPOCH + micros * _MICROS
    is_date = moment.time() == datetime.min.time()
    return moment.date() if is_date else moment.astimezone(ZoneInfo(zone)).date()


def tenant_zone(connection: psycopg.Connection, tenant_id: str) -> str:
    """Return the zone in which a tenant's days begin."""
    from attributary.consumers.store.tenants import fetch_tenant

    found = fetch_tenant(connection, tenant_id)
    return "UTC" if found is None else found.time_zone
