"""`attributary settings`: every environment variable, in one table made from the settings classes."""

from __future__ import annotations

import difflib
import importlib
import os
import pkgutil
import textwrap
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from attributary.cli import exits
from attributary.cli.generated_page import compare_page, print_page
from attributary.cli.tables import print_json, safe, width

_COLUMNS = 80
_STATES = ("set", "missing", "exposed", "wrong", "unknown")
_NEAR = 0.85
# For tests only.
_NOT_SETTINGS = frozenset({"ATTRIBUTION_CRASH_AT", "ATTRIBUTION_FUZZ_RECORDS"})

_HEAD = """# Settings

Every setting is an environment variable; a missing or wrong one stops the start with exit code 78 and its name. Each
may also be given as a file: `NAME_FILE=/path` (for secrets). Empty counts as not set. This page is made by
`attributary settings --markdown`; `make check` compares it.
"""


def register(app: typer.Typer) -> None:
    """Add the group `settings`, which shows the table when no command is named."""
    group = typer.Typer(invoke_without_command=True)
    group.callback()(_settings)
    group.command("check")(_check)
    app.add_typer(group, name="settings")


def _settings(
    context: typer.Context,
    *,
    markdown: Annotated[bool, typer.Option("--markdown", help="Print the page docs/reference/settings.md.")] = False,
    check: Annotated[Path | None, typer.Option(help="Exit 1 if this file differs from the page.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="A JSON list.")] = False,
) -> None:
    """Show every environment variable with its default and meaning; `settings check`: what is set, and what is wrong.

    Example: attributary settings check
    """
    if context.invoked_subcommand is not None:
        return
    if as_json:
        names = ("variable", "default", "meaning", "group")
        print_json([dict(zip(names, row, strict=True)) for row in _rows()])
        return
    page = _page()
    if check is not None:
        compare_page(page, check, "attributary settings --markdown")
        return
    if markdown:
        print_page(page)
        return
    # No table: the names are long, and each must be whole, to be copied.
    for variable, default, meaning, _ in _rows():
        print(f"{variable}{f'={default}' if default not in {'', 'required'} else ' (required)' if default else ''}")
        print(textwrap.fill(meaning, width() or _COLUMNS, initial_indent="    ", subsequent_indent="    "))


def _check(
    *,
    as_json: Annotated[bool, typer.Option("--json", help="A JSON list.")] = False,
) -> None:
    """Show which settings the environment has, which are wrong or missing, and names that no setting has.

    exposed: in production, others can read or answer what goes over the network (docs/how-to/secure.md).
    Values are never shown. A setting is missing where it is needed by whatever reads it: not all processes read all of
    them. Exit code 78 if one is wrong, or a name ATTRIBUTION_... is unknown.

    Example: attributary settings check
    """
    found = _checked()
    if as_json:
        print_json([dict(zip(("state", "variable", "text"), row, strict=True)) for row in found])
    else:
        for state, variable, text in found:
            print(safe(f"{state:<8} {variable:<36} {text}".rstrip()))
        counts = {state: sum(row[0] == state for row in found) for state in _STATES}
        print(", ".join(f"{count} {state}" for state, count in counts.items() if count) or "nothing is set")
    if any(state in {"wrong", "unknown"} for state, _, _ in found):
        raise typer.Exit(exits.CONFIG)


def _checked() -> list[tuple[str, str, str]]:
    """Return (state, variable, text) of what is set, wrong, missing and unknown, in this order."""
    from attributary.consumers.runtime.errors import ConfigError
    from attributary.consumers.runtime.settings import MUST_BE_SET, DatabaseSettings, KafkaSettings, load, problems
    from attributary.consumers.store.connection import DsnError, check_dsn

    known = {row[0]: row[3] for row in _rows()}
    broken = {error.variable: error.rule for cls in _classes() for error in problems(cls)}
    if not {"KAFKA_BOOTSTRAP_SERVERS", "KAFKA_EXTRA"} & broken.keys():
        try:
            KafkaSettings.load()  # librdkafka has a word, too
        except ConfigError as error:
            broken.setdefault(error.variable, error.rule)
    if "DATABASE_URL" not in broken:
        try:
            check_dsn(load(DatabaseSettings).url.get_secret_value())
        except DsnError as error:
            broken["DATABASE_URL"] = str(error)
        except ConfigError as error:
            broken.setdefault(error.variable, error.rule)
    rows = []
    for variable in sorted(known):
        is_set = bool(os.environ.get(variable, "").strip())
        is_file = bool(os.environ.get(f"{variable}_FILE", "").strip())
        rule = broken.get(variable) or broken.get(f"{variable}_FILE")
        if rule is not None and (is_set or is_file or rule != MUST_BE_SET):
            rows.append(("wrong", variable, rule))
        elif rule is not None:
            rows.append(("missing", variable, f"needed for: {known[variable].rstrip('.')}"))
        elif is_set or is_file:
            rows.append(("set", variable, "by a file" if is_file and not is_set else ""))
    rows += [("exposed", *each) for each in _exposures(broken)]
    rows += [("unknown", name, text) for name, text in _strangers(set(known))]
    return sorted(rows, key=lambda row: _STATES.index(row[0]))


def _exposures(broken: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """Yield the settings by which, in production, others can read what goes over the network."""
    from attributary.consumers.runtime.endpoints import kafka_exposure, postgres_exposure
    from attributary.consumers.runtime.settings import (
        DatabaseSettings,
        KafkaSettings,
        ProcessSettings,
        load,
        problems,
    )
    from attributary.consumers.store.connection import check_dsn

    if problems(ProcessSettings) or load(ProcessSettings).environment != "production":
        return
    kafka = None if problems(KafkaSettings) else kafka_exposure(load(KafkaSettings))
    dsn = None if "DATABASE_URL" in broken else load(DatabaseSettings).url.get_secret_value()
    yield from filter(None, (kafka, postgres_exposure(check_dsn(dsn)) if dsn else None))


def _strangers(known: set[str]) -> Iterator[tuple[str, str]]:
    """Yield names of the environment that look like settings and are none, each with the one that was perhaps meant.

    All of ours that begin with ATTRIBUTION_; of other beginnings, which other programs have, too, only what is nearly
    the name of a setting.
    """
    for name in sorted(os.environ):
        if name in known or name.removesuffix("_FILE") in known or name in _NOT_SETTINGS:
            continue
        near = difflib.get_close_matches(name, known, n=1, cutoff=_NEAR)
        if near or name.startswith("ATTRIBUTION_"):
            yield name, f"no setting has this name{f'; {near[0]}?' if near else ''}"


def _classes() -> Iterator[type[Any]]:
    from attributary import cli, consumers
    from attributary.consumers.runtime.settings import Settings

    for module in pkgutil.walk_packages(consumers.__path__, "attributary.consumers."):
        if module.name.rpartition(".")[2].endswith(("settings", "process")):
            importlib.import_module(module.name)
    for module in pkgutil.iter_modules(cli.__path__, "attributary.cli."):
        if module.name.endswith("_settings"):
            importlib.import_module(module.name)
    found: list[type[Any]] = []
    queue = list(Settings.__subclasses__())
    while queue:
        cls = queue.pop()
        if cls.__module__.startswith("attributary."):
            found.append(cls)
        queue += cls.__subclasses__()
    yield from sorted(found, key=lambda cls: (cls.__module__, cls.__name__))


def _rows() -> Iterator[tuple[str, str, str, str]]:
    from attributary.consumers.runtime.settings import variable_of

    seen: set[str] = set()
    for cls in _classes():
        for name, field in cls.model_fields.items():
            variable = variable_of(field, name)
            if variable in seen:
                continue
            seen.add(variable)
            default = "required" if field.is_required() else _default(field.get_default(call_default_factory=True))
            yield variable, default, field.description or "", (cls.__doc__ or "").splitlines()[0]


def _default(value: Any) -> str:
    return "" if value in (None, {}, [], ()) else str(value)


def _page() -> str:
    lines = [_HEAD]
    section = None
    for variable, default, meaning, title in _rows():
        if title != section:
            section = title
            lines.append(f"\n## {title.rstrip('.')}\n\n| Variable | Default | Meaning |\n|---|---|---|")
        shown = f"`{default}`" if default not in {"", "required"} else default
        lines.append(f"| `{variable}` | {shown} | {meaning.replace('|', chr(92) + '|')} |")
    return "\n".join(lines) + "\n"
