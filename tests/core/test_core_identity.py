"""The owner of an anonymous id: a function of the set of its links."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from attributary.attribution_core.domain.identity import (
    Link,
    identity_key,
    journey_key,
    owner,
)

ids = st.text(min_size=1, max_size=8)
links = st.builds(Link, st.integers(0, 5), st.sampled_from("abcdef"), st.sampled_from(["u1", "u2", "u3"]))
some_links = st.lists(links, max_size=8, unique_by=lambda link: link.event_id)


@given(some_links, st.randoms())
@settings(max_examples=60)
def test_the_owner_does_not_depend_on_order_or_repeats(found: list[Link], random: object) -> None:
    shuffled = found + found[:3]
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert owner(shuffled) == owner(found)


@given(some_links, links)
@settings(max_examples=60)
def test_a_further_link_takes_over_only_if_it_is_earlier(found: list[Link], further: Link) -> None:
    before, after = owner(found), owner([*found, further])
    if before is None or (further.linked_at, further.event_id) < (before.linked_at, before.event_id):
        assert after == further
    else:
        assert after is not None
        assert (after.linked_at, after.event_id) == (before.linked_at, before.event_id)


def test_of_two_links_at_one_moment_the_smaller_event_id_decides() -> None:
    assert owner([Link(7, "b", "u1"), Link(7, "a", "u2")]) == Link(7, "a", "u2")
    assert owner([]) is None


@given(ids, ids)
@settings(max_examples=40)
def test_a_known_user_wins_over_the_anonymous_id(user: str, anonymous: str) -> None:
    assert identity_key(user, anonymous) == identity_key(user, None) == f"u:{user}"
    assert identity_key(None, anonymous) == f"a:{anonymous}"


def test_an_event_without_any_id_has_no_person() -> None:
    with pytest.raises(ValueError, match="user_id, anonymous_id"):
        identity_key(None, None)
    with pytest.raises(ValueError, match="at least one"):
        identity_key("", "")


@given(ids, ids)
@settings(max_examples=40)
def test_two_known_users_never_merge(user: str, other: str) -> None:
    assert journey_key(f"u:{user}", other) == f"u:{user}"
    assert journey_key(f"a:{user}", other) == f"u:{other}"
    assert journey_key(f"a:{user}", None) == f"a:{user}"
