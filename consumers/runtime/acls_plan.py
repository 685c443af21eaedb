"""What it takes to make a cluster's access rules those of a catalogue of rights: a pure comparison.

Invariant: the plan of a cluster on which its own additions and removals were carried out has neither. Rules of
principals that the catalogue does not know are shown where they reach our topics, groups or ids, and never removed:
they may be an administrator's.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum

_IMPLY_DESCRIBE = frozenset({"READ", "WRITE", "DELETE", "ALTER"})
ANYBODY = "User:*"


class AclVerb(StrEnum):
    """What is to be done with a rule."""

    OK = "ok"
    ADD = "add"
    TOO_MUCH = "too much"
    DENIES = "denies"
    FOREIGN = "foreign"


@dataclass(frozen=True, slots=True, order=True)
class Rule:
    """An access rule of a cluster, in Kafka's words."""

    principal: str
    kind: str
    name: str
    operation: str
    is_prefix: bool = False
    host: str = "*"
    is_denial: bool = False

    def reaches(self, prefix: str) -> bool:
        """Tell whether it concerns a resource that begins so."""
        if self.kind == "cluster":
            return False
        if self.name == "*":
            return True
        return self.name.startswith(prefix) or (self.is_prefix and prefix.startswith(self.name))

    def text(self) -> str:
        """Return it for people."""
        resource = f"{self.kind.replace('_', ' ')} {self.name}{'*' if self.is_prefix else ''}"
        return f"{self.operation} on {resource}{'' if self.host == '*' else f' from {self.host}'}"


@dataclass(frozen=True, slots=True)
class AclAction:
    """One line of a plan."""

    verb: AclVerb
    rule: Rule


def plan_acls(wanted: Iterable[Rule], found: Iterable[Rule], prefix: str) -> list[AclAction]:
    """Compare a catalogue of rights with a cluster.

    Args:
        wanted: the rules to have, each an allowance for all hosts.
        found: the cluster's rules.
        prefix: how our topics, groups and ids begin.

    Returns:
        The actions by principal. ``ok``: is there. ``add``: is missing. ``too much``: a principal of ours has a right
        that its row does not name. ``denies``: a rule takes a wanted right away. ``foreign``: others reach ours.
    """
    wanted, found = set(wanted), set(found)
    ours = {rule.principal for rule in wanted}
    actions = [AclAction(AclVerb.OK if rule in found else AclVerb.ADD, rule) for rule in wanted]
    for rule in found - wanted:
        if rule.is_denial:
            if any(_denies(rule, each) for each in wanted):
                actions.append(AclAction(AclVerb.DENIES, rule))
        elif rule.principal in ours:
            if not _is_implied(rule, wanted):
                actions.append(AclAction(AclVerb.TOO_MUCH, rule))
        elif rule.reaches(prefix):
            actions.append(AclAction(AclVerb.FOREIGN, rule))
    return sorted(actions, key=lambda action: (action.rule.principal, action.rule))


def acls_differ(actions: Sequence[AclAction]) -> bool:
    """Tell whether a plan has anything but rules that are as wanted, and rules of others."""
    return any(action.verb not in {AclVerb.OK, AclVerb.FOREIGN} for action in actions)


def _is_implied(rule: Rule, wanted: Iterable[Rule]) -> bool:
    """DESCRIBE beside READ or WRITE on the same resource gives nothing more."""
    return (
        rule.operation == "DESCRIBE"
        and rule.host == "*"
        and any(
            (each.principal, each.kind, each.name, each.is_prefix)
            == (rule.principal, rule.kind, rule.name, rule.is_prefix)
            and each.operation in _IMPLY_DESCRIBE
            for each in wanted
        )
    )


def _denies(rule: Rule, wanted: Rule) -> bool:
    if rule.principal not in {wanted.principal, ANYBODY} or rule.kind != wanted.kind:
        return False
    if rule.operation not in {wanted.operation, "ALL"}:
        return False
    if rule.is_prefix or rule.name == "*":
        return (
            rule.name == "*"
            or wanted.name.startswith(rule.name)
            or (wanted.is_prefix and rule.name.startswith(wanted.name))
        )
    return rule.name == wanted.name or (wanted.is_prefix and rule.name.startswith(wanted.name))
