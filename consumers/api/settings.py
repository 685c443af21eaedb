"""The read API's settings from the environment."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from attributary.consumers.runtime.settings import Settings
from attributary.producers.collector.config import CollectorConfig


class ServeSettings(Settings):
    """The read API."""

    host: str = Field(
        default="127.0.0.1",
        alias="SERVE_HOST",
        description="Address of the read API's listener. It is private: never behind the same door as the collector.",
    )
    port: int = Field(default=8090, ge=0, le=65_535, alias="SERVE_PORT", description="Port of the read API; 0: any.")
    keys_file: Path = Field(
        alias="SERVE_KEYS_FILE",
        description="File with the hashes of secret keys with the scopes read, jobs and erase (`attributary collect "
        "keys new`); read again when it changes. May be the collector's.",
    )
    connections: int = Field(
        default=8, ge=1, le=200, alias="SERVE_CONNECTIONS", description="Most connections to Postgres of one process."
    )
    wait_seconds: float = Field(
        default=2.0,
        gt=0,
        le=60,
        alias="SERVE_WAIT_SECONDS",
        description="How long a request waits for a connection before it is answered 503.",
    )
    statement_seconds: float = Field(
        default=10.0,
        gt=0,
        le=600,
        alias="SERVE_STATEMENT_SECONDS",
        description="How long one statement of a request may take before it is answered 503.",
    )
    requests_per_second: float = Field(
        default=100.0, ge=0, alias="SERVE_REQUESTS_PER_SECOND", description="Allowance of one key; 0: no limit."
    )

    def config(self) -> CollectorConfig:
        """Return what keys, rates and connections are checked by."""
        return CollectorConfig(
            keys_file=self.keys_file, requests_per_second=self.requests_per_second, requests_per_second_ip=0.0
        )
