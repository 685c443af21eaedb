"""The person of a touchpoint: a star of links around known users, never a union-find.

Invariant: the owner of an anonymous id is the link with the smallest ``(linked_at, event_id)`` over *all* its links,
so the answer depends on the set of links only, not on the order in which they arrived. Two known users never merge.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

USER_PREFIX = "u:"
ANONYMOUS_PREFIX = "a:"


def identity_key(user_id: str | None, anonymous_id: str | None) -> str:
    """Return the immutable key under which an event is stored: ``u:<user>`` if the user is known, else ``a:<id>``.

    Raises:
        ValueError: when both are missing.
    """
    if user_id:
        return USER_PREFIX + user_id
    if anonymous_id:
        return ANONYMOUS_PREFIX + anonymous_id
    raise ValueError("user_id, anonymous_id: at least one must be set")


class Link(NamedTuple):
    """One statement that an anonymous id is a known user. Compares by ``(linked_at, event_id)``."""

    linked_at: int  # microseconds since 1970-01-01 UTC
    event_id: str
    user_id: str


def owner(links: Iterable[Link]) -> Link | None:
    """Return the link to the owner of an anonymous id: smallest ``(linked_at, event_id)``; None without links."""
    return min(links, default=None)


def journey_key(key: str, owner_user_id: str | None) -> str:
    """Return the person of an identity key: an owned anonymous id becomes its owner's, everything else stays."""
    if owner_user_id is not None and key.startswith(ANONYMOUS_PREFIX):
        return USER_PREFIX + owner_user_id
    return key
