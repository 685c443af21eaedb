"""Limits of names: the most frequent channels, platforms and campaigns of a tenant; the others are one, "(other)".

Memory of a training grows with the square of the number of channels, time of its intervals with the cube. So a training
or an analysis knows at most `MAX_CHANNELS` channels.

Invariant: the choice is a function of the stored touchpoints of the tenant alone, not of the window, so two versions of
a tenant pool alike while its ranks stay. Lookback windows are those of the original channel.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import psycopg

from attributary.attribution_core.domain.journeys import DIRECT
from attributary.attribution_core.domain.limits import LimitError
from attributary.attribution_core.statistics.state import JourneyState
from attributary.consumers.store.models.timelines import count_names

MAX_CHANNELS = 500
"""Channels of a tenant in a training or an analysis, "(other)" included: 64 posterior draws of as many take seconds."""
MAX_GROUPS = 2_000
"""Platforms, and campaigns, that an analysis tells apart, "(other)" included."""
OTHER = "(other)"
_MAX_SETS = 400_000
_MAX_CELLS = 32_000_000  # int64: 256 MB


class TooLargeError(LimitError):
    """Statistics that would take more memory than a trainer has; the text says how to make them smaller."""


@dataclass(frozen=True, slots=True)
class NameLimit:
    """The names that stay.

    Attributes:
        kept: names that stay; None: all.
        pooled: number of the other names.
    """

    kept: frozenset[str] | None = None
    pooled: int = 0

    def names(self, originals: Sequence[str]) -> list[str]:
        """Return names with "(other)" in place of the pooled ones."""
        kept = self.kept
        return list(originals) if kept is None else [name if name in kept else OTHER for name in originals]


NO_LIMIT = NameLimit()


def check_sets(state: JourneyState) -> JourneyState:
    """Return a state that is small enough to go on.

    Raises:
        TooLargeError: it has too many distinct sets of channels.
    """
    if len(state.sets) > _MAX_SETS:
        raise TooLargeError(
            f"the journeys have more than {_MAX_SETS:,} distinct sets of channels; choose a shorter window (from, to)"
        )
    return state


def check_cells(channels: Iterable[int]) -> None:
    """Check the memory of statistics by day.

    Args:
        channels: number of channels of each day and currency.

    Raises:
        TooLargeError: the steps between them take too much memory.
    """
    if sum(number * number for number in channels) > _MAX_CELLS:
        raise TooLargeError(
            "too many channels on too many days for a half-life; choose a shorter window (from, to) or no half-life"
        )


def channel_limit(connection: psycopg.Connection, tenant_id: str) -> NameLimit:
    """Return the channels of a tenant that a training tells apart: the most frequent ones, and direct.

    Args:
        connection: in a snapshot.
        tenant_id: the tenant.
    """
    return _limit(connection, tenant_id, "channel", MAX_CHANNELS, frozenset({DIRECT}))


def group_limit(connection: psycopg.Connection, tenant_id: str, group: Literal["platform", "campaign"]) -> NameLimit:
    """Return the platforms or campaigns of a tenant that an analysis tells apart: the most frequent ones.

    Args:
        connection: in a snapshot.
        tenant_id: the tenant.
        group: which names.
    """
    return _limit(connection, tenant_id, group, MAX_GROUPS, frozenset({""}))


def _limit(
    connection: psycopg.Connection,
    tenant_id: str,
    column: Literal["channel", "platform", "campaign"],
    max_names: int,
    always: frozenset[str],
) -> NameLimit:
    ranked, distinct = count_names(connection, tenant_id, column, max_names)
    if distinct <= max_names:
        return NO_LIMIT
    others = [name for name in ranked if name not in always][: max_names - 1 - len(always)]
    return NameLimit(always.union(others), distinct - len(others) - len(always.intersection(ranked)))
