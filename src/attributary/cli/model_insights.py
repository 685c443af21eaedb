"""`attributary models insights`: sentences about the journeys of a version, with numbers and tests."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import typer

from attributary.cli.model_options import AsJson, Tenant, chosen_version, progress_bar, usage_errors
from attributary.cli.tables import count, number, print_json, print_table


def insights(
    model: Annotated[str, typer.Argument(help="markov or poisson.")],
    version: Annotated[int | None, typer.Argument(help="By default the active one, else the newest.")] = None,
    *,
    tenant: Tenant,
    before: Annotated[
        int | None, typer.Option(help="An earlier version, with other journeys: tells which shares have shifted.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Say in sentences what the journeys of a version's window show: openers, assists, pairs, ranks, lengths, lags.

    The finished journeys of the window are read anew. A sentence is there only if its test passes; each comes with its
    rule, estimate, 90 % interval and n. All of them are associations. The rules: docs/models.md.

    Example: attributary models insights markov --tenant acme
    """
    from attributary.cli.outcome import database
    from attributary.consumers.store.models.model_states import show_state
    from attributary.consumers.training.version_insights import cohort_of, window_of

    with database("attributary-models") as connection, usage_errors(), progress_bar() as progress:
        chosen = chosen_version(connection, tenant, model, version)
        cohorts = []
        for each in [chosen] if before is None else [chosen, before]:
            metadata = show_state(connection, tenant, model, each)[0].metadata
            window, inactivity = window_of(tenant, metadata), metadata["window"]["inactivity_micros"]
            connection.commit()
            with connection.transaction():
                connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
                cohorts.append(cohort_of(connection, window, inactivity, progress))
    found = cohorts[0].report(before=None if before is None else cohorts[1])["insights"]
    if as_json:
        print_json({"model": model, "version": chosen, "before": before, "insights": found})
        return
    if found is None:
        print("no insights: the window has too many distinct paths; choose a shorter one")
        return
    print(f"{model} {chosen} of {tenant}: {count(len(found))} findings that pass their test")
    print_insights(found)


def print_insights(found: Sequence[Mapping[str, Any]]) -> None:
    """Print findings with their numbers."""
    rows = [
        (
            each["text"],
            number(each["estimate"], ",.3f"),
            "" if each["low"] is None else f"[{each['low']:,.3f}, {each['high']:,.3f}]",
            count(each["n"]),
            each["rule_id"],
        )
        for each in found
    ]
    print_table(("association, not cause", "estimate", "90 %", "n", "rule"), rows, numbers=(1, 2, 3))
