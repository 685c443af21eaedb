"""Options that hold a time: one grammar for all commands (`attribution_core/domain/time_grammar.py`)."""

from __future__ import annotations

import time

import typer

from attributary.attribution_core.domain.time_grammar import END, LocalTime, TimeError, parse_local, parse_time

SINCE_HELP = "At or after this time: 2026-11-01, 30d, yesterday, ... (docs/reference/times.md)."
LOCAL_SINCE_HELP = "At or after this time: 2026-11-01, 30d, ...; days are the tenant's (docs/reference/times.md)."
LOCAL_UNTIL_HELP = "Before this time: 2026-12-01, today, ...; days are the tenant's (docs/reference/times.md)."
UNTIL_HELP = "Before this time: 2026-12-01, 1d, today, ... (docs/reference/times.md)."


def time_option(text: str, option: str) -> int:
    """Return the microseconds UTC that an option names: 0 for ``beginning``, `END` for ``end``.

    Raises:
        typer.BadParameter: it is no time; names the option, the value and the grammar.
    """
    try:
        return parse_time(text, time.time_ns() // 1_000)
    except TimeError as error:
        raise typer.BadParameter(str(error), param_hint=option) from None


def local_time_option(text: str, option: str) -> LocalTime:
    """Return a time that an option names, of which the days are those of a time zone that is read later.

    Raises:
        typer.BadParameter: it is no time.
    """
    try:
        return parse_local(text, time.time_ns() // 1_000)
    except TimeError as error:
        raise typer.BadParameter(str(error), param_hint=option) from None


def optional_time(text: str | None, option: str) -> int | None:
    """Return the microseconds UTC that an option names; None where it is not given, or where it sets no bound.

    Raises:
        typer.BadParameter: it is no time.
    """
    micros = None if text is None else time_option(text, option)
    return None if micros in (0, END) else micros


def period_options(since: str, until: str) -> tuple[int, int]:
    """Return the period of ``--from`` (included) and ``--to`` (excluded), microseconds UTC.

    Raises:
        typer.BadParameter: one is no time, or the period is empty.
    """
    start, end = time_option(since, "--from"), time_option(until, "--to")
    if start >= end:
        raise typer.BadParameter(f"{until} must be later than --from {since}", param_hint="--to")
    return start, end


def log_time(text: str, option: str) -> int | None:
    """Return where a topic is read from, milliseconds UTC: 0 its beginning, None its end.

    Raises:
        typer.BadParameter: it is no time.
    """
    micros = time_option(text, option)
    return None if micros == END else micros // 1_000
