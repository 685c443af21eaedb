"""The accounts of each tenant at a destination.

Contract: `Credentials.accounts(tenant)` gives the accounts of a tenant, none when the destination is off for it.
Invariants: credentials come from the environment and from one file, never from a topic. Without a file the
environment's account serves every tenant; with one, only the tenants that the file lists are served (`"*"` stands for
the others), so a new tenant's people never land in somebody else's account.

The file::

    tenants:
      acme:
        meta: {pixel_id: "123", access_token_file: /run/secrets/acme-meta, event_names: {trial: TrialStarted}}
        ga4:
          - {measurement_id: G-AAA, api_secret_file: /run/secrets/acme-web}
          - {measurement_id: G-BBB, api_secret_file: /run/secrets/acme-shop}
      "*": default          # the account of the environment
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from attributary.consumers.destinations.account_fields import (
    ACCOUNT_FIELDS,
    CLIENT,
    TOKEN_EXPIRES,
    AccountFields,
    broken_event_name,
    checked_day,
    is_printable_ascii,
)
from attributary.consumers.destinations.destination import Account
from attributary.consumers.destinations.oauth2.service_account import service_account_fields
from attributary.consumers.runtime.errors import ConfigError
from attributary.schemas.yaml_file import YamlFileError, read_yaml

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_VARIABLE = "FORWARD_CREDENTIALS_FILE"
EVERYBODY = "*"
_EVENT_NAMES = "event_names"


class Credentials:
    """The accounts of one destination, by tenant.

    Args:
        destination: its name.
        default: account, secret and options of the environment; None without.
        tenants: the same for each tenant of the file; None without a file.
    """

    def __init__(
        self,
        destination: str,
        default: AccountCredentials | None,
        tenants: Mapping[str, Sequence[AccountCredentials]] | None = None,
    ) -> None:
        self._destination = destination
        self._default = default
        self._tenants = tenants
        self._known: dict[str, tuple[Account, ...]] = {}

    @property
    def is_on(self) -> bool:
        """Tell whether any tenant is served."""
        return self._default is not None or any((self._tenants or {}).values())

    @property
    def serves_one_account(self) -> bool:
        """Tell whether all events go to one account, so that waiting for it holds up nobody else."""
        return self._tenants is None

    def accounts(self, tenant_id: str) -> tuple[Account, ...]:
        """Give the accounts of a tenant; the first keeps the plain name in the ledger."""
        found = self._known.get(tenant_id)
        if found is None:
            found = self._known[tenant_id] = tuple(self._build(tenant_id))
        return found

    def listed(self) -> Sequence[tuple[str, Account]]:
        """Give every account with its tenant, `*` for all others; the tenants in the order of the file."""
        tenants = [EVERYBODY] if self._tenants is None else list(self._tenants)
        return [(tenant, account) for tenant in tenants for account in self.accounts(tenant)]

    def _build(self, tenant_id: str) -> Sequence[Account]:
        if self._tenants is None:
            accounts: Sequence[AccountCredentials] = [self._default] if self._default else []
        else:
            accounts = self._tenants.get(tenant_id, self._tenants.get(EVERYBODY, ()))
        return [
            Account(
                tenant_id,
                self._destination if number == 0 else f"{self._destination}:{account.name}",
                account.name,
                account.secret,
                account.options,
                account.event_names,
            )
            for number, account in enumerate(accounts)
        ]


class AccountCredentials:
    """An account at a destination, without a tenant; its secrets never show.

    Args:
        name: pixel id, measurement id or app id.
        secret: token or API secret.
        options: further settings of the account.
        event_names: the account's own event names by conversion type.
    """

    def __init__(
        self, name: str, secret: str, options: Mapping[str, str], event_names: Mapping[str, str] | None = None
    ) -> None:
        self.name = name
        self.secret = secret
        self.options = dict(options)
        self.event_names = dict(event_names or {})

    def __repr__(self) -> str:
        return f"AccountCredentials({self.name!r})"


def load_credentials(destination: str, default: AccountCredentials | None, path: str | None) -> Credentials:
    """Read the file, if there is one.

    Args:
        destination: its name.
        default: the account of the environment.
        path: of the file; None without.

    Raises:
        ConfigError: the file cannot be read or is wrong; names the place, never a value.
    """
    if path is None:
        return Credentials(destination, default)
    try:
        document = read_yaml(Path(path))
    except YamlFileError as error:
        said = f"the file {error}" if error.is_read else f"the file cannot be read: {error}"
        raise ConfigError(_VARIABLE, said) from None
    tenants = document.get("tenants") if isinstance(document, dict) else None
    if not isinstance(tenants, dict):
        raise ConfigError(_VARIABLE, "the file needs a mapping named tenants")
    return Credentials(
        destination, None, {str(t): _accounts(str(t), e, destination, default) for t, e in tenants.items()}
    )


def _accounts(
    tenant: str, entry: Any, destination: str, default: AccountCredentials | None
) -> Sequence[AccountCredentials]:
    if entry == "default":
        return [default] if default else []
    if not isinstance(entry, dict):
        raise ConfigError(_VARIABLE, f"tenant {tenant}: must map destinations to credentials, or be the word default")
    given = entry.get(destination, [])
    listed = given if isinstance(given, list) else [given]
    return [_account(f"tenant {tenant}, {destination}", fields, destination) for fields in listed]


def _account(place: str, fields: Any, destination: str) -> AccountCredentials:
    if not isinstance(fields, dict):
        raise ConfigError(_VARIABLE, f"{place}: must be a mapping or a list of mappings")
    known = ACCOUNT_FIELDS[destination]
    allowed = set(known.all)
    event_names = fields.get(_EVENT_NAMES, {})
    if not isinstance(event_names, dict):
        raise ConfigError(_VARIABLE, f"{place}: {_EVENT_NAMES} must map conversion types to names")
    if rule := broken_event_name(destination, event_names):
        raise ConfigError(_VARIABLE, f"{place}: {_EVENT_NAMES}: {rule}")
    for field in fields.keys() - {_EVENT_NAMES}:
        if str(field).removesuffix("_file") not in allowed:
            raise ConfigError(
                _VARIABLE, f"{place}: unknown field; known: {', '.join(sorted({*allowed, _EVENT_NAMES}))}"
            )
    values = {name: value for name in sorted(allowed) if (value := _value(place, fields, name))}
    try:
        account = account_of(destination, values)
    except ValueError as error:
        raise ConfigError(_VARIABLE, f"{place}: {error}") from None
    account.event_names = {str(kind): str(name) for kind, name in event_names.items()}
    return account


def account_of(destination: str, values: Mapping[str, str]) -> AccountCredentials:
    """Put an account together.

    Args:
        destination: which.
        values: its fields by name, those that are set.

    Raises:
        ValueError: a field is missing or wrong; the text is the rule, without a value.
    """
    known = ACCOUNT_FIELDS[destination]
    streams = {name: values[name] for name in known.names if name in values}
    if not streams:
        raise ValueError(f"{' or '.join(known.names)} must be set")
    secret_name = known.secret_of(values)
    if secret_name is None:
        raise ValueError(" or ".join(f"{name} or {name}_file" for name in known.secrets) + " must be set")
    if missing := [name for name in known.needed_with.get(secret_name, ()) if name not in values]:
        raise ValueError(f"{' and '.join(missing)} must be set beside {secret_name}")
    _check_secret(secret_name, values[secret_name], known)
    if TOKEN_EXPIRES in values:
        try:
            checked_day(values[TOKEN_EXPIRES])
        except ValueError as error:
            raise ValueError(f"{TOKEN_EXPIRES} {error}") from None
    options = {name: values[name] for name in known.more if name in values}
    if stray := [name for name in CLIENT if name in options and not known.needed_with.get(secret_name)]:
        raise ValueError(f"refresh_token must be set beside {stray[0]}")
    if known.names_are_options:
        options |= streams
    return AccountCredentials(next(iter(streams.values())), values[secret_name], options)


def _check_secret(name: str, secret: str, known: AccountFields) -> None:
    if name not in known.key_files:
        if not is_printable_ascii(secret):
            raise ValueError(f"{name} must be printable ASCII without spaces")
        return
    try:
        service_account_fields(secret)
    except ValueError as error:
        raise ValueError(f"{name} {error}") from None


def _value(place: str, fields: Mapping[str, Any], name: str) -> str | None:
    if (path := fields.get(f"{name}_file")) is not None:
        try:
            return Path(str(path)).read_text("utf-8").strip()
        except (OSError, UnicodeDecodeError):
            raise ConfigError(_VARIABLE, f"{place}: the file of {name}_file cannot be read") from None
    value = fields.get(name)
    return None if value is None else str(value)
