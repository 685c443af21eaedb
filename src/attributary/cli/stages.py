"""`attributary stitcher`, `attributor` and so on: a process each; `attributary all`: all on one machine."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable
from typing import Annotated

import typer

from attributary import __version__
from attributary.cli.command_line import load_plainly

_STAGES = {
    "stitcher": "Store events, join identities, raise the versions of conversions and ask for their attribution.",
    "attributor": "Compute attribution results for the conversions that commands name, and publish them.",
    "auditor": "Store every published result, note which versions were seen, and check that credits sum to revenue.",
    "reporter": "Keep an exact roll-up of the newest results, by day, model, channel and campaign, for reports.",
    "spender": "Store what ads cost, from the reports that services publish.",
    "sweeper": "Ask again for results that are overdue, make conversions final, close silent journeys.",
    "express": "Store, out of turn, what waits behind another tenant's flood; optional, for tenants that share topics.",
    "trainer": "Run batch analyses and trainings from the jobs topic.",
}
_MODULES = {"express": "stitcher.express_process"}
_NEEDS = (
    "\n\nNeeds KAFKA_BOOTSTRAP_SERVERS and DATABASE_URL; on the very first start also ATTRIBUTION_FIRST_START=earliest "
    "(or latest). All settings: docs/reference/settings.md, or `attributary settings`."
    "\n\nServes /metrics, /livez and /readyz on METRICS_PORT (9464). SIGTERM: finish the batch, stop; twice: at once."
)


def register(app: typer.Typer) -> None:
    """Add one command a stage, and `all`."""
    for name, text in _STAGES.items():
        if importlib.util.find_spec(_module(name)):
            app.command(name, help=text + _NEEDS, rich_help_panel="Processes")(_command(name))
    app.command("all", rich_help_panel="Processes")(_all)


def _command(name: str) -> Callable[[], None]:
    def run() -> None:
        load_plainly("structlog")
        raise typer.Exit(importlib.import_module(_module(name)).main(__version__))

    return run


def _module(name: str) -> str:
    return f"attributary.consumers.{_MODULES.get(name, f'{name}.process')}"


def _all(
    first_port: Annotated[
        int, typer.Option(help="METRICS_PORT of the first process; the others follow.", envvar="METRICS_PORT")
    ] = 9464,
    without: Annotated[list[str] | None, typer.Option(help="Leave a process out; may be given again.")] = None,
) -> None:
    """Run all consumers as processes of this one: for a small machine.

    Stops all of them when one ends by itself, and ends with its exit code. Example:

        ATTRIBUTION_FIRST_START=earliest attributary all
    """
    from attributary.local.supervisor import run_all

    raise typer.Exit(run_all(without or [], first_port))
