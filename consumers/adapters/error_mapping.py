"""Where the troubles of Postgres and of the schema registry become the loop's: the one place that knows all."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
from psycopg.errors import (
    DeadlockDetected,
    IdleInTransactionSessionTimeout,
    InsufficientPrivilege,
    QueryCanceled,
    TransactionTimeout,
)

from attributary.consumers.runtime import metrics
from attributary.consumers.runtime.errors import EXIT_CONFIG, ConfigError, Fatal, Fenced, Retry, TooSlow
from attributary.consumers.store.connection import DsnError, StoreUnavailable
from attributary.consumers.store.events.rejected_values import UNSTORABLE
from attributary.consumers.store.migrate import MigrationError
from attributary.consumers.store.models.model_states import ModelStateError
from attributary.consumers.store.offsets import CommitsLostError
from attributary.schemas.codec import RegistryUnavailableError

_DEADLOCK_SECONDS = 0.05
# Postgres answers, and a time limit of ours ended the statement or the transaction.
_TIMED_OUT = (QueryCanceled, IdleInTransactionSessionTimeout, TransactionTimeout)
_DENIED = re.compile(r"permission denied for ((?:table|view|schema|database|sequence|function|relation) [\w.]+)")


@contextmanager
def map_errors() -> Iterator[None]:
    """Turn errors from outside into the loop's classes.

    Raises:
        Retry: Postgres or the registry is away; nothing was decided.
        TooSlow: Postgres ended a statement or a transaction at our time limit.
        Fenced: Postgres lost commits; the loop goes back to what it holds.
        Fatal: the schema and the code do not fit or a right is missing (exit code 78), a pinned model state is missing,
            or Postgres refuses a statement: a dropped column. That is never a record's fault; a value that Postgres
            cannot hold (``UNSTORABLE``) passes as it is.
    """
    try:
        yield
    except UNSTORABLE:
        raise
    except StoreUnavailable as error:
        raise _retry(error) from error
    except RegistryUnavailableError as error:
        raise Retry(str(error)) from error
    except DsnError as error:
        raise ConfigError("DATABASE_URL", str(error)) from None
    except CommitsLostError as error:
        raise Fenced(str(error)) from error
    except ModelStateError as error:
        raise Fatal(str(error)) from error
    except MigrationError as error:
        raise Fatal(str(error), EXIT_CONFIG) from error
    except psycopg.Error as error:
        raise _refused(error) from error


def _refused(error: psycopg.Error) -> Fatal:
    """Say which statement Postgres refuses, without its text, which quotes values."""
    if not isinstance(error, InsufficientPrivilege):
        return Fatal(
            f"Postgres refuses a statement ({type(error).__name__}, SQLSTATE {error.sqlstate or 'none'}). Compare the "
            "tables with `attributary db status`, and the role's rights with `attributary roles plan`"
        )
    found = _DENIED.match(error.diag.message_primary or "")  # the name of a table is ours to show
    return Fatal(
        f"the role of DATABASE_URL lacks a right on {found[1] if found else 'something'} in Postgres (SQLSTATE "
        f"{error.sqlstate}); run `attributary roles plan` as the owner, see docs/reference/roles.md",
        EXIT_CONFIG,
    )


def _retry(error: StoreUnavailable) -> Retry:
    if isinstance(error.__cause__, DeadlockDetected):
        metrics.deadlocks.inc()
        return Retry(str(error), _DEADLOCK_SECONDS)  # the other transaction goes on: no need to wait long
    return TooSlow(str(error)) if isinstance(error.__cause__, _TIMED_OUT) else Retry(str(error))
