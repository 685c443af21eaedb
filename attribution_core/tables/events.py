"""Event tables: one row per touch or conversion of a user, turned into journeys.

Columns ``user``, ``time``, ``channel``, and optionally ``conversion`` (the row is a conversion), ``value`` (currency
units) and ``event_id``. A row with a channel is a touch; a row that is both is a touch and a conversion at the same
time. A conversion of a negative value is a refund: it is taken from the user's conversion before and is none itself.

Invariants: with ``event_id`` the journeys depend on the set of rows, as in the pipeline. Without, the order of rows
decides among those of one user at equal times, and nowhere else; names of channels never decide. At equal times touches
come before conversions. Each conversion ends a journey; its touches are those of the user since the conversion before.
Touches after a user's last conversion are a journey without one, which ends with its last touch and is watched until
the latest time in the table. No value is lost: one without a conversion is refused, a refund without a conversion
before is a row of its own, without touches and without a conversion. Nobody is joined by a user id that names nobody
(``null``, ``(not set)``, see `identity_rules`): a conversion of such a row stands alone, a touch of it is left out.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from attributary.attribution_core.domain.amounts import plain_decimal
from attributary.attribution_core.domain.journeys import JourneyBatch, JourneyError, Outcomes
from attributary.attribution_core.tables.cells import (
    TableError,
    broken_rule,
    cells_of,
    check_columns,
    column_of,
    is_missing,
    names_in,
    quoted,
)
from attributary.attribution_core.tables.paths import JourneyTable, amount_micros
from attributary.attribution_core.tables.table_checks import Users, channel_notes, time_notes
from attributary.attribution_core.tables.times import read_times

NEEDED_OF_EVENTS = ("user", "time", "channel")
_OPTIONAL = ("conversion", "value", "event_id")
_YES = frozenset({"true", "t", "yes", "y"})
_NO = frozenset({"false", "f", "no", "n", ""})
_TOUCH, _CONVERSION, _REFUND = range(3)  # at equal times in this order: a purchase comes before its refund
_Event = tuple[int, int, str, str, int]  # time, kind, event id or row, channel, value in micros


def read_events(columns: Mapping[str, Iterable[Any]], *, lookback_micros: int | None = None) -> JourneyTable:
    """Encode the columns of an event table.

    Args:
        columns: by name; any mapping of columns. ``time``: see `times`. ``conversion``: true, yes, t, y or 1; false,
            no, f, n, 0 or empty. ``event_id`` is compared as text.
        lookback_micros: touches earlier than this before their journey's end do not count; microseconds.

    Raises:
        TableError: when a column is missing or a cell cannot be read, the text names the row; or when all values
            together are more than 64 bits hold.
        ValueError: when `lookback_micros` is negative.
    """
    if lookback_micros is not None and lookback_micros < 0:
        raise ValueError(f"lookback_micros: must not be negative, not {lookback_micros!r}")
    notes = check_columns(columns, "events", NEEDED_OF_EVENTS, _OPTIONAL)
    users = names_in(cells_of(columns, "user"))
    people = Users(users)
    channels = names_in(cells_of(columns, "channel"))
    times = read_times(column_of(columns, "time"))
    flags = _flags(cells_of(columns, "conversion")) if "conversion" in columns else [False] * len(users)
    values = _values(cells_of(columns, "value")) if "value" in columns else [0] * len(users)
    places = _places(columns, len(users))
    if not len(users) == len(channels) == len(times) == len(flags) == len(values) == len(places):
        raise TableError("events: all columns must have the same length")
    _check_channels(channels)
    ids = places if "event_id" in columns else [""] * len(users)
    repeated = len(users) - len(set(zip(users, times, channels, flags, values, ids, strict=True)))
    if repeated:
        notes += (f"rows that say the same as another: {repeated:,}; all of them count",)
    rows = zip(people.names, channels, times, flags, values, places, strict=True)
    slips = (*people.notes, *time_notes(times), *channel_notes(sorted({*channels} - {""})))
    return _encode(_histories(rows), lookback_micros, (*notes, *slips))


def _histories(rows: Iterable[tuple[str | None, str, int, bool, int, str]]) -> dict[str, list[_Event]]:
    """Return the events of each person: rows of user, channel, time, conversion, value and place."""
    histories: dict[str, list[_Event]] = {}
    for row, (user, channel, time, flag, value, place) in enumerate(rows, start=1):
        if user == "":
            raise TableError("user: must not be empty", row=row)
        if value and not flag:
            raise TableError("value: without a conversion", row=row)
        if not channel and not flag:
            raise TableError("neither a channel nor a conversion", row=row)
        if user is None and not flag:
            continue  # a touch of nobody in particular
        history = histories.setdefault(f"\0{row:012d}" if user is None else user, [])
        if channel:
            history.append((time, _TOUCH, place, channel, 0))
        if flag:
            history.append((time, _REFUND if value < 0 else _CONVERSION, place, "", value))
    return histories


def touches_at_equal_times(batch: JourneyBatch) -> int:
    """Return how many touches are at the very time of one of another channel in their journey: not time orders them."""
    if batch.channels.size == 0:
        return 0
    is_first = np.ones(batch.channels.size, dtype=np.bool_)
    is_first[1:] = (np.diff(batch.times) != 0) | (np.diff(batch.journey_of_touch) != 0)
    starts = np.flatnonzero(is_first)
    mixed = np.minimum.reduceat(batch.channels, starts) != np.maximum.reduceat(batch.channels, starts)
    return int(np.diff(np.append(starts, batch.channels.size))[mixed].sum())


def _encode(histories: Mapping[str, list[_Event]], lookback: int | None, notes: tuple[str, ...]) -> JourneyTable:
    journeys: list[list[tuple[int, str, str]]] = []
    ends: list[int] = []
    conversions: list[int] = []
    nulls: list[int] = []
    worth: list[int] = []

    def close(touches: list[tuple[int, str, str]], end: int, value: int, kind: int) -> None:
        journeys.append([touch for touch in touches if lookback is None or end - touch[0] <= lookback])
        ends.append(end)
        conversions.append(int(kind == _CONVERSION))
        nulls.append(int(kind == _TOUCH))
        worth.append(value)

    refunds = 0
    for user in sorted(histories):
        touches: list[tuple[int, str, str]] = []
        converted = -1  # place of the user's last conversion
        for when, kind, place, channel, value in sorted(histories[user]):
            if kind == _TOUCH:
                touches.append((when, place, channel))
            elif kind == _CONVERSION:
                converted = len(journeys)
                close(touches, when, value, kind)
                touches = []
            elif converted >= 0:
                refunds += 1
                worth[converted] += value
            else:
                close([], when, value, kind)
        if touches:
            close(touches, touches[-1][0], 0, _TOUCH)
    latest = max((when for history in histories.values() for when, *_ in history), default=0)
    outcomes = _outcomes(conversions, nulls, worth)
    batch = JourneyBatch.of(journeys, ends)
    watched_until = np.where(outcomes.nulls > 0, np.int64(latest), batch.converted_at)
    unmatched = len(journeys) - sum(conversions) - sum(nulls)
    if refunds:
        notes += (f"refunds: {refunds:,}, taken from the conversion before",)
    if unmatched:
        notes += (f"refunds without a conversion before: {unmatched:,}; their value stays unattributed",)
    return JourneyTable(batch, outcomes, watched_until, notes, lookback)


def _outcomes(conversions: list[int], nulls: list[int], worth: list[int]) -> Outcomes:
    try:
        return Outcomes(*(np.array(counts, dtype=np.int64) for counts in (conversions, nulls, worth)))
    except (JourneyError, OverflowError) as error:
        raise TableError(f"events: {error}") from error


def _check_channels(channels: list[str]) -> None:
    broken = {name for name in set(channels) if name and broken_rule(name)}
    if broken:
        row, name = next((row, name) for row, name in enumerate(channels, start=1) if name in broken)
        raise TableError(f"channel: {broken_rule(name)}", row=row)


def _values(cells: list[Any]) -> list[int]:
    """Return values in micros; most rows of events have none, and are passed over."""
    return [
        0 if cell is None or (isinstance(cell, str) and not cell) else amount_micros(cell, "value", row)
        for row, cell in enumerate(cells, start=1)
    ]


def _places(columns: Mapping[str, Iterable[Any]], rows: int) -> list[str]:
    """Return what orders the rows at equal times: their event id, or else as they stand."""
    if "event_id" not in columns:
        return [f"{row:012d}" for row in range(rows)]
    places = names_in(cells_of(columns, "event_id"))
    if "" in places:
        raise TableError("event_id: must not be empty", row=places.index("") + 1)
    return places


def _flags(cells: list[Any]) -> list[bool]:
    """Return which rows are conversions; the cells of a column have few forms, each is read once."""
    try:
        known = {cell: _flag(cell) for cell in set(cells)}
        found = [known[cell] for cell in cells]
    except TypeError:  # a cell that cannot be looked up, such as a list
        found = [_flag(cell) for cell in cells]
    flags = [flag for flag in found if flag is not None]
    if len(flags) < len(found):
        row = found.index(None) + 1
        raise TableError(
            f"conversion: {quoted(cells[row - 1])} is neither yes nor no: "
            "true, yes, t, y, 1; false, no, f, n, 0, empty",
            row=row,
        )
    return flags


def _flag(cell: Any) -> bool | None:
    if is_missing(cell):
        return False
    text = str(cell).strip().lower()
    if text in _YES or text in _NO:
        return text in _YES
    try:
        number = plain_decimal(text)
    except ValueError:
        return None
    return bool(number) if number in (0, 1) else None
