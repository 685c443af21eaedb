"""The command line ``attributary``: one small module a group of commands, each importing what it needs when it runs."""

from __future__ import annotations

import importlib
import importlib.util
import os
from typing import Annotated

import typer

from attributary import __version__
from attributary.cli.command_line import CommandGroup, CommandLine

# Numpy's BLAS reads it when it is loaded. Matrices here are small, and its threads wait for each other by spinning: on
# busy cores an inverse takes 30 times as long with two threads as with one. Nor should the last bit of a credit, and so
# the content hash of a result, depend on how many cores computed it.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

# Each module has ``register(app)``.
COMMANDS = (
    "stages",
    "db",
    "topics",
    "acls",
    "schemas",
    "settings",
    "metrics",
    "tail",
    "dlq",
    "explain",
    "event_reports",
    "identities",
    "verify",
    "rebuild",
    "results",
    "report",
    "export",
    "spend",
    "fx",
    "budget",
    "experiment",
    "positions",
    "status",
    "people",
    "tenants",
    "cell",
    "retention",
    "roles",
    "erase",
    "refit",
    "policy",
    "audit",
    "produce",
    "collect",
    "serve",
    "simulate",
    "analyze",
    "models",
    "jobs",
    "forward",
    "destinations",
    "fake_destinations",
    "local",
    "demo",
)

app = typer.Typer(
    name="attributary",
    cls=CommandLine,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # plain text wraps once, at the terminal's width, and is the same in a pipe
    help="Marketing touchpoints and conversions in, attribution results out, every unit of revenue accounted for.\n\n"
    "Start with `attributary demo`, or see docs/ for each task.",
)


def _version(show: bool) -> None:
    if show:
        print(__version__)
        raise typer.Exit


@app.callback()
def _main(
    version: Annotated[  # noqa: ARG001  # handled by its callback
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    from attributary.schemas.installation import read_prefix

    read_prefix()  # a bad one is said before anything else: nobody should get as far as the topics of others


for _name in COMMANDS:
    if importlib.util.find_spec(f"attributary.cli.{_name}"):
        importlib.import_module(f"attributary.cli.{_name}").register(app)


def _show_alike(group: typer.Typer) -> None:
    """Let every group below this one show its commands in the same way."""
    for each in group.registered_groups:
        if each.typer_instance is not None:
            each.typer_instance.info.cls = CommandGroup
            _show_alike(each.typer_instance)


_show_alike(app)


def run() -> None:
    """Entry point of the console script."""
    app()
