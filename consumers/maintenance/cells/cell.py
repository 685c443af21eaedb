"""An installation as a command sees it: its prefix, its Kafka, its Postgres and the settings that two must share.

Invariant: another installation's settings come from its own file alone; nothing of this one's environment stands in
for what the file does not name.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from attributary.consumers.adapters.registry_settings import RegistrySettings
from attributary.consumers.erasure.settings import load_hasher
from attributary.consumers.runtime.errors import ConfigError
from attributary.consumers.runtime.settings import DatabaseSettings, KafkaSettings, load
from attributary.consumers.store.erasure.entries import Hasher
from attributary.schemas.installation import OURS, PrefixError, read_prefix

# What says where an installation is; all of it comes from one place.
_FAMILIES = ("KAFKA_", "DATABASE_", "SCHEMA_REGISTRY_", "ATTRIBUTION_PREFIX", "ATTRIBUTION_ERASURE_KEY")


@dataclass(frozen=True, slots=True)
class Cell:
    """One installation.

    Attributes:
        prefix: how its topics and groups begin; may be empty.
        kafka: how to reach its brokers.
        dsn: its Postgres.
        registry: its schema registry; None: it has none.
        hasher: of its ledger of erasures; None: no key is set.
    """

    prefix: str
    kafka: KafkaSettings
    dsn: str
    registry: str | None
    hasher: Hasher | None

    @property
    def name(self) -> str:
        """The installation for people."""
        return f"installation {self.prefix}" if self.prefix else "installation without a prefix"

    def topic(self, short: str) -> str:
        """Return the name of a topic here, by what follows the prefix."""
        return f"{self.prefix}{OURS}{short}"


def this_cell() -> Cell:
    """Return the installation that the environment names.

    Raises:
        ConfigError: a setting is missing or wrong.
    """
    try:
        prefix = read_prefix(os.environ)
    except PrefixError as error:
        variable, _, rule = str(error).partition(": ")
        raise ConfigError(variable, rule) from None
    return Cell(
        prefix,
        KafkaSettings.load(),
        load(DatabaseSettings).url.get_secret_value(),
        load(RegistrySettings).url,
        load_hasher(),
    )


def cell_of_file(path: Path) -> Cell:
    """Return the installation that a file of settings names, such as ``env`` of `attributary up`.

    Raises:
        ConfigError: a setting is missing or wrong; the text names the file.
        OSError: the file cannot be read.
        ValueError: it is no file of settings; the text names the line.
    """
    try:
        with _environment(_read(path)):
            return this_cell()
    except ConfigError as error:
        raise ConfigError(error.variable, f"{error.rule} (in {path})") from None


def _read(path: Path) -> dict[str, str]:
    found = {}
    for number, line in enumerate(path.read_text("utf-8").splitlines(), start=1):
        text = line.strip().removeprefix("export ").lstrip()
        if not text or text.startswith("#"):
            continue
        name, separator, value = text.partition("=")
        if not separator or not name.isidentifier():
            raise ValueError(f"line {number}: must be NAME=value")
        try:
            found[name] = "".join(shlex.split(value, posix=True)) if value[:1] in {"'", '"'} else value.strip()
        except ValueError:
            raise ValueError(f"line {number}: a quotation mark is not closed") from None
    return found


@contextmanager
def _environment(settings: dict[str, str]) -> Iterator[None]:
    """Show another installation's settings in place of our own, for as long as they are read."""
    before = dict(os.environ)
    for name in before:
        if name.startswith(_FAMILIES):
            del os.environ[name]
    os.environ.update({name: value for name, value in settings.items() if name.startswith(_FAMILIES)})
    try:
        yield
    finally:
        for name in set(os.environ) - set(before):
            del os.environ[name]
        os.environ.update(before)
