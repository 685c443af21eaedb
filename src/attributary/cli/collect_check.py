"""`attributary collect check`: replay a saved delivery, dry; `collect tag`: the HTML that loads the page script."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from attributary.cli import exits
from attributary.cli.outcome import say

if TYPE_CHECKING:
    from attributary.producers.collector.webhooks import LeftOut, WebhookOutcome, WebhookReceiver

_REJECTED = 3
_PERSONAL = frozenset({"client_ip_address", "client_user_agent"})


def register(group: typer.Typer) -> None:
    """Add the commands `check` and `tag`."""
    group.command("check")(_check)
    group.command("tag")(_tag)


def _check(
    file: Annotated[Path, typer.Argument(help="A saved delivery: header lines, an empty line, the body; or the body.")],
    *,
    source: Annotated[str, typer.Option(help="Name of the source in the file of sources.")],
    webhooks: Annotated[
        Path, typer.Option(envvar="COLLECT_WEBHOOKS_FILE", help="The file of sources; secrets need not be set.")
    ],
    header: Annotated[list[str] | None, typer.Option(help="A header that the file lacks, NAME:VALUE.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object instead of text.")] = False,
) -> None:
    """Show what a saved delivery would become: its records, what is left out, and why. Nothing is sent.

    Personal data is shown by the names of its fields alone. A signature is checked when its header and the secret are
    there; its timestamp may be old. Exit code 3: nothing of the delivery can be recorded though it should be.

    Example: attributary collect check shopify-orders-paid.http --source shop --webhooks webhooks.yaml
    """
    from attributary.producers.collector.webhooks.letters import read_delivery

    receiver, has_secrets = _receiver(webhooks, source)
    try:
        headers, body = read_delivery(file.read_bytes())
    except OSError as error:
        _fail(f"{file.name}: {error.strerror}", exits.USAGE)
    for given in header or []:
        name, colon, text = given.partition(":")
        if not colon:
            _fail(f"--header {given[:40]}: expected NAME:VALUE", exits.USAGE)
        headers[name.strip().lower()] = text.strip()
    signature = _signature(receiver, body, headers) if has_secrets else "not checked: its secrets are not set"
    outcome = receiver.map(body, headers, time.time())
    if as_json:
        typer.echo(json.dumps(_document(signature, outcome), indent=2, ensure_ascii=False))
    else:
        _show(signature, outcome)
    if outcome.outcome == "unmapped":
        raise typer.Exit(_REJECTED)


def _receiver(file: Path, name: str) -> tuple[WebhookReceiver, bool]:
    """Return the receiver of a source, and whether its secrets could be read."""
    from attributary.producers.collector.webhooks import SourceError, WebhookReceiver, read_sources

    try:
        found = {source.name: source for source in read_sources(file, os.environ, with_secrets=False)}
        if name not in found:
            _fail(f"--source {name}: {file.name} has no such source; it has {', '.join(found)}", exits.USAGE)
        try:
            read = read_sources(file, os.environ, only=name)
            source, has_secrets = next(each for each in read if each.name == name), True
        except SourceError:
            source, has_secrets = found[name], False
        return WebhookReceiver(source, file.parent), has_secrets
    except SourceError as error:
        _fail(str(error), exits.CONFIG)


def _signature(receiver: WebhookReceiver, body: bytes, headers: dict[str, str]) -> str:
    from attributary.producers.collector.webhooks import signatures

    broken = receiver.broken_signature(body, headers, time.time())
    if broken is None:
        return "right"
    return {
        signatures.MISSING: "not checked: the file has none",
        signatures.OUT_OF_TIME: "right, and as old as the file",
    }.get(broken, f"wrong: {broken}")


def _document(signature: str, outcome: WebhookOutcome) -> dict[str, Any]:
    return {
        "signature": signature,
        "outcome": outcome.outcome,
        "records": [{"kind": record.name, **_fields(record.fields)} for record in outcome.records],
        "left_out": [left._asdict() for left in outcome.left_out],
    }


def _show(signature: str, outcome: WebhookOutcome) -> None:
    typer.echo(f"signature  {signature}\noutcome    {outcome.outcome}")
    for record in outcome.records:
        typer.echo(f"\n{record.name}")
        for name, value in _fields(record.fields).items():
            typer.echo(f"  {name:<18} {value}")
    if outcome.left_out:
        typer.echo("\nleft out")
    for left in outcome.left_out:
        typer.echo(f"  {_sentence(left)}")


def _sentence(left: LeftOut) -> str:
    return f"{left.what}: {left.field}: {left.rule}" if left.field else f"{left.what}: {left.reason}"


def _fields(fields: Any) -> dict[str, Any]:
    """Return the fields that say something, times and money readable, personal data as names."""
    from attributary.producers.times import to_rfc3339

    shown: dict[str, Any] = {}
    for name, value in fields.items():
        if value is None or value in ({}, []) or (name == "user_data" and not any(value.values())):
            continue
        if name == "user_data":
            shown[name] = "hashed before it is sent: " + ", ".join(key for key, text in value.items() if text)
        elif name in _PERSONAL:
            shown[name] = "(given)"
        elif name == "occurred_at":
            shown[name] = to_rfc3339(value)
        elif name == "items":
            shown[name] = [{key: part for key, part in item.items() if part not in (None, {})} for item in value]
        else:
            shown[name] = value
    return shown


def _tag(
    collector: Annotated[str, typer.Argument(help="Address of the collector, such as https://shop.example/x.")],
    *,
    key: Annotated[str, typer.Option(help="A write key (wk_...).")],
    name: Annotated[str, typer.Option(envvar="COLLECT_SCRIPT_NAME", help="Name of the script.")] = "attributary.js",
    consent: Annotated[
        str, typer.Option(help="granted, denied, wait, or purposes such as ad_storage=1,ad_user_data=0.")
    ] = "",
) -> None:
    """Print the HTML that loads the page script: its versioned name and its integrity.

    Example: attributary collect tag https://shop.example/x --key wk_... --consent wait
    """
    from attributary.producers.collector.page.script import script_tag

    if not key.startswith("wk_"):
        _fail("--key: a page needs a write key (wk_...); a secret key must never stand in one", exits.USAGE)
    if not collector.startswith(("https://", "http://")) or set(collector + key + consent) & set("\"<> '"):
        _fail("the address must begin with https:// and no part may hold blanks or quotation marks", exits.USAGE)
    typer.echo(script_tag(collector, name, key, consent))


def _fail(sentence: str, code: int) -> NoReturn:
    say(sentence)
    raise typer.Exit(code)
