"""`attributary settings`: every environment variable, in one table made from the settings classes."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from attributary.cli.generated_page import compare_page, print_page

_HEAD = """# Settings

Every setting is an environment variable; a missing or wrong one stops the start with exit code 78 and its name. Each
may also be given as a file: `NAME_FILE=/path` (for secrets). Empty counts as not set. This page is made by
`attributary settings --markdown`; `make check` compares it.
"""


def register(app: typer.Typer) -> None:
    """Add the command `settings`."""
    app.command("settings")(_settings)


def _settings(
    markdown: Annotated[bool, typer.Option("--markdown", help="Print the page docs/reference/settings.md.")] = False,
    check: Annotated[Path | None, typer.Option(help="Exit 1 if this file differs from the page.")] = None,
) -> None:
    """Show every environment variable with its default and meaning."""
    page = _page()
    if check is not None:
        compare_page(page, check, "attributary settings --markdown")
        return
    if markdown:
        print_page(page)
        return
    from rich.console import Console
    from rich.table import Table

    table = Table("Variable", "Default", "Meaning", title="Settings")
    for variable, default, meaning, _ in _rows():
        table.add_row(variable, default, meaning)
    Console().print(table)


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
