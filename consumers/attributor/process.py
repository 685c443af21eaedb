"""The attributor as a process."""

from __future__ import annotations

from attributary.consumers.adapters.database import stage_dsn
from attributary.consumers.adapters.people_settings import PeopleSettings
from attributary.consumers.adapters.registry_settings import RegistrySettings, make_codec
from attributary.consumers.runtime.run import run_stage
from attributary.consumers.runtime.settings import ProcessSettings, load

from .stage import AttributorStage


def main(version: str) -> int:
    """Run the attributor until it is asked to stop; returns the exit code."""

    def make(process: ProcessSettings) -> AttributorStage:
        codec = make_codec(load(RegistrySettings))
        dsn = stage_dsn()
        return AttributorStage(dsn, codec, process.max_poison_share, load(PeopleSettings).max_devices)

    return run_stage("attributor", version, make)
