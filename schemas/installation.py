"""Which installation this process belongs to, and how it names its topics and groups.

Several installations share a Kafka when each has a prefix of its own: all its topics, consumer groups, transactional
ids and default principals begin with it. Invariant: every name is made here, from the environment as it was when the
process started, so no process can read or write under two prefixes. A bad prefix stops the import: a process that
went on without it would read the topics of another installation.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path

PREFIX_VARIABLE = "ATTRIBUTION_PREFIX"
OURS = "attribution."
"""How the names of topics and groups begin, behind the prefix."""

MAX_PREFIX = 32  # a dead-letter topic has the prefix twice, and Kafka takes 249 characters
_PREFIX = re.compile(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*\.")
PREFIX_RULE = (
    f"must be lower-case letters, digits and - that end with a point, at most {MAX_PREFIX} characters, and not hold "
    "the word attribution; for example eu."
)


class PrefixError(ValueError):
    """The prefix of the environment breaks the rule for prefixes."""


def check_prefix(prefix: str) -> str:
    """Return a prefix as it is.

    Raises:
        ValueError: it breaks the rule; the text is the rule, without the value.
    """
    # No underscore: Kafka's metrics take it and the point for the same, so brokers warn of such topics or refuse them.
    # Not our own word: the names of one installation would begin like the prefix of another one's rights.
    if prefix and (len(prefix) > MAX_PREFIX or "attribution" in prefix or _PREFIX.fullmatch(prefix) is None):
        raise ValueError(PREFIX_RULE)
    return prefix


def read_prefix(environment: Mapping[str, str] = os.environ) -> str:
    """Return the prefix that an environment names, by the variable or by a file (``ATTRIBUTION_PREFIX_FILE``).

    Raises:
        PrefixError: names the variable and the rule.
    """
    prefix, variable = environment.get(PREFIX_VARIABLE, ""), PREFIX_VARIABLE
    if not prefix and (path := environment.get(f"{PREFIX_VARIABLE}_FILE")):
        variable = f"{PREFIX_VARIABLE}_FILE"
        try:
            prefix = Path(path).read_text("utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise PrefixError(f"{variable}: the file cannot be read ({type(error).__name__})") from None
    try:
        return check_prefix(prefix)
    except ValueError as error:
        raise PrefixError(f"{variable}: {error}") from None
