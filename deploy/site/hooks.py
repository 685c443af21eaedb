"""What the docs site has beside the pages of docs/: reference pages made from code, and pages of other folders.

MkDocs calls the functions below (https://www.mkdocs.org/dev-guide/plugins/#events). Invariant: a link that leaves docs/
names a file of the repository; it becomes a link to that file's page where there is one, else plain text.
"""  # noqa: INP001  # loaded by MkDocs from its path, not part of the package

from __future__ import annotations

import json
import posixpath
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[2]

# Files outside docs/ that are pages of the site, and where.
ADOPTED = {
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "deploy/README.md": "how-to/deploy.md",
    "examples/README.md": "tutorial/examples.md",
}

_LINK = re.compile(r"\[([^\]]*)\]\(([^)\s]+)\)")
_EXAMPLE = re.compile(r"^Examples?\b:?\s*")


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Add every decision to the navigation, below the page that lists them."""
    decisions = [f"decisions/{path.name}" for path in sorted((ROOT / "docs" / "decisions").glob("0*.md"))]
    (design,) = (entry["Design"] for entry in config.nav if isinstance(entry, dict) and "Design" in entry)
    design.append({"Decisions": ["decisions/index.md", *decisions]})
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that are made here."""
    pages = {"reference/cli.md": command_line_page(), "reference/records.md": records_page()}
    pages |= {page: (ROOT / source).read_text("utf-8") for source, page in ADOPTED.items()}
    for path, text in pages.items():
        files.append(File.generated(config, path, content=text))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:  # noqa: ARG001  # MkDocs' names
    """Turn links to files of the repository into links to their pages, or into text."""
    path = page.file.src_uri
    homes = {page_: source for source, page_ in ADOPTED.items()}
    source = homes.get(path, f"docs/{path}")

    def link(found: re.Match[str]) -> str:
        text, target = found.groups()
        if re.match(r"[a-z]+:|#", target):
            return found[0]
        name, _, anchor = target.partition("#")
        whole = posixpath.normpath(posixpath.join(posixpath.dirname(source), name))
        if whole in ADOPTED:
            return _to(ADOPTED[whole], anchor, path, text)
        if whole.startswith("docs/"):
            return _to(whole.removeprefix("docs/"), anchor, path, text)
        if not (ROOT / whole).exists():
            raise PluginError(f"{source}: the link {target} names no file of the repository")
        return text

    return "\n".join(_outside_code(markdown, lambda line: _LINK.sub(link, line)))


def _outside_code(markdown: str, change: Any) -> Iterator[str]:
    is_fenced = False
    for line in markdown.split("\n"):
        if line.lstrip().startswith("```"):
            is_fenced = not is_fenced
        yield line if is_fenced or line.startswith("    ") else change(line)


def _to(target: str, anchor: str, path: str, text: str) -> str:
    relative = posixpath.relpath(target, posixpath.dirname(path) or ".")
    return f"[{text}]({relative}{'#' if anchor else ''}{anchor})"


def command_line_page() -> str:
    """Return every command of the command line with its options, as Markdown."""
    from attributary.cli.main import app  # noqa: PLC0415  # slow, and only here

    lines = [
        "# Command line",
        "",
        "Each command says the same with `--help`. Exit codes stand in [Operate](../how-to/operate.md#exit-codes).",
        "",
    ]
    lines += _command(typer.main.get_command(app), ("attributary",))
    return "\n".join(lines)


def _command(command: Any, path: tuple[str, ...]) -> Iterator[str]:
    children = getattr(command, "commands", {})
    if len(path) > 1:
        yield from ("#" * len(path) + f" {' '.join(path)}", "")
    yield from _prose(command.help or "")
    options = [option for option in command.params if option.name != "help" and not getattr(option, "hidden", False)]
    if options:
        yield from ("| | Default | Meaning |", "|---|---|---|")
        for option in options:
            names = ", ".join(f"`{name}`" for name in (*option.opts, *option.secondary_opts))
            if option.param_type_name == "argument":
                names = f"`{(option.metavar or option.name).upper()}`"
            default = option.default
            shown = "" if default is None or callable(default) or default in (False, ()) else f"`{default}`"
            yield f"| {names} | {shown} | {_cell(getattr(option, 'help', None) or '')} |"
        yield ""
    for name, child in children.items():
        yield from _command(child, (*path, name))


def _prose(text: str) -> Iterator[str]:
    """Give a help text as paragraphs, with its examples as code."""
    paragraphs = text.replace("\f", "").split("\n\n")
    for paragraph in paragraphs:
        body = paragraph.replace("\b\n", "").replace("\b", "").strip("\n")
        if found := _EXAMPLE.match(body):
            rest = body[found.end() :].strip("\n")
            yield from ("```console", rest, "```", "")
        elif "\b" in paragraph:
            yield from ("```text", body, "```", "")
        else:
            yield from (_cell(body), "")


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;").replace("*", "\\*")


def records_page() -> str:
    """Return every field of every record of the topics, as Markdown."""
    from attributary.schemas.schema_catalog import NAMES, registered_text  # noqa: PLC0415  # as above

    lines = [
        "# Records",
        "",
        "Every field of every record, from `schemas/*.avsc`. For other rules see [Schemas](schemas.md#rules).",
        "",
    ]
    for name in NAMES:
        schema = json.loads(registered_text(name))
        lines += [f"## {name}", "", _cell(schema.get("doc", "")), "", *_fields(schema), ""]
    return "\n".join(lines)


def _fields(schema: dict[str, Any]) -> Iterator[str]:
    yield from ("| Field | Type | Default | Meaning |", "|---|---|---|---|")
    inner: list[dict[str, Any]] = []
    for field in schema["fields"]:
        default = f"`{field['default']!r}`" if "default" in field and field["default"] is not None else ""
        default = "null" if "default" in field and field["default"] is None else default
        yield f"| `{field['name']}` | {_type(field['type'], inner)} | {default} | {_cell(field.get('doc', ''))} |"
    for record in inner:
        yield from ("", f"Each `{record['name']}`: {_cell(record.get('doc', ''))}", "")
        yield from _fields(record)


def _type(schema: Any, inner: list[dict[str, Any]]) -> str:
    if isinstance(schema, list):
        return " or ".join(_type(each, inner) for each in schema)
    if isinstance(schema, str):
        return schema
    kind = schema["type"]
    if kind in {"array", "map"}:
        return f"{kind} of {_type(schema['items' if kind == 'array' else 'values'], inner)}"
    if kind == "record":
        inner.append(schema)
        return f"{schema['name']} (below)"
    if kind == "enum":
        return "one of " + ", ".join(schema["symbols"])
    return ", ".join(filter(None, (kind, schema.get("logicalType"))))
