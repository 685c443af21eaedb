"""Consent that a tenant states by default counts where an event does not mention the purpose, and nowhere else."""

from __future__ import annotations

import pytest

from attributary.consumers.adapters.tenant_rules import ConsentDefaults
from attributary.consumers.destinations.credentials import Credentials
from attributary.consumers.destinations.destination import NotSent
from attributary.consumers.destinations.meta.destination import MetaDestination, MetaOptions
from attributary.consumers.forwarder.tasks import Route, Tasks
from attributary.consumers.runtime.records import Outcome
from attributary.consumers.store.connection import connect
from attributary.consumers.store.session import StoreSession
from attributary.consumers.store.tenants import Tenant, store_tenant
from tests.forwarder.forwarder_factories import META_ACCOUNT, conversion, records

NOW = 1_795_000_000_000_000


@pytest.mark.postgres
def test_a_tenants_answer_counts_where_the_event_has_none(database: str) -> None:
    with connect(database, application_name="tests") as connection:
        store_tenant(connection, Tenant("acme", consent_defaults={"ad_storage": True, "ad_user_data": True}))
        store_tenant(connection, Tenant("shop"))
    session = StoreSession(database, "tests")
    destination = MetaDestination(MetaOptions(), consent_purposes=("ad_storage", "ad_user_data"))
    tasks = Tasks(Route(destination, Credentials("meta", META_ACCOUNT), consent=ConsentDefaults(session)))
    events = [
        conversion(NOW, event_id="silent", consent=None),
        conversion(NOW, event_id="refused", consent={"ad_storage": False}),
        conversion(NOW, event_id="other-tenant", tenant_id="shop", consent=None),
    ]
    found = {
        key.event_id: task.prepared for key, task in tasks.read(records(events, now_micros=NOW), Outcome(), NOW).items()
    }
    reasons = {name: each.reason if isinstance(each, NotSent) else "goes" for name, each in found.items()}
    assert reasons == {
        "silent": "goes",
        "refused": "consent refused: ad_storage",
        "other-tenant": "consent not known: ad_storage",
    }
    session.close()
