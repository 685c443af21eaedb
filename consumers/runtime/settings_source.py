"""How settings are read from the environment: the class that all settings share, ``load`` and ``problems``.

Invariant: a missing or bad variable stops the start with exit code 78 and its name; its value is never shown. Every
secret can also be given as a file, ``NAME_FILE=/path``.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, TypeVar

from pydantic import AliasChoices, ValidationError
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from .errors import ConfigError

S = TypeVar("S", bound="Settings")

MUST_BE_SET = "must be set"


def variable_of(field: FieldInfo, name: str) -> str:
    """Return the environment variable of a settings field."""
    alias = field.validation_alias or field.alias
    if isinstance(alias, AliasChoices):
        return str(alias.choices[0])
    return str(alias) if alias else name.upper()


class _SecretFiles(PydanticBaseSettingsSource):
    """Reads ``NAME_FILE`` for every field; a file wins over nothing, the variable itself wins over a file."""

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:
        variable = variable_of(field, field_name)
        path = os.environ.get(f"{variable}_FILE")
        if not path:
            return None, variable, False
        try:
            return Path(path).read_text(encoding="utf-8").strip() or None, variable, False
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"{variable}_FILE", f"the file cannot be read ({type(error).__name__})") from None

    def __call__(self) -> dict[str, Any]:
        found = {}
        for name, field in self.settings_cls.model_fields.items():
            value, variable, _ = self.get_field_value(field, name)
            if value is not None:
                found[variable] = value
        return found


class Settings(BaseSettings):
    """The common ground: variables are named by each field's alias only; empty variables and files count as not set."""

    model_config = SettingsConfigDict(extra="ignore", env_ignore_empty=True, frozen=True, hide_input_in_errors=True)

    @classmethod
    def settings_customise_sources(  # noqa: D102  # the framework's hook
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003  # no .env files in production processes
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003  # *_FILE is the one way
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return init_settings, env_settings, _SecretFiles(settings_cls)


def load(cls: type[S]) -> S:
    """Read a settings class from the environment.

    Raises:
        ConfigError: names the first missing or wrong variable and the rule it broke.
    """
    try:
        return cls()
    except ValidationError as error:
        raise _broken(cls, error)[0] from None


def problems(cls: type[Settings]) -> list[ConfigError]:
    """Return everything that is wrong or missing in a settings class, as the environment has it."""
    try:
        cls()
    except ValidationError as error:
        return _broken(cls, error)
    except ConfigError as error:
        return [error]
    return []


def _broken(cls: type[Settings], error: ValidationError) -> list[ConfigError]:
    found = []
    for each in error.errors(include_url=False, include_input=False, include_context=False):
        place = str(each["loc"][0]) if each["loc"] else ""
        field = cls.model_fields.get(place)
        variable = variable_of(field, place) if field else place
        rule = MUST_BE_SET if each["type"] == "missing" else each["msg"].removeprefix("Value error, ")
        if not variable:  # a rule over several fields names its variable itself
            variable, _, rule = rule.partition(": ")
        found.append(ConfigError(variable, rule))
    return found
