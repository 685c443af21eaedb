"""The contributions of a batch laid out as arrays: a line for each touchpoint, and one for what no touchpoint gets."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .batch_sums import integers


class Layout:
    """Lines of contributions, one after the other in the order of the journey, the rest behind the touchpoints.

    Attributes:
        shared: of each contribution: number of tenant, type and currency.
        day: of the conversion.
        late: days from then until it was first reported.
        touches: how many touchpoints it has.
        start: its first line.
        length: how many lines it has.
        has: whether it has each slot's model.
        contribution: of each line: its contribution.
        place: in the journey, from 0.
        is_rest: it is what no touchpoint gets.
        facts: number of the touchpoint's names.
        line_day: day of the touchpoint.
        parts: billionths by slot.
        micros: by slot.
        slot: of each model of each contribution: its slot.
        of_model: its contribution.

    Args:
        heads: shared, day, late and touches of each contribution.
        lines: facts and days, line by line.
        models: how many each contribution has.
        slots: their slots.
        numbers: billionths and micros: by contribution, model and line.
        width: how many slots there are.
    """

    def __init__(
        self,
        heads: Sequence[tuple[int, int, int, int]],
        lines: tuple[Sequence[int], Sequence[int]],
        models: Sequence[int],
        slots: Sequence[int],
        numbers: tuple[Sequence[int], Sequence[int]],
        width: int,
    ) -> None:
        self.shared, self.day, self.late, self.touches = integers(heads).reshape(-1, 4).T
        self.facts, self.line_day = integers(lines[0]), integers(lines[1])
        self.length = self.touches + 1
        self.start = np.cumsum(self.length) - self.length
        self.contribution = np.repeat(np.arange(len(heads)), self.length)
        self.place = np.arange(len(self.facts)) - self.start[self.contribution]
        self.is_rest = self.place == self.touches[self.contribution]
        self.slot, self.of_model = integers(slots), np.repeat(np.arange(len(heads)), integers(models))
        size = self.length[self.of_model]
        model = np.repeat(np.arange(len(size)), size)
        line = np.arange(len(model)) - np.repeat(np.cumsum(size) - size, size) + self.start[self.of_model[model]]
        self.parts = np.zeros((len(self.facts), width), np.int64)
        self.micros = np.zeros((len(self.facts), width), np.int64)
        self.parts[line, self.slot[model]] = integers(numbers[0])
        self.micros[line, self.slot[model]] = integers(numbers[1])
        self.has = np.zeros((len(heads), width), np.int64)
        self.has[self.of_model, self.slot] = 1
