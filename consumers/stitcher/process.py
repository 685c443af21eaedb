"""The stitcher as a process."""

from __future__ import annotations

from attributary.consumers.adapters.database import stage_dsn
from attributary.consumers.adapters.people_settings import ReopeningSettings
from attributary.consumers.adapters.policy_settings import IdentitySettings, PolicySettings
from attributary.consumers.adapters.registry_settings import RegistrySettings, make_codec
from attributary.consumers.adapters.tenant_rules import TenantAdmission
from attributary.consumers.runtime.run import run_stage
from attributary.consumers.runtime.settings import ProcessSettings, load

from .limits import Limits
from .stage import StitcherStage


def main(version: str) -> int:
    """Run the stitcher until it is asked to stop; returns the exit code."""

    def make(process: ProcessSettings) -> StitcherStage:
        settings = load(PolicySettings)
        policy = settings.policy()
        codec = make_codec(load(RegistrySettings))
        dsn = stage_dsn()
        return StitcherStage(
            dsn,
            codec,
            policy,
            process.max_poison_share,
            by_order=settings.by_order,
            admission=(load(TenantAdmission), load(IdentitySettings).rules()),
            limits=Limits(reopened=load(ReopeningSettings).max_reopened),
        )

    return run_stage("stitcher", version, make)
