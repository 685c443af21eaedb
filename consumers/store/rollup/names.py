"""What journeys give channels, platforms and campaigns: the part of a batch's sums that is by name.

Invariants: a name counts once for a journey, however often it is in it; so its lines are added up within each
contribution first. What no touchpoint gets has a line of its own, also where a channel bears the same name.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from .batch_sums import Codes, Integers, Rows, Texts, grouped, hashes, integers, numerals, ranges, summed

if TYPE_CHECKING:
    from .layout import Layout

GRAINS = ("channel", "platform", "campaign")
NAME_SUMS = (
    "credit_billionths", "value_micros", "journeys", "squares", "touches", "early_billionths", "early_micros",
    "early_touches", "late_billionths", "late_micros", "late_touches",
)  # fmt: skip
ASSISTS = 4  # touched, assisted, closed, only
_TO_MILLIONTHS = 1_000
_MOST_MILLIONTHS = 10_000_000  # of one credit in a square: an absurd one is squared as ten conversions


class Names:
    """The sums of each contribution by name: one row a contribution, grain and name.

    Args:
        layout: of the batch.
        shared: what contributions share: tenant, type, currency.
        facts: of touchpoints: channel, platform, campaign id, campaign, campaign's name.
    """

    def __init__(self, layout: Layout, shared: Codes, facts: Codes) -> None:
        self._layout, self._shared, names = layout, shared, Codes()
        by_grain = [integers([names[each[place]] for each in facts])[layout.facts] for place in (0, 1, 4)]
        self._texts = Texts([(name,) for name in names])
        total = len(layout.facts)
        line = np.tile(np.arange(total), len(GRAINS))
        keys = (
            layout.contribution[line], np.repeat(np.arange(len(GRAINS)), total), np.concatenate(by_grain),
            layout.is_rest[line].astype(np.int64),
        )  # fmt: skip
        order, starts = grouped(*keys)
        line, first = line[order], order[starts]
        self.contribution, self.grain, self.name = keys[0][first], keys[1][first], keys[2][first]
        is_rest = keys[3][first].astype(bool)
        place, count = layout.place[line], layout.touches[layout.contribution[line]]
        late = (place >= count - -(-count // 4)) & (place < count)
        early = (count > 1) & (place < (count + 2) // 4) & ~late
        is_last = place == count - 1
        flags = np.stack([np.ones(len(line), np.int64), early, late, is_last], axis=1).astype(np.int64)
        many = summed(flags, starts)
        parts, micros = layout.parts[line], layout.micros[line]
        credit, value = summed(parts, starts), summed(micros, starts)
        early_credit, early_value = _of_some(parts, micros, early, starts)
        late_credit, late_value = _of_some(parts, micros, late, starts)
        has = layout.has[self.contribution]
        touches = np.where(is_rest[:, None], 0, has)
        journeys = np.where(is_rest[:, None], has * ((credit != 0) | (value != 0)), has)
        millionths = np.clip(credit // _TO_MILLIONTHS, -_MOST_MILLIONTHS, _MOST_MILLIONTHS)
        closed, named = many[:, 3], (~is_rest).astype(np.int64)
        assists = np.stack([named, named * (many[:, 0] > closed), named * closed, named * (1 - closed)], axis=1)
        self._credit, self._value = credit, value
        self._sums = np.concatenate(
            (credit, value, journeys, millionths**2, touches * many[:, :1], early_credit, early_value,
             touches * many[:, 1:2], late_credit, late_value, touches * many[:, 2:3], assists),
            axis=1,
        )  # fmt: skip
        contributions = np.arange(len(layout.start))
        self._start = np.searchsorted(self.contribution, contributions)
        self._length = np.searchsorted(self.contribution, contributions, side="right") - self._start

    def rows(self, kept: Integers) -> Rows:
        """Return what names change by.

        Args:
            kept: contributions and their weights.
        """
        of, weight = kept
        row = ranges(self._start[of], self._length[of])
        weights = np.repeat(weight, self._length[of])
        keys = self._keys(row)
        order, starts = grouped(*keys)
        sums = summed(self._sums[row[order]] * weights[order, None], starts)
        there = np.flatnonzero(sums.any(axis=1))
        first = order[starts][there]
        width = self._credit.shape[1]
        columns = {name: sums[there, place * width : (place + 1) * width] for place, name in enumerate(NAME_SUMS)}
        return self._named([key[first] for key in keys], {**columns, "assists": sums[there, -ASSISTS:]})

    def restatements(self, changes: Integers, steps: Sequence[bool], reasons: Sequence[str]) -> Rows:
        """Return by what and why names change.

        Args:
            changes: contribution, weight, new or not, reported day, reason and step of each.
            steps: whether each is a version.
            reasons: by number.
        """
        is_step = integers(steps).astype(bool)
        of, weight, _, reported, reason, step = changes
        length = self._length[of]
        row, by = ranges(self._start[of], length), np.repeat(np.arange(len(of)), length)
        keys = (*self._keys(row), reported[by], reason[by])
        # A version counts once for a name that stands in it or stood in the one before it.
        order, starts = grouped(step[by], *keys[:4])
        versions = np.zeros((len(row), 1), np.int64)
        versions[order[starts], 0] = is_step[step[by[order[starts]]]]
        sums = np.concatenate((self._credit[row], self._value[row]), axis=1) * weight[by, None]
        order, starts = grouped(*keys)
        sums = summed(np.concatenate((sums, versions), axis=1)[order], starts)
        there = np.flatnonzero(sums.any(axis=1))
        first = order[starts][there]
        width = self._credit.shape[1]
        return self._named(
            [key[first] for key in keys[:4]],
            {"credit_billionths": sums[there, :width], "value_micros": sums[there, width:-1],
             "versions": sums[there, -1]},
            (reported[by[first]], Texts([(each,) for each in reasons]), reason[by[first]]),
        )  # fmt: skip

    def _keys(self, row: Integers) -> tuple[Integers, Integers, Integers, Integers]:
        of = self.contribution[row]
        return self._layout.shared[of], self._layout.day[of], self.grain[row], self.name[row]

    def _named(
        self,
        keys: Sequence[Integers],
        sums: dict[str, Integers],
        change: tuple[Integers, Texts, Integers] | None = None,
    ) -> Rows:
        shared, day, grain, name = keys
        texts, grains = Texts(list(self._shared), begin=1), Texts([(each,) for each in GRAINS])
        pieces = [texts.pieces(shared), grains.pieces(grain), numerals(day), self._texts.pieces(name)]
        columns = {
            "grain": grains.column(grain, 0), "day": day.tolist(), "conversion_type": texts.column(shared, 1),
            "currency": texts.column(shared, 2), "name": self._texts.column(name, 0),
        }  # fmt: skip
        if change is not None:
            reported, reasons, reason = change
            pieces += [numerals(reported), reasons.pieces(reason)]
            columns |= {"reported_day": reported.tolist(), "reason": reasons.column(reason, 0)}
        return Rows(texts.column(shared, 0), hashes(*pieces), columns, sums)


def _of_some(
    parts: Integers, micros: Integers, chosen: npt.NDArray[np.bool_], starts: Integers
) -> tuple[Integers, Integers]:
    return summed(parts * chosen[:, None], starts), summed(micros * chosen[:, None], starts)
