"""What a process takes from YAML files: the lookback policy, and which ids name nobody."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import psycopg
from pydantic import Field

from attributary.attribution_core.domain.identity_rules import BUILT_IN, IdentityRules
from attributary.attribution_core.domain.lookback import DEFAULT_POLICY, LookbackPolicy, PolicyError
from attributary.consumers.runtime.errors import ConfigError
from attributary.consumers.runtime.settings import Settings, load
from attributary.consumers.store.events.policy_activations import policy_in_force
from attributary.consumers.store.models.model_states import active_states
from attributary.schemas.yaml_file import YamlFileError, read_yaml

if TYPE_CHECKING:
    from attributary.attribution_core.models.model_set import ModelSet


class PolicySettings(Settings):
    """Which touchpoints may share a conversion."""

    policy_file: Path | None = Field(
        default=None,
        alias="ATTRIBUTION_POLICY_FILE",
        description="YAML file with the lookback policy (docs/how-to/attribution-policy.md). Without it: 30 days, "
        "impressions and views 1 day, lateness 7 days.",
    )

    duplicate_orders: Literal["keep_both", "first"] = Field(
        default="keep_both",
        alias="ATTRIBUTION_DUPLICATE_ORDERS",
        description="What becomes of an order id that comes under several conversions. keep_both: each counts. first: "
        "an order is one conversion, its order id is the conversion's id, and its earliest conversion event counts. "
        "Choose before the first event; `attributary rebuild --from-log` applies a later change to stored events.",
    )

    @property
    def by_order(self) -> bool:
        """Whether an order is one conversion."""
        return self.duplicate_orders == "first"

    def policy(self) -> LookbackPolicy:
        """Read the policy.

        Raises:
            ConfigError: the file cannot be read or breaks a rule.
        """
        if self.policy_file is None:
            return LookbackPolicy.parse(DEFAULT_POLICY)
        return read_policy(self.policy_file, "ATTRIBUTION_POLICY_FILE")


class IdentitySettings(Settings):
    """Which ids name nobody."""

    identities_file: Path | None = Field(
        default=None,
        alias="ATTRIBUTION_IDENTITIES_FILE",
        description="YAML file with ids that name nobody, and ids that are real although a rule refuses them, by "
        "tenant (docs/reference/schemas.md); default: the built-in rules.",
    )

    def rules(self) -> IdentityRules:
        """Read the rules.

        Raises:
            ConfigError: the file cannot be read, or holds something else.
        """
        if self.identities_file is None:
            return BUILT_IN
        try:
            return IdentityRules.parse(_mapping("ATTRIBUTION_IDENTITIES_FILE", self.identities_file))
        except ValueError as error:
            raise ConfigError("ATTRIBUTION_IDENTITIES_FILE", str(error)) from None


def models_in_force(connection: psycopg.Connection, tenant_id: str) -> ModelSet:
    """Return the models that credit what a tenant raises now: the active versions, under the policy in force.

    Raises:
        ConfigError: the policy's file cannot be read.
    """
    from attributary.attribution_core.models.model_set import lenient_model_set

    policy = policy_in_force(connection, tenant_id, load(PolicySettings).policy())
    return lenient_model_set(active_states(connection, tenant_id), policy)[0]


def read_policy(path: Path, place: str) -> LookbackPolicy:
    """Read a policy.

    Args:
        path: the YAML file.
        place: what the error names: the variable, or the file.

    Raises:
        ConfigError: the file cannot be read or breaks a rule.
    """
    from attributary.attribution_core.models.model_set import check_models

    try:
        policy = LookbackPolicy.parse(_mapping(place, path))
        check_models(policy)
    except PolicyError as error:
        raise ConfigError(place, str(error)) from None
    return policy


def _mapping(variable: str, path: Path) -> dict[str, Any]:
    """Return a file of YAML that holds a mapping.

    Raises:
        ConfigError: names the variable.
    """
    try:
        document = read_yaml(path)
    except YamlFileError as error:
        raise ConfigError(variable, f"{error}" if error.is_read else f"the file cannot be read: {error}") from None
    if not isinstance(document, dict):
        raise ConfigError(variable, "must hold a mapping")
    return document
