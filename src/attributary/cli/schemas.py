"""`attributary schemas`: show the Avro schemas, check them, and read a record's bytes."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from attributary.cli import exits
from attributary.cli.outcome import say

schemas_app = typer.Typer(no_args_is_help=True, help="Show and check the Avro schemas, and read records.")


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.add_typer(schemas_app, name="schemas")


@schemas_app.command("list")
def list_schemas(
    as_json: Annotated[bool, typer.Option("--json", help="A JSON list.")] = False,
) -> None:
    """List the records: name, published version, CRC-64 fingerprint, topic.

    The fingerprint is shown as it stands in a record after C3 01, so that it can be found in a hex dump.

    Example: attributary schemas list
    """
    from attributary.cli.tables import print_json
    from attributary.schemas.schema_catalog import current_schemas, published_paths
    from attributary.schemas.topics import catalogue

    topics = {topic.record: topic.name for topic in catalogue()}
    rows = [
        {"record": name, "version": len(published_paths(name)), "crc64": schema.crc64.hex(), "topic": topics.get(name)}
        for name, schema in current_schemas().items()
    ]
    if as_json:
        print_json(rows)
        return
    for row in rows:
        typer.echo(f"{row['record']:<14} v{row['version']}  {row['crc64']}  {row['topic'] or '-'}")


@schemas_app.command("show")
def show_schema(name: Annotated[str, typer.Argument(help="touchpoint, conversion, result, ...")]) -> None:
    """Print a schema, every field with its doc.

    Example: attributary schemas show touchpoint
    """
    from attributary.schemas.schema_catalog import path_of

    typer.echo(path_of(_known(name)).read_text("utf-8"), nl=False)


@schemas_app.command("check")
def check_schemas() -> None:
    """Check that no schema change would break a reader or a writer; exit with 1 and the field when one would.

    Example: attributary schemas check
    """
    from attributary.schemas.compatibility import problems

    found = problems()
    for problem in found:
        say(problem)
    if found:
        raise typer.Exit(exits.FAILED)
    typer.echo("all schemas are readable both ways")


@schemas_app.command("decode")
def decode_file(
    file: Annotated[str, typer.Argument(help="A file with the bytes of one record, or - for standard input.")],
    *,
    name: Annotated[str | None, typer.Option("--name", help="The record; only needed with a schema id.")] = None,
    registry: Annotated[str | None, typer.Option(envvar="SCHEMA_REGISTRY_URL", help="For records with an id.")] = None,
) -> None:
    """Print one record's bytes as JSON, whichever framing they have.

    Single-object encoding (C3 01) says itself which record it is. Confluent wire format (00) needs --name and a
    registry. Exit 1: the bytes are no such record, with the reason. What the record holds is printed as it is, user
    data included.

    Example: kcat -C -t attribution.results.v1 -c 1 -D '' | attributary schemas decode -
    """
    import json

    from attributary.schemas.codec import Codec, DecodeError
    from attributary.schemas.registry import RegistryExtraMissingError, connect

    value = sys.stdin.buffer.read() if file == "-" else _bytes_of(file)
    try:
        codec = Codec(connect({"url": registry}) if registry and value[:1] == b"\0" else None)
        record = codec.decode(_known(name) if name else _named(value), value)
    except DecodeError as error:
        say(error.rule)
        raise typer.Exit(exits.FAILED) from None
    except RegistryExtraMissingError as error:
        say(str(error))
        raise typer.Exit(exits.CONFIG) from None
    typer.echo(json.dumps(record, indent=2, ensure_ascii=False, default=bytes.hex))


def _bytes_of(file: str) -> bytes:
    try:
        return Path(file).read_bytes()
    except OSError as error:
        raise typer.BadParameter(f"cannot be read: {error.strerror}", param_hint="FILE") from None
    except ValueError:
        raise typer.BadParameter("is no name of a file", param_hint="FILE") from None


def _known(name: str) -> str:
    from attributary.schemas.schema_catalog import NAMES

    if name not in NAMES:
        raise typer.BadParameter(f"must be one of {', '.join(NAMES)}")
    return name


def _named(value: bytes) -> str:
    """Return the record that the fingerprint names."""
    from attributary.schemas.codec import SINGLE_OBJECT
    from attributary.schemas.schema_catalog import known_schemas

    if value[:1] == b"\0":
        raise typer.BadParameter("a record with a schema id does not say what it is", param_hint="--name")
    schema = known_schemas().get(value[2:10]) if value[:2] == SINGLE_OBJECT else None
    # With no name to go by, any will do to say what is wrong with the bytes.
    return schema.name if schema else "touchpoint"
