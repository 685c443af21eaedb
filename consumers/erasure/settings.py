"""The key of the ledger's hashes, and how long what an erasure leaves is kept."""

from __future__ import annotations

from pydantic import Field, SecretStr

from attributary.consumers.runtime.errors import ConfigError
from attributary.consumers.runtime.settings import Settings, load
from attributary.consumers.store.erasure.entries import Hasher

KEY_VARIABLE = "ATTRIBUTION_ERASURE_KEY"
_MIN_CHARACTERS = 16


class ErasureSettings(Settings):
    """Erasure of people."""

    key: SecretStr | None = Field(
        default=None,
        alias="ATTRIBUTION_ERASURE_KEY",
        description="Secret key of the hashes in the ledger of erasures, at least 16 characters; also as a file by "
        "ATTRIBUTION_ERASURE_KEY_FILE. Set alike for stitcher, sweeper, forwarders and the commands erase, verify and "
        "rebuild. Needed from the first erasure on; keep it as long as the data: another key is refused.",
    )
    deadline_days: float = Field(
        default=25.0,
        gt=0,
        alias="ATTRIBUTION_ERASURE_DEADLINE_DAYS",
        description="An erasure that is not completed after so long is overdue (attribution_overdue_erasures); days. "
        "GDPR gives one month.",
    )
    amount_days: float = Field(
        default=400.0,
        ge=0,
        alias="ATTRIBUTION_ERASED_AMOUNT_DAYS",
        description="Amounts of erased conversions are kept one by one, without any id, so long after they arrived: so "
        "that refunds find them. After that only the totals of a day remain; days.",
    )

    def hasher(self) -> Hasher | None:
        """Return what hashes identifiers; None without a key.

        Raises:
            ConfigError: the key is too short.
        """
        if self.key is None:
            return None
        text = self.key.get_secret_value()
        if len(text) < _MIN_CHARACTERS:
            raise ConfigError(KEY_VARIABLE, f"must have at least {_MIN_CHARACTERS} characters")
        return Hasher(text)


def load_hasher() -> Hasher | None:
    """Return what hashes identifiers, by the environment; None without a key.

    Raises:
        ConfigError: the key is too short, or its file cannot be read.
    """
    return load(ErasureSettings).hasher()


def check_key(ledger_key_id: str | None, hasher: Hasher | None) -> Hasher | None:
    """Return the hasher if the ledger has rows, None if it is empty.

    Args:
        ledger_key_id: the key of the ledger's hashes; None: it is empty.
        hasher: of this process.

    Raises:
        ConfigError: the ledger cannot be read with this key: erased people would return.
    """
    if ledger_key_id is None:
        return None
    rule = None
    if hasher is None:
        rule = "must be set: the ledger of erasures has rows, and erased people would return"
    elif hasher.key_id != ledger_key_id:
        rule = f"must be the key {ledger_key_id} of the ledger of erasures, this is {hasher.key_id}"
    if rule is not None:
        raise ConfigError(KEY_VARIABLE, rule)
    return hasher
