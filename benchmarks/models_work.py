"""The journeys that the models are measured on, drawn once and kept as files, so that every side reads the same ones.

Lengths are geometric with a mean of five touches, the k-th channel is drawn in proportion to 1 / k, and the chance of
a conversion depends on the last channel. One row is one journey. The reader of `Work` holds its arrays alone:
no temporaries of the drawing are in its memory.
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Self

import numpy as np

from attributary.attribution_core.domain.journeys import ChannelIndex, Codes, Flags, Ints, JourneyBatch, Outcomes
from attributary.attribution_core.tables.paths import SEPARATOR

_SEED = 7
_MEAN_TOUCHES, _MOST_TOUCHES = 5, 100
_CONVERSION = (0.05, 0.35)  # least and greatest chance, by the last channel
_ARRAYS = ("channels", "offsets", "converted")
_HOUR = 3_600_000_000


@dataclass(frozen=True, eq=False)
class Work:
    """Journeys over `size` channels, encoded.

    Attributes:
        channels: int32[m], channel of each touch.
        offsets: int64[n + 1], first touch of each journey.
        converted: bool[n].
        size: number of channels.
    """

    channels: Codes
    offsets: Ints
    converted: Flags
    size: int

    @classmethod
    def draw(cls, journeys: int, size: int) -> Self:
        """Draw journeys; the same arguments give the same journeys."""
        rng = np.random.default_rng((_SEED, journeys, size))
        lengths = np.minimum(rng.geometric(1 / _MEAN_TOUCHES, journeys), _MOST_TOUCHES)
        offsets = np.concatenate(([0], np.cumsum(lengths))).astype(np.int64)
        popularity = 1 / np.arange(1, size + 1)
        channels = rng.choice(size, int(offsets[-1]), p=popularity / popularity.sum()).astype(np.int32)
        chance = rng.uniform(*_CONVERSION, size)
        converted = rng.random(journeys) < chance[channels[offsets[1:] - 1]]
        converted[:1], converted[-1:] = False, True  # some of both, however few they are
        return cls(channels, offsets, converted, size)

    @classmethod
    def read(cls, folder: Path) -> Self:
        """Read what `write` wrote."""
        channels, offsets, converted = (np.load(folder / f"{name}.npy") for name in _ARRAYS)
        return cls(channels, offsets, converted, int((folder / "size.txt").read_text(encoding="utf-8")))

    def write(self, folder: Path) -> None:
        """Keep the arrays, and the same journeys as a path a line."""
        folder.mkdir(parents=True, exist_ok=True)
        for name in _ARRAYS:
            np.save(folder / f"{name}.npy", getattr(self, name))
        (folder / "size.txt").write_text(str(self.size), encoding="utf-8")
        names = self.index.names
        touches = [names[code] for code in self.channels.tolist()]
        bounds = self.offsets.tolist()
        with (folder / "paths.txt").open("w", encoding="utf-8") as file:
            for low, high in pairwise(bounds):
                file.write(SEPARATOR.join(touches[low:high]) + "\n")

    @property
    def index(self) -> ChannelIndex:
        """Names of the channels."""
        return ChannelIndex.of(f"channel_{number:03}" for number in range(self.size))

    @property
    def outcomes(self) -> Outcomes:
        """How the journeys ended."""
        return Outcomes.of(self.converted, np.zeros(self.converted.size, dtype=np.int64))

    def batch(self) -> JourneyBatch:
        """The journeys for the models that need times: a touch every hour, the end an hour after the last."""
        lengths = np.diff(self.offsets)
        places = np.arange(self.channels.size, dtype=np.int64) - np.repeat(self.offsets[:-1], lengths)
        return JourneyBatch(
            offsets=self.offsets,
            channels=self.channels,
            times=places * _HOUR,
            converted_at=lengths * _HOUR,
            direct=self.channels == 0,
            index=self.index,
        )


if __name__ == "__main__":
    wanted = json.loads(sys.argv[1])
    Work.draw(wanted["journeys"], wanted["channels"]).write(Path(wanted["folder"]))
    sys.stdout.write("{}\n")
