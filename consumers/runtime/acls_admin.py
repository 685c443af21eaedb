"""Reads a cluster's access rules and changes them: thin calls to Kafka's admin API.

Invariant: only additions and removals that a plan names are made; both twice do no harm.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import (  # type: ignore[attr-defined]  # the library re-exports without __all__
    AclBinding,
    AclBindingFilter,
    AclOperation,
    AclPermissionType,
    AdminClient,
    ResourcePatternType,
    ResourceType,
)

from .acls_plan import AclAction, AclVerb, Rule
from .error_codes import AWAY
from .errors import EXIT_CONFIG, Fatal, Retry
from .settings import KafkaSettings

_SECONDS = 20.0
_KINDS = {
    "topic": ResourceType.TOPIC,
    "group": ResourceType.GROUP,
    "transactional_id": ResourceType.TRANSACTIONAL_ID,
    "cluster": ResourceType.BROKER,  # librdkafka's name of the cluster
}
_NAMES = {kind: name for name, kind in _KINDS.items()}


class AclsAdmin:
    """Describes and changes the access rules of one cluster.

    Args:
        kafka: how to reach the brokers, as a principal with DESCRIBE on the cluster, and ALTER for changes.
    """

    def __init__(self, kafka: KafkaSettings) -> None:
        self._admin = AdminClient({**kafka.client_config(), "log_level": 0})
        self._principal = kafka.principal

    def describe(self) -> list[Rule]:
        """Return all rules of topics, groups, transactional ids and the cluster.

        Raises:
            Retry: no broker is reached.
            Fatal: the brokers refuse to tell, or have no authorizer.
        """
        anything: Any = None  # as the library documents; its types say text
        everything = AclBindingFilter(
            ResourceType.ANY, anything, ResourcePatternType.ANY, anything, anything, AclOperation.ANY,
            AclPermissionType.ANY,
        )  # fmt: skip
        answer = self._admin.describe_acls(everything, request_timeout=_SECONDS)
        return [_rule(binding) for binding in self._result("DESCRIBE", answer) if binding.restype in _NAMES]

    def apply(self, actions: Iterable[AclAction], *, remove: bool) -> list[AclAction]:
        """Add what is missing and, if asked, remove what is too much; returns what was done.

        Raises:
            Retry: no broker is reached; what was done before stays done.
            Fatal: a broker refuses.
        """
        done = []
        added = [action for action in actions if action.verb is AclVerb.ADD]
        if added:
            made = self._admin.create_acls([_binding(each.rule) for each in added], request_timeout=_SECONDS)
            for answer in made.values():
                self._result("ALTER", answer)
            done += added
        removed = [action for action in actions if remove and action.verb is AclVerb.TOO_MUCH]
        if removed:
            gone = self._admin.delete_acls([_filter(each.rule) for each in removed], request_timeout=_SECONDS)
            for answer in gone.values():
                self._result("ALTER", answer)
            done += removed
        return done

    def _result(self, operation: str, answer: Any) -> Sequence[Any]:
        try:
            found: Sequence[Any] = answer.result(_SECONDS + 1) or ()
        except TimeoutError:
            raise Retry(f"access rules: Kafka did not answer within {_SECONDS:.0f} s") from None
        except KafkaException as error:
            reason = error.args[0]
            if reason.code() in AWAY:
                raise Retry(f"access rules: Kafka is not reached ({reason.name()})") from None
            if reason.code() == KafkaError.CLUSTER_AUTHORIZATION_FAILED:
                raise Fatal(
                    f"Kafka refuses {self._principal} {operation} on the cluster; run it as an administrator of Kafka",
                    EXIT_CONFIG,
                ) from None
            if reason.code() == KafkaError.SECURITY_DISABLED:
                raise Fatal(
                    "the brokers have no authorizer: everybody may do everything. Set authorizer.class.name="
                    "org.apache.kafka.metadata.authorizer.StandardAuthorizer (docs/how-to/secure.md)",
                    EXIT_CONFIG,
                ) from None
            raise Fatal(f"access rules: Kafka refuses: {reason.str()} ({reason.name()})") from None
        return found


def _binding(rule: Rule) -> AclBinding:
    return AclBinding(*_parts(rule))


def _filter(rule: Rule) -> AclBindingFilter:
    return AclBindingFilter(*_parts(rule))


def _parts(rule: Rule) -> tuple[Any, ...]:
    return (
        _KINDS[rule.kind],
        rule.name,
        ResourcePatternType.PREFIXED if rule.is_prefix else ResourcePatternType.LITERAL,
        rule.principal,
        rule.host,
        AclOperation[rule.operation],
        AclPermissionType.DENY if rule.is_denial else AclPermissionType.ALLOW,
    )


def _rule(binding: Any) -> Rule:
    return Rule(
        binding.principal,
        _NAMES[binding.restype],
        binding.name,
        binding.operation.name,
        binding.resource_pattern_type == ResourcePatternType.PREFIXED,
        binding.host,
        binding.permission_type == AclPermissionType.DENY,
    )
