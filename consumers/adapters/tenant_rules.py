"""What the table of tenants decides about records: who may publish, which ids name nobody, consent that is not said.

Invariant: however many tenants and records there are, a batch asks Postgres once at most. A tenant that was added is
known to the next batch that holds one of its records.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import psycopg
from pydantic import Field

from attributary.attribution_core.domain.identity_rules import BUILT_IN, IdentityRules
from attributary.consumers.adapters.departures import KEPT_SECONDS, Departures, departures
from attributary.consumers.adapters.error_mapping import map_errors
from attributary.consumers.runtime.settings import Settings, load
from attributary.consumers.store.cells.moves import Move, all_moves
from attributary.consumers.store.session import StoreSession
from attributary.consumers.store.tenants import consent_defaults, tenant_ids

Lists = Mapping[str, tuple[Sequence[str], Sequence[str]]]  # generic and real ids, by tenant


class TenantAdmission(Settings):
    """Who may publish."""

    unknown_tenants: Literal["open", "closed"] = Field(
        default="open",
        alias="ATTRIBUTION_UNKNOWN_TENANTS",
        description="Records of a tenant that `attributary tenants list` does not show: open stores them, closed makes "
        "each a dead letter. Set alike for stitcher, verify and rebuild.",
    )


@dataclass(frozen=True, slots=True)
class TenantRules:
    """What the tenants decide.

    Attributes:
        identities: which ids name nobody.
        known: the tenants that may publish; None: all may.
        departed: the tenants that moved to another installation.
    """

    identities: IdentityRules = BUILT_IN
    known: frozenset[str] | None = None
    departed: Departures = field(default_factory=dict)


def read_tenant_rules(connection: psycopg.Connection, identities: IdentityRules) -> TenantRules:
    """Read what the tenants decide, with the setting of this process.

    Args:
        connection: open.
        identities: the rules of the file, which those of the table are added to.
    """
    return _rules(tenant_ids(connection), all_moves(connection), identities, load(TenantAdmission))


def _rules(lists: Lists, moves: Sequence[Move], identities: IdentityRules, admission: TenantAdmission) -> TenantRules:
    added = identities.extended(
        {tenant: generic for tenant, (generic, _) in lists.items() if generic},
        {tenant: real for tenant, (_, real) in lists.items() if real},
    )
    known = frozenset(lists) if admission.unknown_tenants == "closed" else None
    return TenantRules(added, known, departures(moves))


class TenantRulesCache:
    """The rules of a stage, read again now and then.

    Args:
        session: Postgres.
        identities: the rules of the file.
        admission: who may publish.
    """

    def __init__(self, session: StoreSession, identities: IdentityRules, admission: TenantAdmission) -> None:
        self._session = session
        self._identities = identities
        self._admission = admission
        self._read: tuple[Lists, Sequence[Move]] | None = None
        self._rules = TenantRules(identities)
        self._read_at: float | None = None  # monotonic seconds

    def rules(self, max_age_seconds: float = KEPT_SECONDS) -> TenantRules:
        """Return the rules, read so long ago at most; the same object while nothing has changed.

        Raises:
            Retry: Postgres does not answer.
        """
        now = time.monotonic()
        if self._read_at is None or now - self._read_at >= max_age_seconds:
            with map_errors(), self._session.transaction() as connection:
                found = tenant_ids(connection), all_moves(connection)
            if found != self._read:
                self._read = found
                self._rules = _rules(*found, self._identities, self._admission)
            self._read_at = now
        return self._rules


class ConsentDefaults:
    """What tenants say about consent where an event does not, read again now and then.

    Args:
        session: Postgres.
    """

    def __init__(self, session: StoreSession) -> None:
        self._session = session
        self._found: Mapping[str, Mapping[str, bool]] = {}
        self._read_at: float | None = None  # monotonic seconds

    def by_tenant(self) -> Mapping[str, Mapping[str, bool]]:
        """Return the answers by tenant and purpose; tenants without any are left out.

        Raises:
            Retry: Postgres does not answer.
        """
        now = time.monotonic()
        if self._read_at is None or now - self._read_at >= KEPT_SECONDS:
            with map_errors(), self._session.transaction() as connection:
                self._found = consent_defaults(connection)
            self._read_at = now
        return self._found
