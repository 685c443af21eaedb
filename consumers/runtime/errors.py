"""The four classes of trouble, and what each makes the loop do.

::

    AttributaryError
    ├── Retry        infrastructure is away: seek back, pause, keep polling, try again. Never dead-lettered.
    │   └── TooSlow       it answers, and took too long for this batch: again and again, the record is looked for.
    ├── Poison       one record can never be processed: to the dead-letter topic, with its bytes.
    ├── Fenced       someone else owns our partitions or our transactional id: abort, rewind, stay alive.
    └── Fatal        going on could lose or spoil something: stop the process.
        ├── ConfigError   a setting is missing or wrong: exit code 78, names the variable.
        └── AccessRefused Kafka refuses a right: exit code 78, names principal, operation and resource.

Texts never hold a secret, an e-mail address, a phone number or an IP address.
"""

from __future__ import annotations

EXIT_CLEAN = 0
EXIT_DEPENDENCY_DOWN = 69
EXIT_BUG = 70
EXIT_CONFIG = 78

_MAX_FACTOR = 16


class AttributaryError(Exception):
    """Any trouble that this project names itself."""

    exit_code = EXIT_BUG


class Retry(AttributaryError):
    """Something outside is away for now.

    Args:
        message: what is away.
        after_seconds: how long to wait before the next try.
        is_exact: whether it is known when to try again, however often that was; else tries lie further apart each time.
    """

    exit_code = EXIT_DEPENDENCY_DOWN

    def __init__(self, message: str, after_seconds: float = 1.0, *, is_exact: bool = False) -> None:
        super().__init__(message)
        self.after_seconds = after_seconds
        self.is_exact = is_exact

    def pause_seconds(self, tries: int) -> float:
        """Return how long to wait after so many tries in a row, this one included."""
        return self.after_seconds * (1 if self.is_exact else min(2 ** (tries - 1), _MAX_FACTOR))


class TooSlow(Retry):
    """The store is there, and ended what a batch asked for because it took too long."""


class Poison(AttributaryError):
    """A record that can never be processed, because of its own content.

    Args:
        stage: where it was found out: decode, validate, store or send.
        field: the field that broke the rule, if one did.
        rule: the rule, without the value.
    """

    def __init__(self, stage: str, field: str | None, rule: str) -> None:
        super().__init__(f"{stage}: {field}: {rule}" if field else f"{stage}: {rule}")
        self.stage, self.field, self.rule = stage, field, rule


class Fenced(AttributaryError):
    """The outcome of a transaction is not ours or not known: abort, rewind to the committed offsets, replay."""


class Fatal(AttributaryError):
    """Going on could lose or spoil something: the process stops and says why."""

    def __init__(self, message: str, exit_code: int = EXIT_BUG) -> None:
        super().__init__(message)
        self.exit_code = exit_code


class ConfigError(Fatal):
    """A setting is missing or wrong.

    Args:
        variable: the environment variable.
        rule: what it has to be; never the value.
    """

    def __init__(self, variable: str, rule: str) -> None:
        super().__init__(f"{variable}: {rule}", EXIT_CONFIG)
        self.variable, self.rule = variable, rule


class AccessRefused(Fatal):
    """Kafka's access rules do not let this process do what it must; trying again would not help.

    Args:
        principal: who the brokers take this process for.
        operation: in Kafka's words: READ, WRITE, ...
        resource: kind and name, for example ``topic attribution.commands.v1``.
    """

    def __init__(self, principal: str, operation: str, resource: str) -> None:
        super().__init__(
            f"Kafka refuses {principal} the operation {operation} on {resource}; an administrator of Kafka adds what "
            "is missing by `attributary acls apply` (docs/how-to/secure.md)",
            EXIT_CONFIG,
        )
        self.principal, self.operation, self.resource = principal, operation, resource
