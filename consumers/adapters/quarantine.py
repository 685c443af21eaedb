"""Finding the records of a batch that Postgres refuses, by bisection.

Invariant: the rest of the batch is accepted as a whole, and each rejected record was refused beside accepted records
alone. So every record ends as stored or as a dead letter, also one that is refused only beside certain others.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from attributary.consumers.runtime.errors import Fatal
from attributary.consumers.runtime.records import DeadLetter, Record
from attributary.consumers.store.events.rejected_values import rejection

# More refusals in one batch are a fault of the tables or of ours, not of the records; and each costs a dozen trials.
MAX_REJECTED = 100


class TrialDoneError(Exception):
    """Rolls the transaction of a trial back."""


def bisect_rejected(
    records: Sequence[Record], trial: Callable[[Sequence[Record]], Exception | None]
) -> list[DeadLetter]:
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
            field, rule = rejection(error)
            letters.append(DeadLetter(part[0], "store", field, f"{field}: {rule}" if field else f"a value {rule}"))
            if len(letters) > MAX_REJECTED:
                first = letters[0]
                raise Fatal(
                    f"Postgres refuses more than {MAX_REJECTED} of {len(records)} records; nothing was written. "
                    f"First: {first.record.place}: {first.reason}. Such a rule is most likely the tables' own."
                )
    return letters
