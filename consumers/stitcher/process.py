"""The stitcher as a process."""

from __future__ import annotations

from typing import TypeVar

from attributary.consumers.adapters.database import stage_dsn
from attributary.consumers.adapters.people_settings import ReopeningSettings
from attributary.consumers.adapters.policy_settings import IdentitySettings, PolicySettings
from attributary.consumers.adapters.registry_settings import RegistrySettings, make_codec
from attributary.consumers.adapters.tenant_rules import TenantAdmission
from attributary.consumers.erasure.settings import load_hasher
from attributary.consumers.runtime.run import run_stage
from attributary.consumers.runtime.settings import ProcessSettings, load

from .limits import Limits
from .stage import StitcherStage

AStitcher = TypeVar("AStitcher", bound=StitcherStage)


def stitcher_parts(kind: type[AStitcher], dsn: str, max_poison_share: float) -> AStitcher:
    """Return a stage that stitches by the settings of the environment.

    Raises:
        ConfigError: a setting is missing or wrong.
    """
    settings = load(PolicySettings)
    return kind(
        dsn,
        make_codec(load(RegistrySettings)),
        settings.policy(),
        max_poison_share,
        by_order=settings.by_order,
        admission=(load(TenantAdmission), load(IdentitySettings).rules()),
        limits=Limits(reopened=load(ReopeningSettings).max_reopened),
        hasher=load_hasher(),
    )


def main(version: str) -> int:
    """Run the stitcher until it is asked to stop; returns the exit code."""

    def make(process: ProcessSettings) -> StitcherStage:
        return stitcher_parts(StitcherStage, stage_dsn(), process.max_poison_share)

    return run_stage("stitcher", version, make)
