"""Whom requests concern, computed once from everything that was published, along the time of the log.

Nothing of the stages or the store is used. A request concerns what is known when it arrives; what arrives later and
names something erased takes along what it names beside it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.expected_results import InputRecord

Name = tuple[str, str, str]  # tenant, kind, id


@dataclass
class Scope:
    """What is said about one name, microseconds."""

    cutoffs: list[int] = field(default_factory=list)
    suppressed_from: int | None = None

    @property
    def until(self) -> int:
        return max(self.cutoffs, default=0)

    def first(self, at: int, arrived: int) -> int | None:
        """The first cut-off that erases an event."""
        return min((each for each in self.cutoffs if at <= each or arrived <= each), default=None)

    def is_suppressed_by(self, cutoff: int, arrived: int) -> bool:
        """Whether a suppression older than an erasure drops an event: then it is only dropped."""
        return self.suppressed_from is not None and self.suppressed_from <= min(arrived, cutoff)

    def followed(self, at: int, arrived: int) -> int | None:
        """The cut-off that the person of an order follows; what a suppression drops is only dropped."""
        cutoff = self.first(at, arrived)
        return None if cutoff is None or self.is_suppressed_by(cutoff, arrived) else cutoff

    def links(self, at: int, arrived: int) -> bool:
        """Whether an event of this user says whose its device is: unless it is erased, or suppressed by an erasure."""
        return self.first(at, arrived) is None and not (
            self.suppressed_from is not None and self.suppressed_from <= min(arrived, self.until + 1)
        )

    def covers(self, at: int, arrived: int) -> bool:
        return self.first(at, arrived) is not None or (
            self.suppressed_from is not None and arrived >= self.suppressed_from
        )


@dataclass(frozen=True)
class Event:
    """One event of the log."""

    name: str
    fields: dict[str, Any]
    record: InputRecord

    @property
    def tenant(self) -> str:
        return str(self.fields["tenant_id"])

    @property
    def at(self) -> int:
        return int(self.fields["linked_at"] if self.name == "identity_link" else self.fields["occurred_at"])

    @property
    def arrived(self) -> int:
        return self.record.timestamp_ms * 1_000

    @property
    def user(self) -> Name | None:
        return None if self.fields["user_id"] is None else (self.tenant, "user", self.fields["user_id"])

    @property
    def device(self) -> Name | None:
        return None if self.fields["anonymous_id"] is None else (self.tenant, "anonymous", self.fields["anonymous_id"])

    @property
    def person(self) -> Name:
        found = self.user or self.device
        assert found is not None
        return found

    @property
    def conversion(self) -> str:
        return str(self.fields["conversion_id"] or self.fields["event_id"])

    @property
    def orders(self) -> list[Name]:
        if self.name != "conversion":
            return []
        return [(self.tenant, "order", each) for each in {self.conversion, self.fields["order_id"]} if each]


@dataclass
class Erasures:
    """Runs along the log; afterwards `scopes` says what is erased."""

    events: list[Event]
    scopes: dict[Name, Scope] = field(default_factory=dict)

    def run(self, requests: list[tuple[dict[str, Any], InputRecord]]) -> None:
        steps: list[tuple[int, int, tuple[int, int, str], Any]] = [
            (e.arrived, 0, (0, 0, e.fields["event_id"]), e) for e in self.events
        ]
        steps += [
            (record.timestamp_ms * 1_000, 1, (record.partition, record.offset, f["request_id"]), f)
            for f, record in requests
        ]
        for now, is_request, _, what in sorted(steps, key=lambda step: step[:3]):
            if is_request:
                self._request((what["tenant_id"], what["kind"], what["identifier"]), what["mode"], now, now)
            else:
                self._follow(what)

    def _scope(self, name: Name | None) -> Scope:
        return self.scopes.get(name, Scope()) if name is not None else Scope()

    def _set(self, name: Name, mode: str, cutoff: int) -> None:
        scope = self.scopes.setdefault(name, Scope())
        if mode.startswith("delete"):
            scope.cutoffs.append(cutoff)
        if mode.endswith("suppress"):
            scope.suppressed_from = min(scope.suppressed_from or cutoff + 1, cutoff + 1)

    def _follow(self, event: Event) -> None:
        """What an event that is erased names beside it is erased, too."""
        cutoff = self._scope(event.user).first(event.at, event.arrived)
        device = self._scope(event.device)
        if event.device and cutoff is not None and not device.is_suppressed_by(cutoff, event.arrived):
            self._device_follows(event.device, cutoff)
        for order in event.orders:
            cutoff = self._scope(order).followed(event.at, event.arrived)
            if cutoff is not None and self._scope(event.person).until < cutoff:
                self._request(event.person, "delete", cutoff, event.arrived)

    def _device_follows(self, device: Name, cutoff: int) -> None:
        if self._owner(device, cutoff) is None:
            self._set(device, "delete", cutoff)

    def _request(self, name: Name, mode: str, cutoff: int, now: int) -> None:
        named = {name}
        if name[1] == "order":
            named = {e.person for e in self.events if name in e.orders and e.arrived <= cutoff and not self.is_gone(e)}
        people = set(named)
        for each in named:
            owner = self._owner(each, cutoff) if each[1] == "anonymous" else None
            people |= {owner} if owner else set()
        for user in [each for each in people if each[1] == "user"]:
            devices = {e.device for e in self.events if e.user == user and e.device is not None}
            people |= {device for device in devices if self._owner(device, cutoff) == user}
        for each in people | ({name} if name[1] == "order" else set()):
            self._set(each, mode, cutoff)
        for event in sorted(self.events, key=lambda e: (e.arrived, e.fields["event_id"])):
            if cutoff < event.arrived <= now and (event.user in people or name in event.orders):
                self._follow(event)

    def _owner(self, device: Name, cutoff: int) -> Name | None:
        known = [
            (e.at, e.fields["event_id"], e.fields["user_id"])
            for e in self.events
            if e.device == device and e.user and e.arrived <= cutoff
            and self._scope(e.user).links(e.at, e.arrived) and not self._scope(device).covers(e.at, e.arrived)
        ]  # fmt: skip
        return (device[0], "user", min(known)[2]) if known else None

    def is_gone(self, event: Event) -> bool:
        """Tell whether an event of its own is erased; one about an erased conversion goes, too."""
        names = [event.person, *event.orders]
        if event.name == "identity_link" and event.device is not None:
            names.append(event.device)
        return any(self._scope(name).covers(event.at, event.arrived) for name in names)

    def erased_conversions(self) -> set[tuple[str, str]]:
        return {(e.tenant, e.conversion) for e in self.events if e.name == "conversion" and self.is_gone(e)}

    def left(self) -> Iterator[Event]:
        """The events that stay, without the names of erased devices."""
        gone = self.erased_conversions()
        for event in self.events:
            if self.is_gone(event) or (event.name == "conversion" and (event.tenant, event.conversion) in gone):
                continue
            is_stripped = event.user is not None and self._scope(event.device).covers(event.at, event.arrived)
            yield Event(event.name, event.fields | ({"anonymous_id": None} if is_stripped else {}), event.record)
