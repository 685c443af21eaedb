"""Finding the records of a batch that Postgres refuses, whatever for, by trying.

Invariant: what is left of the batch was accepted as a whole, and every culprit was refused beside accepted records
alone. So a batch ends with each record stored or a dead letter, also where one is refused only for what it meets there.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from attributary.consumers.runtime.errors import Fatal
from attributary.consumers.runtime.records import DeadLetter, Record
from attributary.consumers.store.events.rejected_values import refusal

# More refusals in one batch are a fault of the tables or of ours, not of the records; and each costs a dozen trials.
MOST_CULPRITS = 100


class TrialDoneError(Exception):
    """Rolls the transaction of a trial back."""


def sift(records: Sequence[Record], trial: Callable[[Sequence[Record]], Exception | None]) -> list[DeadLetter]:
    """Return dead letters for the records of a batch that cannot be stored.

    Args:
        records: the batch, in its order.
        trial: whether records can be stored, all together: what Postgres says against it, or None. It stores nothing.

    Raises:
        Fatal: too many of them; nothing was written.
    """
    accepted: list[Record] = []
    letters: list[DeadLetter] = []
    parts = [list(records)]
    while parts:
        part = parts.pop()
        error = trial([*accepted, *part])
        if error is None:
            accepted += part
        elif len(part) > 1:
            middle = len(part) // 2
            parts += [part[middle:], part[:middle]]  # the first half is tried first
        else:
            field, rule = refusal(error)
            letters.append(DeadLetter(part[0], "store", field, f"{field}: {rule}" if field else f"a value {rule}"))
            if len(letters) > MOST_CULPRITS:
                first = letters[0]
                raise Fatal(
                    f"Postgres refuses more than {MOST_CULPRITS} of {len(records)} records; nothing was written. "
                    f"First: {first.record.place}: {first.reason}. Such a rule is most likely the tables' own."
                )
    return letters
