"""The command line ``attributary``: one small module a group of commands, each importing what it needs when it runs."""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from typing import TYPE_CHECKING, Annotated

import typer

from attributary import __version__
from attributary.cli.command_line import COMPLETION, CommandGroup, CommandLine

# Numpy's BLAS reads it when it is loaded. Matrices here are small, and its threads wait for each other by spinning: on
# busy cores an inverse takes 30 times as long with two threads as with one. Nor should the last bit of a credit, and so
# the content hash of a result, depend on how many cores computed it.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

# Each module has ``register(app)``, and adds these commands. A process of a stage starts with its own module only.
COMMANDS: Mapping[str, Sequence[str]] = {
    "stages": (
        "stitcher",
        "attributor",
        "auditor",
        "reporter",
        "spender",
        "sweeper",
        "express",
        "trainer",
        "all",
    ),
    "db": ("db",),
    "topics": ("topics",),
    "acls": ("acls",),
    "schemas": ("schemas",),
    "settings": ("settings",),
    "metrics": ("metrics",),
    "tail": ("tail",),
    "dlq": ("dlq",),
    "explain": ("explain",),
    "event_reports": ("events", "conversions"),
    "identities": ("identities",),
    "verify": ("verify",),
    "rebuild": ("rebuild",),
    "results": ("results",),
    "report": ("report",),
    "export": ("export",),
    "spend": ("spend",),
    "fx": ("fx",),
    "budget": ("budget",),
    "experiment": ("experiment",),
    "positions": ("positions",),
    "status": ("status", "doctor"),
    "people": ("people",),
    "tenants": ("tenants",),
    "cell": ("cell",),
    "retention": ("retention",),
    "roles": ("roles",),
    "erase": ("export-person", "erase"),
    "refit": ("refit",),
    "policy": ("policy",),
    "audit": ("audit",),
    "produce": ("produce",),
    "collect": ("collect",),
    "serve": ("serve",),
    "simulate": ("simulate",),
    "analyze": ("analyze",),
    "models": ("models",),
    "jobs": ("jobs",),
    "forward": ("forwarder", "forward"),
    "destinations": ("destinations",),
    "fake_destinations": ("fake-destinations",),
    "local": ("up", "down"),
    "demo": ("demo",),
}


def _version(show: bool) -> None:
    if show:
        print(__version__)
        raise typer.Exit


def _main(
    version: Annotated[  # noqa: ARG001  # handled by its callback
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    from attributary.schemas.installation import read_prefix

    read_prefix()  # a bad one is said before anything else: nobody should get as far as the topics of others


def _show_alike(group: typer.Typer) -> None:
    """Let every group below this one show its commands in the same way."""
    for each in group.registered_groups:
        if each.typer_instance is not None:
            each.typer_instance.info.cls = CommandGroup
            _show_alike(each.typer_instance)


def _made(modules: Iterable[str]) -> typer.Typer:
    """Make a command line of what these modules register."""
    made = typer.Typer(
        name="attributary",
        cls=CommandLine,
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,  # plain text wraps once, at the terminal's width, and is the same in a pipe
        help="Marketing touchpoints and conversions in, attribution results out, every unit of revenue accounted for."
        "\n\nStart with `attributary demo`, or see docs/ for each task.",
    )
    made.callback()(_main)
    for name in modules:
        if importlib.util.find_spec(f"attributary.cli.{name}"):
            importlib.import_module(f"attributary.cli.{name}").register(made)
    _show_alike(made)
    return made


@cache
def whole_app() -> typer.Typer:
    """Return the command line with every command."""
    return _made(COMMANDS)


if TYPE_CHECKING:
    app: typer.Typer
else:

    def __getattr__(name: str) -> typer.Typer:
        """Make ``app``, the command line with every command, when somebody asks for it."""
        if name == "app":
            return whole_app()
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def run() -> None:
    """Entry point of the console script; what is named first is all that is imported."""
    first = sys.argv[1] if len(sys.argv) > 1 else ""
    module = next((module for module, names in COMMANDS.items() if first in names), None)
    if module is None or COMPLETION in os.environ:
        whole_app()()
    else:
        _made([module])()
