"""How identity keys and people are spelled in SQL, once: text for statements, from constants alone.

An event is of a user (``u:`` and the user id) or of an anonymous id (``a:`` and the id). A person's key,
``journey_key``, is the user that owns the anonymous id, else the event's own key. Same rules:
``attribution_core.domain.identity``.
"""

from __future__ import annotations

from attributary.attribution_core.domain.identity import ANONYMOUS_PREFIX, USER_PREFIX


def user_key(user_id: str) -> str:
    """Return the key of a user as an expression.

    Args:
        user_id: expression of the user id, such as ``l.user_id``.
    """
    return f"'{USER_PREFIX}' || {user_id}"


def device_key(anonymous_id: str) -> str:
    """Return the key of an anonymous id as an expression.

    Args:
        anonymous_id: expression of the anonymous id.
    """
    return f"'{ANONYMOUS_PREFIX}' || {anonymous_id}"


def person_key(own_key: str) -> str:
    """Return the key of the person of an event, beside a LEFT JOIN of ``attribution_identities AS i`` by its id.

    Args:
        own_key: expression of the event's own key.
    """
    return f"CASE WHEN i.user_id IS NULL THEN {own_key} ELSE {user_key('i.user_id')} END"


def identity_hash(identity_key: str) -> str:
    """Return the hash by which touchpoints are found, as an expression: that of ``identity_hash`` in their table.

    Args:
        identity_key: expression of the identity key.
    """
    return f'hashtextextended(({identity_key}) COLLATE "C", 0)'


def touchpoints_of(alias: str, tenant_id: str, identity_key: str) -> str:
    """Return the condition that touchpoints name one identity; the hash leads to the index, the name decides.

    Args:
        alias: what the statement calls ``attribution_touchpoints``.
        tenant_id: expression of the tenant.
        identity_key: expression of the identity key, none of a column of the touchpoints.
    """
    return (
        f"{alias}.tenant_id = {tenant_id} AND {alias}.identity_hash = {identity_hash(identity_key)} "
        f'AND {alias}.identity_key = {identity_key} COLLATE "C"'
    )
