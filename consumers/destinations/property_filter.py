"""Which free properties may go to a destination: a list of allowed and denied names.

Contract: `PropertyFilter.read` takes a comma-separated list of names, in which `*` stands for any letters, twice at
most. A name with a minus is denied. As soon as one name has none, only such names are allowed. Properties of the event,
of the person (`user.plan`) and of the lines of an order are filtered alike; fields of the event's own are not. Pure,
never raises on a conversion.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

GA4_PARTS = ("location.", "device.")
"""How properties begin that become fields of GA4's `user_location` and `device`; other destinations get none."""

META_PARTS = ("original_event.", "attribution.")
"""How properties begin that become fields of Meta's `original_event_data` and `attribution_data`."""

_NAME = re.compile(r"[^\s,*]{0,100}(\*[^\s,*]{0,100}){0,2}")


class PropertyFilter:
    """Names that are allowed and names that are denied.

    Args:
        allowed: patterns; empty: all that are not denied.
        denied: patterns; they go before the allowed ones.
    """

    def __init__(self, allowed: Sequence[str] = (), denied: Sequence[str] = ()) -> None:
        self._allowed = _pattern(allowed)
        self._denied = _pattern(denied)

    @classmethod
    def read(cls, text: str) -> Self | None:
        """Read a list; None for an empty one.

        Raises:
            ValueError: a part is no name; the text is the rule.
        """
        parts = [part.strip() for part in text.split(",") if part.strip()]
        if any(part == "-" or _NAME.fullmatch(part.removeprefix("-")) is None for part in parts):
            raise ValueError("must be names such as coupon, user.* or -internal_*, separated by commas")
        if not parts:
            return None
        denied = [part.removeprefix("-") for part in parts if part.startswith("-")]
        return cls([part for part in parts if not part.startswith("-")], denied)

    def allows(self, name: str) -> bool:
        """Return whether a property of this name may go."""
        if self._denied is not None and self._denied.fullmatch(name):
            return False
        return self._allowed is None or self._allowed.fullmatch(name) is not None

    def applied(
        self, conversion: Mapping[str, Any], needed: Collection[str]
    ) -> tuple[Mapping[str, Any], Sequence[str]]:
        """Return the conversion without the properties that may not go, and a remark for each name.

        Args:
            conversion: as decoded; it is not changed.
            needed: names that the destination needs for its own fields; they always go.
        """
        items = conversion["items"] or []
        names = set(conversion["properties"]).union(*(item["properties"] for item in items))
        out = {name for name in names if name not in needed and not self.allows(name)}
        if not out:
            return conversion, ()
        lines = [item | {"properties": _without(item["properties"], out)} for item in items]
        changes = {"properties": _without(conversion["properties"], out), "items": lines or conversion["items"]}
        return {**conversion, **changes}, [f"property {_shown(name)} left out: not allowed" for name in sorted(out)]


def _pattern(names: Sequence[str]) -> re.Pattern[str] | None:
    if not names:
        return None
    return re.compile("|".join(".*".join(re.escape(part) for part in name.split("*")) for name in names), re.DOTALL)


def _without(properties: Mapping[str, str], out: Collection[str]) -> dict[str, str]:
    return {name: text for name, text in properties.items() if name not in out}


def _shown(name: str) -> str:
    """Return a name for the ledger: one that is no word is not shown, it may hold anything."""
    return name if re.fullmatch(r"[A-Za-z0-9_.]{1,40}", name) else "with an odd name"
