"""Why conversions get a version, and which are left to the sweeper: pure over the transaction port.

Invariant: each conversion for which a move, a displaced content or a touchpoint of the batch may count is a cause here,
or its person is put off, so that the sweeper raises it. No person adds more conversions to a batch than
``Limits.reopened`` says, however many it holds.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from itertools import groupby
from operator import attrgetter

from attributary.consumers.store.events.reopenings import PutOff
from attributary.consumers.store.events.rows import EventRow, IdentityMove, Key, Place, Raise, TouchpointRow

from .limits import Limits, all_later, later
from .policies import Policies
from .transaction import BatchTooCostlyError, Transaction

# The strongest reason is the one that is told.
_RANK = {"new": 0, "refund": 1, "restated": 2, "identity": 3, "late_touchpoint": 4}


def arrival(event: EventRow) -> tuple[int, str, int, int]:
    """Return the event's place in the log, to compare by."""
    return event.received_at, event.topic, event.partition, event.offset


class Causes:
    """Why conversions get a version: the strongest reason, and the last new event among the causes.

    Args:
        transaction: opened for the batch's events.
        limits: what the batch may cost; further conversions are put off, or the batch is cut.
    """

    def __init__(self, transaction: Transaction, limits: Limits) -> None:
        self._transaction = transaction
        self._limits = limits
        self._found: dict[Key, tuple[str, EventRow]] = {}
        self._people: dict[Key, PutOff] = {}
        self.touchpoints_put_off = 0
        self.changes_put_off = 0
        self.too_late = 0

    def add(self, conversion: Key, reason: str, event: EventRow) -> None:
        """Take in a cause of a conversion's next version."""
        known = self._found.get(conversion)
        if known is not None:
            reason = min(reason, known[0], key=_RANK.__getitem__)
            event = max(event, known[1], key=arrival)
        self._found[conversion] = (reason, event)

    def conversions(self) -> set[Key]:
        """Return the conversions that get a version in this batch."""
        return set(self._found)

    def raises(self) -> list[Raise]:
        """Return the versions to raise."""
        return [
            Raise(*conversion, reason, Place(event.topic, event.partition, event.offset), event.received_at)
            for conversion, (reason, event) in self._found.items()
        ]

    def store_put_off(self) -> None:
        """Note the people that are put off; before conversions are locked."""
        self._transaction.put_off(list(self._people.values()))

    def moves_put_off(self, moves: Sequence[IdentityMove]) -> list[IdentityMove]:
        """Return the moves that take conversions along which are no causes of this batch."""
        return [move for move in moves if (move.tenant_id, move.old_key) in self._people]

    def by_moves(self, moves: Sequence[IdentityMove], fresh_rows: Sequence[EventRow]) -> None:
        """Take in that anonymous ids moved: conversions of the people they left and of those they joined.

        Who is joined from a person that is put off is put off, too: the conversions that move are raised there.

        Raises:
            BatchTooCostlyError: more than the limits allow.
        """
        if not moves:
            return
        last = max(fresh_rows, key=arrival)
        people = {(move.tenant_id, key) for move in moves for key in (move.old_key, move.new_key)}
        hot = self._hot(people)
        while (
            joined := {(move.tenant_id, move.new_key) for move in moves if (move.tenant_id, move.old_key) in hot}
            - hot.keys()
        ):
            hot |= dict.fromkeys(joined, self._limits.reopened + 1)
        self.changes_put_off += sum((move.tenant_id, move.new_key) in hot for move in moves)
        for (tenant, key), conversions in hot.items():
            number = sum(tenant == move.tenant_id and key in {move.old_key, move.new_key} for move in moves)
            self._put_off(all_later((tenant, key), "identity", last.received_at, number, conversions))
        for conversion in self._transaction.conversions_of_people(people - hot.keys()):
            self.add(conversion, "identity", last)

    def by_displacement(self, displaced: Sequence[tuple[Key, EventRow]]) -> None:
        """Take in contents that gave way: a touchpoint may have counted where the new content does not.

        Raises:
            BatchTooCostlyError: more than the limits allow.
        """
        if not displaced:
            return
        owners = self._transaction.owners_of({identity for identity, _ in displaced})
        last: dict[Key, EventRow] = {}
        for identity, row in displaced:
            last[owners[identity]] = max(row, last.get(owners[identity], row), key=arrival)
        hot = self._hot(last)
        for person, conversions in hot.items():
            number = sum(owners[identity] == person for identity, _ in displaced)
            self.changes_put_off += number
            self._put_off(all_later(person, "late_touchpoint", last[person].received_at, number, conversions))
        newest = max(last.values(), key=arrival)
        for conversion in self._transaction.conversions_of_people(last.keys() - hot.keys()):
            self.add(conversion, "late_touchpoint", newest)

    def by_touchpoints(self, rows: Sequence[TouchpointRow], idle: Collection[int], policies: Policies) -> None:
        """Take in new touchpoints: the conversions of their people that they count for.

        Conversions that this batch moves to the person are causes by their move already, or put off.

        Args:
            rows: the batch's.
            idle: indexes of those that brought nothing new.
            policies: by which they may count.

        Raises:
            BatchTooCostlyError: more than the limits allow.
        """
        window, limits = policies.longest_window_micros, self._limits
        reached = self._transaction.people_touched(window, idle, limits.reopened)
        hot = [person for person in reached if person.conversions > limits.reopened or person[:2] in self._people]
        people = [person for person in reached if person.conversions <= limits.reopened]
        people = [person for person in people if person[:2] not in self._people]
        self._check_cost(person.conversions for person in people)
        if sum(person.conversions * len(person.touches) for person in people) > limits.pairs:
            raise BatchTooCostlyError
        for person in hot:
            self._put_off(later(person, [rows[seq] for seq in person.touches], policies))
        self.touchpoints_put_off = sum(len(person.touches) for person in hot)
        found = self._transaction.conversions_touched(people, window)
        for number, conversions in groupby(found, key=attrgetter("person")):
            person = people[number]
            newest_first = sorted((rows[seq] for seq in person.touches), key=arrival, reverse=True)
            counting, too_late = policies.counting(newest_first, list(conversions))
            self.too_late += too_late
            for conversion, row in counting:
                self.add((person.tenant_id, conversion.conversion_id), "late_touchpoint", row)

    def _hot(self, people: Collection[Key]) -> dict[Key, int]:
        """Return those with more conversions than may be raised at once."""
        counted = self._transaction.conversions_counted(people, self._limits.reopened)
        hot = {person: number for person, number in counted.items() if number > self._limits.reopened}
        self._check_cost(number for person, number in counted.items() if person not in hot)
        return hot

    def _check_cost(self, conversions: Iterable[int]) -> None:
        if sum(conversions) > self._limits.conversions:
            raise BatchTooCostlyError

    def _put_off(self, person: PutOff) -> None:
        known = self._people.get(person[:2])
        self._people[person[:2]] = person if known is None else known.with_another(person)
