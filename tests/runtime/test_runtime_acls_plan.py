"""The rights of an installation, and their comparison with a cluster's rules."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from attributary.consumers.runtime.acls_plan import AclVerb, Rule, acls_differ, plan_acls
from attributary.consumers.sweeper.input_age import READERS
from attributary.schemas.access import OURS, Principals, processes, rights
from attributary.schemas.topics import catalogue, dead_letter_topics

RIGHTS = rights(catalogue(), dead_letter_topics(), Principals())
WANTED = [Rule(each.principal, each.kind, each.name, each.operation, each.is_prefix) for each in RIGHTS]
RULES = st.sampled_from(WANTED) | st.builds(
    Rule,
    st.sampled_from(["User:attributary-stitcher", "User:else", "User:*"]),
    st.sampled_from(["topic", "group", "transactional_id"]),
    st.sampled_from(["attribution.commands.v1", "attribution.stitcher", "a", "*", "orders"]),
    st.sampled_from(["READ", "WRITE", "ALL", "DESCRIBE"]),
    st.booleans(),
    is_denial=st.booleans(),
)


@given(st.sets(RULES, max_size=20))
def test_a_plan_that_was_carried_out_leaves_nothing_but_denials(found: set[Rule]) -> None:
    actions = plan_acls(WANTED, found, OURS)
    added = {each.rule for each in actions if each.verb is AclVerb.ADD}
    removed = {each.rule for each in actions if each.verb is AclVerb.TOO_MUCH}
    again = plan_acls(WANTED, (found | added) - removed, OURS)
    assert {each.verb for each in again} <= {AclVerb.OK, AclVerb.FOREIGN, AclVerb.DENIES}
    assert acls_differ(again) == any(each.verb is AclVerb.DENIES for each in again)
    assert {each.rule for each in again if each.verb is AclVerb.OK} == set(WANTED)
    ours = {rule.principal for rule in WANTED}
    assert all(rule.principal in ours and not rule.is_denial for rule in removed)


@pytest.mark.parametrize(
    ("rule", "verb"),
    [
        (Rule("User:attributary-auditor", "topic", "orders", "READ"), AclVerb.TOO_MUCH),
        (Rule("User:attributary-auditor", "topic", "attribution.results.v1", "DESCRIBE"), None),
        (Rule("User:else", "topic", "att", "READ", is_prefix=True), AclVerb.FOREIGN),
        (Rule("User:else", "topic", "*", "READ"), AclVerb.FOREIGN),
        (Rule("User:else", "topic", "orders", "READ"), None),
        (Rule("User:*", "topic", "attribution.", "ALL", is_prefix=True, is_denial=True), AclVerb.DENIES),
        (Rule("User:attributary-auditor", "topic", "orders", "READ", is_denial=True), None),
    ],
)
def test_a_rule_that_is_not_wanted_is_judged_by_what_it_reaches(rule: Rule, verb: AclVerb | None) -> None:
    found = {each.rule: each.verb for each in plan_acls(WANTED, [*WANTED, rule], OURS)}
    assert found.get(rule) is verb


def test_every_topic_has_a_writer_and_no_right_is_wider_than_one_topic() -> None:
    written = {right.name for right in RIGHTS if right.kind == "topic" and right.operation == "WRITE"}
    assert written == {topic.name for topic in (*catalogue(), *dead_letter_topics())}
    assert not [right for right in RIGHTS if right.kind == "topic" and right.is_prefix]
    asked = {right.name for right in RIGHTS if right.principal == "User:attributary-sweeper" and right.kind == "group"}
    assert asked == set(READERS)


def test_principals_of_ones_own() -> None:
    document = {"stitcher": "User:CN=stitcher,O=Acme", "publishers": ["User:shop"], "subscribers": {"User:bi": "bi-"}}
    found = rights(catalogue(), dead_letter_topics(), Principals.parse(document, processes(catalogue())))
    principals = {right.principal for right in found}
    assert {"User:CN=stitcher,O=Acme", "User:shop", "User:bi", "User:attributary-auditor"} <= principals
    assert "User:attributary-publisher" not in principals
    assert [right.name for right in found if right.principal == "User:bi" and right.kind == "group"] == ["bi-"]


@pytest.mark.parametrize(
    ("document", "said"),
    [
        ([], "must hold a mapping"),
        ({"stitch": "User:a"}, "stitch: no process has this name; there are api, attributor"),
        ({"stitcher": "a"}, "stitcher: a principal must be User:NAME"),
        ({"publishers": "User:a"}, "publishers: must be a list"),
        ({"publishers": ["User:*"]}, "publishers: a principal must be User:NAME"),
        ({"subscribers": {"User:a": ""}}, "subscribers: must map each principal"),
    ],
)
def test_a_bad_file_of_principals_is_refused_by_field(document: object, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Principals.parse(document, processes(catalogue()))
