"""`attributary refit`: attribute conversions again, by the models and the policy in force now."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from attributary.cli.tenant_option import Tenant
from attributary.cli.times import SINCE_HELP, UNTIL_HELP, period_options

if TYPE_CHECKING:
    import psycopg

    from attributary.attribution_core.domain.lookback import LookbackPolicy

_BATCH = 5_000


def register(app: typer.Typer) -> None:
    """Add the command `refit`."""
    app.command("refit")(_refit)


def _refit(
    *,
    tenant: Tenant = "",
    since: Annotated[str, typer.Option("--from", help=f"Conversions. {SINCE_HELP}")] = "beginning",
    until: Annotated[str, typer.Option("--to", help=f"Conversions. {UNTIL_HELP}")] = "end",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only count.")] = False,
) -> None:
    """Raise the versions of conversions that other models or another policy credited, with the reason model_refit.

    The results come as new versions on the results topic, with the delta; every earlier version stays. The sweeper asks
    for them within SWEEP_REPAIR_AFTER_SECONDS. Cut short, it can be started again.

    Example: attributary refit --tenant acme --from 30d
    """
    from attributary.cli.model_options import usage_errors
    from attributary.cli.outcome import database
    from attributary.cli.tables import plural
    from attributary.consumers.adapters.policy_settings import PolicySettings
    from attributary.consumers.runtime.settings import load
    from attributary.consumers.store.events.policy_activations import policy_in_force
    from attributary.consumers.store.repair.version_raise import count_refit
    from attributary.consumers.store.tenants import check_tenant

    period = period_options(since, until)
    with database("attributary-refit") as connection, usage_errors():
        check_tenant(connection, tenant)
        policy = policy_in_force(connection, tenant, load(PolicySettings).policy())
        total = count_refit(connection, tenant, period, policy.version)
        if dry_run or total == 0:
            outcome = f"{plural(total, 'conversion')} of {tenant} would get a new version"
            if not dry_run:
                outcome = f"Nothing to do: models and policy in force credit every conversion of {tenant} already."
            print(outcome)
            return
        connection.commit()  # so that each batch below is a transaction of its own
        done = raise_all(connection, tenant, period, policy, total)
    print(
        f"{plural(done, 'conversion')} of {tenant} get a new version: the sweeper asks for the results, within "
        f"SWEEP_REPAIR_AFTER_SECONDS. See them: attributary results --tenant {tenant}"
    )


def raise_all(
    connection: psycopg.Connection,
    tenant: str,
    period_us: tuple[int, int],
    policy: LookbackPolicy,
    total: int | None = None,
) -> int:
    """Raise the versions of a period in batches, each a transaction of its own; return how many.

    Args:
        connection: without an open transaction.
        tenant: the tenant.
        period_us: event time of the conversions, from (included) to (excluded), microseconds UTC.
        policy: that they pin.
        total: how many it will be, for the progress.
    """
    import time

    from rich.progress import Progress

    from attributary.consumers.store.events.policies import store_policy
    from attributary.consumers.store.repair.version_raise import refit

    done = 0
    with Progress() as bars:
        task = bars.add_task("refit", total=total)
        while True:
            with connection.transaction():
                store_policy(connection, policy)
                now_us = time.time_ns() // 1_000
                raised = refit(connection, tenant, period_us, policy.version, now_us=now_us, limit=_BATCH)
            done += raised
            bars.update(task, completed=done)
            if raised < _BATCH:
                return done
