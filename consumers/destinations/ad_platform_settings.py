"""The settings that every ad platform has, and the checks of what they may hold.

Invariant: a destination is either off (nothing set) or whole; half a credential is a `ConfigError` that names the
missing variable. A field of an account has the same name here and in `ACCOUNT_FIELDS`, so that the environment and
FORWARD_CREDENTIALS_FILE make the same account.
"""

from __future__ import annotations

import ipaddress
import re
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import httpx
from pydantic import AfterValidator, Field, SecretStr

from attributary.consumers.destinations.account_fields import ACCOUNT_FIELDS, broken_event_name, is_printable_ascii
from attributary.consumers.destinations.credentials import account_of
from attributary.consumers.destinations.property_filter import PropertyFilter
from attributary.consumers.runtime.errors import ConfigError
from attributary.consumers.runtime.settings import Settings, variable_of

if TYPE_CHECKING:
    from collections.abc import Iterable

    from attributary.consumers.destinations.credentials import AccountCredentials

_HOST_LABEL = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?")
_LOOPBACK_NAMES = frozenset(("localhost", "ip6-localhost"))
MAX_PORT = 65_535


def is_loopback(host: str) -> bool:
    """Return whether a host is this machine, without asking any name server."""
    name = host.strip("[]").rstrip(".").lower()
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return name in _LOOPBACK_NAMES or name.endswith(".localhost")


def _checked_url(text: str | None) -> str | None:
    """Return a base URL; raise ValueError when no request could be made of it."""
    if text is None:
        return None
    rule = "must be a web address such as https://proxy.example/path, without user, query and fragment"
    try:
        url = httpx.URL(text)
        port = url.port
    except (httpx.InvalidURL, ValueError):
        raise ValueError(rule) from None
    odd = (
        url.userinfo or url.query or url.fragment or "#" in text or "?" in text or not text.isprintable() or " " in text
    )
    if url.scheme not in {"http", "https"} or not url.host or odd or (port is not None and not 0 < port <= MAX_PORT):
        raise ValueError(rule)
    try:
        ipaddress.ip_address(url.host)
    except ValueError:
        labels = url.raw_host.decode("ascii").removesuffix(".").split(".")
        if not all(_HOST_LABEL.fullmatch(label) for label in labels):
            raise ValueError(rule) from None
    if url.scheme == "http" and not is_loopback(url.host):
        raise ValueError("must begin with https://: secrets and personal data would travel in clear")
    return text


def _checked_secret(secret: SecretStr | None) -> SecretStr | None:
    """Return a secret that can stand in a header; raise ValueError for any other."""
    if secret is not None and not is_printable_ascii(secret.get_secret_value()):
        raise ValueError("must be printable ASCII without spaces")
    return secret


def _checked_properties(text: str) -> str:
    """Return a list of properties; raise ValueError when it is none."""
    PropertyFilter.read(text)
    return text


BaseUrl = Annotated[str | None, AfterValidator(_checked_url)]
Token = Annotated[SecretStr | None, AfterValidator(_checked_secret)]
PropertyList = Annotated[str, AfterValidator(_checked_properties)]


def base_url_field(destination: str, default: str | None) -> Any:
    """Return the setting of the address."""
    return Field(
        default=default,
        alias=f"{destination.upper()}_BASE_URL",
        description="Scheme and host, for a fake or a relay; https, on this machine http too.",
    )


def token_url_field(destination: str, default: str) -> Any:
    """Return the setting of the address at which access tokens are given out."""
    return Field(
        default=default,
        alias=f"{destination.upper()}_TOKEN_URL",
        description="Token endpoint of OAuth 2, for a fake or a relay; https, on this machine http too.",
    )


def event_names_field(destination: str, title: str, example: str = "trial_started=TrialStarted") -> Any:
    """Return the setting of own event names; `example` may go on with a sentence."""
    return Field(
        default="",
        alias=f"FORWARD_{destination.upper()}_EVENT_NAMES",
        description=f"Own event names at {title} by conversion type: {example}, comma-separated.",
    )


def properties_field(destination: str, title: str, unless_set: str = "All unless set.") -> Any:
    """Return the setting of the properties that may go."""
    return Field(
        default="",
        alias=f"FORWARD_{destination.upper()}_PROPERTIES",
        description=f"Free properties that may go to {title}: names with *, comma-separated; -name keeps one back. "
        f"{unless_set}",
    )


def consent_field(destination: str, title: str, default: str = "ad_storage,ad_user_data") -> Any:
    """Return the setting of the purposes."""
    return Field(
        default=default,
        alias=f"FORWARD_{destination.upper()}_CONSENT",
        description=f"Purposes that a person must have agreed to before an event goes to {title}; comma-separated.",
    )


class AdPlatformSettings(Settings):
    """An ad platform: the default account, and what all accounts share.

    A subclass has the fields of its account under the names that `ACCOUNT_FIELDS` gives them.
    """

    destination: ClassVar[str]

    if TYPE_CHECKING:  # each with the variable of its own; pydantic must not see fields without one
        base_url: BaseUrl
        event_names: str
        consent: str

    def names(self) -> dict[str, str]:
        """Return the names of events by conversion type.

        Raises:
            ConfigError: they are no pairs, or not what the destination takes.
        """
        return event_names(self.variable("event_names"), self.destination, self.event_names)

    def credentials(self) -> AccountCredentials | None:
        """Return the account of the environment; None when the destination is off.

        Raises:
            ConfigError: a part of the credentials is missing; names the variable.
        """
        fields = ACCOUNT_FIELDS[self.destination]
        given = {name: _plain(value) for name in fields.all if (value := getattr(self, name))}
        secret = fields.secret_of(given) or fields.secrets[0]
        ids = [(self.variable(name), given.get(name)) for name in fields.names]
        is_on = whole(ids, (self.variable(fields.secrets[0]), given.get(secret)))
        for needing, needed in fields.needed_with.items():
            some = [name for name in (*needed, needing) if name in given]
            missing = [name for name in (*needed, needing) if name not in given]
            if some and missing:
                raise ConfigError(self.variable(missing[0]), f"must be set when {self.variable(some[0])} is")
        if not is_on:
            return None
        try:
            return account_of(self.destination, given)
        except ValueError as error:
            raise ConfigError(self.variable(secret), str(error)) from None

    def variable(self, name: str) -> str:
        """Return the environment variable of a field."""
        return variable_of(type(self).model_fields[name], name)


def _plain(value: str | SecretStr) -> str:
    return value if isinstance(value, str) else value.get_secret_value()


def event_names(variable: str, destination: str, text: str) -> dict[str, str]:
    """Read pairs `type=Name`, comma-separated.

    Args:
        variable: where they stand.
        destination: decides what a name may be.
        text: the pairs.

    Raises:
        ConfigError: a part is no such pair; names the variable.
    """
    names: dict[str, str] = {}
    for part in purposes(text):
        kind, mark, name = (piece.strip() for piece in part.partition("="))
        if not mark or not kind or not name:
            raise ConfigError(variable, "must be pairs such as trial_started=TrialStarted, separated by commas")
        names[kind] = name
    if rule := broken_event_name(destination, names):
        raise ConfigError(variable, f"{rule}; pairs such as trial_started=TrialStarted, separated by commas")
    return names


def purposes(text: str) -> tuple[str, ...]:
    """Read a comma-separated list."""
    return tuple(part for part in (word.strip() for word in text.split(",")) if part)


def whole(streams: Iterable[tuple[str, object]], secret: tuple[str, object]) -> bool:
    """Say whether a destination is on.

    Args:
        streams: variables that name an account, with their values; one is enough.
        secret: the variable of its secret, with its value.

    Raises:
        ConfigError: one is set without the other; names the variable.
    """
    streams = list(streams)
    named = [variable for variable, value in streams if value]
    if named and not secret[1]:
        raise ConfigError(secret[0], f"must be set when {named[0]} is")
    if secret[1] and not named:
        raise ConfigError(streams[0][0], f"must be set when {secret[0]} is")
    return bool(named)
