"""The lookback policy of a process, from its settings."""

from __future__ import annotations

from pathlib import Path

import yaml
from pydantic import Field

from attributary.attribution_core.domain.lookback import DEFAULT_POLICY, LookbackPolicy, PolicyError
from attributary.consumers.runtime.errors import ConfigError
from attributary.consumers.runtime.settings import Settings


class PolicySettings(Settings):
    """Which touchpoints may share a conversion."""

    policy_file: Path | None = Field(
        default=None,
        alias="ATTRIBUTION_POLICY_FILE",
        description="YAML file with the lookback policy (docs/how-to/attribution-policy.md). Without it: 30 days, "
        "impressions and views 1 day, lateness 7 days.",
    )

    def policy(self) -> LookbackPolicy:
        """Read the policy.

        Raises:
            ConfigError: the file cannot be read or breaks a rule.
        """
        if self.policy_file is None:
            return LookbackPolicy.parse(DEFAULT_POLICY)
        try:
            document = yaml.safe_load(self.policy_file.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
            raise ConfigError("ATTRIBUTION_POLICY_FILE", f"cannot be read as YAML ({type(error).__name__})") from None
        if not isinstance(document, dict):
            raise ConfigError("ATTRIBUTION_POLICY_FILE", "must hold a mapping")
        try:
            return LookbackPolicy.parse(document)
        except PolicyError as error:
            raise ConfigError("ATTRIBUTION_POLICY_FILE", str(error)) from None
