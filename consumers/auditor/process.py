"""The auditor as a process."""

from __future__ import annotations

from attributary.consumers.adapters.database import stage_dsn
from attributary.consumers.adapters.registry_settings import RegistrySettings, make_codec
from attributary.consumers.runtime.run import run_stage
from attributary.consumers.runtime.settings import ProcessSettings, load

from .stage import AuditorStage


def main(version: str) -> int:
    """Run the auditor until it is asked to stop; returns the exit code."""

    def make(process: ProcessSettings) -> AuditorStage:
        codec = make_codec(load(RegistrySettings))
        dsn = stage_dsn()
        return AuditorStage(dsn, codec, process.max_poison_share)

    return run_stage("auditor", version, make)
